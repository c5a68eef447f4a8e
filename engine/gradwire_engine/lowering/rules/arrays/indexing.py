"""Operators that read or write by index: gathers, scatters, slices and selections."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from jax import lax

from gradwire_engine.lowering.arrays import axis_of, row_numbers, take, take_rows, wrap_index, write_rows
from gradwire_engine.lowering.registry import DATA_SHAPED, Node, Value, namespace, rule


@rule("Gather")
def gather(node: Node, data: Value, indices: Value) -> Value:
    """Gather: slices of `data` along one axis."""
    axis = axis_of(node, node.attr("axis", 0), data.ndim)
    return take(data, wrap_index(node, indices, data.shape[axis]), axis)


def _element_rows(node: Node, shape: Sequence[int], indices: Value, axis: int) -> Value:
    """Return the positions in the flattened data that GatherElements and ScatterElements refer to."""
    if indices.ndim != len(shape):
        raise node.fail(f"indices have {indices.ndim} dimensions, the data has {len(shape)}")
    components: list[Value] = []
    for position, size in enumerate(indices.shape):
        if position == axis:
            components.append(indices)
            continue
        if size > shape[position]:
            raise node.fail(f"indices have size {size} on axis {position}, the data only {shape[position]}")
        spread = [1] * len(shape)
        spread[position] = size
        components.append(np.arange(size).reshape(spread))
    rows = row_numbers(node, components, shape)
    return namespace(rows).broadcast_to(rows, indices.shape)


@rule("GatherElements")
def gather_elements(node: Node, data: Value, indices: Value) -> Value:
    """GatherElements: for each index an element of `data`, at the same place on the other axes."""
    axis = axis_of(node, node.attr("axis", 0), data.ndim)
    if not indices.size:
        return np.zeros(indices.shape, data.dtype)
    rows = _element_rows(node, data.shape, indices, axis)
    return take_rows(data.reshape(-1), rows)


def _tuple_rows(
    node: Node, shape: Sequence[int], indices: Value, batch_dims: int
) -> tuple[Value, tuple[int, ...]]:
    """Return the row numbers of the index tuples in the last axis of `indices`, and the shape of a row."""
    if not indices.ndim:
        raise node.fail("indices must have at least one dimension")
    depth = indices.shape[-1]
    if batch_dims + depth > len(shape):
        raise node.fail(
            f"indices name {depth} axes after {batch_dims} batch axes, the data has {len(shape)} axes"
        )
    if tuple(indices.shape[:batch_dims]) != tuple(shape[:batch_dims]):
        raise node.fail(f"the first {batch_dims} axes of data and indices differ")
    components: list[Value] = []
    for position in range(batch_dims):
        spread = [1] * (indices.ndim - 1)
        spread[position] = shape[position]
        components.append(np.arange(shape[position]).reshape(spread))
    components += [indices[..., item] for item in range(depth)]
    named = batch_dims + depth
    rows = row_numbers(node, components, shape[:named])
    return namespace(rows).broadcast_to(rows, indices.shape[:-1]), tuple(shape[named:])


@rule("GatherND")
def gather_nd(node: Node, data: Value, indices: Value) -> Value:
    """GatherND: slices of `data` by index tuples, after `batch_dims` common axes."""
    rows, window = _tuple_rows(node, data.shape, indices, node.attr("batch_dims", 0))
    if not rows.size:
        return np.zeros((*rows.shape, *window), data.dtype)
    return take_rows(data.reshape(-1, *window) if data.size else data.reshape(0, *window), rows)


def _reduction(node: Node) -> str:
    """Return the attribute `reduction`, checked."""
    reduction: str = node.attr("reduction", "none")
    if reduction not in ("none", "add", "mul", "max", "min"):
        raise node.fail(f"reduction {reduction!r} is not one of none, add, mul, max, min")
    return reduction


@rule("Scatter", "ScatterElements")
def scatter_elements(node: Node, data: Value, indices: Value, updates: Value) -> Value:
    """ScatterElements: `data` with elements written, or combined, at indices along one axis."""
    axis = axis_of(node, node.attr("axis", 0), data.ndim)
    if not indices.size:
        return data
    rows = _element_rows(node, data.shape, indices, axis).reshape(-1)
    written = write_rows(data.reshape(-1), rows, updates.reshape(-1), _reduction(node))
    return written.reshape(data.shape)


@rule("ScatterND")
def scatter_nd(node: Node, data: Value, indices: Value, updates: Value) -> Value:
    """ScatterND: `data` with slices written, or combined, at index tuples."""
    rows, window = _tuple_rows(node, data.shape, indices, 0)
    if not rows.size or not data.size:
        return data
    written = write_rows(
        data.reshape(-1, *window), rows.reshape(-1), updates.reshape(-1, *window), _reduction(node)
    )
    return written.reshape(data.shape)


def slice_axes(data: Value, slices: dict[int, slice]) -> Value:
    """Apply Python slices of any step, by axis."""
    spans = [range(size)[slices.get(axis, slice(None))] for axis, size in enumerate(data.shape)]
    if namespace(data) is np:
        return data[tuple(slices.get(axis, slice(None)) for axis in range(data.ndim))]
    lows, highs, steps, backward = [], [], [], []
    for axis, span in enumerate(spans):
        # An empty span still has a start, which may lie outside the array.
        low, high = (min(span[0], span[-1]), max(span[0], span[-1]) + 1) if span else (0, 0)
        lows.append(low)
        highs.append(high)
        steps.append(abs(span.step))
        if span.step < 0:
            backward.append(axis)
    forward = data
    if lows != [0] * data.ndim or tuple(highs) != data.shape or max(steps, default=1) > 1:
        forward = lax.slice(data, lows, highs, steps)
    return lax.rev(forward, backward) if backward else forward


def _sliced(
    node: Node, data: Value, starts: Sequence[int], ends: Sequence[int], axes: Any, steps: Any
) -> Value:
    """Slice by starts, ends, axes (all by default) and steps (1 by default)."""
    chosen = range(len(starts)) if axes is None else axes
    strides = [1] * len(starts) if steps is None else steps
    slices = {}
    for start, end, axis, step in zip(starts, ends, chosen, strides, strict=True):
        if step == 0:
            raise node.fail("a step is 0")
        slices[axis_of(node, axis, data.ndim)] = slice(start, end, step)
    return slice_axes(data, slices)


@rule("Slice", since=1)
def slice_by_attributes(node: Node, data: Value) -> Value:
    """Slice before opset 10: starts, ends and axes are attributes."""
    return _sliced(node, data, node.attributes["starts"], node.attributes["ends"], node.attr("axes"), None)


@rule("Slice", since=10)
def slice_by_inputs(
    node: Node, data: Value, starts: Value, ends: Value, axes: Value = None, steps: Value = None
) -> Value:
    """Slice: starts, ends, axes and steps must be static."""
    return _sliced(
        node,
        data,
        node.ints(starts, "starts"),
        node.ints(ends, "ends"),
        None if axes is None else node.ints(axes, "axes"),
        None if steps is None else node.ints(steps, "steps"),
    )


@rule("Compress")
def compress(node: Node, data: Value, condition: Value) -> Value:
    """Compress: the slices along an axis where a static condition holds."""
    kept = np.flatnonzero(node.static(condition, "the condition", DATA_SHAPED)).astype(np.int32)
    axis = node.attr("axis")
    if axis is None:
        data, axis = data.reshape(-1), 0
    axis = axis_of(node, axis, data.ndim)
    return take(data, wrap_index(node, kept, data.shape[axis]), axis)


@rule("NonZero", derivative="none")
def nonzero(node: Node, data: Value) -> Value:
    """NonZero: indices of nonzero elements; the data must be static, as they determine the shape."""
    values = node.static(
        data, "how many elements are nonzero, which is the shape of the result,", DATA_SHAPED
    )
    # A scalar counts as an array of one element.
    return np.stack(np.nonzero(np.atleast_1d(values))).astype(np.int64)


@rule("Unique")
def unique(node: Node, data: Value) -> tuple[Value, ...]:
    """Unique: of static arrays of any size, and of traced ones that hold a single element or slice."""
    axis = node.attr("axis")
    if axis is None:
        data, axis = data.reshape(-1), 0
    axis = axis_of(node, axis, data.ndim)
    if data.shape[axis] == 1:
        one = np.zeros(1, np.int64)
        return data, one, one, one + 1
    values = node.static(data, "how many elements are unique, which is the shape of the result,", DATA_SHAPED)
    # Floats of ml_dtypes can only be sorted once widened, which keeps their order.
    keys = values.astype(np.float32) if values.dtype.kind == "V" else values
    _, first, inverse, counts = np.unique(
        keys, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.reshape(-1)
    if not node.attr("sorted", 1):
        order = np.argsort(first)
        first, counts, inverse = first[order], counts[order], np.argsort(order)[inverse]
    outputs = (first, inverse, counts)
    return (np.take(values, first, axis), *(item.astype(np.int64) for item in outputs))


@rule("TensorScatter")
def tensor_scatter(node: Node, cache: Value, update: Value, write_indices: Value = None) -> Value:
    """TensorScatter: writes consecutive positions of a cache, in "circular" mode modulo its length."""
    axis = axis_of(node, node.attr("axis", -2), cache.ndim)
    if axis == 0:
        raise node.fail("axis 0 is the batch and cannot be the one written to")
    mode = node.attr("mode", "linear")
    if mode not in ("linear", "circular"):
        raise node.fail(f"mode {mode!r} is not linear or circular")
    batch, length, count = cache.shape[0], cache.shape[axis], update.shape[axis]
    starts = np.zeros(batch, np.int64) if write_indices is None else write_indices
    positions = starts[:, None] + np.arange(count)
    if mode == "circular":
        positions = positions % length
    middle = prod(cache.shape[1:axis])
    rows = row_numbers(
        node,
        [np.arange(batch)[:, None, None], np.arange(middle)[:, None], positions[:, None, :]],
        (batch, middle, length),
    )
    window = cache.shape[axis + 1 :]
    written = write_rows(cache.reshape(-1, *window), rows.reshape(-1), update.reshape(-1, *window), "none")
    return written.reshape(cache.shape)


@rule("ReverseSequence")
def reverse_sequence(node: Node, data: Value, lengths: Value) -> Value:
    """ReverseSequence: reverses each sequence of a batch up to its own length."""
    time_axis = axis_of(node, node.attr("time_axis", 0), data.ndim)
    batch_axis = axis_of(node, node.attr("batch_axis", 1), data.ndim)
    if {time_axis, batch_axis} != {0, 1}:
        raise node.fail("time_axis and batch_axis must be 0 and 1 in some order")
    xp = namespace(lengths)
    time = np.arange(data.shape[time_axis])[:, None]
    source = xp.where(time < lengths, lengths - 1 - time, time)
    batch = np.arange(data.shape[batch_axis])[None, :]
    if time_axis == 1:
        source, batch = source.T, batch.T
    components = [source, batch] if time_axis == 0 else [batch, source]
    rows = row_numbers(node, components, data.shape[:2])
    return take_rows(data.reshape(-1, *data.shape[2:]), rows)
