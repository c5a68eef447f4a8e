"""Reductions, running reductions, and the order of elements."""

from __future__ import annotations

import numpy as np

from gradwire.frontends.jax import ops
from gradwire.frontends.jax.graph import SCI, Graph, Value, constant
from gradwire.frontends.jax.registry import Call, rule

_BOOL, _INT64 = np.dtype(np.bool_), np.dtype(np.int64)

_NUMERIC = {
    "reduce_sum": "ReduceSum",
    "reduce_prod": "ReduceProd",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
}


def wide(graph: Graph, x: Value) -> Value:
    """Small integers as 32-bit ones, which ONNX can add up; overflow wraps the same when cast back."""
    if x.dtype.kind in "iub" and x.dtype.itemsize < 4:
        return ops.cast(graph, x, np.uint32 if x.dtype.kind == "u" else np.int32)
    return x


def _reduced(call: Call, op: str, x: Value) -> Value:
    axes = [int(axis) for axis in call.params["axes"]]
    if not axes:
        return ops.cast(call.graph, x, call.dtype)
    result = call.graph.one(op, [x, ops.ints(axes)], call.shape, x.dtype, keepdims=0)
    return ops.cast(call.graph, result, call.dtype)


@rule(*_NUMERIC)
def reduce_numbers(call: Call, x: Value) -> Value:
    return _reduced(call, _NUMERIC[call.name], wide(call.graph, x))


@rule("reduce_and", "reduce_or", "reduce_xor")
def reduce_truths(call: Call, x: Value) -> Value:
    """All, any, and whether an odd number is true."""
    if x.dtype != _BOOL:
        raise call.fail("reductions over the bits of integers have no place in a graph; reduce booleans")
    if call.name != "reduce_xor":
        return _reduced(call, "ReduceMin" if call.name == "reduce_and" else "ReduceMax", x)
    axes = ops.ints(call.params["axes"])
    count = call.graph.one(
        "ReduceSum", [ops.cast(call.graph, x, _INT64), axes], call.shape, _INT64, keepdims=0
    )
    odd = call.graph.one("Mod", [count, ops.scalar(2, _INT64)], call.shape, _INT64)
    return ops.cast(call.graph, odd, _BOOL)


@rule("argmax", "argmin")
def where_extreme(call: Call, x: Value) -> Value:
    """The first of equals, as JAX has it."""
    (axis,) = (int(axis) for axis in call.params["axes"])
    op = "ArgMax" if call.name == "argmax" else "ArgMin"
    if x.dtype == _BOOL:
        x = ops.cast(call.graph, x, np.uint8)
    return ops.cast(
        call.graph, call.graph.one(op, [x], call.shape, _INT64, axis=axis, keepdims=0), call.dtype
    )


@rule("cumsum")
def running_sum(call: Call, x: Value) -> Value:
    axis = ops.scalar(int(call.params["axis"]), _INT64)
    total = wide(call.graph, x)
    total = call.graph.one("CumSum", [total, axis], x.shape, total.dtype, reverse=int(call.params["reverse"]))
    return ops.cast(call.graph, total, x.dtype)


_RUNNING = {
    "cumprod": ("Mul", ""),
    "cummax": ("Max", ""),
    "cummin": ("Min", ""),
    "cumlogsumexp": ("LogAddExp", SCI),
}


@rule(*_RUNNING)
def running(call: Call, x: Value) -> Value:
    """Doubling spans (Hillis and Steele, 1986): a number of nodes logarithmic in the extent."""
    op, domain = _RUNNING[call.name]
    graph, axis, backward = call.graph, int(call.params["axis"]), bool(call.params["reverse"])
    extent, reach = x.shape[axis], 1
    while reach < extent:
        low, high = (0, extent - reach, 1), (reach, extent, 1)
        early, late = ops.slices(graph, x, {axis: low}), ops.slices(graph, x, {axis: high})
        both = ops.broadcast(graph, op, early, late, domain=domain)
        rest = (extent - reach, extent, 1) if backward else (0, reach, 1)
        ends = ops.slices(graph, x, {axis: rest})
        x = ops.concat(graph, [both, ends] if backward else [ends, both], axis)
        reach *= 2
    return x


def _sorted_with_places(graph: Graph, key: Value, axis: int) -> tuple[Value, Value]:
    results = [(key.shape, key.dtype), (key.shape, _INT64)]
    values, places = graph.emit("Sort", [key], results, SCI, axis=axis)
    return values, places


def _along(graph: Graph, x: Value, places: Value, axis: int) -> Value:
    return graph.one("GatherElements", [x, places], places.shape, x.dtype, axis=axis)


@rule("sort")
def sort(call: Call, *arrays: Value) -> tuple[Value, ...]:
    """All arrays in the order of the first ones; several keys are sorted by the last one first."""
    graph, axis, keys = call.graph, int(call.params["dimension"]), int(call.params["num_keys"])
    order: Value | None = None
    values: Value | None = None
    for key in reversed(arrays[:keys]):
        given = ops.cast(graph, key, np.uint8) if key.dtype == _BOOL else key
        if order is not None:
            given = _along(graph, given, order, axis)
        values, places = _sorted_with_places(graph, given, axis)
        order = places if order is None else _along(graph, order, places, axis)
    assert order is not None and values is not None
    first = ops.cast(graph, values, arrays[0].dtype)
    return (first, *(_along(graph, array, order, axis) for array in arrays[1:]))


@rule("top_k")
def largest(call: Call, x: Value) -> tuple[Value, Value]:
    count = constant(np.array([int(call.params["k"])], np.int64))
    axis = int(call.params.get("axis", x.ndim - 1))
    results = [(call.shape, x.dtype), (call.shape, _INT64)]
    values, places = call.graph.emit("TopK", [x, count], results, axis=axis, largest=1, sorted=1)
    return values, ops.cast(call.graph, places, call.results[1].dtype)
