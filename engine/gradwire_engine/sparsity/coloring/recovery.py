"""Where each entry of a matrix is found in its compressed vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire_engine.sparsity.coloring.results import (
    BidirectionalColoring,
    ColumnColoring,
    RowColoring,
    StarColoring,
)
from gradwire_engine.sparsity.compiled import compiled, loop_arrays, mirror_images
from gradwire_engine.sparsity.pattern import SparsityPattern

Array = np.ndarray[Any, Any]
DirectColoring = ColumnColoring | RowColoring | BidirectionalColoring | StarColoring


@dataclass(frozen=True, eq=False)
class Recovery:
    """The value of entry k, in the pattern's order, is `compressed[colors[k]][positions[k]]`.

    Attributes:
        colors: int32, the number of the compressed vector; row colors come after column colors.
        positions: int32, the row of the entry for a column color, its column for a row color.
    """

    colors: Array
    positions: Array


def direct_recovery(coloring: DirectColoring, pattern: SparsityPattern) -> Recovery:
    """Say where the entries of a pattern are found, each alone in its place.

    An entry and its mirror image under a star coloring are read from the same place.

    Raises:
        ValueError: the coloring is none of this pattern.
    """
    rows, columns = pattern.shape
    indptr, indices = loop_arrays(pattern.indptr, pattern.indices)
    match coloring:
        case ColumnColoring(column_colors=colors):
            _check(colors, columns, "columns")
            return Recovery(colors[indices], pattern.rows)
        case RowColoring(row_colors=colors):
            _check(colors, rows, "rows")
            return Recovery(np.repeat(colors, np.diff(indptr)), pattern.indices)
        case BidirectionalColoring(column_colors=by_column, row_colors=by_row, column_count=count):
            _check(by_column, columns, "columns")
            _check(by_row, rows, "rows")
            alone = alone_in_row(indptr, indices, by_column, count)
            colors, positions = _from_either_side(indptr, indices, alone, by_column, by_row, count)
        case StarColoring(column_colors=by_column):
            _check(by_column, columns, "columns")
            alone = alone_in_row(indptr, indices, by_column, coloring.count)
            colors, positions = _from_either_triangle(indptr, indices, alone, by_column)
    return Recovery(colors, positions)


def _check(colors: Array, expected: int, side: str) -> None:
    if len(colors) != expected:
        raise ValueError(f"the coloring is of {len(colors)} {side}, but the pattern has {expected}")


@compiled
def alone_in_row(indptr: Array, indices: Array, colors: Array, count: int) -> Array:
    """Return whether an entry is the only one of its row in its column's color; neutral columns have none."""
    alone = np.zeros(len(indices), np.bool_)
    last = np.full(count, -1, np.int64)
    for i in range(len(indptr) - 1):
        start = indptr[i]
        for k in range(start, indptr[i + 1]):
            color = colors[indices[k]]
            if color >= 0:
                if last[color] < start:
                    alone[k] = True
                else:
                    alone[last[color]] = False
                last[color] = k
    return alone


@compiled
def _from_either_side(
    indptr: Array, indices: Array, alone: Array, by_column: Array, by_row: Array, column_count: int
) -> tuple[Array, Array]:
    colors, positions = np.empty(len(indices), np.int32), np.empty(len(indices), np.int32)
    for i in range(len(indptr) - 1):
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            if alone[k]:
                colors[k], positions[k] = by_column[j], i
            else:
                colors[k], positions[k] = column_count + by_row[i], j
    return colors, positions


@compiled
def _from_either_triangle(
    indptr: Array, indices: Array, alone: Array, by_column: Array
) -> tuple[Array, Array]:
    colors, positions = np.empty(len(indices), np.int32), np.empty(len(indices), np.int32)
    mirrors = mirror_images(indptr, indices)
    for i in range(len(indptr) - 1):
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            if j < i:
                colors[k], positions[k] = colors[mirrors[k]], positions[mirrors[k]]
            elif alone[k]:
                colors[k], positions[k] = by_column[j], i
            else:
                colors[k], positions[k] = by_column[i], j
    return colors, positions
