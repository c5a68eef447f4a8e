"""Sets of seed indices, stored once and shared by every array element that is reached by the same seeds.

A set is named by an int32 id: -1 is the empty set, ids below the number of seeds are the singletons, and
larger ids are sets in the store. An array of ids says what each element of a value depends on, so that
moving elements about is moving ids, and broadcasting them costs nothing. The union of a set and its superset
makes no new set.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from gradwire_engine.errors import LimitExceeded

Array = np.ndarray[Any, Any]

EMPTY = -1
"""The id of the empty set."""

_CACHED_PAIRS = 1 << 14
"""Recent unions that are remembered, so that repeated pairs share one set; a power of two."""


@numba.njit(cache=True, nogil=True)
def _union_pairs(
    first: Array,
    second: Array,
    out: Array,
    begin: int,
    seeds: int,
    starts: Array,
    items: Array,
    count: int,
    keys: Array,
    found: Array,
) -> tuple[int, int]:
    """Unite ids elementwise from element `begin` on, until done or the store is too small.

    Returns:
        The first element not done, and the number of stored sets.
    """
    single = np.empty(2, np.int32)
    for k in range(begin, len(out)):
        a, b = first[k], second[k]
        if a == b or b == -1:
            out[k] = a
            continue
        if a == -1:
            out[k] = b
            continue
        if a > b:
            a, b = b, a
        slot = (np.int64(a) * 2654435761 + np.int64(b) * 40503) & (len(keys) - 1)
        if keys[slot, 0] == a and keys[slot, 1] == b:
            out[k] = found[slot]
            continue
        end = starts[count]
        if a < seeds and b < seeds:
            size_a = size_b = 1
        else:
            size_a = 1 if a < seeds else starts[a - seeds + 1] - starts[a - seeds]
            size_b = 1 if b < seeds else starts[b - seeds + 1] - starts[b - seeds]
        if size_a == seeds or size_b == seeds:
            out[k] = a if size_a == seeds else b
            continue
        if count + 2 > len(starts) - 1 or end + size_a + size_b > len(items):
            return k, count
        if a < seeds:
            single[0] = a
            x = single[:1]
        else:
            x = items[starts[a - seeds] : starts[a - seeds] + size_a]
        if b < seeds:
            single[1] = b
            y = single[1:]
        else:
            y = items[starts[b - seeds] : starts[b - seeds] + size_b]
        united = np.int32(-1)
        if size_a * 16 < size_b or size_b * 16 < size_a:
            small, large, owner = (x, y, b) if size_a < size_b else (y, x, a)
            position = 0
            inside = True
            for item in small:
                position += np.searchsorted(large[position:], item)
                if position == len(large) or large[position] != item:
                    inside = False
                    break
            if inside:
                united = owner
        if united == -1:
            i = j = 0
            o = end
            while i < size_a and j < size_b:
                if x[i] < y[j]:
                    items[o] = x[i]
                    i += 1
                elif y[j] < x[i]:
                    items[o] = y[j]
                    j += 1
                else:
                    items[o] = x[i]
                    i += 1
                    j += 1
                o += 1
            while i < size_a:
                items[o] = x[i]
                i += 1
                o += 1
            while j < size_b:
                items[o] = y[j]
                j += 1
                o += 1
            if o - end == size_a:
                united = a
            elif o - end == size_b:
                united = b
            else:
                united = np.int32(seeds + count)
                count += 1
                starts[count] = o
        keys[slot, 0] = a
        keys[slot, 1] = b
        found[slot] = united
        out[k] = united
    return len(out), count


@numba.njit(cache=True, nogil=True)
def _union_groups(
    offsets: Array,
    members: Array,
    out: Array,
    begin: int,
    seeds: int,
    starts: Array,
    items: Array,
    count: int,
    seen_seeds: Array,
    seen_sets: Array,
    generation: int,
) -> tuple[int, int]:
    """Unite the ids of each group `members[offsets[g]:offsets[g + 1]]`, from group `begin` on.

    Returns:
        The first group not done, and the number of stored sets.
    """
    for g in range(begin, len(out)):
        low, high = offsets[g], offsets[g + 1]
        if g > begin and high - low == low - offsets[g - 1]:
            same = True
            for k in range(high - low):
                if members[low + k] != members[offsets[g - 1] + k]:
                    same = False
                    break
            if same:
                out[g] = out[g - 1]
                continue
        stamp = generation + g
        end = starts[count]
        if count + 2 > len(starts) - 1:
            return g, count
        o = end
        largest, owner = 0, np.int32(-1)
        ascending = True
        for k in range(low, high):
            member = members[k]
            if member == -1:
                continue
            if member < seeds:
                size = 1
                if seen_seeds[member] == stamp:
                    if largest < 1:
                        largest, owner = 1, member
                    continue
                if o == len(items):
                    return g, count
                seen_seeds[member] = stamp
                if o > end and items[o - 1] > member:
                    ascending = False
                items[o] = member
                o += 1
            else:
                index = member - seeds
                if seen_sets[index] == stamp:
                    continue
                seen_sets[index] = stamp
                size = starts[index + 1] - starts[index]
                for p in range(starts[index], starts[index + 1]):
                    item = items[p]
                    if seen_seeds[item] != stamp:
                        if o == len(items):
                            return g, count
                        seen_seeds[item] = stamp
                        if o > end and items[o - 1] > item:
                            ascending = False
                        items[o] = item
                        o += 1
            if size > largest:
                largest, owner = size, member
            if o - end == seeds:
                break
        if o - end == largest:
            out[g] = owner
        else:
            if not ascending:
                items[end:o].sort()
            out[g] = np.int32(seeds + count)
            count += 1
            starts[count] = o
    return len(out), count


@numba.njit(cache=True, nogil=True)
def _measure(ids: Array, seeds: int, starts: Array) -> Array:
    indptr = np.zeros(len(ids) + 1, np.int64)
    for k in range(len(ids)):
        member = ids[k]
        size = (
            0
            if member == -1
            else 1
            if member < seeds
            else starts[member - seeds + 1] - starts[member - seeds]
        )
        indptr[k + 1] = indptr[k] + size
    return indptr


@numba.njit(cache=True, nogil=True)
def _expand(ids: Array, seeds: int, starts: Array, items: Array, indptr: Array, indices: Array) -> None:
    for k in range(len(ids)):
        member = ids[k]
        if member == -1:
            continue
        if member < seeds:
            indices[indptr[k]] = member
        else:
            start = starts[member - seeds]
            for p in range(indptr[k + 1] - indptr[k]):
                indices[indptr[k] + p] = items[start + p]


class IndexSets:
    """The sets that one detection makes; every method takes and gives arrays of ids."""

    def __init__(self, seeds: int, limit_bytes: int) -> None:
        """Start with the empty set and the singletons of `seeds` indices, under a limit on memory, bytes."""
        self.seeds = seeds
        self._limit = limit_bytes
        # Room for some sets of a few seeds each; what is not written takes no memory.
        self._starts = np.zeros(max(1024, seeds) + 1, np.int64)
        self._items = np.empty(max(4096, 4 * seeds), np.int32)
        self._count = 0
        self._pair_keys = np.full((_CACHED_PAIRS, 2), -1, np.int32)
        self._pair_found = np.empty(_CACHED_PAIRS, np.int32)
        self._seen_seeds = np.zeros(seeds, np.int64)
        self._seen_sets = np.zeros(len(self._starts), np.int64)
        self._generation = 1

    def union(self, first: Array | None, second: Array | None) -> Array | None:
        """Unite two arrays of ids of one shape, element by element; None stands for empty sets throughout."""
        if first is None or second is None or first is second:
            return second if first is None else first
        shape = first.shape
        assert shape == second.shape, "ids of two shapes"
        constant = _constant_axes(first) & _constant_axes(second)
        if constant.any():
            cut = tuple(slice(0, 1) if same else slice(None) for same in constant)
            united = self.union(first[cut], second[cut])
            return None if united is None else np.broadcast_to(united, shape)
        a, b = _to_read(first).reshape(-1), _to_read(second).reshape(-1)
        out = np.empty(a.size, np.int32)
        done = 0
        while True:
            done, self._count = _union_pairs(
                a,
                b,
                out,
                done,
                self.seeds,
                self._starts,
                self._items,
                self._count,
                self._pair_keys,
                self._pair_found,
            )
            if done == out.size:
                return out.reshape(shape)
            self._grow()

    def union_along(self, ids: Array, axes: tuple[int, ...]) -> Array:
        """Unite the ids along axes, which are dropped."""
        kept = [axis for axis in range(ids.ndim) if axis not in axes]
        moved = ids.transpose([*kept, *axes])
        shape = moved.shape[: len(kept)]
        # Along an axis whose elements are one and the same, one of them is enough.
        constant = _constant_axes(moved)
        moved = moved[tuple(slice(0, 1) if same else slice(None) for same in constant)]
        cut = moved.shape[: len(kept)]
        groups, size = int(np.prod(cut)), int(np.prod(moved.shape[len(kept) :]))
        if size == 0:
            return np.full(shape, EMPTY, np.int32)
        members = np.ascontiguousarray(moved).reshape(-1)
        united = self.union_groups(np.arange(groups + 1, dtype=np.int64) * size, members)
        return np.broadcast_to(united.reshape(cut), shape)

    def union_groups(self, offsets: Array, members: Array) -> Array:
        """Unite the ids of each group `members[offsets[g]:offsets[g + 1]]`."""
        out = np.empty(len(offsets) - 1, np.int32)
        offsets = _to_read(offsets.astype(np.int64, copy=False))
        members = _to_read(members.astype(np.int32, copy=False))
        done = 0
        while True:
            done, self._count = _union_groups(
                offsets,
                members,
                out,
                done,
                self.seeds,
                self._starts,
                self._items,
                self._count,
                self._seen_seeds,
                self._seen_sets,
                self._generation,
            )
            # A group that was broken off begins anew, with a stamp of its own.
            self._generation += len(out) + 1
            if done == out.size:
                return out
            self._grow()

    def everything(self, ids: Array) -> int:
        """Return the id of the union of all elements."""
        return int(self.union_along(ids.reshape(-1), (0,))[()]) if ids.size else EMPTY

    def includes(self, larger: Array, smaller: Array) -> bool:
        """Return whether each element of `smaller` is a subset of that of `larger`."""
        united = self.union(larger, smaller)
        return united is not None and np.array_equal(united, larger)

    def csr(self, ids: Array) -> tuple[Array, Array]:
        """Write the sets of a flat array of ids out, as `indptr` (int64) and `indices` (int32)."""
        ids = _to_read(ids)
        indptr = _measure(ids, self.seeds, self._starts)
        self._check(4 * int(indptr[-1]))
        indices = np.empty(int(indptr[-1]), np.int32)
        _expand(ids, self.seeds, self._starts, self._items, indptr, indices)
        return indptr, indices

    def _grow(self) -> None:
        items, starts = 2 * len(self._items), 2 * (len(self._starts) - 1) + 1
        if len(self._items) - self._starts[self._count] > len(self._items) // 2:
            items = len(self._items)
        if self._count < len(self._starts) // 2:
            starts = len(self._starts)
        if items == len(self._items) and starts == len(self._starts):
            items *= 2
        self._check(4 * items + 16 * starts)
        if self.seeds + starts >= 2**31:
            raise LimitExceeded(
                f"finding the sparsity pattern makes more than {2**31 - self.seeds} sets: the derivative is "
                "far from sparse, ask for it dense, or for fewer inputs or outputs",
                "detection_sets",
                2**31 - self.seeds,
                starts,
            )
        if items > len(self._items):
            self._items = _longer(self._items, items)
        if starts > len(self._starts):
            self._starts = _longer(self._starts, starts)
            self._seen_sets = _longer(self._seen_sets, starts)

    def _check(self, wanted: int) -> None:
        if wanted > self._limit:
            raise LimitExceeded(
                f"finding the sparsity pattern needs {wanted} bytes; the limit is {self._limit}: the "
                "derivative is far from sparse, ask for it dense, or for fewer inputs or outputs",
                "detection_bytes",
                self._limit,
                wanted,
            )


def _to_read(array: Array) -> Array:
    """Return an array as loops take it that only read it: they are compiled anew for one that is writable."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _longer(array: Array, size: int) -> Array:
    longer = np.zeros(size, array.dtype)
    longer[: len(array)] = array
    return longer


def _constant_axes(ids: Array) -> Array:
    """Return for each axis whether the elements along it are one and the same in memory."""
    return np.array(
        [stride == 0 and extent > 1 for stride, extent in zip(ids.strides, ids.shape, strict=True)], bool
    )
