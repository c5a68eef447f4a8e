"""Running sums and products, differences of neighbors and the trapezoidal rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray, graph_of, traced, wrap
from gradwire.frontends.numpy.axes import all_axes, along, one_axis
from gradwire.frontends.numpy.dispatch import implements
from gradwire.frontends.numpy.ufuncs.accumulation import accumulate
from gradwire.graphs.sizes import is_symbolic


@implements("cumsum")
def cumsum(x: TracedArray, axis: Any = None, dtype: Any = None) -> TracedArray:
    return _accumulated(np.add, x, axis, dtype)


@implements("cumprod")
def cumprod(x: TracedArray, axis: Any = None, dtype: Any = None) -> TracedArray:
    return _accumulated(np.multiply, x, axis, dtype)


@implements("cumulative_sum")
def cumulative_sum(
    x: TracedArray, /, *, axis: Any = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    return _cumulative(np.add, x, axis, dtype, include_initial)


@implements("cumulative_prod")
def cumulative_prod(
    x: TracedArray, /, *, axis: Any = None, dtype: Any = None, include_initial: bool = False
) -> Any:
    return _cumulative(np.multiply, x, axis, dtype, include_initial)


def _cumulative(ufunc: np.ufunc, x: TracedArray, axis: Any, dtype: Any, include_initial: bool) -> Any:
    if axis is None and x.ndim > 1:
        raise ValueError("For arrays which have more than one dimension `axis` argument is required.")
    place = one_axis(0 if axis is None else axis, x.ndim)
    result = _accumulated(ufunc, x, place, dtype)
    if not include_initial:
        return result
    shape = tuple(1 if item == place else extent for item, extent in enumerate(x.shape))
    return np.concatenate([np.full(shape, ufunc.identity, result.dtype), result], axis=place)


def _accumulated(ufunc: np.ufunc, x: TracedArray, axis: Any, dtype: Any) -> TracedArray:
    """Accumulate along one axis, or over all elements in order if `axis` is None."""
    if axis is None:
        x, axis = x.ravel(), 0
    return wrap(accumulate(ufunc, x.value, axis, dtype))


@implements("diff")
def diff(x: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    place = one_axis(axis, np.ndim(x))
    shape = tuple(1 if item == place else extent for item, extent in enumerate(np.shape(x)))
    ends = [end if end is None or np.ndim(end) else np.broadcast_to(end, shape) for end in (prepend, append)]
    arrays = [array for array in (ends[0], x, ends[1]) if array is not None]
    x = np.concatenate(arrays, axis=place) if len(arrays) > 1 else x
    for _ in range(n):
        late, early = along(x, place, slice(1, None)), along(x, place, slice(None, -1))
        x = late ^ early if x.dtype == np.bool_ else late - early
    return x


@implements("ediff1d")
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    steps = diff(np.ravel(traced(graph_of(ary, to_end, to_begin), ary)))
    ends = [None if end is None else np.ravel(end) for end in (to_begin, to_end)]
    arrays = [array for array in (ends[0], steps, ends[1]) if array is not None]
    return np.concatenate(arrays, dtype=steps.dtype) if len(arrays) > 1 else steps


@implements("gradient")
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Take second-order central differences inside and one-sided differences at the ends."""
    graph = graph_of(f, *varargs)
    f = traced(graph, f)
    axes = all_axes(axis, np.ndim(f))
    if len(varargs) not in (0, 1, len(axes)):
        raise TypeError("invalid number of arguments")
    steps = varargs * len(axes) if len(varargs) == 1 else varargs or (1.0,) * len(axes)
    f = f if f.dtype.kind == "f" else f.astype(np.float64)
    results = [_gradient(f, place, step, edge_order) for place, step in zip(axes, steps, strict=True)]
    return results[0] if len(results) == 1 else tuple(results)


def _gradient(f: Any, axis: int, step: Any, edge_order: int) -> Any:
    extent = f.shape[axis]
    if is_symbolic(extent):
        f.graph.require(extent - edge_order - 1)
    elif extent < edge_order + 1:
        raise ValueError("Shape of array too small to calculate a numerical gradient")
    if edge_order not in (1, 2):
        raise ValueError("'edge_order' greater than 2 not supported")
    if np.ndim(step) > 1 or (np.ndim(step) == 1 and np.shape(step)[0] != extent):
        raise ValueError("when 1d, distances must match the length of the corresponding dimension")
    # The distances between neighbors, shaped to broadcast along the axis.
    gaps: Any = np.diff(step) if np.ndim(step) else step
    if np.ndim(step):
        gaps = np.reshape(gaps, (-1,) + (1,) * (f.ndim - axis - 1))

    def at(place: int) -> Any:
        return along(f, axis, slice(place, place + 1 or None))

    def gap(place: int) -> Any:
        return gaps[place : place + 1 or None] if np.ndim(step) else gaps

    if np.ndim(step):
        before, after = gaps[:-1], gaps[1:]
        left = -after / (before * (before + after))
        middle, right = (after - before) / (before * after), before / (after * (before + after))
        slices = (slice(None, -2), slice(1, -1), slice(2, None))
        inner = sum(c * along(f, axis, part) for c, part in zip((left, middle, right), slices, strict=True))
    else:
        inner = (along(f, axis, slice(2, None)) - along(f, axis, slice(None, -2))) / (2.0 * step)
    if edge_order == 1:
        first, last = (at(1) - at(0)) / gap(0), (at(-1) - at(-2)) / gap(-1)
    else:
        near, far = gap(0), gap(1)
        first = (
            -(2.0 * near + far) / (near * (near + far)) * at(0)
            + (near + far) / (near * far) * at(1)
            - near / (far * (near + far)) * at(2)
        )
        far, near = gap(-2), gap(-1)
        last = (
            near / (far * (far + near)) * at(-3)
            - (far + near) / (far * near) * at(-2)
            + (2.0 * near + far) / (near * (far + near)) * at(-1)
        )
    return np.concatenate([first, inner, last], axis=axis)


@implements("trapezoid", "trapz")
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    place = one_axis(axis, np.ndim(y))
    if x is None:
        width = dx
    elif np.ndim(x) == 1:
        width = np.diff(x)
        width = width.reshape(width.shape + (1,) * (np.ndim(y) - place - 1))
    else:
        width = np.diff(x, axis=place)
    middle = along(y, place, slice(1, None)) + along(y, place, slice(None, -1))
    return (width * middle).sum(place) / 2.0
