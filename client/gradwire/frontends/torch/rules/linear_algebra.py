"""Rules for matrix products, solvers and decompositions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradwire.errors import TraceError
from gradwire.frontends.numpy.arrays.array import wrap
from gradwire.frontends.torch.lowering import Array, Call, rule, with_slope_of
from gradwire.frontends.torch.rules.creation import of_dtype
from gradwire.frontends.torch.rules.elementwise import where
from gradwire.frontends.torch.rules.reductions import norm_over
from gradwire.graphs.builder import SCI
from gradwire.graphs.nodes import Shape


def _no_info(shape: Shape) -> np.ndarray[Any, Any]:
    """Return the `info` of a success: values are not known here, and a missing result becomes NaN."""
    return np.zeros(shape, np.int32)


def _factors(call: Call) -> TraceError:
    return call.unavailable("the factors", "use torch.linalg.solve, inv, det or slogdet")


@rule("mm", "bmm", "mv", "dot", "vdot", "matmul")
def matmul(call: Call, a: Array, b: Array) -> Any:
    return np.matmul(of_dtype(a, call.dtype), of_dtype(b, call.dtype))


@rule("addmm", "addmv", "baddbmm")
def addmm(call: Call, c: Array, a: Array, b: Array, beta: Any = 1, alpha: Any = 1) -> Any:
    product = np.matmul(a, b)
    if alpha != 1:
        product = product * alpha
    if beta == 0:  # then c is not read: its NaN does not propagate
        return product
    return product + (c if beta == 1 else c * beta)


@rule("_linalg_solve_ex", "linalg_solve_ex")
def solve(call: Call, a: Array, b: Array, *, left: bool = True, **_: Any) -> Any:
    """`b` is a vector, or a stack of vectors, if it has one axis less than `a`."""
    if not left:
        turned = np.linalg.solve(np.swapaxes(a, -1, -2), np.swapaxes(b, -1, -2))
        factors = _factors(call)
        return np.swapaxes(turned, -1, -2), factors, factors, _no_info(a.shape[:-2])
    vectors = b.ndim == 1 or (a.ndim - 1 == b.ndim and a.shape[:-1] == b.shape)
    right = b[..., None] if vectors else b
    solution = np.linalg.solve(a, right)
    factors = _factors(call)
    return solution.reshape(call.shape), factors, factors, _no_info(a.shape[:-2])


@rule("linalg_inv_ex", "inverse")
def inverse(call: Call, a: Array, **_: Any) -> Any:
    result = np.linalg.inv(a)
    return (result, _no_info(a.shape[:-2])) if call.op == "linalg_inv_ex" else result


@rule("_linalg_det")
def det(call: Call, a: Array) -> Any:
    return np.linalg.det(a), _factors(call), _factors(call)


@rule("_linalg_slogdet")
def slogdet(call: Call, a: Array) -> Any:
    return (*np.linalg.slogdet(a), _factors(call), _factors(call))


def _symmetric(a: Array, upper: bool) -> Any:
    """Return the symmetric matrix of one triangle; both triangles share its derivative, as in PyTorch."""
    mirrored = np.swapaxes(a, -1, -2)
    whole = np.triu(a) + np.tril(mirrored, -1) if upper else np.tril(a) + np.triu(mirrored, 1)
    return with_slope_of((a + mirrored) * 0.5, whole)


@rule("linalg_cholesky_ex", "cholesky")
def cholesky(call: Call, a: Array, *args: Any, **kwargs: Any) -> Any:
    upper = bool(kwargs.get("upper", args[0] if args else False))
    source = call.value(_symmetric(a, upper))
    factor = call.emit("Cholesky", source, domain=SCI, upper=int(upper), symmetrize=1)
    return factor if call.op == "cholesky" else (factor, _no_info(a.shape[:-2]))


@rule("linalg_solve_triangular")
def solve_triangular(
    call: Call, a: Array, b: Array, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Any:
    if not left:
        a, b, upper = np.swapaxes(a, -1, -2), np.swapaxes(b, -1, -2), not upper
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    solution = wrap(
        call.graph.one(
            "TriangularSolve",
            [call.value(a), call.value(b)],
            (*batch, *b.shape[-2:]),
            call.dtype,
            SCI,
            lower=int(not upper),
            unit_diagonal=int(unitriangular),
        )
    )
    return solution if left else np.swapaxes(solution, -1, -2)


@rule("triangular_solve")
def old_triangular_solve(
    call: Call, b: Array, a: Array, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    matrix = np.swapaxes(a, -1, -2) if transpose else a
    return solve_triangular(call, matrix, b, upper=upper != transpose, unitriangular=unitriangular), a


@rule("cholesky_solve")
def cholesky_solve(call: Call, b: Array, factor: Array, upper: bool = False) -> Any:
    if upper:
        factor = np.swapaxes(factor, -1, -2)
    half = solve_triangular(call, factor, b, upper=False)
    return solve_triangular(call, np.swapaxes(factor, -1, -2), half, upper=True)


@rule("cholesky_inverse")
def cholesky_inverse(call: Call, factor: Array, upper: bool = False) -> Any:
    identity = np.eye(factor.shape[-1], dtype=call.dtype)
    return cholesky_solve(call, wrap(call.graph.constant(identity)), factor, upper)


@rule("_linalg_eigh")
def eigh(call: Call, a: Array, UPLO: str = "L", compute_v: bool = True) -> Any:
    values, vectors = call.graph.emit(
        "Eigh",
        [call.value(_symmetric(a, UPLO.upper() == "U"))],
        [(a.shape[:-1], a.dtype), (a.shape, a.dtype)],
        SCI,
        lower=int(UPLO.upper() == "L"),
        symmetrize=1,
    )
    return wrap(values), wrap(vectors)


@rule("linalg_qr")
def qr(call: Call, a: Array, mode: str = "reduced") -> Any:
    if mode == "complete" and a.shape[-2] > a.shape[-1]:
        raise call.refuse("with mode='complete'", "use mode='reduced'")
    q, r = np.linalg.qr(a)
    return (call.unavailable("q", "use mode='reduced'"), r) if mode == "r" else (q, r)


@rule("_cdist_forward")
def cdist(call: Call, a: Array, b: Array, p: float, mode: Any = None) -> Any:
    """With p = inf, each of several largest differences has the whole derivative."""
    difference = a[..., :, None, :] - b[..., None, :, :]
    if not math.isinf(p):
        return norm_over(call, difference, p, (difference.ndim - 1,))
    size = np.abs(difference)
    largest = call.frozen(np.max(size, axis=-1, keepdims=True))
    steps = where(call, np.equal(size, largest), size - call.frozen(size), 0)
    return largest[..., 0] + np.sum(steps, axis=-1)


@rule("_trilinear")
def trilinear(
    call: Call, a: Array, b: Array, c: Array, expand_a: Any, expand_b: Any, expand_c: Any, over: Any, *_: Any
) -> Any:
    for axis in expand_a:
        a = np.expand_dims(a, axis)
    for axis in expand_b:
        b = np.expand_dims(b, axis)
    for axis in expand_c:
        c = np.expand_dims(c, axis)
    return np.sum(a * b * c, axis=tuple(over))


@rule("trace")
def trace(call: Call, a: Array) -> Any:
    return np.trace(a)
