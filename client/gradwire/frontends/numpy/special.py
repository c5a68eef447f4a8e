"""Special functions that work on traced arrays, in place of functions of SciPy that do not.

SciPy's elementwise functions (`scipy.special.gammaln`) are ufuncs and can be traced directly. Others
(logsumexp, softmax, polygamma, ...) convert their arguments to plain arrays first, unless SciPy's support of
the Array API is on (`SCIPY_ARRAY_API=1` before SciPy is imported). The functions here replace them and take
traced and plain arrays. Every elementwise function that can be traced is here too, under SciPy's name: SciPy
looks for them here when its support of the Array API is on.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy

from gradwire.frontends.numpy.arrays.array import TracedArray, graph_of, value_of, wrap
from gradwire.frontends.numpy.ufuncs.special import SPECIAL
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import SCI
from gradwire.graphs.nodes import GraphValue

# Untyped: NumPy's annotations do not know that any object may dispatch.
np: Any = numpy


def logsumexp(a: Any, axis: Any = None, b: Any = None, keepdims: bool = False) -> Any:
    """Compute the logarithm of the sum of exponentials without overflow; -inf where every element is -inf.

    Args:
        a: real array.
        axis: one axis or several; all by default.
        b: weights of the exponentials, broadcast against `a`.
        keepdims: whether the axes stay, with extent 1.
    """
    a, shift = _shifted(_real(a), axis)
    terms = np.exp(a) if b is None else b * np.exp(a)
    total = np.log(np.sum(terms, axis=axis, keepdims=True)) + shift
    if keepdims:
        return total
    return np.squeeze(total, axis=axis) if axis is not None else np.reshape(total, ())


def softmax(x: Any, axis: Any = None) -> Any:
    """Divide exponentials by their sum over axes (all by default)."""
    terms = np.exp(_shifted(_real(x), axis)[0])
    return terms / np.sum(terms, axis=axis, keepdims=True)


def log_softmax(x: Any, axis: Any = None) -> Any:
    """Compute the logarithm of `softmax`, which stays finite where `softmax` underflows."""
    x, _ = _shifted(_real(x), axis)
    return x - np.log(np.sum(np.exp(x), axis=axis, keepdims=True))


def polygamma(n: Any, x: Any) -> Any:
    """Compute the n-th derivative of the digamma function at positive `x`.

    Raises:
        TypeError: `n` is not a fixed integer.
        ValueError: `n` is negative.
    """
    order = operator.index(n)
    if order < 0:
        raise ValueError("n of polygamma must be 0 or more")
    if not isinstance(x, TracedArray):
        return _of_scipy("polygamma")(order, x)
    value = _real(x).value
    return wrap(value.graph.one("Polygamma", [value], value.shape, value.dtype, SCI, n=order))


def multigammaln(a: Any, d: int) -> Any:
    """Compute the logarithm of the multivariate gamma function of dimension `d`, for a > (d - 1) / 2."""
    constant = d * (d - 1) / 4 * math.log(math.pi)
    lower = np.arange(d) / 2
    return constant + np.sum(gammaln(np.expand_dims(_real(a), -1) - lower), axis=-1)


def gammaln(x: Any) -> Any:
    """Compute the logarithm of the absolute value of the gamma function."""
    return _elementwise("gammaln", x)


def _of_scipy(name: str) -> Callable[..., Any]:
    """Import a function of SciPy by name: only plain arrays need SciPy."""
    function: Callable[..., Any] = getattr(import_module("scipy.special"), name)
    return function


def _real(x: Any) -> Any:
    if isinstance(x, TracedArray):
        return x if x.dtype.kind == "f" else x.astype(np.float64)
    array = np.asarray(x)
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _shifted(x: Any, axis: Any) -> tuple[Any, Any]:
    """Subtract the largest element, and return it too; the shift cancels, so it has no derivative."""
    largest = np.max(x, axis=axis, keepdims=True)
    if isinstance(largest, TracedArray):
        value = largest.value
        largest = wrap(value.graph.one("StopGradient", [value], value.shape, value.dtype, SCI))
    largest = np.where(np.isfinite(largest), largest, 0.0)
    return x - largest, largest


def _elementwise(name: str, *operands: Any) -> Any:
    """Apply an elementwise function of SciPy, in the floating dtype of its operands."""
    if not any(isinstance(operand, TracedArray) for operand in operands):
        return _of_scipy(name)(*operands)
    graph = graph_of(*operands)
    # Numbers of Python are weak.
    kinds = [operand.dtype for operand in operands if hasattr(operand, "dtype")]
    kind = np.result_type(*kinds)
    kind = ops.FLOAT32 if kind in (np.float16, np.float32) else ops.FLOAT64
    result = SPECIAL[name](*(value_of(graph, operand, kind) for operand in operands))
    assert isinstance(result, GraphValue)
    return wrap(result)


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in SPECIAL:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def function(*operands: Any) -> Any:
        return _elementwise(name, *operands)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`scipy.special.{name}` of traced and of plain arrays."
    return function


def __dir__() -> list[str]:
    return sorted({*__all__, *SPECIAL})


__all__ = ["gammaln", "log_softmax", "logsumexp", "multigammaln", "polygamma", "softmax"]
