"""Indexing: exact where the indices are known, dense along the indexed axes where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from gradwire_engine.sparsity.index_sets import EMPTY
from gradwire_engine.sparsity.known import PartlyKnown
from gradwire_engine.sparsity.rules.elementwise import masked
from gradwire_engine.sparsity.rules.linear_algebra import dense_along
from gradwire_engine.sparsity.walking import Array, Reach, Visit, rule, unfollowed
from gradwire_engine.sparsity.windows import Windows, gathered, scattered


@rule("gather")
def gather(visit: Visit) -> list[Reach]:
    """Select rows by index: x[[2, 0]] has rows e2, e0. By unknown indices: any row along the axis."""
    if visit.reached[1] is not None:
        return unfollowed(visit)
    windows = gathered(visit.params, visit.shape(0))
    indices, open_axes = _indices(visit, windows)
    # Any window is as good as the first once all rows along an axis are one.
    ids = dense_along(visit, visit.ids(0), open_axes)
    positions, valid = windows.positions(indices, visit.result_shape())
    if not ids.size:
        return [np.full(visit.result_shape(), EMPTY, np.int32)]
    return [masked(_taken(ids, positions), ~valid)]


def _indices(visit: Visit, windows: Windows) -> tuple[Array, tuple[int, ...]]:
    """Return index vectors, zero along the axes where they are not known, and those axes."""
    shape, value = visit.shape(1), visit.values[1]
    indices = visit.known(1)
    if indices is not None:
        return indices, ()
    if isinstance(value, PartlyKnown):
        parts, is_known = value.along(len(shape) - 1, shape)
        return parts, tuple(axis for axis, given in zip(windows.indexed, is_known, strict=True) if not given)
    return np.zeros(shape, np.int64), windows.indexed


def _taken(ids: Array, positions: Array) -> Array:
    return np.ascontiguousarray(ids).reshape(-1)[positions]


@rule("scatter-add", "scatter_add", "scatter-sub", "scatter_sub", "scatter_mul", "scatter-mul")
def scatter_add(visit: Visit) -> list[Reach]:
    """Add rows at indices: y[i] += u has the row of u beside that of y[i]."""
    if visit.reached[1] is not None:
        return unfollowed(visit)
    placed, _ = _placed(visit)
    operand = visit.reached[0]
    return [placed if operand is None else visit.sets.union(operand, placed)]


@rule("scatter")
def scatter(visit: Visit) -> list[Reach]:
    """Replace rows at indices; where they are not known, any row may stay."""
    if visit.reached[1] is not None:
        return unfollowed(visit)
    placed, replaced = _placed(visit)
    operand = visit.reached[0]
    if operand is None:
        return [placed]
    return [visit.sets.union(masked(operand, replaced), placed)]


def _placed(visit: Visit) -> tuple[Array, Array]:
    """Return the ids of the updates where they go, and which elements are certain to be replaced."""
    windows = scattered(visit.params, visit.shape(0), visit.shape(2))
    shape, size = visit.shape(0), prod(visit.shape(0))
    indices, open_axes = _indices(visit, windows)
    positions, valid = windows.positions(indices, visit.shape(2))
    target = positions[valid]
    updates = visit.ids(2)[valid]
    order = np.argsort(target, kind="stable")
    offsets = np.searchsorted(target[order], np.arange(size + 1))
    placed = visit.sets.union_groups(offsets, updates[order]).reshape(shape)
    if open_axes:
        return dense_along(visit, placed, open_axes), np.zeros(shape, bool)
    replaced = np.zeros(size, bool)
    replaced[target] = True
    return placed, replaced.reshape(shape)


@rule("dynamic_slice")
def dynamic_slice(visit: Visit) -> list[Reach]:
    """Select a window of rows; along axes whose start is not known, any of them."""
    if any(ids is not None for ids in visit.reached[1:]):
        return unfollowed(visit)
    sizes = visit.params["slice_sizes"]
    ids = visit.ids(0)
    starts, open_axes = _starts(visit, range(1, 1 + ids.ndim), visit.shape(0), sizes)
    ids = dense_along(visit, ids, open_axes)
    return [ids[tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))]]


@rule("dynamic_update_slice")
def dynamic_update_slice(visit: Visit) -> list[Reach]:
    """Replace a window of rows; along axes whose start is not known, any of them may be replaced."""
    if any(ids is not None for ids in visit.reached[2:]):
        return unfollowed(visit)
    shape, sizes = visit.shape(0), visit.shape(1)
    starts, open_axes = _starts(visit, range(2, 2 + len(shape)), shape, sizes)
    window = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    placed = np.full(shape, EMPTY, np.int32)
    placed[window] = visit.ids(1)
    operand = visit.reached[0]
    if open_axes:
        return [visit.sets.union(operand, dense_along(visit, placed, open_axes))]
    if operand is not None:
        result = operand.copy()
        result[window] = visit.ids(1)
        return [result]
    return [placed]


def _starts(
    visit: Visit, operands: Sequence[int], shape: Sequence[int], sizes: Sequence[int]
) -> tuple[list[int], tuple[int, ...]]:
    """Return where a window begins, 0 along the axes where that is not known, and those axes."""
    starts, open_axes = [], []
    for axis, (operand, extent, size) in enumerate(zip(operands, shape, sizes, strict=True)):
        value = visit.known(operand)
        if value is None and size < extent:
            open_axes.append(axis)
        # XLA moves a window that reaches outside back in.
        starts.append(0 if value is None else min(max(int(value), 0), extent - size))
    return starts, tuple(open_axes)
