"""Sums over batches, added by a tree that depends on the order of the batches and on nothing else.

Batch ``i`` is leaf ``i`` of a binary tree; the nodes of level ``k`` are sums over ``2**k`` batches in a row.
Two halves are added as soon as both are there, so few sums are held whatever the order of arrival, and
every addition has the operands that it would have in any other order: the same bits. (Pairwise summation
also loses less to rounding than adding up in a row: Higham, SIAM J. Sci. Comput. 14(4), 1993.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire_engine.values import ArrayType, dtype_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Partial:
    """A sum over consecutive batches.

    Attributes:
        arrays: the sums, float64. Those that can be written to belong to the reduction that they are
            given to, which adds in place.
        batches, rows: how many went in.
        by_worker: batches by who computed them.
        seconds: that computing them took.
    """

    arrays: tuple[Array, ...]
    batches: int
    rows: int
    by_worker: Mapping[str, int]
    seconds: float

    @property
    def nbytes(self) -> int:
        """Bytes of the sums."""
        return sum(array.nbytes for array in self.arrays)


def of_batch(
    arrays: Sequence[Array], rows: int, worker: str, seconds: float, weight: int | None = None
) -> Partial:
    """The sum over one batch: its arrays in float64, times ``weight`` (the rows, for a mean) if given.

    What has no weight adds nothing, whatever it is: the mean over no rows is not a number.
    """
    with np.errstate(all="ignore"):
        sums = tuple(_weighed(array, weight) for array in arrays)
    return Partial(sums, 1, rows, {worker: 1}, seconds)


def _weighed(array: Array, weight: int | None) -> Array:
    if weight is None:
        return np.asarray(array, np.float64)
    if weight == 0:
        return np.zeros(array.shape)
    return np.asarray(np.multiply(array, np.float64(weight), dtype=np.float64))


def nothing(types: Iterable[ArrayType]) -> Partial:
    """The sum over no batches."""
    return Partial(tuple(np.zeros(item.shape) for item in types), 0, 0, {}, 0.0)


def rounded(total: Partial, types: Iterable[ArrayType], mean: bool) -> tuple[Array, ...]:
    """The result: sums, or sums over rows for a mean, in the types that were asked for; always copies."""
    divisor = total.rows if mean and total.rows else 1
    with np.errstate(all="ignore"):
        return tuple(
            np.asarray(array if divisor == 1 else np.true_divide(array, divisor))
            .astype(dtype_of(item.dtype))
            .reshape(item.shape)
            for array, item in zip(total.arrays, types, strict=True)
        )


def _added(left: Partial, right: Partial) -> Partial:
    with np.errstate(all="ignore"):
        arrays = tuple(_sum(a, b) for a, b in zip(left.arrays, right.arrays, strict=True))
    return Partial(
        arrays,
        left.batches + right.batches,
        left.rows + right.rows,
        Counter(left.by_worker) + Counter(right.by_worker),
        left.seconds + right.seconds,
    )


def _sum(left: Array, right: Array) -> Array:
    """Their sum, in the memory of one of them where it may be written to."""
    if left.flags.writeable:
        return np.add(left, right, out=left)
    if right.flags.writeable:
        return np.add(left, right, out=right)
    return np.asarray(np.add(left, right))


class Reduction:
    """The tree of one accumulation: at most log2(batches) + 1 sums, and those that wait for others."""

    def __init__(self) -> None:
        """No batches yet."""
        self._nodes: dict[tuple[int, int], Partial] = {}
        self._mark: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all sums held."""
        return sum(node.nbytes for node in self._nodes.values())

    @property
    def held(self) -> int:
        """How many sums are held."""
        return len(self._nodes)

    def add(self, index: int, batch: Partial) -> None:
        """Add batch ``index``; each once, in any order."""
        self._place(0, index, batch)

    def mark(self, count: int) -> None:
        """Keep the sums of the first ``count`` batches apart from those of later ones until ``release``.

        To be called before any later batch is added.
        """
        self._mark = count

    def total(self) -> Partial | None:
        """The sum over the batches up to the mark, all of which are there; None for no batches.

        It may be a sum of the tree's own: to be used, and not written to, before ``release``.
        """
        assert self._mark is not None, "nothing was marked"
        total: Partial | None = None
        for key in reversed(_cover(self._mark)):
            node = _closed(self._nodes[key])
            total = node if total is None else _added(node, total)
        return total

    def release(self) -> None:
        """Take the mark away and make the additions that waited for it: as if it had never been there."""
        self._mark = None
        for key in sorted(self._nodes):
            if (waiting := self._nodes.pop(key, None)) is not None:
                self._place(*key, waiting)

    def _place(self, level: int, place: int, node: Partial) -> None:
        while (other := (level, place ^ 1)) in self._nodes and not self._parted(level + 1, place >> 1):
            sibling = self._nodes.pop(other)
            node = _added(sibling, node) if place & 1 else _added(node, sibling)
            level, place = level + 1, place >> 1
        self._nodes[level, place] = node

    def _parted(self, level: int, place: int) -> bool:
        """Whether the mark lies within a node."""
        return self._mark is not None and place << level < self._mark < (place + 1) << level


def _cover(count: int) -> list[tuple[int, int]]:
    """The nodes that the first ``count`` leaves make up, from the left: one for each binary digit."""
    nodes, start = [], 0
    for level in reversed(range(count.bit_length())):
        if count >> level & 1:
            nodes.append((level, start >> level))
            start += 1 << level
    return nodes


def _closed(node: Partial) -> Partial:
    """The same sums, not to be written to."""
    views = tuple(array.view() for array in node.arrays)
    for view in views:
        view.flags.writeable = False
    return Partial(views, node.batches, node.rows, node.by_worker, node.seconds)
