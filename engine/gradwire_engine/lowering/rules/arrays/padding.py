"""Padding, cropping, and the reassembly of images from patches."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.arrays import axis_of, namespace_for, scatter_rows, take
from gradwire_engine.lowering.registry import Node, Value, rule
from gradwire_engine.lowering.rules.arrays.indexing import slice_axes

_NUMPY_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}

Widths = list[tuple[int, int]]


def pad_constant(data: Value, widths: Sequence[tuple[int, int]], value: Value) -> Value:
    """Pad with one value; negative widths crop.

    Raises:
        ValueError: more is cropped than the array has.
    """
    shape = [size + low + high for size, (low, high) in zip(data.shape, widths, strict=True)]
    if min(shape, default=0) < 0:
        raise ValueError(f"pads {list(widths)} crop more than the array has")
    if namespace_for(shape, data, value) is np and min(min(width) for width in widths or [(0, 0)]) >= 0:
        return np.pad(data, widths, constant_values=value) if data.ndim else data
    scalar = lax.convert_element_type(value, data.dtype)
    return lax.pad(jnp.asarray(data), scalar, [(low, high, 0) for low, high in widths])


def _pad(node: Node, data: Value, widths: Widths, value: Value) -> Value:
    """Pad in the mode that the node names."""
    mode = node.attr("mode", "constant")
    if mode == "constant":
        return pad_constant(data, widths, np.zeros((), data.dtype) if value is None else value.reshape(()))
    if mode not in _NUMPY_MODES:
        raise node.fail(f"mode {mode!r} is not one of constant, reflect, edge, wrap")
    # Negative widths crop first; the rest is padded from its own values.
    crops = {
        axis: slice(max(0, -low), size - max(0, -high))
        for axis, ((low, high), size) in enumerate(zip(widths, data.shape, strict=True))
        if min(low, high) < 0
    }
    padded = slice_axes(data, crops) if crops else data
    for axis, (low, high) in enumerate(widths):
        before, after = max(0, low), max(0, high)
        if before or after:
            if not padded.shape[axis]:
                raise node.fail(f"mode {mode!r} cannot pad axis {axis}, which is empty")
            source = np.pad(np.arange(padded.shape[axis]), (before, after), mode=_NUMPY_MODES[mode])  # type: ignore[call-overload]
            padded = take(padded, source, axis)
    return padded


def _widths(node: Node, rank: int, pads: Sequence[int], axes: Sequence[int] | None) -> Widths:
    """Return the widths (before, after) of every axis from the list `pads`."""
    chosen = range(rank) if axes is None else [axis_of(node, axis, rank) for axis in axes]
    count = len(chosen)
    if len(pads) != 2 * count:
        raise node.fail(f"pads has {len(pads)} entries, {2 * count} are needed for {count} axes")
    widths = [(0, 0)] * rank
    for position, axis in enumerate(chosen):
        widths[axis] = (pads[position], pads[count + position])
    return widths


@rule("Pad", since=1)
def pad_by_attributes(node: Node, data: Value) -> Value:
    """Pad before opset 11: pads (in opset 1 paddings) and value are attributes."""
    pads = node.attr("pads", node.attr("paddings"))
    if pads is None:
        raise node.fail("attribute pads is missing")
    value = np.asarray(node.attr("value", 0.0)).astype(data.dtype)
    return _pad(node, data, _widths(node, data.ndim, pads, None), value)


@rule("Pad", since=11)
def pad_by_inputs(node: Node, data: Value, pads: Value, value: Value = None, axes: Value = None) -> Value:
    """Pad: pads and axes must be static; negative pads crop."""
    chosen = None if axes is None else node.ints(axes, "axes")
    return _pad(node, data, _widths(node, data.ndim, node.ints(pads, "pads"), chosen), value)


@rule("CenterCropPad")
def center_crop_pad(node: Node, data: Value, shape: Value) -> Value:
    """CenterCropPad: pads or crops axes to a static shape, around their middle."""
    axes = node.attr("axes", range(data.ndim))
    widths = [(0, 0)] * data.ndim
    for axis, wanted in zip(axes, node.ints(shape, "the shape"), strict=True):
        axis = axis_of(node, axis, data.ndim)
        # An odd element is added, or cropped, at the end.
        extra = abs(wanted - data.shape[axis])
        before, after = extra // 2, extra - extra // 2
        widths[axis] = (before, after) if wanted >= data.shape[axis] else (-before, -after)
    return pad_constant(data, widths, np.zeros((), data.dtype))


@rule("Col2Im")
def col2im(node: Node, data: Value, image_shape: Value, block_shape: Value) -> Value:
    """Col2Im: sums overlapping patches into an image; what lies in the padding is dropped."""
    image = node.ints(image_shape, "the shape of the image")
    block = node.ints(block_shape, "the shape of the block")
    rank = len(image)
    dilations = node.attr("dilations", [1] * rank)
    pads = node.attr("pads", [0] * 2 * rank)
    strides = node.attr("strides", [1] * rank)
    targets: list[np.ndarray] = []
    for axis in range(rank):
        span = dilations[axis] * (block[axis] - 1) + 1
        steps = (image[axis] + pads[axis] + pads[rank + axis] - span) // strides[axis] + 1
        offsets = np.arange(block[axis]) * dilations[axis]
        targets.append(offsets[:, None] + np.arange(steps) * strides[axis] - pads[axis])
    blocks = [target.shape[1] for target in targets]
    if data.ndim != 3 or data.shape[1] % prod(block) or data.shape[2] != prod(blocks):
        raise node.fail(
            f"the columns have shape {tuple(data.shape)}; an image of {list(image)} in blocks of "
            f"{list(block)} needs (N, C * {prod(block)}, {prod(blocks)})"
        )
    # Axis by axis: the image row of each (offset in the block, block) pair, and whether it is inside.
    rows, inside = np.zeros((), np.int64), np.ones((), bool)
    for axis, target in enumerate(targets):
        spread = [1] * (2 * rank)
        spread[axis], spread[rank + axis] = target.shape
        rows = rows * image[axis] + target.reshape(spread)
        inside = inside & ((target >= 0) & (target < image[axis])).reshape(spread)
    batch, channels = data.shape[0], data.shape[1] // prod(block)
    kept = np.flatnonzero(inside)
    columns = data.reshape(batch * channels, prod(block) * prod(blocks)).transpose()
    empty = jnp.zeros((prod(image), batch * channels), data.dtype)
    written = scatter_rows(empty, np.ravel(rows)[kept].astype(np.int32), take(columns, kept, 0), "add")
    return written.transpose().reshape(batch, channels, *image)
