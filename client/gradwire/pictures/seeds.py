"""Which entries of a pattern share a color, and which columns or rows have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwire.pictures.coloring import Colors
from gradwire.pictures.pattern import Pattern


@dataclass(frozen=True, eq=False)
class Seeds:
    """A colored pattern.

    Attributes:
        entries: for each entry of the pattern the number of its color.
        sides: for each color what has it, "column" or "row".
        members: for each color how many columns or rows have it.
        text: how many colors there are, in words.
    """

    entries: npt.NDArray[np.int64]
    sides: tuple[str, ...]
    members: tuple[int, ...]
    text: str

    @property
    def count(self) -> int:
        """How many colors there are."""
        return len(self.sides)


def by_side(pattern: Pattern, partition: str, colors: Colors) -> Seeds:
    """Give entries the color of their column, or of their row.

    Args:
        pattern: the entries.
        partition: "column" or "row".
        colors: of each; negative for those that need no seed. Of a symmetric matrix, the entries of such a
            column are read from their mirror images: they have the color of those.
    """
    known, places = np.unique(colors[colors >= 0], return_inverse=True)
    numbers = np.full(len(colors), -1, np.int64)
    numbers[colors >= 0] = places
    owner, other = (
        (pattern.columns, pattern.rows) if partition == "column" else (pattern.rows, pattern.columns)
    )
    entries = numbers[owner]
    if (entries < 0).any():
        entries = np.where(entries < 0, numbers[other], entries)
    text = f"{counted(len(known), f'{partition} color')} for {counted(len(colors), partition)}"
    members = tuple(int(one) for one in np.bincount(places, minlength=len(known)))
    return Seeds(entries, (partition,) * len(known), members, text)


def by_both(pattern: Pattern, column_colors: Colors, row_colors: Colors) -> Seeds:
    """Give entries the color of their column where they are alone in their row in it, else of their row.

    Args:
        pattern: the entries.
        column_colors, row_colors: of each column and row, from 0; -1 for those that need no seed.
    """
    color = column_colors[pattern.columns].astype(np.int64)
    first = int(column_colors.max(initial=-1)) + 1
    _, places, counts = np.unique(
        pattern.rows * np.int64(first + 1) + color, return_inverse=True, return_counts=True
    )
    alone = (color >= 0) & (counts[places] == 1)
    entries = np.where(alone, color, first + row_colors[pattern.rows].astype(np.int64))
    second = int(row_colors.max(initial=-1)) + 1
    members = [
        int(one)
        for colors, count in ((column_colors, first), (row_colors, second))
        for one in np.bincount(colors[colors >= 0], minlength=count)
    ]
    text = f"{counted(first, 'column color')} and {counted(second, 'row color')}"
    return Seeds(entries, ("column",) * first + ("row",) * second, tuple(members), text)


def of_prepared(pattern: Pattern, prepared: Any) -> Seeds:
    """Give entries the colors that a prepared derivative is computed by."""
    columns, rows = prepared.column_colors, prepared.row_colors
    if columns is not None and rows is not None:
        return by_both(pattern, columns, rows)
    if rows is not None:
        seeds = by_side(pattern, "row", rows)
    else:
        none = np.full(pattern.shape[1], -1)
        seeds = by_side(pattern, "column", none if columns is None else columns)
    return seeds


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
