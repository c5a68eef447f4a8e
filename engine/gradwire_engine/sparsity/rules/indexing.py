"""Indexing: exact where the indices are known, dense along the indexed axes where they are not."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from gradwire_engine.sparsity.index_sets import EMPTY
from gradwire_engine.sparsity.rules.elementwise import masked
from gradwire_engine.sparsity.rules.linear_algebra import dense_along
from gradwire_engine.sparsity.walking import Array, Reach, Visit, rule
from gradwire_engine.sparsity.windows import gathered, scattered


@rule("gather")
def gather(visit: Visit) -> list[Reach]:
    """Select rows by index: x[[2, 0]] has rows e2, e0. By unknown indices: any row along the axis."""
    windows = gathered(visit.params, visit.shape(0))
    indices = visit.known(1)
    ids = visit.ids(0)
    if indices is None:
        # Any window is as good as the first once all rows along the indexed axes are one.
        ids = dense_along(visit, ids, windows.indexed)
        indices = np.zeros(visit.shape(1), np.int64)
    positions, valid = windows.positions(indices, visit.result_shape())
    if not ids.size:
        return [np.full(visit.result_shape(), EMPTY, np.int32)]
    return [masked(_taken(ids, positions), ~valid)]


def _taken(ids: Array, positions: Array) -> Array:
    return np.ascontiguousarray(ids).reshape(-1)[positions]


@rule("scatter-add", "scatter_add", "scatter-sub", "scatter_sub", "scatter_mul", "scatter-mul")
def scatter_add(visit: Visit) -> list[Reach]:
    """Add rows at indices: y[i] += u has the row of u beside that of y[i]."""
    placed, _ = _placed(visit)
    operand = visit.reached[0]
    return [placed if operand is None else visit.sets.union(operand, placed)]


@rule("scatter")
def scatter(visit: Visit) -> list[Reach]:
    """Replace rows at indices; where they are not known, any row may stay."""
    placed, replaced = _placed(visit)
    operand = visit.reached[0]
    if operand is None:
        return [placed]
    return [visit.sets.union(masked(operand, replaced), placed)]


def _placed(visit: Visit) -> tuple[Array, Array]:
    """Return the ids of the updates where they go, and which elements are certain to be replaced."""
    windows = scattered(visit.params, visit.shape(0), visit.shape(2))
    shape, size = visit.shape(0), prod(visit.shape(0))
    indices = visit.known(1)
    known = indices is not None
    positions, valid = windows.positions(
        np.zeros(visit.shape(1), np.int64) if indices is None else indices, visit.shape(2)
    )
    target = positions[valid]
    updates = visit.ids(2)[valid]
    order = np.argsort(target, kind="stable")
    offsets = np.searchsorted(target[order], np.arange(size + 1))
    placed = visit.sets.union_groups(offsets, updates[order]).reshape(shape)
    if not known:
        return dense_along(visit, placed, windows.indexed), np.zeros(shape, bool)
    replaced = np.zeros(size, bool)
    replaced[target] = True
    return placed, replaced.reshape(shape)


@rule("dynamic_slice")
def dynamic_slice(visit: Visit) -> list[Reach]:
    """Select a window of rows; along axes whose start is not known, any of them."""
    sizes = visit.params["slice_sizes"]
    ids = visit.ids(0)
    starts, open_axes = _starts(visit, range(1, 1 + ids.ndim), visit.shape(0), sizes)
    ids = dense_along(visit, ids, open_axes)
    return [ids[tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))]]


@rule("dynamic_update_slice")
def dynamic_update_slice(visit: Visit) -> list[Reach]:
    """Replace a window of rows; along axes whose start is not known, any of them may be replaced."""
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
        starts.append(0 if value is None else int(np.clip(int(value), 0, extent - size)))
    return starts, tuple(open_axes)
