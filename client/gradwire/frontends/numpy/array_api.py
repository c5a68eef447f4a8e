"""The Array API namespace of traced arrays, for code that calls `x.__array_namespace__()`.

Functions are NumPy's own, which dispatch to the tracer. Constructors make arrays that traced values can be
assigned to. Names of the standard that older versions of NumPy lack are defined here.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from gradwire.frontends.numpy import special
from gradwire.frontends.numpy.arrays.array import TracedArray, traced
from gradwire.frontends.numpy.dispatch import provide_namespace
from gradwire.frontends.numpy.functions.manipulation.creation import asarray, full, ones, zeros
from gradwire.graphs.builder import active

__array_api_version__ = "2023.12"

_ALIASES = {
    "acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh", "atan": "arctan",
    "atan2": "arctan2", "atanh": "arctanh", "bitwise_invert": "invert", "bitwise_left_shift": "left_shift",
    "bitwise_right_shift": "right_shift", "concat": "concatenate", "permute_dims": "transpose",
    "pow": "power", "bool": "bool_",
}  # fmt: skip


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """Copy an array to another dtype.

    Args:
        x: real or complex.
        dtype: as NumPy takes it.
        copy: without effect: it is copied in any case.
        device: without effect: there is one.
    """
    return x.astype(dtype)


def matrix_transpose(x: Any, /) -> Any:
    """Swap the last two axes."""
    return np.swapaxes(x, -1, -2)


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """Sum the products of two arrays along an axis."""
    return np.sum(np.moveaxis(x1 * x2, axis, -1), axis=-1)


def isdtype(dtype: Any, kind: Any) -> bool:
    """Return whether a dtype is of a kind ("real floating", "integral", "bool", ...), or one of several."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, item) for item in kind)
    letters = {
        "bool": "b", "signed integer": "i", "unsigned integer": "u", "integral": "iu", "real floating": "f",
        "complex floating": "c", "numeric": "iufc",
    }  # fmt: skip
    return np.dtype(dtype).kind in letters[kind] if kind in letters else np.dtype(dtype) == np.dtype(kind)


def empty(shape: Any, *, dtype: Any = np.float64, device: Any = None) -> Any:
    """Make an array of zeros, to be filled."""
    return zeros(shape, dtype)


def _traced(array: Any) -> Any:
    graph = active.get()
    return array if graph is None else traced(graph, array)


def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None) -> Any:
    """Make the numbers from `start` on by `step` before `stop`, (count,), as `np.arange` does.

    One number is `stop`, and 0 the start. All are plain numbers, as the extent depends on them; `device` is
    without effect: there is one.
    """
    plain = np.arange(start, dtype=dtype) if stop is None else np.arange(start, stop, step, dtype=dtype)
    return _traced(plain)


def eye(
    n_rows: int, n_cols: Any = None, /, *, k: int = 0, dtype: Any = np.float64, device: Any = None
) -> Any:
    """Make a matrix with ones on diagonal `k`, (n_rows, n_cols), as `np.eye` does.

    It is square where `n_cols` is None; `device` is without effect: there is one.
    """
    return _traced(np.eye(n_rows, n_cols, k, dtype=dtype))


def linspace(
    start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: Any = None, endpoint: bool = True
) -> Any:
    """Make `num` evenly spaced numbers from `start` to `stop`, as `np.linspace` does.

    The ends may be traced, and arrays that broadcast: the new axis is the first. `stop` itself is among the
    numbers if `endpoint`; `device` is without effect: there is one.
    """
    points = np.linspace(start, stop, num, dtype=dtype, endpoint=endpoint)
    return points if isinstance(points, TracedArray) else _traced(points)


def __getattr__(name: str) -> Any:
    return getattr(np, _ALIASES.get(name, name))


provide_namespace(sys.modules[__name__])

__all__ = [
    "arange", "asarray", "astype", "empty", "eye", "full", "isdtype", "linspace", "matrix_transpose", "ones",
    "special", "vecdot", "zeros",
]  # fmt: skip
