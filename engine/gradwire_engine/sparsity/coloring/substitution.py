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
from gradwire_engine.sparsity.coloring.subtraction import Steps
from gradwire_engine.sparsity.compiled import compiled, loop_arrays, mirror_images
from gradwire_engine.sparsity.pattern import SparsityPattern

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Substitution:
    """Which cells are read, and the order in which entries follow from them; made once for a coloring.

    An entry and its mirror image are one value. One that is alone in its cell is that cell to the bit. Any
    other is a sum of at most `terms` cells of its tree, each once and with a sign: cell by cell from the
    leaves of its tree up to its own. So its error is at most

        the sum of the errors of these cells + (terms - 1) * u * the sum of their magnitudes,

    to first order in the unit roundoff u = 2**-53. `terms` is at most the number of edges of the largest tree
    that is no star (`color_acyclic`, `largest`). A small entry is not accurate relative to itself where its
    tree has large ones: an entry that is 0 at a point may come out as their rounding error. The diagonal
    stands in no tree: each of its entries is alone in its cell.

    Whether it has, and whether a cell is not finite, `accurate` tells of each point.

    Attributes:
        cells: int64, ascending: color times the number of rows plus row, of each cell that is read.
        sources: int32, for each entry the number among `cells` of the one in which it is left alone.
        steps: what is subtracted from what.
        terms: the most cells that make one entry: 1 where all are read directly.
    """

    cells: Array
    sources: Array
    steps: Steps
    terms: int


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
    indptr, indices = loop_arrays(pattern.indptr, pattern.indices)
    mirrors = mirror_images(indptr, indices)
    sources, minuends, subtrahends, depths, terms = leaves_inwards(
        pattern.rows, indices, mirrors, colors, coloring.count
    )
    if (sources < 0).any():
        raise ValueError("two colors of the coloring span a cycle: it is no acyclic coloring of this pattern")
    cells = np.unique(sources)
    # Only what is read needs to be made: the last cell of a tree is not.
    made = np.isin(minuends, cells)
    depths = depths[made]
    places = np.searchsorted(cells, sources)
    entries = np.empty(len(cells), np.int64)
    entries[places] = np.arange(pattern.nonzeros)
    steps = Steps(
        minuends=np.searchsorted(cells, minuends[made]),
        subtrahends=np.searchsorted(cells, subtrahends[made]),
        layers=np.searchsorted(depths, np.arange(depths.max(initial=-1) + 2)),
        rows=pattern.rows[entries].astype(np.int64),
        columns=pattern.indices[entries].astype(np.int64),
    )
    return Substitution(cells, places.astype(np.int32), steps, terms)


@compiled
def leaves_inwards(
    rows: Array, columns: Array, mirrors: Array, colors: Array, count: int
) -> tuple[Array, Array, Array, Array, int]:
    """Find for each entry a cell in which it is alone, after others were subtracted.

    Trees are used up in layers, so that sums stay short. Returns for each entry its cell (-1: none), the
    cells from which others are subtracted, those others, and their depths, all in order; and the most cells
    that make an entry.
    """
    height = len(colors)
    inside = np.zeros(count * height, np.int32)
    rest = np.zeros(count * height, np.int64)  # the numbers of the entries inside, by exclusive or
    sums = np.zeros(count * height, np.int32)
    depth = np.zeros(count * height, np.int32)
    for k in range(len(rows)):
        cell = np.int64(colors[columns[k]]) * height + rows[k]
        inside[cell] += 1
        rest[cell] ^= k
    queue = np.empty(min(len(inside), len(rows)), np.int64)
    pushed = 0
    for cell in range(len(inside)):
        if inside[cell] == 1:
            queue[pushed] = cell
            pushed += 1
    sources = np.full(len(rows), -1, np.int64)
    minuends, subtrahends = np.empty(len(queue), np.int64), np.empty(len(queue), np.int64)
    depths = np.empty(len(queue), np.int32)
    head, made, most = 0, 0, 0
    while head < pushed:
        cell = queue[head]
        head += 1
        if inside[cell] == 1:
            k = rest[cell]
            mirror = mirrors[k]
            sources[k] = cell
            sources[mirror] = cell
            inside[cell] = 0
            most = max(most, sums[cell] + 1)
            if mirror != k:
                across = np.int64(colors[columns[mirror]]) * height + rows[mirror]
                inside[across] -= 1
                rest[across] ^= mirror
                sums[across] += sums[cell] + 1
                depth[across] = max(depth[across], depth[cell] + 1)
                minuends[made], subtrahends[made], depths[made] = across, cell, depth[cell]
                made += 1
                if inside[across] == 1:
                    queue[pushed] = across
                    pushed += 1
    return sources, minuends[:made].copy(), subtrahends[:made].copy(), depths[:made].copy(), most
