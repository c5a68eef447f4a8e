"""Sums, extrema and tests over axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray, graph_of, traced, wrap
from gradwire.frontends.numpy.axes import all_axes, one_axis, reduction_dtype
from gradwire.frontends.numpy.dispatch import implements
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import DType, GraphValue
from gradwire.graphs.sizes import surely_equal


def reduced(op: str, x: TracedArray, axis: Any, keepdims: Any, dtype: DType) -> TracedArray:
    """Reduce over axes by an operator, in a dtype.

    Args:
        op: an operator such as ReduceSum.
        x: the array.
        axis: None for all axes, one axis, or several.
        keepdims: whether the axes stay, with extent 1.
        dtype: the dtype of the result; narrow integers are reduced in 64 bits.
    """
    value = ops.wide(ops.cast(x.value, dtype))
    result = ops.reduce(op, value, all_axes(axis, x.ndim), bool(keepdims))
    return wrap(ops.cast(result, dtype))


def _accumulator(ufunc: np.ufunc, x: TracedArray, dtype: Any) -> DType:
    return np.dtype(dtype) if dtype is not None else reduction_dtype(ufunc, x.dtype)


def _chosen(x: Any, where: Any, neutral: Any) -> Any:
    """Replace the elements that `where` excludes by the neutral element."""
    x = traced(graph_of(x, where), x)
    return x if where is True else np.where(where, x, np.asarray(neutral).astype(x.dtype))


@implements("sum")
def sum_(
    x: Any,
    axis: Any = None,
    dtype: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = True,
) -> TracedArray:
    x = _chosen(x, where, 0)
    result = reduced("ReduceSum", x, axis, keepdims, _accumulator(np.add, x, dtype))
    return result if initial is None else result + initial


@implements("prod")
def prod(
    x: Any,
    axis: Any = None,
    dtype: Any = None,
    keepdims: Any = False,
    initial: Any = None,
    where: Any = True,
) -> TracedArray:
    x = _chosen(x, where, 1)
    result = reduced("ReduceProd", x, axis, keepdims, _accumulator(np.multiply, x, dtype))
    return result if initial is None else result * initial


@implements("max", "amax")
def max_(
    x: Any, axis: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> TracedArray:
    return _extremum("ReduceMax", np.maximum, x, axis, keepdims, initial, where)


@implements("min", "amin")
def min_(
    x: Any, axis: Any = None, keepdims: Any = False, initial: Any = None, where: Any = True
) -> TracedArray:
    return _extremum("ReduceMin", np.minimum, x, axis, keepdims, initial, where)


def _extremum(
    op: str, ufunc: np.ufunc, x: Any, axis: Any, keepdims: Any, initial: Any, where: Any
) -> TracedArray:
    name = ufunc.__name__
    if initial is None and where is not True:
        raise ValueError(f"reduction operation '{name}' has no identity: a where mask needs an initial value")
    x = _chosen(x, where, initial)
    if initial is not None:
        # ONNX's extremum of an empty array is the identity, so this is right for empty arrays too.
        extremum: TracedArray = ufunc(reduced(op, x, axis, keepdims, x.dtype), initial)
        return extremum
    extents = [x.shape[item] for item in all_axes(axis, x.ndim)]
    for extent in extents:
        x.graph.require(extent - 1)
    if any(surely_equal(extent, 0) for extent in extents):
        raise ValueError(f"zero-size array to reduction operation {name} which has no identity")
    return reduced(op, x, axis, keepdims, x.dtype)


@implements("ptp")
def ptp(x: Any, axis: Any = None, keepdims: Any = False) -> Any:
    return max_(x, axis, keepdims) - min_(x, axis, keepdims)


@implements("any")
def any_(x: Any, axis: Any = None, keepdims: Any = False, *, where: Any = True) -> TracedArray:
    return _test("ReduceMax", _chosen(x, where, False), axis, keepdims)


@implements("all")
def all_(x: Any, axis: Any = None, keepdims: Any = False, *, where: Any = True) -> TracedArray:
    return _test("ReduceMin", _chosen(x, where, True), axis, keepdims)


def _test(op: str, x: TracedArray, axis: Any, keepdims: Any) -> TracedArray:
    """Test whether any or all hold, by extrema; of empty arrays ONNX's extrema mean False and True."""
    numbers = ops.cast(ops.cast(x.value, ops.BOOL), np.dtype(np.uint8))
    return wrap(ops.cast(ops.reduce(op, numbers, all_axes(axis, x.ndim), bool(keepdims)), ops.BOOL))


@implements("count_nonzero")
def count_nonzero(x: TracedArray, axis: Any = None, *, keepdims: Any = False) -> TracedArray:
    return sum_(x.astype(np.bool_), axis, np.int64, keepdims)


@implements("argmax")
def argmax(x: TracedArray, axis: Any = None, *, keepdims: Any = False) -> TracedArray:
    return _arg_extremum("ArgMax", x, axis, keepdims)


@implements("argmin")
def argmin(x: TracedArray, axis: Any = None, *, keepdims: Any = False) -> TracedArray:
    return _arg_extremum("ArgMin", x, axis, keepdims)


def _arg_extremum(op: str, x: TracedArray, axis: Any, keepdims: Any) -> TracedArray:
    value = ops.cast(x.value, np.dtype(np.uint8)) if x.dtype == ops.BOOL else x.value
    if axis is None:
        result = ops.arg_reduce(op, ops.reshape(value, (value.size,)), 0, False)
        return wrap(ops.reshape(result, (1,) * x.ndim if keepdims else ()))
    return wrap(ops.arg_reduce(op, value, one_axis(axis, x.ndim), bool(keepdims)))


def extent_of(x: TracedArray, axis: Any) -> int:
    """Return how many elements are reduced to one."""
    return ops.size_of(tuple(x.shape[item] for item in all_axes(axis, x.ndim)))


def _mean_value(x: TracedArray, axis: Any, dtype: Any, keepdims: Any) -> tuple[TracedArray, DType]:
    """Return the mean in the dtype of computation, and the dtype of the result."""
    kind = np.dtype(dtype) if dtype is not None else x.dtype if x.dtype.kind == "f" else ops.FLOAT64
    # NumPy averages half precision in single precision.
    inner = ops.FLOAT32 if kind == np.float16 else kind
    axes = all_axes(axis, x.ndim)
    value: GraphValue = ops.reduce("ReduceMean", ops.cast(x.value, inner), axes, bool(keepdims))
    return wrap(value), kind


@implements("mean")
def mean(
    x: Any, axis: Any = None, dtype: Any = None, keepdims: Any = False, *, where: Any = True
) -> TracedArray:
    if where is not True:
        total: Any = sum_(x, axis, dtype, keepdims, None, where)
        taking_part = traced(graph_of(x, where), np.broadcast_to(where, np.shape(x)))
        count = sum_(taking_part, axis, np.int64, keepdims)
        return total / (count.astype(total.dtype) if total.dtype.kind == "f" else count)  # type: ignore[no-any-return]
    value, kind = _mean_value(traced(graph_of(x), x), axis, dtype, keepdims)
    return wrap(ops.cast(value.value, kind))


@implements("var")
def var(
    x: Any,
    axis: Any = None,
    dtype: Any = None,
    ddof: float = 0,
    keepdims: Any = False,
    *,
    correction: float | None = None,
) -> TracedArray:
    x = traced(graph_of(x), x)
    center, kind = _mean_value(x, axis, dtype, True)
    deviation = wrap(ops.cast(x.value, center.dtype)) - center
    freedom = max(extent_of(x, axis) - (ddof if correction is None else correction), 0)
    result = sum_(deviation * deviation, axis, None, keepdims) / freedom
    return wrap(ops.cast(result.value, kind))


@implements("std")
def std(
    x: Any,
    axis: Any = None,
    dtype: Any = None,
    ddof: float = 0,
    keepdims: Any = False,
    *,
    correction: float | None = None,
) -> Any:
    return root(var(x, axis, dtype, ddof, keepdims, correction=correction))


def root(variance: Any) -> Any:
    """Take the square root, with derivative 0 at 0 and not the infinite slope times the 0 of a variance."""
    nothing = variance == 0
    return np.where(nothing, variance, np.sqrt(np.where(nothing, 1, variance)))


def _without_nan(x: TracedArray, substitute: float) -> Any:
    return np.where(np.isnan(x), substitute, x) if x.dtype.kind == "f" else x


@implements("nansum")
def nansum(x: TracedArray, axis: Any = None, dtype: Any = None, *, keepdims: Any = False) -> Any:
    return sum_(_without_nan(x, 0), axis, dtype, keepdims)


@implements("nanprod")
def nanprod(x: TracedArray, axis: Any = None, dtype: Any = None, *, keepdims: Any = False) -> Any:
    return prod(_without_nan(x, 1), axis, dtype, keepdims)


@implements("nanmax")
def nanmax(x: TracedArray, axis: Any = None, *, keepdims: Any = False) -> Any:
    return _nan_extremum(max_, -np.inf, x, axis, keepdims)


@implements("nanmin")
def nanmin(x: TracedArray, axis: Any = None, *, keepdims: Any = False) -> Any:
    return _nan_extremum(min_, np.inf, x, axis, keepdims)


def _nan_extremum(extremum: Any, neutral: float, x: TracedArray, axis: Any, keepdims: Any) -> Any:
    result = extremum(_without_nan(x, neutral), axis, keepdims)
    if x.dtype.kind != "f":
        return result
    # Where all elements are NaN, the result is NaN.
    return np.where(all_(np.isnan(x), axis, keepdims), np.nan, result)


@implements("nanmean")
def nanmean(x: TracedArray, axis: Any = None, *, keepdims: Any = False) -> Any:
    if x.dtype.kind != "f":
        return mean(x, axis, None, keepdims)
    count = sum_(~np.isnan(x), axis, x.dtype, keepdims)
    return nansum(x, axis, keepdims=keepdims) / count


@implements("nanvar")
def nanvar(x: TracedArray, axis: Any = None, *, ddof: float = 0, keepdims: Any = False) -> Any:
    if x.dtype.kind != "f":
        return var(x, axis, None, ddof, keepdims)
    count = sum_(~np.isnan(x), axis, x.dtype, keepdims)
    # NaN is replaced before it is squared: in derivatives zero times NaN would be NaN.
    deviation = np.where(np.isnan(x), 0.0, _without_nan(x, 0) - nanmean(x, axis, keepdims=True))
    # Too few numbers give NaN, as 0 / 0 does.
    freedom = np.where(count > ddof, count - ddof, np.nan)
    return sum_(deviation * deviation, axis, None, keepdims) / freedom


@implements("nanstd")
def nanstd(x: TracedArray, axis: Any = None, *, ddof: float = 0, keepdims: Any = False) -> Any:
    return root(nanvar(x, axis, ddof=ddof, keepdims=keepdims))
