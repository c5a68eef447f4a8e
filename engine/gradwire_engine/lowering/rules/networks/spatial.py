"""Geometry shared by convolution and pooling: kernels, strides, padding, output sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire_engine.lowering.registry import Node


@dataclass(frozen=True)
class Windows:
    """The windows of one node, with an entry per spatial axis.

    Attributes:
        sizes: input sizes.
        kernel: kernel sizes.
        strides: distances between windows, 1 by default.
        dilations: distances between the elements of a window, 1 by default.
        low: padding in front, as the node declares it or `auto_pad` derives it.
        high: declared padding behind; `ceil_mode` may let the last window reach past it.
        outputs: number of windows.
    """

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.sizes)

    def span(self, axis: int) -> int:
        """Return the number of elements that one window covers, gaps of dilation included."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    @property
    def padding(self) -> list[tuple[int, int]]:
        """Padding per axis such that exactly `outputs` windows fit."""
        pairs = []
        for axis in range(self.rank):
            covered = (self.outputs[axis] - 1) * self.strides[axis] + self.span(axis)
            pairs.append((self.low[axis], covered - self.sizes[axis] - self.low[axis]))
        return pairs

    def positions(self, axis: int) -> np.ndarray[Any, Any]:
        """Return the input position of every window element along an axis, shape (outputs, kernel).

        Positions in the padding are negative or at least the axis' size.
        """
        starts = np.arange(self.outputs[axis]) * self.strides[axis] - self.low[axis]
        return starts[:, None] + np.arange(self.kernel[axis]) * self.dilations[axis]


def per_axis(node: Node, name: str, rank: int, default: int = 1) -> tuple[int, ...]:
    """Return an INTS attribute with one entry per spatial axis.

    Args:
        node: the node.
        name: the attribute.
        rank: number of spatial axes.
        default: the value of every entry where the attribute is not set.

    Raises:
        InvalidGraph: the attribute has another number of entries.
    """
    values = node.attr(name)
    if not values:
        return (default,) * rank
    if len(values) != rank:
        raise node.fail(f"attribute {name} has {len(values)} entries for {rank} spatial axes")
    return tuple(int(value) for value in values)


def declared_pads(node: Node, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the `pads` attribute as (in front, behind), zeros where absent."""
    pads = node.attr("pads")
    if not pads:
        return (0,) * rank, (0,) * rank
    if len(pads) != 2 * rank:
        raise node.fail(f"attribute pads has {len(pads)} entries; {rank} spatial axes need {2 * rank}")
    return tuple(int(pad) for pad in pads[:rank]), tuple(int(pad) for pad in pads[rank:])


def windows_of(node: Node, sizes: Sequence[int], kernel: Sequence[int] | None = None) -> Windows:
    """Compute the windows of a convolution or pooling node over axes of the given sizes.

    Args:
        node: read for kernel_shape, strides, dilations, pads, auto_pad and ceil_mode.
        sizes: sizes of the spatial axes.
        kernel: kernel sizes where an input gives them (a convolution's weights).

    Raises:
        InvalidGraph: an attribute does not fit, or the window is larger than the padded input.
    """
    rank = len(sizes)
    extent = tuple(kernel) if kernel is not None else per_axis(node, "kernel_shape", rank)
    given = node.attr("kernel_shape")
    if given and tuple(given) != extent:
        raise node.fail(f"attribute kernel_shape is {list(given)} but the weights' kernel is {list(extent)}")
    strides, dilations = per_axis(node, "strides", rank), per_axis(node, "dilations", rank)
    if min((*strides, *dilations, *extent), default=1) < 1:
        raise node.fail("kernel_shape, strides and dilations must be positive")
    low, high = declared_pads(node, rank)
    mode = node.attr("auto_pad", "NOTSET")
    ceil = bool(node.attr("ceil_mode", 0))
    if mode == "VALID":
        low = high = (0,) * rank
    outputs = []
    for axis in range(rank):
        span = (extent[axis] - 1) * dilations[axis] + 1
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            count = -(-sizes[axis] // strides[axis])
            total = max((count - 1) * strides[axis] + span - sizes[axis], 0)
            front = total // 2 if mode == "SAME_UPPER" else total - total // 2
            low = (*low[:axis], front, *low[axis + 1 :])
            high = (*high[:axis], total - front, *high[axis + 1 :])
        elif mode in ("NOTSET", "VALID"):
            room = sizes[axis] + low[axis] + high[axis] - span
            count = (-(-room // strides[axis]) if ceil else room // strides[axis]) + 1
            # The last window must start inside the input or the padding before it.
            if ceil and (count - 1) * strides[axis] >= sizes[axis] + low[axis]:
                count -= 1
        else:
            raise node.fail(f"auto_pad {mode!r} is not NOTSET, SAME_UPPER, SAME_LOWER or VALID")
        if count < 1:
            raise node.fail(
                f"the window spans {span} elements along spatial axis {axis}, more than the "
                f"{sizes[axis] + low[axis] + high[axis]} there are with padding"
            )
        outputs.append(count)
    return Windows(tuple(sizes), extent, strides, dilations, low, high, tuple(outputs))
