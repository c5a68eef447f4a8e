"""Reductions, running reductions, and the order of elements."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from gradwire.frontends.jax.registry import Call, rule
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import GraphValue

_UINT8, _INT32, _UINT32 = np.dtype(np.uint8), np.dtype(np.int32), np.dtype(np.uint32)

_NUMERIC = {
    "reduce_sum": "ReduceSum",
    "reduce_prod": "ReduceProd",
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
}


def _wide(x: GraphValue) -> GraphValue:
    """Small integers as 32-bit ones, which ONNX can add up; overflow wraps the same when cast back."""
    if x.dtype.kind in "iub" and x.dtype.itemsize < 4:
        return ops.cast(x, _UINT32 if x.dtype.kind == "u" else _INT32)
    return x


def _reduced(call: Call, op: str, x: GraphValue) -> GraphValue:
    return ops.cast(ops.reduce(op, x, [int(axis) for axis in call.params["axes"]]), call.dtype)


@rule(*_NUMERIC)
def reduce_numbers(call: Call, x: GraphValue) -> GraphValue:
    return _reduced(call, _NUMERIC[call.name], _wide(x))


@rule("reduce_and", "reduce_or", "reduce_xor")
def reduce_truths(call: Call, x: GraphValue) -> GraphValue:
    """All, any, and whether an odd number is true."""
    if x.dtype != ops.BOOL:
        raise call.fail("reductions over the bits of integers have no place in a graph; reduce booleans")
    if call.name != "reduce_xor":
        return _reduced(call, "ReduceMin" if call.name == "reduce_and" else "ReduceMax", x)
    count = ops.reduce("ReduceSum", ops.cast(x, ops.INT64), [int(axis) for axis in call.params["axes"]])
    return ops.cast(ops.binary("Mod", count, ops.constant_like(count, 2)), ops.BOOL)


@rule("argmax", "argmin")
def where_extreme(call: Call, x: GraphValue) -> GraphValue:
    """Return the first of equals, as JAX has it."""
    (axis,) = (int(axis) for axis in call.params["axes"])
    numbers = ops.cast(x, _UINT8) if x.dtype == ops.BOOL else x
    op = "ArgMax" if call.name == "argmax" else "ArgMin"
    return ops.cast(ops.arg_reduce(op, numbers, axis, keepdims=False), call.dtype)


@rule("cumsum")
def running_sum(call: Call, x: GraphValue) -> GraphValue:
    total = ops.cumulative_sum(_wide(x), int(call.params["axis"]), bool(call.params["reverse"]))
    return ops.cast(total, x.dtype)


_RUNNING: dict[str, Callable[[GraphValue, GraphValue], GraphValue]] = {
    "cumprod": partial(ops.binary, "Mul"),
    "cummax": partial(ops.binary, "Max"),
    "cummin": partial(ops.binary, "Min"),
    "cumlogsumexp": partial(ops.sci, "LogAddExp"),
}


@rule(*_RUNNING)
def running(call: Call, x: GraphValue) -> GraphValue:
    """Doubling spans (Hillis and Steele, 1986): a number of nodes logarithmic in the extent."""
    combine, axis, backward = _RUNNING[call.name], int(call.params["axis"]), bool(call.params["reverse"])
    extent, reach = x.shape[axis], 1
    while reach < extent:
        early = ops.slices(x, [(axis, 0, 1, extent - reach)])
        late = ops.slices(x, [(axis, reach, 1, extent - reach)])
        ends = ops.slices(x, [(axis, extent - reach if backward else 0, 1, reach)])
        both = combine(early, late)
        x = ops.concat([both, ends] if backward else [ends, both], axis)
        reach *= 2
    return x


@rule("sort")
def sort(call: Call, *arrays: GraphValue) -> tuple[GraphValue, ...]:
    """All arrays in the order of the first ones; several keys are sorted by the last one first."""
    axis, keys = int(call.params["dimension"]), int(call.params["num_keys"])
    order: GraphValue | None = None
    values: GraphValue | None = None
    for key in reversed(arrays[:keys]):
        given = ops.cast(key, _UINT8) if key.dtype == ops.BOOL else key
        if order is not None:
            given = ops.gather_elements(given, order, axis)
        values, places = ops.sort(given, axis)
        order = places if order is None else ops.gather_elements(order, places, axis)
    assert order is not None and values is not None
    first = ops.cast(values, arrays[0].dtype)
    return (first, *(ops.gather_elements(array, order, axis) for array in arrays[1:]))


@rule("top_k")
def largest(call: Call, x: GraphValue) -> tuple[GraphValue, GraphValue]:
    count = call.graph.ints([int(call.params["k"])])
    axis = int(call.params.get("axis", x.ndim - 1))
    results = [(call.shape, x.dtype), (call.shape, ops.INT64)]
    values, places = call.graph.emit("TopK", [x, count], results, axis=axis, largest=1, sorted=1)
    return values, ops.cast(places, call.results[1].dtype)
