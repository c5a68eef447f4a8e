"""Sums over batches, added by a tree that depends on the order of the batches and on nothing else.

Batch `i` is leaf `i` of a binary tree; a node of level `k` is the sum over `2**k` consecutive batches.
Two halves are added as soon as both are there, so that few sums are held whatever the order of arrival, and
every addition has the operands that it has in any other order: the same bits. (Pairwise summation also has a
smaller rounding error than adding one after another: Higham, SIAM J. Sci. Comput. 14(4), 1993.)
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
class PartialSum:
    """A sum over consecutive batches.

    Attributes:
        arrays: the sums, float64. Writeable ones belong to the tree that they are given to, which adds in
            place.
        batches, rows: how many were added.
        by_worker: how many batches each worker computed.
        seconds: that computing the batches took.
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


def batch_sum(
    arrays: Sequence[Array], rows: int, worker: str, seconds: float, weight: int | None = None
) -> PartialSum:
    """Return the sum over one batch: its arrays in float64, times `weight` if given.

    Args:
        arrays: the batch's loss and gradients, of any floating-point dtype.
        rows: that the batch counts.
        worker: name of the process that computed it.
        seconds: that computing it took.
        weight: the rows, where `arrays` are means over them. A weight of 0 gives zeros whatever the arrays
            hold, since the mean over no rows is NaN.
    """
    with np.errstate(all="ignore"):
        sums = tuple(_weighed(array, weight) for array in arrays)
    return PartialSum(sums, 1, rows, {worker: 1}, seconds)


def _weighed(array: Array, weight: int | None) -> Array:
    if weight is None:
        return np.asarray(array, np.float64)
    if weight == 0:
        return np.zeros(array.shape)
    return np.asarray(np.multiply(array, np.float64(weight), dtype=np.float64))


def empty_sum(types: Iterable[ArrayType]) -> PartialSum:
    """Return the sum over no batches: zeros."""
    return PartialSum(tuple(np.zeros(item.shape) for item in types), 0, 0, {}, 0.0)


def rounded(total: PartialSum, types: Iterable[ArrayType], mean: bool) -> tuple[Array, ...]:
    """Return sums, divided by the rows for a mean, as copies in the types that were asked for."""
    divisor = total.rows if mean and total.rows else 1
    with np.errstate(all="ignore"):
        return tuple(
            np.asarray(array if divisor == 1 else np.true_divide(array, divisor))
            .astype(dtype_of(item.dtype))
            .reshape(item.shape)
            for array, item in zip(total.arrays, types, strict=True)
        )


def _added(left: PartialSum, right: PartialSum) -> PartialSum:
    with np.errstate(all="ignore"):
        arrays = tuple(_sum(a, b) for a, b in zip(left.arrays, right.arrays, strict=True))
    return PartialSum(
        arrays,
        left.batches + right.batches,
        left.rows + right.rows,
        Counter(left.by_worker) + Counter(right.by_worker),
        left.seconds + right.seconds,
    )


def _sum(left: Array, right: Array) -> Array:
    """Add two arrays, in the memory of one of them if it is writeable."""
    if left.flags.writeable:
        return np.add(left, right, out=left)
    if right.flags.writeable:
        return np.add(left, right, out=right)
    return np.asarray(np.add(left, right))


class SummationTree:
    """The tree of one accumulation: at most log2(batches) + 1 sums, and those whose sibling is missing."""

    def __init__(self) -> None:
        """Start without batches."""
        self._nodes: dict[tuple[int, int], PartialSum] = {}
        self._mark: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all sums held."""
        return sum(node.nbytes for node in self._nodes.values())

    @property
    def held(self) -> int:
        """Number of sums held."""
        return len(self._nodes)

    def add(self, index: int, batch: PartialSum) -> None:
        """Add batch `index`; each once, in any order."""
        self._place(0, index, batch)

    def mark(self, count: int) -> None:
        """Keep the sums of the first `count` batches apart from those of later ones until `release`.

        Must be called before any later batch is added.
        """
        self._mark = count

    def total(self) -> PartialSum | None:
        """Return the sum over the batches up to the mark, all of which must be there; None for no batches.

        It may be a sum that the tree holds: read-only, and valid until `release`.
        """
        assert self._mark is not None, "nothing was marked"
        total: PartialSum | None = None
        for key in reversed(_cover(self._mark)):
            node = _read_only(self._nodes[key])
            total = node if total is None else _added(node, total)
        return total

    def release(self) -> None:
        """Remove the mark and make the additions that it held up; the tree is then as if never marked."""
        self._mark = None
        for key in sorted(self._nodes):
            if (waiting := self._nodes.pop(key, None)) is not None:
                self._place(*key, waiting)

    def _place(self, level: int, place: int, node: PartialSum) -> None:
        while (other := (level, place ^ 1)) in self._nodes and not self._contains_mark(level + 1, place >> 1):
            sibling = self._nodes.pop(other)
            node = _added(sibling, node) if place & 1 else _added(node, sibling)
            level, place = level + 1, place >> 1
        self._nodes[level, place] = node

    def _contains_mark(self, level: int, place: int) -> bool:
        """Tell whether the mark lies within a node."""
        return self._mark is not None and place << level < self._mark < (place + 1) << level


def _cover(count: int) -> list[tuple[int, int]]:
    """Return the nodes that make up the first `count` leaves, from the left: one for each binary 1 of it."""
    nodes, start = [], 0
    for level in reversed(range(count.bit_length())):
        if count >> level & 1:
            nodes.append((level, start >> level))
            start += 1 << level
    return nodes


def _read_only(node: PartialSum) -> PartialSum:
    """Return the same sums as read-only views."""
    views = tuple(array.view() for array in node.arrays)
    for view in views:
        view.flags.writeable = False
    return PartialSum(views, node.batches, node.rows, node.by_worker, node.seconds)
