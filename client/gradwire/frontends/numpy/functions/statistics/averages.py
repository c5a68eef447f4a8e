"""Averages, quantiles and covariances."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray, graph_of, traced
from gradwire.frontends.numpy.axes import all_axes, one_axis
from gradwire.frontends.numpy.dispatch import implements
from gradwire.frontends.numpy.functions.manipulation.joining import common_dtype
from gradwire.graphs.refusals import refuse


@implements("average")
def average(
    a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False
) -> Any:
    a = traced(graph_of(a, weights), a)
    if weights is None:
        result = a.mean(axis, keepdims=keepdims)
        total = result * 0.0 + a.size / max(result.size, 1)
        return (result, total) if returned else result
    if np.shape(weights) != a.shape:
        if axis is None or np.ndim(weights) != 1:
            raise TypeError("Axis must be specified when shapes of a and weights differ.")
        place = one_axis(axis, a.ndim)
        weights = np.reshape(weights, (-1,) + (1,) * (a.ndim - place - 1))
    weights = np.broadcast_to(weights, a.shape)
    kind = common_dtype(a, weights, *(() if a.dtype.kind == "f" else (np.float64(0),)))
    total = np.sum(weights, axis=axis, dtype=kind, keepdims=keepdims)
    result = np.sum(a * weights, axis=axis, dtype=kind, keepdims=keepdims) / total
    return (result, total) if returned else result


def axes_last(x: Any, axis: Any) -> Any:
    """Merge the given axes of `x` into one, which comes last."""
    axes = all_axes(axis, x.ndim)
    rest = [item for item in range(x.ndim) if item not in axes]
    moved = np.transpose(x, [*rest, *axes])
    return np.reshape(moved, (*(x.shape[item] for item in rest), -1))


@implements("quantile")
def quantile(
    a: Any,
    q: Any,
    axis: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
) -> Any:
    if isinstance(q, TracedArray):
        raise refuse("np.quantile with a traced q", "keep q fixed")
    a = a if a.dtype.kind == "f" else a.astype(np.float64)
    ordered = np.sort(axes_last(a, axis), axis=-1)
    count = ordered.shape[-1]
    places = _places(np.asarray(q, np.float64), count, method)
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, count - 1)
    low, high = ordered[..., below], ordered[..., above]
    share = places - below
    # NumPy interpolates from the nearer end.
    mixed = np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1 - share))
    result = (
        np.moveaxis(mixed, range(mixed.ndim - share.ndim, mixed.ndim), range(share.ndim))
        if share.ndim
        else mixed
    )
    # NaN sorts last and makes the whole result NaN.
    last = ordered[..., -1]
    result = np.where(np.isnan(last), last, result)
    return restored(result, a.shape, all_axes(axis, a.ndim), share.ndim) if keepdims else result


_PLOTTING = {
    "weibull": (0.0, 0.0), "hazen": (0.5, 0.5), "interpolated_inverted_cdf": (0.0, 1.0),
    "median_unbiased": (1 / 3, 1 / 3), "normal_unbiased": (3 / 8, 3 / 8), "linear": (1.0, 1.0),
}  # fmt: skip
"""The two parameters of the families of Hyndman and Fan, "Sample quantiles in statistical packages", 1996."""


def _places(q: Any, count: int, method: str) -> Any:
    """Return the positions of quantiles among sorted numbers, possibly between two of them.

    Args:
        q: fractions between 0 and 1.
        count: how many numbers there are.
        method: one of NumPy's methods.
    """
    linear = q * (count - 1)
    whole = {"lower": np.floor, "higher": np.ceil, "nearest": np.rint}
    if method in whole:
        return whole[method](linear)
    if method == "midpoint":
        return (np.floor(linear) + np.ceil(linear)) / 2
    if method not in _PLOTTING:
        raise refuse(
            f"np.quantile with method={method!r}",
            f"use one of {', '.join((*_PLOTTING, *whole, 'midpoint'))}",
        )
    alpha, beta = _PLOTTING[method]
    return (
        linear
        if method == "linear"
        else np.clip(count * q + alpha + q * (1 - alpha - beta) - 1, 0, count - 1)
    )


def restored(result: Any, shape: Any, axes: Any, leading: int) -> Any:
    """Reinsert the reduced axes, with extent 1, after the leading axes of a result.

    Args:
        result: a result of a reduction.
        shape: shape of the reduced array.
        axes: the reduced axes.
        leading: how many axes of the result come before those of the array.
    """
    kept = tuple(1 if item in axes else extent for item, extent in enumerate(shape))
    return np.reshape(result, result.shape[:leading] + kept)


@implements("percentile")
def percentile(
    a: Any,
    q: Any,
    axis: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
) -> Any:
    if isinstance(q, TracedArray):
        raise refuse("np.percentile with a traced q", "keep q fixed")
    return quantile(a, np.true_divide(q, 100), axis, False, method, keepdims)


@implements("median")
def median(a: Any, axis: Any = None, overwrite_input: bool = False, keepdims: bool = False) -> Any:
    a = a if a.dtype.kind == "f" else a.astype(np.float64)
    ordered = np.sort(axes_last(a, axis), axis=-1)
    middle = ordered.shape[-1] // 2
    first = middle if ordered.shape[-1] % 2 else middle - 1
    result = ordered[..., first : middle + 1].mean(-1)
    last = ordered[..., -1]
    result = np.where(np.isnan(last), last, result)
    if keepdims:
        axes = all_axes(axis, a.ndim)
        result = np.reshape(result, tuple(1 if item in axes else n for item, n in enumerate(a.shape)))
    return result


@implements("cov")
def cov(
    m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: Any = None, *, dtype: Any = None
) -> Any:
    rows = [np.atleast_2d(item) for item in (m, y) if item is not None]
    rows = [item if rowvar or item.shape[0] == 1 else item.T for item in rows]
    x = np.concatenate(rows, axis=0) if len(rows) > 1 else rows[0]
    if dtype is not None or x.dtype.kind != "f":
        x = x.astype(np.float64 if dtype is None else dtype)
    freedom = x.shape[1] - ((0 if bias else 1) if ddof is None else ddof)
    centered = x - x.mean(1, keepdims=True)
    return np.squeeze(np.matmul(centered, centered.T) / freedom)


@implements("corrcoef")
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    covariance = cov(x, y, rowvar, dtype=dtype)
    if covariance.ndim == 0:
        return covariance / covariance
    deviation = np.sqrt(np.diagonal(covariance))
    return np.clip(covariance / deviation[:, None] / deviation[None, :], -1, 1)
