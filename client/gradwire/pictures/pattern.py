"""The sparsity pattern of a matrix, dense or sparse."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwire.sparse import Coordinates, SparsityPattern

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pattern:
    """The positions of the nonzeros of a matrix, each once, row by row.

    Attributes:
        shape: rows and columns.
        rows, columns: indices of the nonzeros, sorted by row, then column.
    """

    shape: tuple[int, int]
    rows: Indices
    columns: Indices

    @property
    def nnz(self) -> int:
        """The number of nonzeros."""
        return len(self.rows)

    @property
    def density(self) -> float:
        """The fraction of entries that are nonzero."""
        return self.nnz / max(1, self.shape[0] * self.shape[1])

    def transposed(self) -> Pattern:
        """Return the pattern of the transpose."""
        return _sorted((self.shape[1], self.shape[0]), self.columns, self.rows)


def pattern_of(matrix: Any, row_axes: int | None = None) -> Pattern:
    """Return the pattern of a scipy.sparse matrix or array, or of anything that `np.asarray` takes.

    Stored zeros of a sparse matrix are nonzeros of its pattern, and so is NaN. A pattern that a server found
    is taken as it is.

    Args:
        matrix: the matrix. An array of other than two axes is a Jacobian of shape output.shape + input.shape,
            whose axes are flattened, row-major, to rows and columns.
        row_axes: how many axes are flattened to rows; by default the first half of them, if both halves have
            the same shape.

    Raises:
        ValueError: `row_axes` is out of range, or needed and not given, or a sparse array has not two axes.
        TypeError: the matrix has no numeric dtype.
    """
    if isinstance(matrix, SparsityPattern | Coordinates):
        return _sorted(matrix.shape, matrix.rows.astype(np.int64), matrix.columns.astype(np.int64))
    if hasattr(matrix, "tocoo"):
        entries = matrix.tocoo()
        if len(entries.shape) != 2:
            raise ValueError(
                f"a sparse array of shape {tuple(entries.shape)} is no matrix: reshape it to two axes"
            )
        return _sorted(
            (int(entries.shape[0]), int(entries.shape[1])),
            entries.row.astype(np.int64),
            entries.col.astype(np.int64),
        )
    array = np.asarray(matrix)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{type(matrix).__name__} is no matrix of numbers: pass a sparse matrix or an array")
    axes = _row_axes(array.shape) if row_axes is None else row_axes
    if not 0 <= axes <= array.ndim:
        raise ValueError(f"row_axes={row_axes} is not within the {array.ndim} axes of shape {array.shape}")
    flat = array.reshape(prod(array.shape[:axes]), prod(array.shape[axes:]))
    rows, columns = np.nonzero(flat)
    return Pattern((flat.shape[0], flat.shape[1]), rows.astype(np.int64), columns.astype(np.int64))


def _row_axes(shape: tuple[int, ...]) -> int:
    half = len(shape) // 2
    if len(shape) == 2:
        return 1
    if len(shape) < 2:
        return 0
    if len(shape) % 2 == 0 and shape[:half] == shape[half:]:
        return half
    raise ValueError(
        f"an array of shape {shape} does not tell which of its axes are those of the output: "
        "say how many with row_axes="
    )


def _sorted(shape: tuple[int, int], rows: Indices, columns: Indices) -> Pattern:
    keys = rows * np.int64(max(1, shape[1])) + columns
    if not np.all(keys[1:] > keys[:-1]):
        keys.sort(kind="stable")
        keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    return Pattern(shape, keys // max(1, shape[1]), keys % max(1, shape[1]))
