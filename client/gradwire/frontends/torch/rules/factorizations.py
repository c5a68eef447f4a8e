"""Rules for factorizations of matrices, least squares and the pseudo-inverse."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import wrap
from gradwire.frontends.torch.lowering import Array, Call, rule
from gradwire.frontends.torch.rules.elementwise import where
from gradwire.frontends.torch.rules.linear_algebra import solve_triangular
from gradwire.graphs.builder import SCI

_INT32 = np.dtype(np.int32)


@rule("_linalg_svd")
def svd(call: Call, a: Array, full_matrices: bool = False, compute_uv: bool = True, **_: Any) -> Any:
    """Give singular values and vectors; the vectors of equal values have no derivative."""
    rows, columns = a.shape[-2:]
    rank = min(rows, columns)
    if not compute_uv:
        values = call.graph.one("SvdValues", [call.value(a)], (*a.shape[:-2], rank), a.dtype, SCI)
        vectors = call.unavailable("the vectors", "use torch.linalg.svd")
        return vectors, wrap(values), vectors
    batch = a.shape[:-2]
    results = [((*batch, rows, rank), a.dtype), ((*batch, rank), a.dtype), ((*batch, rank, columns), a.dtype)]
    u, s, vh = map(wrap, call.graph.emit("SVD", [call.value(a)], results, SCI))
    if full_matrices and rows != columns:
        whole = call.unavailable("with full_matrices=True", "use full_matrices=False")
        return (whole if rows > columns else u), s, (whole if columns > rows else vh)
    return u, s, vh


def pseudo_inverse(call: Call, a: Array, tolerance: Any) -> Any:
    """Return the pseudo-inverse; smaller singular values than the largest times `tolerance` count as 0."""
    shape = (*a.shape[:-2], a.shape[-1], a.shape[-2])
    operands = [call.value(a), call.value(tolerance, a.dtype)]
    return wrap(call.graph.one("Pinv", operands, shape, a.dtype, SCI))


def _precision(a: Array) -> float:
    precision: float = float(np.finfo(a.dtype).eps) * max(a.shape[-2:])
    return precision


@rule("linalg_pinv")
def pinv(
    call: Call, a: Array, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Any:
    if hermitian or atol is not None:
        raise call.refuse("with hermitian or atol", "use rtol alone")
    given = rcond if rtol is None else rtol
    return pseudo_inverse(call, a, _precision(a) if given is None else given)


@rule("linalg_lstsq")
def lstsq(call: Call, a: Array, b: Array, rcond: Any = None, *, driver: str | None = None) -> Any:
    solution = np.matmul(pseudo_inverse(call, a, _precision(a) if rcond is None else rcond), b)
    others = call.unavailable("residuals, rank and singular values", "compute them from the solution")
    return solution, others, others, others


def _lu(call: Call, a: Array) -> tuple[Any, Any, Any]:
    batch, (rows, columns) = a.shape[:-2], a.shape[-2:]
    results = [(a.shape, a.dtype), ((*batch, min(rows, columns)), _INT32), ((*batch, rows), _INT32)]
    factors, pivots, permutation = map(wrap, call.graph.emit("LU", [call.value(a)], results, SCI))
    return factors, pivots, permutation


def _parts(factors: Array, permutation: Array) -> tuple[Any, Any, Any]:
    """Return P, L and U, so that A = P L U."""
    rows, columns = factors.shape[-2:]
    rank = min(rows, columns)
    lower = np.tril(factors[..., :, :rank], -1) + np.eye(rows, rank, dtype=factors.dtype)
    places = np.equal(permutation[..., None, :], np.arange(rows)[:, None])
    return places.astype(factors.dtype), lower, np.triu(factors[..., :rank, :])


@rule("linalg_lu")
def lu(call: Call, a: Array, *, pivot: bool = True) -> Any:
    if not pivot:
        raise call.refuse("with pivot=False", "use pivot=True")
    factors, _, permutation = _lu(call, a)
    return _parts(factors, permutation)


@rule("linalg_lu_factor_ex")
def lu_factor(call: Call, a: Array, *, pivot: bool = True, check_errors: bool = False) -> Any:
    if not pivot:
        raise call.refuse("with pivot=False", "use pivot=True")
    factors, pivots, _ = _lu(call, a)
    return factors, pivots + np.int32(1), np.zeros(a.shape[:-2], np.int32)


def _permutation(call: Call, pivots: Array, rows: int) -> Any:
    zero_based = call.value(pivots - np.int32(1), _INT32)
    shape = (*pivots.shape[:-1], rows)
    return wrap(call.graph.one("PivotsToPermutation", [zero_based], shape, _INT32, SCI, size=rows))


@rule("lu_unpack")
def lu_unpack(
    call: Call, factors: Array, pivots: Array, unpack_data: bool = True, unpack_pivots: bool = True
) -> Any:
    return _parts(factors, _permutation(call, pivots, factors.shape[-2]))


@rule("linalg_lu_solve")
def lu_solve(
    call: Call, factors: Array, pivots: Array, b: Array, *, left: bool = True, adjoint: bool = False
) -> Any:
    if not left:
        turned = lu_solve(call, factors, pivots, np.swapaxes(b, -1, -2), adjoint=not adjoint)
        return np.swapaxes(turned, -1, -2)
    permute, _, _ = _parts(factors, _permutation(call, pivots, factors.shape[-2]))
    if adjoint:
        mirrored = np.swapaxes(factors, -1, -2)
        half = solve_triangular(call, mirrored, b, upper=False)
        return np.matmul(permute, solve_triangular(call, mirrored, half, upper=True, unitriangular=True))
    half = solve_triangular(
        call, factors, np.matmul(np.swapaxes(permute, -1, -2), b), upper=False, unitriangular=True
    )
    return solve_triangular(call, factors, half, upper=True)


_PADE = (
    64764752532480000.0, 32382376266240000.0, 7771770303897600.0, 1187353796428800.0, 129060195264000.0,
    10559470521600.0, 670442572800.0, 33522128640.0, 1323241920.0, 40840800.0, 960960.0, 16380.0, 182.0, 1.0,
)  # fmt: skip
"""Coefficients of the diagonal approximant of order 13 (Higham, 2005)."""

_PADE_NORM, _MOST_SQUARINGS = 5.371920351148152, 20


@rule("linalg_matrix_exp", "matrix_exp")
def matrix_exp(call: Call, a: Array) -> Any:
    """Scaling and squaring; matrices of a norm beyond five million become NaN."""
    size = np.max(np.sum(np.abs(a), axis=-2, keepdims=True), axis=-1, keepdims=True)
    wanted = np.ceil(np.log2(np.maximum(size, _PADE_NORM) / _PADE_NORM))
    squarings = call.frozen(np.minimum(wanted, _MOST_SQUARINGS))
    scaled = a * np.exp2(-squarings)
    identity = np.eye(a.shape[-1], dtype=call.dtype)
    powers = [identity]
    square = np.matmul(scaled, scaled)
    for _ in range(6):
        powers.append(np.matmul(powers[-1], square) if len(powers) > 1 else square)
    even = sum((power * _PADE[2 * k] for k, power in enumerate(powers[1:], 1)), identity * _PADE[0])
    odd = sum((power * _PADE[2 * k + 1] for k, power in enumerate(powers[1:], 1)), identity * _PADE[1])
    odd = np.matmul(scaled, odd)
    result = np.linalg.solve(even - odd, even + odd)
    for step in range(_MOST_SQUARINGS):
        result = where(call, np.less(step, squarings), np.matmul(result, result), result)
    return where(call, np.greater(wanted, _MOST_SQUARINGS), np.nan, result)
