"""Solvers and decompositions of matrices."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray, graph_of, value_of, wrap
from gradwire.frontends.numpy.dispatch import implements
from gradwire.frontends.numpy.functions.manipulation.joining import common_dtype
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import SCI
from gradwire.graphs.nodes import DType, GraphValue, Shape
from gradwire.graphs.refusals import refuse


class EighResult(NamedTuple):
    """The result of `np.linalg.eigh`."""

    eigenvalues: Any
    eigenvectors: Any


class QRResult(NamedTuple):
    """The result of `np.linalg.qr`."""

    Q: Any
    R: Any


class SlogdetResult(NamedTuple):
    """The result of `np.linalg.slogdet`."""

    sign: Any
    logabsdet: Any


def _float_dtype(*arrays: Any) -> DType:
    """Return the dtype of computation: float32 stays, integers become float64.

    Raises:
        TypeError: an array has half precision, which NumPy's linear algebra lacks too.
    """
    kind = common_dtype(*arrays)
    if kind == np.float16:
        raise TypeError("array type float16 is unsupported in linalg")
    return kind if kind.kind == "f" else ops.FLOAT64


def _matrix(a: Any, square: bool = True) -> GraphValue:
    kind = _float_dtype(a)
    value = value_of(graph_of(a), a, kind)
    _check(value.shape, square)
    return value


def _check(shape: Shape, square: bool) -> None:
    if len(shape) < 2:
        raise np.linalg.LinAlgError(
            f"{len(shape)}-dimensional array given. Array must be at least two-dimensional"
        )
    if square and shape[-1] != shape[-2]:
        raise np.linalg.LinAlgError("Last 2 dimensions of the array must be square")


@implements("linalg.solve")
def solve(a: Any, b: Any) -> TracedArray:
    graph, kind = graph_of(a, b), _float_dtype(a, b)
    matrix, right = value_of(graph, a, kind), value_of(graph, b, kind)
    _check(matrix.shape, True)
    rows = right.shape[-1] if right.ndim == 1 else right.shape[-2]
    if rows != matrix.shape[-1]:
        raise ValueError(f"np.linalg.solve: shapes {matrix.shape} and {right.shape} do not fit")
    if right.ndim == 1:
        shape = matrix.shape[:-1]
    else:
        shape = ops.broadcast(matrix.shape[:-2], right.shape[:-2]) + right.shape[-2:]
    return wrap(graph.one("Solve", [matrix, right], shape, kind, SCI))


@implements("linalg.inv")
def inv(a: Any) -> TracedArray:
    matrix = _matrix(a)
    return wrap(matrix.graph.one("Inverse", [matrix], matrix.shape, matrix.dtype, SCI))


@implements("linalg.det")
def det(a: Any) -> TracedArray:
    matrix = _matrix(a)
    return wrap(matrix.graph.one("Det", [matrix], matrix.shape[:-2], matrix.dtype))


@implements("linalg.slogdet")
def slogdet(a: Any) -> SlogdetResult:
    matrix = _matrix(a)
    result = (matrix.shape[:-2], matrix.dtype)
    return SlogdetResult(*map(wrap, matrix.graph.emit("SlogDet", [matrix], [result, result], SCI)))


@implements("linalg.cholesky")
def cholesky(a: Any, /, *, upper: bool = False) -> TracedArray:
    matrix = _matrix(a)
    return wrap(matrix.graph.one("Cholesky", [matrix], matrix.shape, matrix.dtype, SCI, upper=int(upper)))


@implements("linalg.eigh")
def eigh(a: Any, UPLO: str = "L") -> EighResult:
    matrix = _matrix(a)
    results = [(matrix.shape[:-1], matrix.dtype), (matrix.shape, matrix.dtype)]
    lower = int(_lower(UPLO))
    return EighResult(*map(wrap, matrix.graph.emit("Eigh", [matrix], results, SCI, lower=lower)))


def _lower(triangle: str) -> bool:
    if triangle.upper() not in ("L", "U"):
        raise ValueError("UPLO argument must be 'L' or 'U'")
    return triangle.upper() == "L"


@implements("linalg.eigvalsh")
def eigvalsh(a: Any, UPLO: str = "L") -> TracedArray:
    """Compute by Eigh, which has an attribute for the triangle to read."""
    return eigh(a, UPLO).eigenvalues  # type: ignore[no-any-return]


@implements("linalg.qr")
def qr(a: Any, mode: str = "reduced") -> Any:
    if mode not in ("reduced", "r"):
        raise refuse(f"np.linalg.qr with mode={mode!r}", 'use mode "reduced" or "r"')
    matrix = _matrix(a, square=False)
    rank = min(matrix.shape[-2:])
    q, r = matrix.graph.emit(
        "QR",
        [matrix],
        [
            ((*matrix.shape[:-1], rank), matrix.dtype),
            ((*matrix.shape[:-2], rank, matrix.shape[-1]), matrix.dtype),
        ],
        SCI,
    )
    return wrap(r) if mode == "r" else QRResult(wrap(q), wrap(r))


class SVDResult(NamedTuple):
    """The result of `np.linalg.svd`."""

    U: Any
    S: Any
    Vh: Any


@implements("linalg.svd")
def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """Compute singular values, and the vectors of the reduced decomposition.

    Vectors of equal singular values have no derivative.
    """
    if hermitian:
        return _hermitian_svd(a, compute_uv)
    if not compute_uv:
        return svdvals(a)
    matrix = _matrix(a, square=False)
    rows, columns = matrix.shape[-2:]
    if full_matrices and rows != columns:
        raise refuse(
            f"np.linalg.svd of a {rows} x {columns} matrix with full_matrices=True",
            "the vectors beyond the first min(rows, columns) are not functions of the matrix: "
            "give full_matrices=False",
        )
    batch, rank, kind = matrix.shape[:-2], min(rows, columns), matrix.dtype
    results = [((*batch, rows, rank), kind), ((*batch, rank), kind), ((*batch, rank, columns), kind)]
    return SVDResult(*map(wrap, matrix.graph.emit("SVD", [matrix], results, SCI)))


def _hermitian_svd(a: Any, compute_uv: bool) -> Any:
    """Compute singular values of a symmetric matrix: absolute eigenvalues in descending order."""
    values, vectors = eigh(a)
    order = np.argsort(-np.abs(values), axis=-1)
    sizes = np.take_along_axis(np.abs(values), order, -1)
    if not compute_uv:
        return sizes
    left = np.take_along_axis(vectors, order[..., None, :], -1)
    signs = np.take_along_axis(np.sign(values), order, -1)
    return SVDResult(left, sizes, np.swapaxes(left * signs[..., None, :], -1, -2))


@implements("linalg.svdvals")
def svdvals(x: Any, /) -> TracedArray:
    matrix = _matrix(x, square=False)
    shape = (*matrix.shape[:-2], min(matrix.shape[-2:]))
    return wrap(matrix.graph.one("SvdValues", [matrix], shape, matrix.dtype, SCI))
