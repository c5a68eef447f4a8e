"""Polynomials given by their coefficients, the highest power first."""

from __future__ import annotations

from typing import Any

import numpy

from gradwire.frontends.numpy.arrays.array import graph_of, traced
from gradwire.frontends.numpy.dispatch import implements
from gradwire.graphs.refusals import refuse

# Untyped: NumPy's annotations do not know that any object may dispatch.
np: Any = numpy


def _coefficients(p: Any) -> Any:
    return np.atleast_1d(p)


@implements("polyval")
def polyval(p: Any, x: Any) -> Any:
    """Evaluate a polynomial by Horner's rule."""
    result: Any = np.zeros_like(x)
    for coefficient in p:
        result = result * x + coefficient
    return result


def _aligned(a: Any, b: Any) -> tuple[Any, Any]:
    graph = graph_of(a, b)
    pair = [_coefficients(traced(graph, item)) for item in (a, b)]
    extent = max(item.size for item in pair)
    first, second = (np.pad(item, (extent - item.size, 0)) for item in pair)
    return first, second


@implements("polyadd")
def polyadd(a1: Any, a2: Any) -> Any:
    first, second = _aligned(a1, a2)
    return first + second


@implements("polysub")
def polysub(a1: Any, a2: Any) -> Any:
    first, second = _aligned(a1, a2)
    return first - second


@implements("polymul")
def polymul(a1: Any, a2: Any) -> Any:
    """Multiply polynomials; leading zeros stay, since traced coefficients are not known to be zero."""
    return np.convolve(_coefficients(a1), _coefficients(a2))


@implements("polyder")
def polyder(p: Any, m: int = 1) -> Any:
    for _ in range(m):
        p = p[:-1] * np.arange(p.size - 1, 0, -1)
    return p


@implements("polyint")
def polyint(p: Any, m: int = 1, k: Any = None) -> Any:
    constants = [0.0] * m if k is None else [k] * m if np.ndim(k) == 0 else list(k)
    if len(constants) == 1 < m:
        constants *= m
    graph = graph_of(p, *constants)
    p = traced(graph, p)
    for constant in constants[:m]:
        raised = p / np.arange(p.size, 0, -1)
        p = np.concatenate([raised, np.reshape(traced(graph, constant), (1,))])
    return p


@implements("poly")
def poly(seq_of_zeros: Any) -> Any:
    if seq_of_zeros.ndim != 1:
        raise refuse("np.poly of a matrix", "give the zeros, or use np.linalg.det")
    result: Any = np.ones_like(seq_of_zeros[:1])
    for zero in seq_of_zeros:
        padded = np.pad(result, (0, 1))
        result = padded - zero * np.pad(result, (1, 0))
    return result


@implements("polyfit")
def polyfit(
    x: Any, y: Any, deg: int, rcond: Any = None, full: bool = False, w: Any = None, cov: Any = False
) -> Any:
    """Fit a polynomial by least squares, with columns scaled to length 1 as in NumPy.

    Raises:
        TraceError: `full` or `cov` is asked for.
    """
    if full or cov:
        raise refuse("np.polyfit with full= or cov=", "leave them out")
    graph = graph_of(x, y, w)
    x, y = (traced(graph, item) + 0.0 for item in (x, y))
    columns = np.vander(x, int(deg) + 1)
    if w is not None:
        columns = columns * np.reshape(w, (-1, 1))
        y = y * np.reshape(w, (-1,) + (1,) * (y.ndim - 1))
    scale = np.sqrt(np.sum(columns * columns, axis=0))
    tolerance = x.size * float(np.finfo(x.dtype).eps) if rcond is None else rcond
    solution = np.linalg.lstsq(columns / scale, y, tolerance)[0]
    return solution / (scale if y.ndim == 1 else scale[:, None])
