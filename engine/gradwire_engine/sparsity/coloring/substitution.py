"""Substitution: the entries of a symmetric matrix from the compressed vectors of an acyclic coloring.

A cell is one value of one compressed vector: that of a color at a row is the sum of the row's entries in
columns of the color. Of each tree in two colors, the cells of the leaves are single entries. Subtract each
from the cell at the other end of its edge and new leaves appear: from all leaves inwards, until the trees
are used up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gradwire_engine.sparsity.coloring.results import AcyclicColoring
from gradwire_engine.sparsity.compiled import compiled, loop_arrays, mirror_images
from gradwire_engine.sparsity.pattern import SparsityPattern

Array = np.ndarray[Any, Any]


class Ways(NamedTuple):
    """How entries come out of cells.

    Attributes:
        sources: int64, for each entry the cell in which it is alone after the subtractions, the same as its
        mirror
            image's; -1 where there is none.
        direct: bool, for each entry whether it is alone in its cell from the start.
        minuends: int64, the cells from which others are subtracted, in order.
        subtrahends: int64, the cells that are subtracted from them.
        terms: the most cells that make one entry.
    """

    sources: Array
    direct: Array
    minuends: Array
    subtrahends: Array
    terms: int


@dataclass(frozen=True, eq=False)
class Substitution:
    """The order in which entries follow from one another; made once for a coloring.

    Cells are numbered color by color: cell `color * rows + row`.

    Attributes:
        pattern: the symmetric pattern.
        coloring: its acyclic coloring.
        mirrors: int64, for each entry of the pattern the number of its mirror image.
        ways: where the entries are once all cells of leaves are subtracted.
    """

    pattern: SparsityPattern
    coloring: AcyclicColoring
    mirrors: Array
    ways: Ways

    @property
    def terms(self) -> int:
        """The most cells that are added and subtracted to make one entry: 1 where all are read directly."""
        return self.ways.terms


@dataclass(frozen=True, eq=False)
class Substituted:
    """Entries of a symmetric matrix.

    Attributes:
        values: in the order of the pattern; NaN where unresolved.
        unresolved: int64, the numbers of entries that did not follow, ascending, with their mirror images.
    """

    values: Array
    unresolved: Array


def substitution(coloring: AcyclicColoring, pattern: SparsityPattern) -> Substitution:
    """Order the entries of a symmetric pattern so that each follows from those before it.

    Raises:
        ValueError: the coloring is none of this pattern, or two of its colors span a cycle.
    """
    colors, columns = coloring.column_colors, pattern.shape[1]
    if len(colors) != columns:
        raise ValueError(f"the coloring is of {len(colors)} columns, but the pattern has {columns}")
    if pattern.nonzeros and colors[pattern.indices].min() < 0:
        raise ValueError("the coloring leaves a column neutral that has entries in this pattern")
    mirrors = mirror_images(*loop_arrays(pattern.indptr, pattern.indices))
    usable = np.ones(coloring.count * columns, np.bool_)
    ways = Ways(*leaves_inwards(*_entries(pattern), mirrors, colors, usable))
    if (ways.sources < 0).any():
        raise ValueError("two colors of the coloring span a cycle: it is no acyclic coloring of this pattern")
    return Substitution(pattern, coloring, mirrors, ways)


def substitute(plan: Substitution, compressed: Array) -> Substituted:
    """Return the entries of a symmetric matrix, in the order of its pattern, from its compressed vectors.

    An entry and its mirror image are the same value to the bit. An entry that is alone in a cell from the
    start is that cell to the bit. Any other is a sum of at most `plan.terms` cells of its tree, with signs.
    Its error is at most the sum of the errors of these cells, and to first order `(terms - 1) * eps / 2`
    times the sum of their magnitudes for rounding. So a small entry is not accurate relative to itself where
    its tree has large ones.

    A cell that is not finite is read only where an entry is alone in it from the start, so that no NaN or
    infinity spreads: all other values are computed from finite cells. Then the entries of its tree follow
    from the other cells, except those that are themselves not finite and those between two cells that are
    not. These, and entries that overflow on the way, are returned as unresolved, and are to be computed
    directly: with a star coloring of the pattern. No value that is not named there depends on another entry
    that is not finite.

    Args:
        plan: what `substitution` made.
        compressed: float64 or float32, a row for each color and a column for each row of the matrix.
            Subtractions are made in float64; the values have the dtype of the compressed vectors.

    Raises:
        ValueError: the compressed vectors are none of this coloring.
    """
    pattern = plan.pattern
    expected = (plan.coloring.count, pattern.shape[0])
    if compressed.shape != expected:
        raise ValueError(
            f"compressed vectors have shape {compressed.shape}, but the coloring needs {expected}"
        )
    cells = np.array(compressed, np.float64).reshape(-1)
    usable = np.isfinite(cells)
    ways = plan.ways
    if not usable.all():
        ways = Ways(*leaves_inwards(*_entries(pattern), plan.mirrors, plan.coloring.column_colors, usable))
    wide, known = subtracted(cells, ways.sources, ways.direct, ways.minuends, ways.subtrahends)
    with np.errstate(over="ignore"):
        values = wide.astype(compressed.dtype, copy=False)
    known &= np.isfinite(values) | ~np.isfinite(wide)
    values[~known] = np.nan
    return Substituted(values, np.flatnonzero(~known))


def _entries(pattern: SparsityPattern) -> tuple[Array, Array]:
    """Return row and column of all entries."""
    return pattern.rows, loop_arrays(pattern.indptr, pattern.indices)[1]


@compiled
def leaves_inwards(
    rows: Array, columns: Array, mirrors: Array, colors: Array, usable: Array
) -> tuple[Array, Array, Array, Array, int]:
    """Find for each entry a cell in which it is alone, after others were subtracted; return `Ways`.

    Entries that are alone from the start come first; later ones only from cells that are usable. First come,
    first served: trees are used up in layers, so that sums stay short, and none depends on another.
    """
    height = len(colors)
    inside = np.zeros(len(usable), np.int32)
    rest = np.zeros(len(usable), np.int64)  # the numbers of the entries inside, by exclusive or
    sums = np.zeros(len(usable), np.int32)
    for k in range(len(rows)):
        cell = np.int64(colors[columns[k]]) * height + rows[k]
        inside[cell] += 1
        rest[cell] ^= k
    queue = np.empty(min(len(usable), len(rows)), np.int64)
    pushed = 0
    for cell in range(len(usable)):
        if inside[cell] == 1:
            queue[pushed] = cell
            pushed += 1
    sources, direct = np.full(len(rows), -1, np.int64), np.zeros(len(rows), np.bool_)
    minuends, subtrahends = np.empty(len(queue), np.int64), np.empty(len(queue), np.int64)
    leaves, head, made, most = pushed, 0, 0, 0
    while head < pushed:
        cell = queue[head]
        head += 1
        if inside[cell] == 1:
            k = rest[cell]
            mirror = mirrors[k]
            for entry in (k, mirror):
                sources[entry] = cell
                direct[entry] = head <= leaves
            inside[cell] = 0
            most = max(most, sums[cell] + 1)
            if mirror != k:
                across = np.int64(colors[columns[mirror]]) * height + rows[mirror]
                inside[across] -= 1
                rest[across] ^= mirror
                sums[across] += sums[cell] + 1
                minuends[made], subtrahends[made] = across, cell
                made += 1
                if inside[across] == 1 and usable[across]:
                    queue[pushed] = across
                    pushed += 1
    # Only what is read needs to be made.
    for k in range(len(rows)):
        if sources[k] >= 0:
            inside[sources[k]] = -1
    kept = 0
    for at in range(made):
        if inside[minuends[at]] == -1:
            minuends[kept], subtrahends[kept] = minuends[at], subtrahends[at]
            kept += 1
    return sources, direct, minuends[:kept].copy(), subtrahends[:kept].copy(), most


@compiled
def subtracted(
    cells: Array, sources: Array, direct: Array, minuends: Array, subtrahends: Array
) -> tuple[Array, Array]:
    """Subtract cells from one another, in place; return the entries and whether each is known."""
    for at in range(len(minuends)):
        cells[minuends[at]] -= cells[subtrahends[at]]
    values = np.full(len(sources), np.nan)
    known = np.zeros(len(sources), np.bool_)
    for k in range(len(sources)):
        if sources[k] >= 0:
            value = cells[sources[k]]
            if direct[k] or np.isfinite(value):
                values[k] = value
                known[k] = True
    return values, known
