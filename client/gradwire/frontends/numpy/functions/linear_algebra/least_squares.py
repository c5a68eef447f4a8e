"""Functions of singular values: pseudo-inverses, least squares, rank and condition number."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray, graph_of, traced, value_of, wrap
from gradwire.frontends.numpy.dispatch import implements
from gradwire.frontends.numpy.functions.linear_algebra.decompositions import svd, svdvals
from gradwire.frontends.numpy.functions.manipulation.joining import common_dtype
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import SCI
from gradwire.graphs.refusals import refuse

_PINV_TOLERANCE = 1e-15
"""The default of `np.linalg.pinv`, where neither rcond nor rtol is given."""


def _floating(a: Any) -> Any:
    return a if a.dtype.kind == "f" else a.astype(np.float64)


def _fixed(number: Any, what: str) -> float:
    """Return a tolerance, which must not depend on the inputs.

    Raises:
        TraceError: it does, or there is one for each matrix.
    """
    if isinstance(number, TracedArray) or np.ndim(number):
        raise refuse(f"{what} that is traced, or an array", "give one number")
    return float(number)


def _pinv(a: Any, tolerance: float) -> TracedArray:
    value = _floating(a).value
    shape = (*value.shape[:-2], value.shape[-1], value.shape[-2])
    if not value.size:
        return wrap(ops.transpose(value, [*range(value.ndim - 2), value.ndim - 1, value.ndim - 2]))
    return wrap(
        value.graph.one("Pinv", [value, value.graph.scalar(tolerance, value.dtype)], shape, value.dtype, SCI)
    )


@implements("linalg.pinv")
def pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = _PINV_TOLERANCE) -> TracedArray:
    """Compute the pseudo-inverse; its derivative is that at constant rank.

    `hermitian` has no effect: it only changes how NumPy computes the result.
    """
    a = traced(graph_of(a), a)
    if hermitian:
        a = np.tril(a) + np.swapaxes(np.tril(a, -1), -1, -2)
    tolerance = rtol if rcond is None else rcond
    if tolerance is None:
        tolerance = max(a.shape[-2:]) * float(np.finfo(_floating(a).dtype).eps)
    return _pinv(a, _fixed(tolerance, "np.linalg.pinv with an rcond"))


@implements("linalg.lstsq")
def lstsq(a: Any, b: Any, rcond: Any = None) -> tuple[Any, Any, Any, Any]:
    """Return the solution of least norm, residuals, rank and singular values.

    The rank is a traced integer. Residuals are those of a matrix of full column rank: NumPy leaves them out
    for others, and a graph cannot know which it has.
    """
    graph = graph_of(a, b)
    kind = common_dtype(a, b, np.float32(0)) if common_dtype(a, b).kind == "f" else np.dtype(np.float64)
    a, b = wrap(value_of(graph, a, kind)), wrap(value_of(graph, b, kind))
    if a.ndim != 2 or b.ndim not in (1, 2) or a.shape[0] != b.shape[0]:
        raise np.linalg.LinAlgError(f"np.linalg.lstsq: shapes {a.shape} and {b.shape} do not fit")
    rows, columns = a.shape
    eps = float(np.finfo(kind).eps)
    tolerance = (
        eps * max(rows, columns)
        if rcond is None
        else eps
        if rcond == -1
        else _fixed(rcond, "np.linalg.lstsq with an rcond")
    )
    solution = np.matmul(_pinv(a, tolerance), b)
    values = svdvals(a)
    rank = (values > tolerance * values[0]).sum().astype(np.int32)
    if rows > columns:
        rest = b - np.matmul(a, solution)
        residuals: Any = np.atleast_1d(np.sum(rest * rest, axis=0))
    else:
        residuals = wrap(graph.constant(np.empty(0, kind)))
    return solution, residuals, rank, values


@implements("linalg.matrix_rank")
def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    """Return the rank as a traced integer, which has no derivative."""
    if A.ndim < 2:
        return np.any(A != 0).astype(np.int64)
    values: Any = svd(A, compute_uv=False, hermitian=hermitian)
    if tol is None:
        relative = max(A.shape[-2:]) * float(np.finfo(values.dtype).eps) if rtol is None else rtol
        limit: Any = values.max(-1, keepdims=True) * np.asarray(relative)[..., None]
    else:
        limit = np.asarray(tol)[..., None]
    return (values > limit).sum(-1)


@implements("linalg.cond")
def cond(x: Any, p: Any = None) -> Any:
    if p in (None, 2, -2):
        values = svdvals(x)
        largest, smallest = values[..., 0], values[..., -1]
        return smallest / largest if p == -2 else largest / smallest
    return np.linalg.norm(x, p, axis=(-2, -1)) * np.linalg.norm(np.linalg.inv(x), p, axis=(-2, -1))


@implements("linalg.tensorsolve")
def tensorsolve(a: Any, b: Any, axes: Sequence[int] | None = None) -> Any:
    a = traced(graph_of(a, b), a)
    if axes is not None:
        order = [axis for axis in range(a.ndim) if axis not in axes]
        a = np.transpose(a, [*order, *axes])
    shape = a.shape[np.ndim(b) :]
    size = math.prod(shape)
    return np.reshape(np.linalg.solve(np.reshape(a, (-1, size)), np.ravel(b)), shape)


@implements("linalg.tensorinv")
def tensorinv(a: Any, ind: int = 2) -> Any:
    count = operator.index(ind)
    if count <= 0:
        raise ValueError("Invalid ind argument.")
    rows, columns = a.shape[:count], a.shape[count:]
    return np.reshape(np.linalg.inv(np.reshape(a, (math.prod(rows), -1))), (*columns, *rows))
