"""Rules for sums, extrema, norms, scans and sorting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import wrap
from gradwire.frontends.numpy.ufuncs.accumulation import accumulate
from gradwire.frontends.torch.lowering import Array, Call, rule
from gradwire.frontends.torch.rules.creation import of_dtype
from gradwire.frontends.torch.rules.elementwise import where
from gradwire.graphs import operators as ops


def axes_of(x: Array, dims: Any) -> tuple[int, ...]:
    """Return the axes that `dims` names, from 0 on; None or an empty list means all."""
    if dims is None or (isinstance(dims, list | tuple) and not dims):
        return tuple(range(x.ndim))
    listed = [dims] if isinstance(dims, int) else dims
    return tuple(dim % x.ndim for dim in listed) if x.ndim else ()


@rule("sum", "mean", "prod")
def total(call: Call, x: Array, dims: Any = None, keepdim: bool = False, **_: Any) -> Any:
    reduce = getattr(np, call.op)
    axes = axes_of(x, dims)
    x = of_dtype(x, call.dtype)
    return reduce(x, axis=axes, keepdims=keepdim).astype(call.dtype) if axes else x.copy()


@rule("nansum")
def nansum(call: Call, x: Array, dims: Any = None, keepdim: bool = False, **_: Any) -> Any:
    x = of_dtype(x, call.dtype)
    return total(call, np.where(np.isnan(x), np.zeros_like(x), x), dims, keepdim)


@rule("amax", "amin")
def extremum(call: Call, x: Array, dims: Any = None, keepdim: bool = False) -> Any:
    axes = axes_of(x, dims)
    return getattr(np, call.op)(x, axis=axes, keepdims=keepdim) if axes else x.copy()


@rule("max", "min")
def max_(call: Call, x: Array, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the extremum of all elements, or values and indices along an axis."""
    if dim is None:
        return getattr(np, call.op)(x)
    if not x.ndim:
        return x.copy(), np.zeros((), np.int64)
    indices = np.expand_dims(getattr(np, f"arg{call.op}")(x, axis=dim), dim)
    values = np.take_along_axis(x, indices, dim)
    return (values, indices) if keepdim else (np.squeeze(values, dim), np.squeeze(indices, dim))


@rule("argmax", "argmin")
def arg_extremum(call: Call, x: Array, dim: int | None = None, keepdim: bool = False) -> Any:
    if not x.ndim:
        return np.zeros((), np.int64)
    if dim is None:
        return getattr(np, call.op)(x.reshape(-1), axis=0).reshape(call.shape)
    return getattr(np, call.op)(x, axis=dim).reshape(call.shape)


@rule("any", "all")
def any_(call: Call, x: Array, dims: Any = None, keepdim: bool = False) -> Any:
    axes = axes_of(x, dims)
    return getattr(np, call.op)(x, axis=axes, keepdims=keepdim) if axes else np.not_equal(x, 0)


@rule("_is_all_true", "_is_any_true")
def truth(call: Call, x: Array) -> Any:
    return np.all(x) if call.op == "_is_all_true" else np.any(x)


@rule("count_nonzero")
def count_nonzero(call: Call, x: Array, dims: Any = None) -> Any:
    return np.sum(np.not_equal(x, 0), axis=axes_of(x, dims), dtype=np.int64)


@rule("var", "std")
def var(call: Call, x: Array, dims: Any = None, correction: Any = 1, keepdim: bool = False) -> Any:
    if isinstance(correction, bool):  # the old overload has unbiased= in this place
        correction = int(correction)
    if isinstance(dims, bool):
        dims, correction = None, int(dims)
    degrees = 1 if correction is None else correction
    variance = np.var(x, axis=axes_of(x, dims), ddof=degrees, keepdims=keepdim)
    return root(call, variance, 2) if call.op == "std" else variance


def root(call: Call, x: Array, order: float) -> Any:
    """Return a root, whose derivative at 0 is 0."""
    zero = np.equal(x, 0)
    base = where(call, zero, 1, x)
    return where(call, zero, 0, np.sqrt(base) if order == 2 else np.power(base, 1 / order))


@rule("linalg_vector_norm", "norm")
def vector_norm(
    call: Call, x: Array, order: Any = 2, dims: Any = None, keepdim: bool = False, **_: Any
) -> Any:
    axes = axes_of(x, dims)
    order = 2 if order is None else order
    x = of_dtype(x, call.dtype)
    if not axes:
        return np.not_equal(x, 0).astype(call.dtype) if order == 0 else np.abs(x)
    return norm_over(call, x, order, axes, keepdim)


def norm_over(call: Call, x: Array, order: float, axes: tuple[int, ...], keepdim: bool = False) -> Any:
    """Return a norm over axes: at 0 its derivative is 0, as in PyTorch."""
    if order in (1, 2):
        return wrap(ops.reduce(f"ReduceL{int(order)}", call.value(x), axes, keepdim))
    size = np.abs(x)
    if math.isinf(order):
        return (np.max if order > 0 else np.min)(size, axis=axes, keepdims=keepdim)
    zero = np.equal(size, 0)
    if order == 0:
        return np.sum(np.logical_not(zero).astype(call.dtype), axis=axes, keepdims=keepdim)
    powers = where(call, zero, 0, np.power(where(call, zero, 1, size), order))
    return root(call, np.sum(powers, axis=axes, keepdims=keepdim), order)


@rule("_softmax", "_log_softmax", "softmax", "log_softmax")
def softmax(call: Call, x: Array, dim: int, *_: Any, **__: Any) -> Any:
    if not x.ndim:
        return np.ones_like(x) if "log" not in call.op else np.zeros_like(x)
    op = "LogSoftmax" if "log" in call.op else "Softmax"
    return call.emit(op, call.value(x, call.dtype), axis=dim % x.ndim)


@rule("_safe_softmax")
def safe_softmax(call: Call, x: Array, dim: int, dtype: Any = None) -> Any:
    """Make zeros of a row of -inf alone, which attention makes of a row that is masked entirely."""
    if not x.ndim:
        return softmax(call, x, dim)
    x = of_dtype(x, call.dtype)
    masked = np.equal(x, -math.inf).all(axis=dim, keepdims=True)
    kept = softmax(call, where(call, masked, 0, x), dim)
    return where(call, masked, 0, kept)


@rule("logsumexp")
def logsumexp(call: Call, x: Array, dims: Any, keepdim: bool = False) -> Any:
    return wrap(ops.reduce("ReduceLogSumExp", call.value(x, call.dtype), axes_of(x, dims), keepdim))


@rule("cumsum", "cumprod")
def cumulative(call: Call, x: Array, dim: int, **_: Any) -> Any:
    return getattr(np, call.op)(of_dtype(x, call.dtype), axis=dim) if x.ndim else x.copy()


@rule("logcumsumexp")
def logcumsumexp(call: Call, x: Array, dim: int) -> Any:
    if not x.ndim:
        return x.copy()
    # Sums of -inf have no derivative; a number far below all others has.
    lowest = float(np.finfo(call.dtype).min) / 4
    sums = wrap(accumulate(np.logaddexp, call.value(np.maximum(x, lowest)), dim))
    return where(call, np.less_equal(sums, lowest / 2), -math.inf, sums)


@rule("aminmax")
def aminmax(call: Call, x: Array, *, dim: int | None = None, keepdim: bool = False) -> Any:
    return np.min(x, axis=dim, keepdims=keepdim), np.max(x, axis=dim, keepdims=keepdim)
