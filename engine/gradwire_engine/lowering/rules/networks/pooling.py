"""Pooling over windows, whole images and regions, with forward and reverse derivatives.

Where several elements of a window are the largest, pooling selects the first in row-major order, and
the derivative is that of this element, as in PyTorch and TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.arrays import row_numbers, take, write_rows
from gradwire_engine.lowering.registry import Node, Value, rule
from gradwire_engine.lowering.rules.networks.spatial import Windows, declared_pads, per_axis, windows_of


def _lowest(dtype: Any) -> Any:
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else np.iinfo(dtype).min


def _pick(values: Sequence[Value], axis: int) -> list[Value]:
    """Reduce an axis to the position where the first array is largest, in all arrays alike.

    Of equal elements the first is taken. Written as a selection and a sum, which is linear in what is
    selected: every mode of differentiation applies, and the derivative at a tie is that of the
    element selected.
    """
    best = lax.argmax(values[0], axis, jnp.int32)
    places = lax.broadcasted_iota(jnp.int32, values[0].shape, axis)
    chosen = places == lax.expand_dims(best, (axis,))
    return [
        jnp.sum(jnp.where(chosen, value, jnp.zeros((), value.dtype)), axis, dtype=value.dtype)
        for value in values
    ]


def _largest_in_windows(
    values: Sequence[Value], fills: Sequence[Any], windows: Windows, axis: int
) -> list[Value]:
    """Find the first array's largest element of each window along one axis, and those of the others there.

    A chain of selections over strided slices, which XLA fuses and which is linear in what is selected.
    The second array, if any, holds positions, -1 in the padding: padding is never preferred.
    """
    place = 2 + axis
    padding = [(0, 0, 0)] * values[0].ndim
    padding[place] = (*windows.padding[axis], 0)
    padded = [
        lax.pad(value, np.asarray(fill, value.dtype), padding)
        for value, fill in zip(values, fills, strict=True)
    ]
    stride, reach = windows.strides[axis], (windows.outputs[axis] - 1) * windows.strides[axis] + 1
    best: list[Value] = []
    for tap in range(windows.kernel[axis]):
        start = tap * windows.dilations[axis]
        here = [lax.slice_in_dim(item, start, start + reach, stride, place) for item in padded]
        if not best:
            best = here
            continue
        # Strictly larger, so that the first of equal elements is kept; NaN replaces any number.
        better = (here[0] > best[0]) | (here[0] != here[0])
        if len(best) > 1:
            better = (better & (here[1] >= 0)) | ((best[1] < 0) & (here[1] >= 0))
        best = [lax.select(better, new, old) for new, old in zip(here, best, strict=True)]
    return best


@rule("MaxPool")
def max_pool(node: Node, x: Value) -> Value | tuple[Value, Value]:
    """MaxPool: the largest element of each window, one axis after the other, and its flat index if wanted."""
    windows = windows_of(node, x.shape[2:])
    values, fills = [jnp.asarray(x)], [_lowest(x.dtype)]
    if node.wants(1):
        values.append(jnp.broadcast_to(_flat_positions(node, x.shape), x.shape))
        fills.append(-1)
    # Last axis first: ties then fall to the earliest element in row-major order.
    for axis in reversed(range(windows.rank)):
        values = _largest_in_windows(values, fills, windows, axis)
    return tuple(values) if node.wants(1) else values[0]


def _flat_positions(node: Node, shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """Return the index of every element in the flattened tensor.

    With `storage_order` 1 the spatial axes are counted in column-major order.
    """
    images = np.arange(shape[0] * shape[1], dtype=np.int64) * math.prod(shape[2:])
    column_major = bool(node.attr("storage_order", 0))
    inner = np.arange(math.prod(shape[2:]), dtype=np.int64)
    within = inner.reshape(shape[2:], order="F" if column_major else "C")
    return images.reshape(shape[0], shape[1], *(1,) * (len(shape) - 2)) + within


def _window_sum(x: Value, windows: Windows) -> Value:
    """Sum the elements of each window."""
    return lax.reduce_window(
        jnp.asarray(x),
        np.zeros((), x.dtype),
        lax.add,
        (1, 1, *windows.kernel),
        (1, 1, *windows.strides),
        [(0, 0), (0, 0), *windows.padding],
        window_dilation=(1, 1, *windows.dilations),
    )


def _counts(windows: Windows, include_pad: bool) -> np.ndarray[Any, Any]:
    """Return the number of elements that each window averages over.

    Padding past the declared one never counts.
    """
    total = np.ones((), np.int64)
    for axis in range(windows.rank):
        positions = windows.positions(axis)
        start = -windows.low[axis] if include_pad else 0
        end = windows.sizes[axis] + (windows.high[axis] if include_pad else 0)
        count = ((positions >= start) & (positions < end)).sum(axis=1)
        total = total[..., None] * count
    return np.maximum(total, 1)


@rule("AveragePool")
def average_pool(node: Node, x: Value) -> Value:
    """AveragePool: the mean of each window, with or without the padding it covers."""
    windows = windows_of(node, x.shape[2:])
    counts = _counts(windows, bool(node.attr("count_include_pad", 0)))
    divisor = counts.flat[0] if counts.min() == counts.max() else counts
    return _window_sum(x, windows) / np.asarray(divisor, x.dtype)


def _power(x: Value, p: float) -> Value:
    """Compute |x| ** p, with every derivative that exists."""
    if p == 2:
        return x * x
    # Unlike jnp.abs, this has derivative 0 at 0.
    size = x * lax.sign(x)
    if p == 1:
        return size
    if p == int(p):
        return lax.integer_pow(size, int(p))
    positive = size > 0
    return jnp.where(positive, jnp.where(positive, size, 1) ** p, 0)


def _root(total: Value, p: float) -> Value:
    """Compute total ** (1 / p), with derivative 0 where the total is 0."""
    if p == 1:
        return total
    positive = total > 0
    safe = jnp.where(positive, total, 1)
    return jnp.where(positive, lax.sqrt(safe) if p == 2 else safe ** (1.0 / p), total)


@rule("LpPool")
def lp_pool(node: Node, x: Value) -> Value:
    """LpPool: the p-norm of each window; derivative 0 where a window is all zeros."""
    p = float(node.attr("p", 2))
    return _root(_window_sum(_power(x, p), windows_of(node, x.shape[2:])), p)


@rule("GlobalAveragePool")
def global_average_pool(node: Node, x: Value) -> Value:
    """GlobalAveragePool: the mean over the spatial axes."""
    return jnp.mean(x, axis=tuple(range(2, x.ndim)), keepdims=True)


@rule("GlobalLpPool")
def global_lp_pool(node: Node, x: Value) -> Value:
    """GlobalLpPool: the p-norm over the spatial axes."""
    p = float(node.attr("p", 2))
    return _root(jnp.sum(_power(x, p), axis=tuple(range(2, x.ndim)), keepdims=True), p)


@rule("GlobalMaxPool")
def global_max_pool(node: Node, x: Value) -> Value:
    """GlobalMaxPool: the largest element over the spatial axes, the first of equal ones."""
    flat = jnp.reshape(x, (*x.shape[:2], math.prod(x.shape[2:])))
    return _pick([flat], 2)[0].reshape(*x.shape[:2], *(1,) * (x.ndim - 2))


@rule("MaxUnpool", since=9)
def max_unpool(node: Node, x: Value, indices: Value, output_shape: Value | None = None) -> Value:
    """MaxUnpool: writes values back to where MaxPool took them from, zeros elsewhere.

    Indices refer to the shape that kernel, strides and pads imply; a larger `output_shape` appends zeros.
    """
    rank = x.ndim - 2
    kernel, strides = per_axis(node, "kernel_shape", rank), per_axis(node, "strides", rank)
    low, high = declared_pads(node, rank)
    implied = (
        *x.shape[:2],
        *((x.shape[2 + i] - 1) * strides[i] - low[i] - high[i] + kernel[i] for i in range(rank)),
    )
    places = row_numbers(node, [jnp.ravel(indices)], [math.prod(implied)])
    flat = write_rows(jnp.zeros(math.prod(implied), x.dtype), places, jnp.ravel(x), "none")
    y = flat.reshape(implied)
    if output_shape is None:
        return y
    target = node.ints(output_shape, "output_shape")
    return lax.pad(y, np.zeros((), x.dtype), [(0, t - s, 0) for t, s in zip(target, implied, strict=True)])


@rule("MaxRoiPool")
def max_roi_pool(node: Node, x: Value, rois: Value) -> Value:
    """MaxRoiPool: the largest element of each cell of each region (Girshick, 2015), 0 for an empty cell.

    Regions are rounded to whole elements, so the derivative with respect to them is 0.
    """
    pooled = node.attr("pooled_shape")
    if pooled is None or len(pooled) != 2 or x.ndim != 4:
        raise node.fail("needs a 4-D input and a pooled_shape of two entries")
    regions = lax.stop_gradient(jnp.asarray(rois))
    batch = regions[:, 0].astype(jnp.int32)
    scaled = regions[:, 1:] * float(node.attr("spatial_scale", 1.0))
    # Halves round away from zero, as C's round does.
    corners = lax.sign(scaled) * jnp.floor(jnp.abs(scaled) + 0.5)
    values = take(x, batch, 0)
    for axis, start, end in ((3, corners[:, 0], corners[:, 2]), (2, corners[:, 1], corners[:, 3])):
        cells = int(pooled[axis - 2])
        inside = _cell_mask(start, end, cells, x.shape[axis])
        inside = inside[:, None, None] if axis == 3 else inside[:, None, :, :, None]
        spread = jnp.expand_dims(values, axis)
        spread = jnp.where(inside, spread, _lowest(x.dtype))
        values = _pick([spread], axis + 1)[0]
    return jnp.where(values == _lowest(x.dtype), jnp.zeros((), x.dtype), values)


def _cell_mask(start: Value, end: Value, cells: int, size: int) -> Value:
    """Return the elements of an axis that each cell of each region covers, shape (regions, cells, size)."""
    width = jnp.maximum(end - start + 1, 1) / cells
    number = np.arange(cells, dtype=np.float64).astype(start.dtype)
    first = jnp.floor(number * width[:, None]) + start[:, None]
    last = jnp.ceil((number + 1) * width[:, None]) + start[:, None]
    place = np.arange(size).astype(start.dtype)
    return (place >= first[..., None]) & (place < last[..., None])
