"""Statistics that ignore NaN."""

from __future__ import annotations

from typing import Any

import numpy

from gradwire.frontends.numpy.arrays.array import TracedArray
from gradwire.frontends.numpy.axes import all_axes
from gradwire.frontends.numpy.dispatch import implements
from gradwire.frontends.numpy.functions.statistics.averages import axes_last, restored
from gradwire.frontends.numpy.functions.statistics.scans import cumprod, cumsum
from gradwire.graphs.refusals import refuse

# Untyped: NumPy's annotations do not know that any object may dispatch.
np: Any = numpy


def _filled(x: TracedArray, number: float) -> Any:
    return np.where(np.isnan(x), number, x) if x.dtype.kind == "f" else x


@implements("nancumsum")
def nancumsum(a: Any, axis: Any = None, dtype: Any = None) -> Any:
    return cumsum(_filled(a, 0.0), axis, dtype)


@implements("nancumprod")
def nancumprod(a: Any, axis: Any = None, dtype: Any = None) -> Any:
    return cumprod(_filled(a, 1.0), axis, dtype)


@implements("nanargmax")
def nanargmax(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    """Return the position of the extremum, 0 where all elements are NaN, since a graph cannot raise."""
    return np.argmax(_filled(a, -np.inf), axis=axis, keepdims=keepdims)


@implements("nanargmin")
def nanargmin(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    """Return the position of the extremum, 0 where all elements are NaN, since a graph cannot raise."""
    return np.argmin(_filled(a, np.inf), axis=axis, keepdims=keepdims)


@implements("nanquantile")
def nanquantile(
    a: Any,
    q: Any,
    axis: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
) -> Any:
    """Compute quantiles of each row's numbers, which come first since NaN sorts last."""
    if isinstance(q, TracedArray) or method != "linear":
        raise refuse(
            "np.nanquantile with a traced q, or a method but linear", "keep q fixed and the method linear"
        )
    a = a if a.dtype.kind == "f" else a.astype(np.float64)
    ordered = np.sort(axes_last(a, axis), axis=-1)
    count = np.sum(~np.isnan(ordered), axis=-1, keepdims=True)
    share = np.asarray(q, np.float64)
    last = np.maximum(count - 1, 0)
    places = share.ravel() * last.astype(a.dtype)
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, last)
    low, high = (np.take_along_axis(ordered, index, -1) for index in (below, above))
    part = places - below
    mixed = np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1 - part))
    result = np.reshape(np.moveaxis(mixed, -1, 0), share.shape + ordered.shape[:-1])
    return restored(result, a.shape, all_axes(axis, a.ndim), share.ndim) if keepdims else result


@implements("nanpercentile")
def nanpercentile(
    a: Any,
    q: Any,
    axis: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
) -> Any:
    if isinstance(q, TracedArray):
        raise refuse("np.nanpercentile with a traced q", "keep q fixed")
    return nanquantile(a, np.true_divide(q, 100), axis, False, method, keepdims)


@implements("nanmedian")
def nanmedian(a: Any, axis: Any = None, overwrite_input: bool = False, keepdims: bool = False) -> Any:
    return nanquantile(a, 0.5, axis, False, "linear", keepdims)
