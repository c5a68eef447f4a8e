"""Operators that rules are written in: shapes and dtypes follow, and what changes nothing is left out.

Functions named after index arithmetic compute at once what is known while converting, so that indices
and masks made of constants stay constants in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradwire.frontends.jax.graph import Graph, Value, constant, element_type

_BOOL, _INT64 = np.dtype(np.bool_), np.dtype(np.int64)

_LARGEST = np.iinfo(np.int64).max


def ints(numbers: Sequence[int]) -> Value:
    """A one-dimensional int64 constant: a shape, axes, starts."""
    return constant(np.array([int(number) for number in numbers], np.int64))


def scalar(number: Any, dtype: Any) -> Value:
    """A constant without axes."""
    return constant(np.asarray(number).astype(dtype))


def is_float(dtype: Any) -> bool:
    """Whether a dtype is a floating-point one, those of ml_dtypes included."""
    plain = np.dtype(dtype)
    return plain.kind in "fV"


def cast(graph: Graph, x: Value, dtype: Any) -> Value:
    """``x`` in another dtype."""
    wanted = np.dtype(dtype)
    if x.dtype == wanted:
        return x
    if x.known is not None and x.dtype.kind in "iub" and wanted.kind in "iub":
        return constant(x.known.astype(wanted))
    return graph.one("Cast", [x], x.shape, wanted, to=element_type(wanted))


def reshape(graph: Graph, x: Value, shape: Sequence[int]) -> Value:
    """The same elements in another shape."""
    wanted = tuple(int(extent) for extent in shape)
    if x.shape == wanted:
        return x
    if x.known is not None:
        return constant(x.known.reshape(wanted))
    return graph.one("Reshape", [x, ints(wanted)], wanted, x.dtype, allowzero=1)


def transpose(graph: Graph, x: Value, order: Sequence[int]) -> Value:
    """Axes in another order."""
    wanted = [int(axis) for axis in order]
    if wanted == list(range(x.ndim)):
        return x
    if x.known is not None:
        return constant(x.known.transpose(wanted))
    shape = tuple(x.shape[axis] for axis in wanted)
    return graph.one("Transpose", [x], shape, x.dtype, perm=wanted)


def expand(graph: Graph, x: Value, shape: Sequence[int]) -> Value:
    """``x`` broadcast to a shape, as NumPy broadcasts."""
    wanted = tuple(int(extent) for extent in shape)
    if x.shape == wanted:
        return x
    if x.known is not None and x.dtype.kind in "iub" and int(np.prod(wanted)) <= 4096:
        return constant(np.broadcast_to(x.known, wanted))
    return graph.one("Expand", [x, ints(wanted)], wanted, x.dtype)


def place(graph: Graph, x: Value, rank: int, axes: Sequence[int]) -> Value:
    """``x`` with its axes at ``axes`` of an array of ``rank`` axes, the others of extent 1."""
    shape = [1] * rank
    for axis, extent in zip(axes, x.shape, strict=True):
        shape[axis] = extent
    return reshape(graph, x, shape)


def concat(graph: Graph, parts: Sequence[Value], axis: int) -> Value:
    """Arrays joined along an axis."""
    if len(parts) == 1:
        return parts[0]
    if all(part.known is not None and part.dtype.kind in "iub" for part in parts):
        return constant(np.concatenate([part.known for part in parts if part.known is not None], axis))
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return graph.one("Concat", list(parts), tuple(shape), parts[0].dtype, axis=axis)


def slices(graph: Graph, x: Value, cuts: dict[int, tuple[int, int, int]]) -> Value:
    """``start:stop:step`` by axis, with ``0 <= start <= stop`` and any step but 0.

    For a negative step, elements ``start`` (inclusive) down to 0 with a stop of -1.
    """
    shape = list(x.shape)
    for axis, (start, stop, step) in cuts.items():
        shape[axis] = len(range(start, stop, step))
    kept = {
        axis: cut
        for axis, cut in cuts.items()
        if cut != (0, x.shape[axis], 1) or shape[axis] != x.shape[axis]
    }
    if not kept:
        return x
    if x.known is not None and x.dtype.kind in "iub":
        cut = [slice(None)] * x.ndim
        for axis, (start, stop, step) in kept.items():
            cut[axis] = slice(start, None if stop < 0 else stop, step)
        return constant(x.known[tuple(cut)])
    stops = [-_LARGEST if stop < 0 else stop for _, stop, _ in kept.values()]
    starts, steps = [cut[0] for cut in kept.values()], [cut[2] for cut in kept.values()]
    inputs = [x, ints(starts), ints(stops), ints(list(kept)), ints(steps)]
    return graph.one("Slice", inputs, tuple(shape), x.dtype)


def reverse(graph: Graph, x: Value, axes: Sequence[int]) -> Value:
    """``x`` backwards along some axes."""
    return slices(graph, x, {int(axis): (x.shape[axis] - 1, -1, -1) for axis in axes if x.shape[axis] > 1})


def gather(graph: Graph, x: Value, indices: Value, axis: int) -> Value:
    """Rows of ``x`` along an axis, whose place the axes of ``indices`` take."""
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    return graph.one("Gather", [x, indices], shape, x.dtype, axis=axis)


def pad(graph: Graph, x: Value, widths: Sequence[tuple[int, int]], fill: Value) -> Value:
    """``x`` with ``fill`` before and after each axis; widths are not negative."""
    if not any(low or high for low, high in widths):
        return x
    shape = tuple(size + low + high for size, (low, high) in zip(x.shape, widths, strict=True))
    pads = ints([low for low, _ in widths] + [high for _, high in widths])
    return graph.one("Pad", [x, pads, reshape(graph, fill, ())], shape, x.dtype)


_KNOWN: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Max": np.maximum,
    "Min": np.minimum,
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Where": np.where,
}

_COMPARISONS = {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"}


def broadcast(graph: Graph, op: str, *inputs: Value, domain: str = "") -> Value:
    """An elementwise operator of several arrays, broadcast; the result has the last one's dtype."""
    shape = np.broadcast_shapes(*(value.shape for value in inputs))
    dtype = _BOOL if op in _COMPARISONS else inputs[-1].dtype
    arrays = [value.known for value in inputs]
    integral = all(value.dtype.kind in "iub" for value in inputs)
    known = [array for array in arrays if array is not None]
    if op in _KNOWN and integral and len(known) == len(arrays):
        limit = max(4096, *(array.size for array in known))
        if int(np.prod(shape)) <= limit:
            return constant(_KNOWN[op](*known).astype(dtype))
    return graph.one(op, list(inputs), shape, dtype, domain)


def where(graph: Graph, condition: Value, then: Value, otherwise: Value) -> Value:
    """``then`` where the condition holds."""
    return broadcast(graph, "Where", condition, then, otherwise)


def same(graph: Graph, op: str, x: Value, domain: str = "", **attributes: Any) -> Value:
    """An operator of one array whose result has the same shape and dtype."""
    return graph.one(op, [x], x.shape, x.dtype, domain, **attributes)


def clip(graph: Graph, x: Value, low: int, high: int) -> Value:
    """Integers kept within bounds."""
    raised = broadcast(graph, "Max", x, scalar(low, x.dtype))
    return broadcast(graph, "Min", raised, scalar(high, x.dtype))


def matmul(graph: Graph, a: Value, b: Value) -> Value:
    """NumPy's ``matmul`` of stacked matrices."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return graph.one("MatMul", [a, b], (*batch, a.shape[-2], b.shape[-1]), a.dtype)
