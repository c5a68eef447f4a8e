"""Selects elements: where, clip, take, pad, interp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray, apply, graph_of, traced, value_of, wrap
from gradwire.frontends.numpy.axes import along, one_axis
from gradwire.frontends.numpy.dispatch import implements
from gradwire.frontends.numpy.functions.manipulation.joining import common_dtype
from gradwire.frontends.numpy.ufuncs.rules import type_of
from gradwire.graphs import operators as ops
from gradwire.graphs.refusals import refuse


def _promoted(*items: Any) -> np.dtype[Any]:
    """Return the dtype of a choice between operands; Python numbers are weak."""
    kinds = [type_of(item.value if isinstance(item, TracedArray) else item) for item in items]
    samples = [kind(0) if isinstance(kind, type) else kind for kind in kinds]
    return np.result_type(*samples)


@implements("where")
def where(condition: Any, /, x: Any = None, y: Any = None) -> TracedArray:
    if x is None or y is None:
        raise refuse("np.where(condition) with one argument", "give all three: np.where(condition, a, b)")
    graph, kind = graph_of(condition, x, y), _promoted(x, y)
    chosen = [value_of(graph, item, kind) for item in (x, y)]
    return wrap(ops.where(value_of(graph, condition, np.bool_), *chosen))


@implements("select")
def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Any:
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = np.where(condition, choice, result)
    shape = np.broadcast_shapes(*(np.shape(item) for item in (*condlist, *choicelist)))
    return np.broadcast_to(result, shape)


@implements("clip")
def clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = (a_min if min is None else min), (a_max if max is None else max)
    result = a if low is None else np.maximum(a, low)
    result = result if high is None else np.minimum(result, high)
    return result.copy() if result is a else result


@implements("nan_to_num")
def nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    if x.dtype.kind != "f":
        return x.copy() if copy else x
    limits = np.finfo(x.dtype)
    high, low = (limits.max if posinf is None else posinf), (limits.min if neginf is None else neginf)
    finite = np.where(x == np.inf, float(high), np.where(x == -np.inf, float(low), x))
    result = np.where(np.isnan(x), nan, finite)
    if copy:
        return result
    x[...] = result
    return x


@implements("round", "around")
def round_(a: Any, decimals: int = 0) -> Any:
    if a.dtype.kind in "iub":
        if decimals >= 0:
            return a.copy()
        raise refuse("rounding integers to tens", "divide, np.rint and multiply")
    if decimals == 0:
        return np.rint(a)
    scale = 10.0 ** abs(decimals)
    return np.rint(a * scale) / scale if decimals > 0 else np.rint(a / scale) * scale


@implements("fix")
def fix(x: Any) -> Any:
    return np.trunc(x)


@implements("isposinf")
def isposinf(x: Any) -> Any:
    return x == np.inf


@implements("isneginf")
def isneginf(x: Any) -> Any:
    return x == -np.inf


@implements("isclose")
def isclose(a: Any, b: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Any:
    near = (np.abs(a - b) <= atol + rtol * np.abs(b)) & np.isfinite(b) | np.equal(a, b)
    return near | (np.isnan(a) & np.isnan(b)) if equal_nan else near


@implements("sinc")
def sinc(x: TracedArray) -> TracedArray:
    value = ops.cast(x.value, x.dtype if x.dtype.kind == "f" else ops.FLOAT64)
    return wrap(ops.sci("Sinc", value))


@implements("take")
def take(a: Any, indices: Any, axis: Any = None, mode: str = "raise") -> Any:
    graph = graph_of(a, indices)
    a = traced(graph, a)
    if axis is None:
        a, axis = a.ravel(), 0
    place = one_axis(axis, a.ndim)
    extent = a.shape[place]
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap' (got {mode!r})")
    if mode == "wrap":
        indices = indices % extent if isinstance(indices, TracedArray) else np.mod(indices, extent)
    elif mode == "clip":
        indices = np.clip(indices, 0, extent - 1)
    return along(a, place, indices if isinstance(indices, TracedArray) else np.asarray(indices))


@implements("take_along_axis")
def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> TracedArray:
    graph = graph_of(arr, indices)
    arr = traced(graph, arr)
    if axis is None:
        arr, axis = arr.ravel(), 0
    place = one_axis(axis, arr.ndim)
    value, positions = arr.value, value_of(graph, indices, np.int64)
    shape = list(ops.broadcast(_but(value.shape, place), _but(positions.shape, place)))
    values_shape, positions_shape = shape.copy(), shape.copy()
    values_shape[place], positions_shape[place] = value.shape[place], positions.shape[place]
    value = ops.expand(value, tuple(values_shape))
    return wrap(ops.gather_elements(value, ops.expand(positions, tuple(positions_shape)), place))


def _but(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis + 1 :])


@implements("choose")
def choose(a: Any, choices: Sequence[Any], mode: str = "raise") -> Any:
    """Choose without a check of the range of traced positions, since a graph cannot raise."""
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap' (got {mode!r})")
    if mode == "wrap":
        a = np.mod(a, len(choices))
    elif mode == "clip":
        a = np.clip(a, 0, len(choices) - 1)
    result = choices[-1]
    for number in reversed(range(len(choices) - 1)):
        result = np.where(np.equal(a, number), choices[number], result)
    return result


@implements("pad")
def pad(array: TracedArray, pad_width: Any, mode: str = "constant", **kwargs: Any) -> Any:
    taken = {"constant": ["constant_values"], "reflect": ["reflect_type"], "symmetric": ["reflect_type"]}
    unknown = [key for key in kwargs if key not in taken.get(mode, [])]
    if unknown:
        raise ValueError(f"unsupported keyword arguments for mode '{mode}': {unknown}")
    if isinstance(pad_width, dict):
        pad_width = [pad_width.get(axis, pad_width.get(axis - array.ndim, 0)) for axis in range(array.ndim)]
        pad_width = [width if np.ndim(width) else (width, width) for width in pad_width]
    widths = [(int(low), int(high)) for low, high in np.broadcast_to(pad_width, (array.ndim, 2))]
    if mode == "constant":
        return _pad_constant(array, widths, kwargs.get("constant_values", 0))
    if mode == "empty":
        return _pad_constant(array, widths, 0)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise refuse(f"np.pad with mode={mode!r}", "use constant, edge, reflect, symmetric or wrap")
    result: Any = array
    odd = mode in ("reflect", "symmetric") and kwargs.get("reflect_type", "even") == "odd"
    for axis, width in enumerate(widths):
        if any(width) and odd:
            result = _pad_oddly(result, axis, width, mode)
        elif any(width):
            # Padding the positions with NumPy tells which element goes where.
            order = np.pad(np.arange(array.shape[axis]), width, mode, **kwargs)  # type: ignore[call-overload]
            result = along(result, axis, order)
    return result if result is not array else array.copy()


def _pad_oddly(x: Any, axis: int, width: tuple[int, int], mode: str) -> Any:
    """Pad by reflection through the point at each end.

    Each element is s x[p] + a x[first] + b x[last], where p is its position under even reflection. How NumPy
    pads the powers 1, n and n^2 tells the three factors.
    """
    last = x.shape[axis] - 1
    places = np.arange(last + 1)
    p = np.pad(places, width, mode)  # type: ignore[call-overload]
    ones, firsts, squares = (
        np.pad(places**power, width, mode, reflect_type="odd")  # type: ignore[call-overload]
        for power in range(3)
    )
    inside = (p > 0) & (p < last)
    s = np.where(inside, (firsts * last - squares) // np.where(inside, p * (last - p), 1), 0)
    b = (firsts - s * p) // max(last, 1)
    a = ones - s - b
    tail = (-1,) + (1,) * (x.ndim - axis - 1)
    factors = ((s, p), (a, np.zeros_like(p)), (b, np.full_like(p, last)))
    terms = [along(x, axis, place) * factor.reshape(tail).astype(x.dtype) for factor, place in factors]
    return terms[0] + terms[1] + terms[2]


def _pad_constant(array: TracedArray, widths: Sequence[tuple[int, int]], fill: Any) -> Any:
    if np.ndim(fill) == 0:
        number = value_of(array.graph, fill, array.dtype)
        return wrap(ops.pad(array.value, widths, number))
    fills = np.broadcast_to(fill, (array.ndim, 2)).astype(array.dtype)
    result: Any = array
    for axis, ((low, high), (before, after)) in enumerate(zip(widths, fills, strict=True)):
        shape = result.shape
        ends = [
            np.full((*shape[:axis], width, *shape[axis + 1 :]), number, array.dtype)
            for width, number in ((low, before), (high, after))
        ]
        result = np.concatenate([ends[0], result, ends[1]], axis=axis)
    return result


@implements("i0")
def i0(x: TracedArray) -> TracedArray:
    return wrap(ops.sci("BesselI0", ops.cast(x.value, ops.FLOAT64)))


@implements("interp")
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    """Interpolate linearly, and find the interval by comparison with every knot."""
    graph = graph_of(x, xp, fp)
    x, xp, fp = (traced(graph, item).astype(np.float64) for item in (x, xp, fp))
    if period is not None:
        span = abs(period)
        x, xp = np.mod(x, span), np.mod(xp, span)
        order = np.argsort(xp)
        xp, fp = np.take(xp, order), np.take(fp, order)
        xp = np.concatenate([xp[-1:] - span, xp, xp[:1] + span])
        fp = np.concatenate([fp[-1:], fp, fp[:1]])
        left = right = None
    first, last = xp[0], xp[-1]
    if xp.size == 1:
        inner = np.take(fp, np.zeros(x.shape, np.int64))
    else:
        which = (x[..., None] >= xp[1:-1]).sum(-1) if xp.size > 2 else np.zeros(x.shape, np.int64)
        start, x0 = np.take(fp, which), np.take(xp, which)
        slope = np.take(np.diff(fp), which) / np.take(np.diff(xp), which)
        inner = slope * (x - x0) + start
    low = fp[0] if left is None else left
    high = fp[-1] if right is None else right
    # At the last knot NumPy returns the value there.
    inner = np.where(np.equal(x, last), fp[-1], inner)
    return np.where(np.less(x, first), low, np.where(np.greater(x, last), high, inner))


@implements("compress")
def compress(condition: Any, a: Any, axis: Any = None) -> Any:
    if isinstance(condition, TracedArray):
        raise refuse("np.compress with a traced condition", "use np.where(condition, a, b), or a sum over it")
    places = np.flatnonzero(condition)
    return np.take(a, places) if axis is None else np.take(a, places, axis=axis)


@implements("unwrap")
def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: float = 2 * np.pi) -> Any:
    place = one_axis(axis, p.ndim)
    steps = np.diff(p, axis=place)
    wrapped = np.mod(steps + period / 2, period) - period / 2
    wrapped = np.where((wrapped == -period / 2) & (steps > 0), period / 2, wrapped)
    correction = np.where(np.abs(steps) < (period / 2 if discont is None else discont), 0.0, wrapped - steps)
    result = p.astype(common_dtype(p, np.float64(0))) if p.dtype.kind != "f" else p.copy()
    rest = (slice(None),) * place + (slice(1, None),)
    result[rest] = along(p, place, slice(1, None)) + np.cumsum(correction, axis=place)
    return result


@implements("angle")
def angle(z: Any, deg: bool = False) -> Any:
    """Return 0 or pi, since traced arrays are real."""
    return apply(np.arctan2, 0.0, z) * (180 / np.pi if deg else 1.0)
