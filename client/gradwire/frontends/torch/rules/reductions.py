"""Rules for sums, extrema, norms, scans and sorting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import wrap
from gradwire.frontends.numpy.ufuncs.accumulation import accumulate
from gradwire.frontends.torch.lowering import Array, Call, rule
from gradwire.frontends.torch.rules.creation import of_dtype
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


@rule("count_nonzero")
def count_nonzero(call: Call, x: Array, dims: Any = None) -> Any:
    return np.sum(np.not_equal(x, 0), axis=axes_of(x, dims), dtype=np.int64)


@rule("var", "std")
def var(call: Call, x: Array, dims: Any = None, correction: Any = 1, keepdim: bool = False) -> Any:
    if isinstance(correction, bool):  # the old overload has unbiased= in this place
        correction = int(correction)
    if isinstance(dims, bool):
        dims, correction = None, int(dims)
    return getattr(np, call.op)(
        x, axis=axes_of(x, dims), ddof=1 if correction is None else correction, keepdims=keepdim
    )


@rule("linalg_vector_norm", "norm")
def vector_norm(
    call: Call, x: Array, order: Any = 2, dims: Any = None, keepdim: bool = False, **_: Any
) -> Any:
    """Compute the norm; the 2-norm has derivative 0 at 0, as in PyTorch."""
    axes = axes_of(x, dims)
    order = 2 if order is None else order
    x = of_dtype(x, call.dtype)
    if not axes:
        return np.abs(x)
    if order in (1, 2):
        return wrap(ops.reduce(f"ReduceL{int(order)}", call.value(x), axes, keepdim))
    size = np.abs(x)
    if math.isinf(order):
        return (np.max if order > 0 else np.min)(size, axis=axes, keepdims=keepdim)
    if order == 0:
        return np.sum(np.not_equal(x, 0).astype(call.dtype), axis=axes, keepdims=keepdim)
    return np.power(np.sum(np.power(size, order), axis=axes, keepdims=keepdim), 1 / order)


@rule("_softmax", "_log_softmax", "softmax", "log_softmax")
def softmax(call: Call, x: Array, dim: int, *_: Any, **__: Any) -> Any:
    if not x.ndim:
        return np.ones_like(x) if "log" not in call.op else np.zeros_like(x)
    op = "LogSoftmax" if "log" in call.op else "Softmax"
    return call.emit(op, call.value(x, call.dtype), axis=dim % x.ndim)


@rule("logsumexp")
def logsumexp(call: Call, x: Array, dims: Any, keepdim: bool = False) -> Any:
    return wrap(ops.reduce("ReduceLogSumExp", call.value(x, call.dtype), axes_of(x, dims), keepdim))


@rule("cumsum", "cumprod")
def cumulative(call: Call, x: Array, dim: int, **_: Any) -> Any:
    return getattr(np, call.op)(of_dtype(x, call.dtype), axis=dim) if x.ndim else x.copy()


@rule("logcumsumexp")
def logcumsumexp(call: Call, x: Array, dim: int) -> Any:
    return wrap(accumulate(np.logaddexp, x.value, dim)) if x.ndim else x.copy()


@rule("cummax", "cummin")
def cummax(call: Call, x: Array, dim: int) -> Any:
    ufunc = np.maximum if call.op == "cummax" else np.minimum
    values = wrap(accumulate(ufunc, x.value, dim)) if x.ndim else x.copy()
    return values, call.unavailable("the indices", "use the values alone")


@rule("sort")
def sort(call: Call, x: Array, *args: Any, **kwargs: Any) -> Any:
    if call.overload == "stable":
        args = args[1:]
    dim = kwargs.get("dim", args[0] if args else -1)
    descending = kwargs.get("descending", args[1] if len(args) > 1 else False)
    if not x.ndim:
        return x.copy(), np.zeros((), np.int64)
    return tuple(map(wrap, ops.sort(call.value(x), dim % x.ndim, bool(descending))))


@rule("topk")
def topk(call: Call, x: Array, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    if not x.ndim:
        return x.copy(), np.zeros((), np.int64)
    values, indices = map(wrap, ops.sort(call.value(x), dim % x.ndim, largest))
    first = (slice(None),) * (dim % x.ndim) + (slice(0, k),)
    return values[first], indices[first]


@rule("kthvalue")
def kthvalue(call: Call, x: Array, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    values, indices = topk(call, x, k, dim, largest=False)
    last = (slice(None),) * (dim % x.ndim) + (slice(k - 1, k),)
    return values[last].reshape(call.shape), indices[last].reshape(call.shape)


@rule("median")
def median(call: Call, x: Array, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the lower of the two middle elements."""
    if dim is None:
        flat = x.reshape(-1)
        return np.sort(flat)[(flat.shape[0] - 1) // 2]
    return kthvalue(call, x, (x.shape[dim] + 1) // 2, dim, keepdim)


@rule("aminmax")
def aminmax(call: Call, x: Array, *, dim: int | None = None, keepdim: bool = False) -> Any:
    return np.min(x, axis=dim, keepdims=keepdim), np.max(x, axis=dim, keepdims=keepdim)
