"""Sparse results: patterns, and the matrices that are made of them.

A pattern is coordinates in the order in which values travel; one permutation brings values to compressed
sparse rows (CSR). Matrices are SciPy's where SciPy is installed, else coordinates.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np

import gradwire_wire as wire
from gradwire.errors import InvalidArgumentError
from gradwire_wire.kinds import COLORING_NAMES
from gradwire_wire.v1 import derivative_pb2

Array = wire.Array


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates:
    """A sparse matrix as coordinates: what results are without SciPy.

    Attributes:
        rows, columns: of each value.
        values: the entries.
        shape: of the matrix.
    """

    rows: Array
    columns: Array
    values: Array
    shape: tuple[int, int]

    @property
    def nnz(self) -> int:
        """How many values there are."""
        return len(self.values)

    def toarray(self) -> Array:
        """Return the matrix as a dense array."""
        matrix: Array = np.zeros(self.shape, self.values.dtype)
        matrix[self.rows, self.columns] = self.values
        return matrix

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.values.dtype

    def astype(self, dtype: np.dtype[Any]) -> "Coordinates":
        """Return the matrix with its values converted."""
        return Coordinates(self.rows, self.columns, self.values.astype(dtype), self.shape)

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"<Coordinates of {rows:,} x {columns:,}, {self.nnz:,} values of {self.values.dtype.name}>"


@dataclass(frozen=True, slots=True)
class SparsePlan:
    """What a plan says of a sparse derivative.

    Attributes:
        pattern_id: names the pattern and the order in which values travel.
        nonzeros: entries of the pattern.
        shape: of the joint matrix: all outputs by all inputs.
        coloring: "column", "row", "bidirectional", "star" or "acyclic".
        column_colors, row_colors: seeds of either kind.
        dtype: of the values.
        dense_operators: operators that detection has no rule for and took for dense.
    """

    pattern_id: str
    nonzeros: int
    shape: tuple[int, int]
    coloring: str
    column_colors: int
    row_colors: int
    dtype: np.dtype[Any]
    dense_operators: tuple[str, ...] = ()

    @classmethod
    def from_proto(cls, plan: derivative_pb2.SparsePlan) -> "SparsePlan":
        """Read the sparse part of a plan in a message."""
        return cls(
            plan.pattern_id,
            plan.nonzeros,
            (plan.rows, plan.columns),
            COLORING_NAMES.get(plan.coloring, ""),
            plan.column_colors,
            plan.row_colors,
            wire.numpy_dtype(plan.dtype),
            tuple(plan.dense_operators),
        )

    def __str__(self) -> str:
        rows, columns = self.shape
        colors = " and ".join(
            f"{count:,} color{'s' * (count != 1)} of {side}"
            for count, side in ((self.column_colors, "columns"), (self.row_colors, "rows"))
            if count
        )
        named = f" ({self.coloring} coloring)" if self.coloring not in ("column", "row") else ""
        return f"{self.nonzeros:,} non-zeros of {rows:,} × {columns:,}; {colors or 'no seeds'}{named}"


@dataclass(frozen=True, eq=False)
class SparsityPattern:
    """Where a derivative may be non-zero.

    Rows run over the elements of the outputs (for a Hessian, of the inputs) one after another, columns over
    those of the inputs.

    Attributes:
        rows, columns: int32, the coordinates, in the order in which values travel.
        shape: of the matrix.
        pattern_id: names the pattern and its order.
    """

    rows: Array
    columns: Array
    shape: tuple[int, int]
    pattern_id: str = field(default="", compare=False)

    @property
    def nnz(self) -> int:
        """How many entries there are."""
        return len(self.rows)

    @cached_property
    def order(self) -> Array:
        """For each entry in CSR order its place in the order of travel."""
        # Rows ascend within each color: a stable sort merges few runs.
        places = self.rows.astype(np.int64) * max(1, self.shape[1]) + self.columns
        return np.argsort(places, kind="stable")

    @cached_property
    def indices(self) -> Array:
        """The columns in CSR order, int32."""
        return self.columns[self.order]

    @cached_property
    def indptr(self) -> Array:
        """Where each row begins in CSR order; of the dtype that SciPy takes without a copy."""
        counts = np.bincount(self.rows, minlength=self.shape[0])
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return ends.astype(np.int32) if self.nnz < 2**31 else ends

    def matrix(self, values: Array) -> Any:
        """Return the matrix with these values, which are in the order of travel.

        Matrices of one pattern share their index arrays: do not write to those.
        """
        if find_spec("scipy") is None:
            return Coordinates(self.rows, self.columns, values, self.shape)
        return _csr(values.take(self.order), self.indices, self.indptr, self.shape)

    def boolean(self) -> Any:
        """Return the pattern as a matrix of ones (True)."""
        return self.matrix(np.ones(self.nnz, bool))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pattern to a file of NumPy's `.npz` form; `gw.load_pattern` reads it."""
        with open(path, "wb") as file:
            np.savez(
                file,
                rows=self.rows,
                columns=self.columns,
                shape=np.array(self.shape, np.int64),
                pattern_id=np.array(self.pattern_id),
            )

    def __repr__(self) -> str:
        rows, columns = self.shape
        share = self.nnz / max(1, rows * columns)
        return f"<SparsityPattern of {rows:,} x {columns:,}, {self.nnz:,} entries ({share:.2g})>"


@dataclass(frozen=True, slots=True, eq=False)
class Colors:
    """The colors of a matrix's columns and rows: those of one color share a seed.

    Attributes:
        columns: int32, the color of each column from 0 on, -1 for those that need no seed; None where the
            plan has no seeds of columns.
        rows: the same of each row.
    """

    columns: Array | None
    rows: Array | None


def _csr(values: Array, indices: Array, indptr: Array, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_array

    matrix = csr_array((values, indices, indptr), shape=shape, copy=False)
    # Known, so that SciPy need not look: rows ascend and no coordinate comes twice.
    matrix.has_sorted_indices = True
    matrix.has_canonical_format = True
    return matrix


def load_pattern(path: str | os.PathLike[str]) -> SparsityPattern:
    """Read a pattern that `SparsityPattern.save` wrote.

    Raises:
        InvalidArgumentError: the file holds no pattern.
        OSError: it cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as parts:
            rows, columns = parts["rows"], parts["columns"]
            shape = tuple(int(extent) for extent in parts["shape"])
            pattern_id = str(parts["pattern_id"])
    except (KeyError, ValueError) as error:
        raise InvalidArgumentError(f"{os.fspath(path)} is no pattern of gradwire: {error}") from None
    return SparsityPattern(rows, columns, (shape[0], shape[1]), pattern_id)


def coordinates_of(pattern: Any) -> tuple[Array, Array]:
    """Return the rows and columns of a pattern in one of the forms that users have.

    Raises:
        InvalidArgumentError: it is none of them.
    """
    if isinstance(pattern, SparsityPattern | Coordinates):
        return pattern.rows, pattern.columns
    if hasattr(pattern, "tocoo"):  # of SciPy
        found = pattern.tocoo()
        return found.row, found.col
    if isinstance(pattern, tuple | list) and len(pattern) == 2:
        rows, columns = (np.asarray(index) for index in pattern)
        if rows.ndim == columns.ndim == 1 and rows.size == columns.size:
            return rows, columns
    elif isinstance(pattern, np.ndarray) and pattern.dtype == bool and pattern.ndim == 2:
        rows, columns = np.nonzero(pattern)
        return rows, columns
    raise InvalidArgumentError(
        "sparse= takes True, False, 'auto', or a pattern: a gw.SparsityPattern, a SciPy sparse matrix, a "
        f"boolean matrix, or rows and columns, not {type(pattern).__name__}"
    )


def blocks_of(matrix: Any, heights: Sequence[int], widths: Sequence[int]) -> list[Any]:
    """Cut a joint matrix to one matrix for each pair of heights and widths, row by row.

    Args:
        matrix: SciPy's, or `Coordinates`.
        heights, widths: rows and columns of the parts.
    """
    if len(heights) == 1 and len(widths) == 1:
        return [matrix]
    tops, lefts = np.cumsum([0, *heights]), np.cumsum([0, *widths])
    return [
        _part(matrix, slice(tops[i], tops[i + 1]), slice(lefts[j], lefts[j + 1]))
        for i in range(len(heights))
        for j in range(len(widths))
    ]


def _part(matrix: Any, rows: slice, columns: slice) -> Any:
    if not isinstance(matrix, Coordinates):
        return matrix[rows, columns]
    inside = (matrix.rows >= rows.start) & (matrix.rows < rows.stop)
    inside &= (matrix.columns >= columns.start) & (matrix.columns < columns.stop)
    return Coordinates(
        matrix.rows[inside] - rows.start,
        matrix.columns[inside] - columns.start,
        matrix.values[inside],
        (rows.stop - rows.start, columns.stop - columns.start),
    )
