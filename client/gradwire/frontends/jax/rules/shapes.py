"""Primitives that move elements without looking at them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradwire.frontends.jax.dtypes import is_float
from gradwire.frontends.jax.registry import Call, rule
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import GraphValue

_KNOWN_ELEMENTS = 4096


@rule("reshape", "squeeze", "expand_dims")
def reshape(call: Call, x: GraphValue) -> GraphValue:
    return ops.reshape(x, call.shape)


@rule("transpose")
def transpose(call: Call, x: GraphValue) -> GraphValue:
    return ops.transpose(x, [int(axis) for axis in call.params["permutation"]])


def placed(x: GraphValue, rank: int, axes: Sequence[int]) -> GraphValue:
    """`x` with its axes at `axes` of an array of `rank` axes, the others of extent 1."""
    shape = [1] * rank
    for axis, extent in zip(axes, x.shape, strict=True):
        shape[axis] = extent
    return ops.reshape(x, tuple(shape))


@rule("broadcast_in_dim")
def broadcast(call: Call, x: GraphValue) -> GraphValue:
    axes = [int(axis) for axis in call.params["broadcast_dimensions"]]
    return ops.expand(placed(x, len(call.shape), axes), call.shape)


@rule("concatenate")
def concatenate(call: Call, *parts: GraphValue) -> GraphValue:
    return ops.concat(parts, int(call.params["dimension"]))


@rule("stack")
def stack(call: Call, *parts: GraphValue) -> GraphValue:
    axis = int(call.params["axis"])
    shape = (*parts[0].shape[:axis], 1, *parts[0].shape[axis:])
    return ops.concat([ops.reshape(part, shape) for part in parts], axis)


@rule("unstack")
def unstack(call: Call, x: GraphValue) -> list[GraphValue]:
    axis = int(call.params["axis"])
    return [ops.reshape(ops.slices(x, [(axis, i, 1, 1)]), call.shape) for i in range(x.shape[axis])]


@rule("split")
def split(call: Call, x: GraphValue) -> list[GraphValue]:
    sizes = call.graph.ints([int(size) for size in call.params["sizes"]])
    return call.graph.emit("Split", [x, sizes], call.results, axis=int(call.params["axis"]))


@rule("tile")
def tile(call: Call, x: GraphValue) -> GraphValue:
    return ops.tile(x, [int(count) for count in call.params["reps"]])


@rule("rev")
def reverse(call: Call, x: GraphValue) -> GraphValue:
    return ops.reverse(x, [int(axis) for axis in call.params["dimensions"]])


@rule("slice")
def cut(call: Call, x: GraphValue) -> GraphValue:
    starts, steps = call.params["start_indices"], call.params["strides"] or (1,) * x.ndim
    parts = zip(range(x.ndim), starts, steps, call.shape, strict=True)
    return ops.slices(x, [(axis, int(start), int(step), count) for axis, start, step, count in parts])


@rule("iota")
def iota(call: Call) -> GraphValue:
    """Count along an axis: a constant, or a Range of many integers."""
    graph, shape, dtype, axis = call.graph, call.shape, call.dtype, int(call.params["dimension"])
    if is_float(dtype) or int(np.prod(shape)) <= _KNOWN_ELEMENTS:
        line = graph.constant(np.arange(shape[axis]).astype(dtype))
    else:
        ends = [graph.scalar(end, ops.INT64) for end in (0, shape[axis], 1)]
        line = ops.cast(graph.one("Range", ends, (shape[axis],), ops.INT64), dtype)
    return ops.expand(placed(line, len(shape), [axis]), shape)


@rule("empty", "empty2", "zeros_like")
def empty(call: Call, *_: GraphValue) -> GraphValue:
    return ops.expand(call.graph.scalar(0, call.dtype), call.shape)


def dilated(x: GraphValue, axis: int, gap: int, fill: GraphValue) -> GraphValue:
    """`x` with a number of copies of a scalar between neighbors on an axis.

    Args:
        x: any array.
        axis: where the neighbors are; not negative.
        gap: how many copies.
        fill: the scalar, of the dtype of `x`.
    """
    size = x.shape[axis]
    if gap == 0 or size < 2:
        return x
    apart = ops.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
    widths = [(0, 0)] * apart.ndim
    widths[axis + 1] = (0, gap)
    spread = ops.pad(apart, widths, fill)
    flat = ops.reshape(spread, (*x.shape[:axis], size * (gap + 1), *x.shape[axis + 1 :]))
    return ops.slices(flat, [(axis, 0, 1, size * (gap + 1) - gap)])


def padded(x: GraphValue, widths: Sequence[tuple[int, int]], fill: GraphValue) -> GraphValue:
    """`x` with a scalar around it; negative widths crop, even what a positive one added."""
    grown = ops.pad(x, [(max(0, low), max(0, high)) for low, high in widths], fill)
    cropped = []
    for axis, (low, high) in enumerate(widths):
        start, stop = max(0, -low), grown.shape[axis] - max(0, -high)
        cropped.append((axis, start, 1, max(0, stop - start)))
    return ops.slices(grown, cropped)


@rule("pad")
def pad(call: Call, x: GraphValue, fill: GraphValue) -> GraphValue:
    config = [tuple(int(width) for width in axis) for axis in call.params["padding_config"]]
    for axis, (_, _, gap) in enumerate(config):
        x = dilated(x, axis, gap, fill)
    return padded(x, [(low, high) for low, high, _ in config], fill)
