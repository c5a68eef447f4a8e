"""Primitive operations on values: each appends one or two nodes and knows the shape and dtype of the result.

Operands already have the dtypes that ONNX wants (equal, where it wants equal); promotion is the
business of the callers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gradwire.graphs.builder import SCI, GraphBuilder
from gradwire.graphs.nodes import DType, GraphValue, Shape, element_type
from gradwire.graphs.refusals import refuse
from gradwire.graphs.sizes import (
    any_symbolic,
    broadcast_shapes,
    is_long,
    is_symbolic,
    surely_equal,
    surely_same,
)

BOOL = np.dtype(np.bool_)
INT64 = np.dtype(np.int64)
FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

# ONNX's "to the end" and "past the beginning" of a slice.
_END, _BEFORE = (1 << 63) - 1, -(1 << 63) + 1
_WIDE = {"i": INT64, "u": np.dtype(np.uint64), "b": INT64}


def broadcast(*shapes: Shape) -> Shape:
    """Return the shape to which shapes broadcast.

    Raises:
        ValueError: they do not.
    """
    first = shapes[0]
    if all(surely_same(shape, first) for shape in shapes):
        return first
    if any(map(any_symbolic, shapes)):
        return broadcast_shapes(shapes)
    return np.broadcast_shapes(*shapes)


def unary(op: str, x: GraphValue, domain: str = "") -> GraphValue:
    """Append an elementwise operator of one input, whose result has the shape and dtype of `x`."""
    return x.graph.one(op, [x], x.shape, x.dtype, domain)


def sci(op: str, *operands: GraphValue) -> GraphValue:
    """Append an elementwise operator of the domain `gradwire.sci`."""
    shape = broadcast(*(operand.shape for operand in operands))
    return operands[0].graph.one(op, operands, shape, operands[0].dtype, SCI)


def binary(op: str, a: GraphValue, b: GraphValue, **attributes: Any) -> GraphValue:
    """Append an elementwise operator of two operands of one dtype, which is also the result's.

    Args:
        op: an operator of ONNX's own domain.
        a, b: the operands; their shapes broadcast.
        **attributes: of the node.

    Raises:
        ValueError: the shapes do not broadcast.
    """
    return a.graph.one(op, [a, b], broadcast(a.shape, b.shape), a.dtype, **attributes)


def compare(op: str, a: GraphValue, b: GraphValue) -> GraphValue:
    """Append a comparison of two operands of one dtype: Equal, Less, GreaterOrEqual; the result is bool.

    Raises:
        ValueError: the shapes do not broadcast.
    """
    return a.graph.one(op, [a, b], broadcast(a.shape, b.shape), BOOL)


def predicate(op: str, x: GraphValue) -> GraphValue:
    """Append an operator of one input that gives bool: IsNaN, IsInf, Not."""
    return x.graph.one(op, [x], x.shape, BOOL)


def where(condition: GraphValue, a: GraphValue, b: GraphValue) -> GraphValue:
    """Take `a` where the condition (bool) holds, else `b`; both have one dtype, and all three broadcast.

    Raises:
        ValueError: the shapes do not broadcast.
    """
    shape = broadcast(condition.shape, a.shape, b.shape)
    return a.graph.one("Where", [condition, a, b], shape, a.dtype)


def constant_like(x: GraphValue, number: Any) -> GraphValue:
    """Return a zero-dimensional constant of the dtype of `x`."""
    return x.graph.scalar(number, x.dtype)


def cast(x: GraphValue, dtype: DType) -> GraphValue:
    """Cast to a dtype; `x` itself if it has it already."""
    if x.dtype == dtype:
        return x
    return x.graph.one("Cast", [x], x.shape, dtype, to=element_type(dtype, x.graph.kinds))


def wide(x: GraphValue) -> GraphValue:
    """Cast narrow integers and bool to int64, which every integer operator takes."""
    return cast(x, _WIDE.get(x.dtype.kind, x.dtype))


def reshape(x: GraphValue, shape: Shape) -> GraphValue:
    """Reshape to a shape of as many elements."""
    if surely_same(x.shape, shape):
        return x
    # Zero means "as in the input" unless allowzero is set; a size may be zero.
    empty = any(is_symbolic(extent) or extent == 0 for extent in shape)
    attributes: dict[str, Any] = {"allowzero": 1} if empty else {}
    return x.graph.one("Reshape", [x, x.graph.ints(shape)], shape, x.dtype, **attributes)


def transpose(x: GraphValue, order: Sequence[int]) -> GraphValue:
    """Permute the axes: axis `i` of the result is axis `order[i]` of `x` (non-negative)."""
    if list(order) == list(range(x.ndim)):
        return x
    shape = tuple(x.shape[axis] for axis in order)
    return x.graph.one("Transpose", [x], shape, x.dtype, perm=list(order))


def expand(x: GraphValue, shape: Shape) -> GraphValue:
    """Broadcast to a shape."""
    if surely_same(x.shape, shape):
        return x
    return x.graph.one("Expand", [x, x.graph.ints(shape)], shape, x.dtype)


def slices(x: GraphValue, parts: Sequence[tuple[int, int, int, int]]) -> GraphValue:
    """Take `count` elements from `start` by `step` along axes: parts are (axis, start, step, count)."""
    shape, starts, ends, axes, steps = list(x.shape), [], [], [], []
    for axis, start, step, count in parts:
        extent = shape[axis]
        if surely_equal(start, 0) and step == 1 and surely_equal(count, extent):
            continue
        if surely_equal(count, 0):
            start, step = 0, 1
            end = 0
        else:
            end = _end(x.graph, start, step, count, extent)
        starts.append(_from_end(start, extent))
        ends.append(end)
        axes.append(axis)
        steps.append(step)
        shape[axis] = count
    if not axes:
        return x
    graph = x.graph
    inputs = [x, *(graph.ints(part) for part in (starts, ends, axes, steps))]
    return graph.one("Slice", inputs, tuple(shape), x.dtype)


def _end(graph: GraphBuilder, start: int, step: int, count: int, extent: int) -> int:
    """Return where a slice ends, as ONNX's Slice takes it; an axis of unknown size has to reach that far."""
    end = start + step * (count - 1) + (1 if step > 0 else -1)
    if not is_symbolic(extent):
        return _BEFORE if end < 0 else end
    reach(graph, start, step, count, extent)
    end = _from_end(end, extent)
    if step < 0:
        return _BEFORE if surely_equal(end, -1) else end
    return _END if surely_equal(end, 0) else end


def reach(graph: GraphBuilder, start: int, step: int, count: int, extent: int) -> None:
    """Demand that an axis of unknown size has the elements of a slice, as ops.slices takes it."""
    if is_symbolic(extent) and not surely_equal(count, 0):
        end = start + step * (count - 1) + 1
        for least in (start, count, extent if is_symbolic(end) else extent - end):
            graph.require(least)


def _from_end(position: int, extent: int) -> int:
    """Count a position of an axis of unknown extent from the end, if it is known from there: below zero."""
    if not is_symbolic(position):
        return position
    place = position - extent
    if is_symbolic(place):
        raise refuse(f"a slice that ends or begins at {position} of {extent}", "which is longer is unknown")
    return place


def reverse(x: GraphValue, axes: Iterable[int]) -> GraphValue:
    """Reverse `x` along axes (non-negative)."""
    return slices(
        x,
        [(axis, x.shape[axis] - 1, -1, x.shape[axis]) for axis in axes if is_long(x.shape[axis])],
    )


def concat(values: Sequence[GraphValue], axis: int) -> GraphValue:
    """Join along an axis (non-negative); empty parts are left out."""
    full = [value for value in values if not surely_equal(value.shape[axis], 0)] or list(values[:1])
    if len(full) == 1:
        return full[0]
    shape = list(full[0].shape)
    shape[axis] = sum(value.shape[axis] for value in full)
    return full[0].graph.one("Concat", full, tuple(shape), full[0].dtype, axis=axis)


def gather(x: GraphValue, indices: GraphValue, axis: int) -> GraphValue:
    """Take entries along an axis (non-negative): the shape of `indices` takes the place of the axis.

    Indices are int64 or int32; negative ones count from the end, and others outside are the server's error.
    """
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    return x.graph.one("Gather", [x, indices], shape, x.dtype, axis=axis)


def gather_elements(x: GraphValue, indices: GraphValue, axis: int) -> GraphValue:
    """Take one element for each index, as `np.take_along_axis`; the result has the shape of `indices`.

    Axes other than `axis` (non-negative) may be shorter in `indices` than in `x`, but do not broadcast.
    """
    return x.graph.one("GatherElements", [x, indices], indices.shape, x.dtype, axis=axis)


def gather_nd(x: GraphValue, indices: GraphValue) -> GraphValue:
    """Take elements or slices of `x`: each row of `indices` has the leading coordinates of one."""
    shape = indices.shape[:-1] + x.shape[indices.shape[-1] :]
    return x.graph.one("GatherND", [x, indices], shape, x.dtype)


def scatter_flat(
    x: GraphValue, positions: GraphValue, updates: GraphValue, reduction: str = "none"
) -> GraphValue:
    """Replace elements of `x`, or reduce them with others; the result has the shape of `x`.

    Args:
        x: the array, of any shape.
        positions: of the elements in row-major order, int64 (count,).
        updates: (count,), of the dtype of `x`.
        reduction: "none" to replace (then no position may occur twice), "add", "mul", "min" or "max".
    """
    flat, rows = reshape(x, (x.size,)), reshape(positions, (positions.size, 1))
    return reshape(scatter_nd(flat, rows, updates, reduction), x.shape)


def scatter_nd(
    x: GraphValue, indices: GraphValue, updates: GraphValue, reduction: str = "none"
) -> GraphValue:
    """Replace elements or slices of `x`, or reduce them with others; the result has the shape of `x`.

    Args:
        x: the array, of any shape.
        indices: int64 (..., depth): the leading coordinates of an element or slice in each row.
        updates: of the dtype of `x` and the shape `indices.shape[:-1] + x.shape[depth:]`.
        reduction: "none" to replace (then no row may occur twice), "add", "mul", "min" or "max".
    """
    attributes: dict[str, Any] = {} if reduction == "none" else {"reduction": reduction}
    return x.graph.one("ScatterND", [x, indices, updates], x.shape, x.dtype, **attributes)


def reduced_shape(shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    """Return the shape after a reduction over axes (non-negative), which stay with extent 1 if `keepdims`."""
    if keepdims:
        return tuple(1 if axis in axes else extent for axis, extent in enumerate(shape))
    return tuple(extent for axis, extent in enumerate(shape) if axis not in axes)


def reduce(op: str, x: GraphValue, axes: Sequence[int], keepdims: bool = False) -> GraphValue:
    """Append a reduction; return `x` itself if there are no axes.

    Args:
        op: ReduceSum, ReduceMax or another whose axes are an input.
        x: the array; the result has its dtype.
        axes: non-negative, in any order.
        keepdims: keep the axes, with extent 1.
    """
    if not axes:
        return x
    shape = reduced_shape(x.shape, axes, keepdims)
    return x.graph.one(op, [x, x.graph.ints(sorted(axes))], shape, x.dtype, keepdims=int(keepdims))


def arg_reduce(op: str, x: GraphValue, axis: int, keepdims: bool) -> GraphValue:
    """Append a search along one axis.

    Args:
        op: "ArgMax" or "ArgMin".
        x: the array.
        axis: non-negative.
        keepdims: keep the axis, with extent 1.

    Returns:
        Positions on the axis, int64; the first among equals.
    """
    shape = reduced_shape(x.shape, [axis], keepdims)
    return x.graph.one(op, [x], shape, INT64, axis=axis, keepdims=int(keepdims))


def cumulative_sum(x: GraphValue, axis: int, reverse: bool = False) -> GraphValue:
    """Sum the elements up to each one, or from each one on if `reverse`."""
    attributes: dict[str, Any] = {"reverse": 1} if reverse else {}
    return x.graph.one("CumSum", [x, x.graph.scalar(axis, INT64)], x.shape, x.dtype, **attributes)


def matmul(a: GraphValue, b: GraphValue) -> GraphValue:
    """Multiply matrices as `np.matmul` does.

    Raises:
        ValueError: the shapes do not fit.
    """
    left = (1, *a.shape) if a.ndim == 1 else a.shape
    right = (*b.shape, 1) if b.ndim == 1 else b.shape
    if not a.ndim or not b.ndim or left[-1] != right[-2]:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not fit")
    rows, columns = left[-2:-1] if a.ndim > 1 else (), right[-1:] if b.ndim > 1 else ()
    shape = broadcast(left[:-2], right[:-2]) + rows + columns
    return a.graph.one("MatMul", [a, b], shape, a.dtype)


def einsum(equation: str, operands: Sequence[GraphValue], shape: Shape) -> GraphValue:
    """Append an Einsum of operands of one dtype.

    The caller gives the result's shape: nothing here reads the equation.
    """
    first = operands[0]
    return first.graph.one("Einsum", operands, shape, first.dtype, equation=equation)


def pad(x: GraphValue, widths: Sequence[tuple[int, int]], fill: GraphValue) -> GraphValue:
    """Pad with one number; `x` itself if nothing is added."""
    if not any(low or high for low, high in widths):
        return x
    shape = tuple(low + extent + high for extent, (low, high) in zip(x.shape, widths, strict=True))
    pads = x.graph.ints([low for low, _ in widths] + [high for _, high in widths])
    return x.graph.one("Pad", [x, pads, fill], shape, x.dtype, mode="constant")


def tile(x: GraphValue, counts: Sequence[int]) -> GraphValue:
    """Repeat `x` along every axis: `counts` has one non-negative number for each."""
    shape = tuple(extent * count for extent, count in zip(x.shape, counts, strict=True))
    return x.graph.one("Tile", [x, x.graph.ints(counts)], shape, x.dtype)


def triangle(x: GraphValue, k: int, upper: bool) -> GraphValue:
    """Set to zero what is below diagonal `k` of the last two axes if `upper`, else what is above it."""
    inputs = [x, x.graph.scalar(k, INT64)]
    return x.graph.one("Trilu", inputs, x.shape, x.dtype, upper=int(upper))


def sort(x: GraphValue, axis: int, descending: bool = False) -> tuple[GraphValue, GraphValue]:
    """Return the sorted values, and the positions that they come from."""
    results = [(x.shape, x.dtype), (x.shape, INT64)]
    values, indices = x.graph.emit("Sort", [x], results, SCI, axis=axis, descending=int(descending))
    return values, indices


def size_of(shape: Shape) -> int:
    """Return the number of elements of an array of this shape."""
    return math.prod(shape)
