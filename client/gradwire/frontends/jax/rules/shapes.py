"""Primitives that move elements without looking at them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradwire.frontends.jax import ops
from gradwire.frontends.jax.graph import Graph, Value, constant
from gradwire.frontends.jax.registry import Call, rule

_KNOWN_ELEMENTS = 4096


@rule("reshape", "squeeze", "expand_dims")
def reshape(call: Call, x: Value) -> Value:
    return ops.reshape(call.graph, x, call.shape)


@rule("transpose")
def transpose(call: Call, x: Value) -> Value:
    return ops.transpose(call.graph, x, call.params["permutation"])


@rule("broadcast_in_dim")
def broadcast(call: Call, x: Value) -> Value:
    axes = [int(axis) for axis in call.params["broadcast_dimensions"]]
    return ops.expand(call.graph, ops.place(call.graph, x, len(call.shape), axes), call.shape)


@rule("concatenate")
def concatenate(call: Call, *parts: Value) -> Value:
    return ops.concat(call.graph, parts, int(call.params["dimension"]))


@rule("stack")
def stack(call: Call, *parts: Value) -> Value:
    axis = int(call.params["axis"])
    shape = (*parts[0].shape[:axis], 1, *parts[0].shape[axis:])
    return ops.concat(call.graph, [ops.reshape(call.graph, part, shape) for part in parts], axis)


@rule("unstack")
def unstack(call: Call, x: Value) -> tuple[Value, ...]:
    axis = int(call.params["axis"])
    parts = [ops.slices(call.graph, x, {axis: (i, i + 1, 1)}) for i in range(x.shape[axis])]
    return tuple(ops.reshape(call.graph, part, call.shape) for part in parts)


@rule("split")
def split(call: Call, x: Value) -> tuple[Value, ...]:
    sizes = [int(size) for size in call.params["sizes"]]
    axis = int(call.params["axis"])
    return call.graph.emit("Split", [x, ops.ints(sizes)], call.results, axis=axis)


@rule("tile")
def tile(call: Call, x: Value) -> Value:
    return call.graph.one("Tile", [x, ops.ints(call.params["reps"])], call.shape, x.dtype)


@rule("rev")
def reverse(call: Call, x: Value) -> Value:
    return ops.reverse(call.graph, x, call.params["dimensions"])


@rule("slice")
def cut(call: Call, x: Value) -> Value:
    starts, stops = call.params["start_indices"], call.params["limit_indices"]
    steps = call.params["strides"] or (1,) * x.ndim
    cuts = {
        axis: (int(start), int(stop), int(step))
        for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True))
    }
    return ops.slices(call.graph, x, cuts)


@rule("iota")
def iota(call: Call) -> Value:
    shape, dtype, axis = call.shape, call.dtype, int(call.params["dimension"])
    if ops.is_float(dtype) or int(np.prod(shape)) <= _KNOWN_ELEMENTS:
        line = constant(np.arange(shape[axis]).astype(dtype))
    else:
        ends = [ops.scalar(end, np.int64) for end in (0, shape[axis], 1)]
        line = ops.cast(call.graph, call.graph.one("Range", ends, (shape[axis],), np.int64), dtype)
    return ops.expand(call.graph, ops.place(call.graph, line, len(shape), [axis]), shape)


@rule("empty", "empty2", "zeros_like")
def empty(call: Call, *_: Value) -> Value:
    return ops.expand(call.graph, ops.scalar(0, call.dtype), call.shape)


def dilated(graph: Graph, x: Value, axis: int, gap: int, fill: Value) -> Value:
    """``x`` with ``gap`` copies of ``fill`` between neighbours on an axis."""
    size = x.shape[axis]
    if gap == 0 or size < 2:
        return x
    apart = ops.reshape(graph, x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
    widths = [(0, 0)] * apart.ndim
    widths[axis + 1] = (0, gap)
    spread = ops.pad(graph, apart, widths, fill)
    flat = ops.reshape(graph, spread, (*x.shape[:axis], size * (gap + 1), *x.shape[axis + 1 :]))
    return ops.slices(graph, flat, {axis: (0, size * (gap + 1) - gap, 1)})


def padded(graph: Graph, x: Value, widths: Sequence[tuple[int, int]], fill: Value) -> Value:
    """``x`` with ``fill`` around it; negative widths crop, even what a positive one added."""
    grown = ops.pad(graph, x, [(max(0, low), max(0, high)) for low, high in widths], fill)
    cuts = {
        axis: (max(0, -low), grown.shape[axis] - max(0, -high), 1)
        for axis, (low, high) in enumerate(widths)
        if low < 0 or high < 0
    }
    return ops.slices(graph, grown, cuts)


@rule("pad")
def pad(call: Call, x: Value, fill: Value) -> Value:
    config = [tuple(int(width) for width in axis) for axis in call.params["padding_config"]]
    for axis, (_, _, gap) in enumerate(config):
        x = dilated(call.graph, x, axis, gap, fill)
    return padded(call.graph, x, [(low, high) for low, high, _ in config], fill)
