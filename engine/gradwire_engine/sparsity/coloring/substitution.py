"""Substitution: the entries of a symmetric matrix from the compressed vectors of an acyclic coloring.

A cell is one value of one compressed vector: that of a color at a row is the sum of the row's entries in
columns of the color. Of each tree in two colors, the cells of the leaves are single entries. Subtract each
from the cell at the other end of its edge and new leaves appear: from all leaves inwards, until the trees
are used up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire_engine.sparsity.coloring.results import AcyclicColoring
from gradwire_engine.sparsity.compiled import compiled, loop_arrays, mirror_images
from gradwire_engine.sparsity.pattern import SparsityPattern

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Substitution:
    """The order in which entries follow from one another; made once for a coloring.

    Attributes:
        pattern: the symmetric pattern.
        coloring: its acyclic coloring.
        mirrors: int64, for each entry of the pattern the number of its mirror image.
        steps: int64, the numbers of entries (one of each and its mirror image), each alone in the cell of its
            column's color at its row after those before it were subtracted.
        direct: how many of the steps, the first ones, are alone in their cells from the start.
        terms: the most cells that are added and subtracted to make one entry: 1 where all are direct.
    """

    pattern: SparsityPattern
    coloring: AcyclicColoring
    mirrors: Array
    steps: Array
    direct: int
    terms: int


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
    mirrors = mirror_images(*loop_arrays(pattern.indptr, pattern.indices))
    usable = np.ones(coloring.count * columns, np.bool_)
    steps, direct, terms = leaves_inwards(pattern.rows, pattern.indices, mirrors, colors, usable)
    diagonal = np.count_nonzero(mirrors == np.arange(len(mirrors)))
    if 2 * len(steps) - diagonal != pattern.nonzeros:
        raise ValueError("two colors of the coloring span a cycle: it is no acyclic coloring of this pattern")
    return Substitution(pattern, coloring, mirrors, steps, direct, terms)


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
        plan: what `substitution` made. compressed: float64 or float32, a row for each color and a column for
        each row of the matrix. Subtractions
            are made in float64; the values have the dtype of the compressed vectors.

    Raises:
        ValueError: the compressed vectors are none of this coloring.
    """
    pattern, colors = plan.pattern, plan.coloring.column_colors
    expected = (plan.coloring.count, pattern.shape[0])
    if compressed.shape != expected:
        raise ValueError(
            f"the compressed vectors have shape {compressed.shape}, but the coloring needs {expected}"
        )
    cells = np.array(compressed, np.float64).reshape(-1)
    usable = np.isfinite(cells)
    steps, direct = plan.steps, plan.direct
    if not usable.all():
        steps, direct, _ = leaves_inwards(pattern.rows, pattern.indices, plan.mirrors, colors, usable)
    wide, known = subtracted(pattern.rows, pattern.indices, plan.mirrors, colors, steps, direct, cells)
    with np.errstate(over="ignore"):
        values = wide.astype(compressed.dtype, copy=False)
    known &= np.isfinite(values) | ~np.isfinite(wide)
    values[~known] = np.nan
    return Substituted(values, np.flatnonzero(~known))


@compiled
def leaves_inwards(
    rows: Array, columns: Array, mirrors: Array, colors: Array, usable: Array
) -> tuple[Array, int, int]:
    """Return entries in an order in which each is alone in its cell.

    Return with them how many are alone from the start, and the most terms that make one. Entries that are
    alone from the start come first; later ones only from cells that are usable. First come, first served:
    trees are used up in layers, so that sums stay short, and none depends on another.
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
    steps = np.empty(len(rows), np.int64)
    pushed, made, most = 0, 0, 0
    for cell in range(len(usable)):
        if inside[cell] == 1:
            queue[pushed] = cell
            pushed += 1
    leaves, direct, head = pushed, 0, 0
    while head < pushed:
        cell = queue[head]
        head += 1
        if inside[cell] == 1:
            k = rest[cell]
            inside[cell] = 0
            steps[made] = k
            made += 1
            if head <= leaves:
                direct = made
            terms = sums[cell] + 1
            most = max(most, terms)
            mirror = mirrors[k]
            if mirror != k:
                across = np.int64(colors[columns[mirror]]) * height + rows[mirror]
                inside[across] -= 1
                rest[across] ^= mirror
                sums[across] += terms
                if inside[across] == 1 and usable[across]:
                    queue[pushed] = across
                    pushed += 1
    return steps[:made].copy(), direct, most


@compiled
def subtracted(
    rows: Array, columns: Array, mirrors: Array, colors: Array, steps: Array, direct: int, cells: Array
) -> tuple[Array, Array]:
    """Read the entries in the order of the steps, and subtract each from its mirror image's cell, in place.

    Return the values and whether each is known.
    """
    height = len(colors)
    values = np.full(len(rows), np.nan)
    known = np.zeros(len(rows), np.bool_)
    for at in range(len(steps)):
        k = steps[at]
        value = cells[np.int64(colors[columns[k]]) * height + rows[k]]
        mirror = mirrors[k]
        if at < direct or np.isfinite(value):
            values[k] = value
            values[mirror] = value
            known[k] = True
            known[mirror] = True
        if mirror != k:
            cells[np.int64(colors[columns[mirror]]) * height + rows[mirror]] -= value
    return values, known
