"""Colorings: which columns and rows share a seed.

Colors are int32, numbered from 0; -1 is neutral: the column or row needs no seed. The same pattern has the
same coloring on every machine. The compressed vector of a column color is the sum of its columns, and has a
value a row; that of a row color is the sum of its rows, and has a value a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class ColumnColoring:
    """Columns of one color have no row in common.

    Attributes:
        column_colors: the color of each column.
        count: how many colors there are.
    """

    column_colors: Array
    count: int


@dataclass(frozen=True, eq=False)
class RowColoring:
    """Rows of one color have no column in common.

    Attributes:
        row_colors: the color of each row.
        count: how many colors there are.
    """

    row_colors: Array
    count: int


@dataclass(frozen=True, eq=False)
class BidirectionalColoring:
    """Each entry is alone in its row in its column's color, or alone in its column in its row's color.

    Attributes:
        column_colors: the color of each column.
        row_colors: the color of each row, from 0 again.
        column_count: how many column colors there are.
        row_count: how many row colors there are.
    """

    column_colors: Array
    row_colors: Array
    column_count: int
    row_count: int

    @property
    def count(self) -> int:
        """How many colors there are on both sides; row colors are numbered after the column colors."""
        return self.column_count + self.row_count


@dataclass(frozen=True, eq=False)
class StarColoring:
    """Each entry of a symmetric matrix, or its mirror image, is alone in its row in its column's color.

    As a graph, where the diagonal is full: neighbors differ in color, and any two colors span stars.

    Attributes:
        column_colors: the color of each column.
        count: how many colors there are.
    """

    column_colors: Array
    count: int


@dataclass(frozen=True, eq=False)
class AcyclicColoring:
    """Entries of a symmetric matrix follow from one another by substitution.

    As a graph: neighbors differ in color, and any two colors span trees.

    Attributes:
        column_colors: the color of each column.
        count: how many colors there are.
    """

    column_colors: Array
    count: int


Coloring = ColumnColoring | RowColoring | BidirectionalColoring | StarColoring | AcyclicColoring
SymmetricColoring = StarColoring | AcyclicColoring
