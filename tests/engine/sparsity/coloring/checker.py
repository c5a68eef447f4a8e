"""What a coloring promises, by brute force: a random matrix is compressed and read again."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire_engine.sparsity.coloring.recovery import direct_recovery
from gradwire_engine.sparsity.pattern import SparsityPattern


def sides(coloring: Any) -> tuple[Any, Any]:
    """The colors of columns and of rows; None where a side has none."""
    return getattr(coloring, "column_colors", None), getattr(coloring, "row_colors", None)


def check_numbers(coloring: Any) -> None:
    """Colors are int32, count from 0 without a gap, and as many are used as the coloring says."""
    found = 0
    for colors in sides(coloring):
        if colors is not None:
            assert colors.dtype == np.int32
            used = np.unique(colors[colors != -1])
            assert np.array_equal(used, np.arange(len(used)))
            found += len(used)
    assert coloring.count == found


def matrix_of(pattern: SparsityPattern, symmetric: bool = False, seed: int = 0) -> np.ndarray[Any, Any]:
    """A random matrix of the pattern."""
    matrix = np.random.default_rng(seed).normal(size=pattern.shape)
    return np.where(pattern.dense(), matrix + matrix.T if symmetric else matrix, 0.0)


def compressed(coloring: Any, matrix: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """The product of the matrix with each color's seed, column colors first."""
    by_column, by_row = sides(coloring)
    found = []
    for colors, operator in ((by_column, matrix), (by_row, matrix.T)):
        if colors is not None:
            for color in range(colors.max(initial=-1) + 1):
                found.append(np.array([line[colors == color].sum() for line in operator]))
    return found


def check_direct(coloring: Any, pattern: SparsityPattern, symmetric: bool = False) -> None:
    """Each entry is alone in its place: it comes back to the bit."""
    check_numbers(coloring)
    matrix = matrix_of(pattern, symmetric)
    vectors = compressed(coloring, matrix)
    found = direct_recovery(coloring, pattern)
    assert found.colors.dtype == found.positions.dtype == np.int32
    values = [vectors[color][place] for color, place in zip(found.colors, found.positions, strict=True)]
    assert np.array_equal(values, matrix[pattern.rows, pattern.indices])
