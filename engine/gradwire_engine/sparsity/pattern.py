"""Sparsity patterns: where a matrix may be non-zero."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gradwire_engine.sparsity.compiled import loop_arrays, transpose

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class SparsityPattern:
    """The positions at which a matrix may be non-zero, in compressed sparse row (CSR) form.

    Attributes:
        shape: rows and columns.
        indptr: int64, one more than rows: row i has entries `indptr[i] ... indptr[i + 1]`.
        indices: int32, the columns of all entries, ascending within each row.
    """

    shape: tuple[int, int]
    indptr: Array
    indices: Array

    @staticmethod
    def of_coordinates(
        rows: Iterable[int], columns: Iterable[int], shape: tuple[int, int]
    ) -> SparsityPattern:
        """Make a pattern of coordinates in any order; those given twice count once.

        Raises:
            ValueError: a coordinate is outside of the matrix.
        """
        row, column = np.asarray(rows, np.int64).ravel(), np.asarray(columns, np.int64).ravel()
        if row.shape != column.shape:
            raise ValueError(f"a pattern has {row.size} rows but {column.size} columns")
        for name, index, extent in (("row", row, shape[0]), ("column", column, shape[1])):
            outside = (index < 0) | (index >= extent)
            if outside.any():
                first = int(index[outside][0])
                raise ValueError(f"a pattern names {name} {first} of a matrix of {shape[0]} x {shape[1]}")
        # Both extents are below 2^31, so that one number names a position.
        flat = np.unique(row * shape[1] + column)
        indptr = np.searchsorted(flat, np.arange(shape[0] + 1, dtype=np.int64) * shape[1])
        return SparsityPattern(shape, indptr.astype(np.int64), (flat % max(1, shape[1])).astype(np.int32))

    @property
    def nonzeros(self) -> int:
        """How many entries there are."""
        return len(self.indices)

    @cached_property
    def rows(self) -> Array:
        """The row of each entry, int32, in the order of `indices`."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int32), np.diff(self.indptr))

    @cached_property
    def transposed(self) -> SparsityPattern:
        """The pattern of the transposed matrix."""
        rows, columns = self.shape
        return SparsityPattern((columns, rows), *transpose(*loop_arrays(self.indptr, self.indices), columns))

    @property
    def is_symmetric(self) -> bool:
        """Whether (j, i) is an entry where (i, j) is."""
        other = self.transposed
        return (
            self.shape[0] == self.shape[1]
            and np.array_equal(self.indptr, other.indptr)
            and np.array_equal(self.indices, other.indices)
        )

    def dense(self) -> Array:
        """Return the pattern as a boolean matrix; for small ones."""
        matrix = np.zeros(self.shape, bool)
        matrix[self.rows, self.indices] = True
        return matrix
