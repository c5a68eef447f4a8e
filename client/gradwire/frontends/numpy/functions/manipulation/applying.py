"""Functions that apply other functions, and sliding windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from gradwire.frontends.numpy.arrays.array import graph_of, traced
from gradwire.frontends.numpy.axes import all_axes, one_axis
from gradwire.frontends.numpy.dispatch import implements
from gradwire.frontends.numpy.functions.manipulation.shaping import chosen_elements
from gradwire.graphs.refusals import refuse

# Untyped: NumPy's annotations do not know that any object may dispatch.
np: Any = numpy

_CALLS = 4096


@implements("apply_along_axis")
def apply_along_axis(func1d: Callable[..., Any], axis: Any, arr: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the function once for each row; every call adds its own nodes.

    Raises:
        TraceError: there are more rows than the limit.
    """
    place = one_axis(axis, arr.ndim)
    rows = np.moveaxis(arr, place, -1)
    outer = rows.shape[:-1]
    count = math.prod(outer)
    if count > _CALLS:
        raise refuse(
            f"np.apply_along_axis over {count} rows (the limit is {_CALLS})",
            "apply the function to the whole array with axis=",
        )
    flat = np.reshape(rows, (count, arr.shape[place]))
    results = [func1d(flat[row], *args, **kwargs) for row in range(count)]
    stacked = np.stack([traced(arr.graph, result) for result in results])
    inner = stacked.shape[1:]
    shaped = np.reshape(stacked, outer + inner)
    places = range(len(outer), len(outer) + len(inner))
    return np.moveaxis(shaped, list(places), list(range(place, place + len(inner)))) if inner else shaped


@implements("apply_over_axes")
def apply_over_axes(func: Callable[..., Any], a: Any, axes: Any) -> Any:
    result = a
    for axis in all_axes(axes if np.ndim(axes) == 0 else tuple(axes), a.ndim):
        reduced = func(result, axis)
        result = reduced if np.ndim(reduced) == a.ndim else np.expand_dims(reduced, axis)
    return result


@implements("piecewise")
def piecewise(x: Any, condlist: Any, funclist: Sequence[Any], *args: Any, **kw: Any) -> Any:
    """Apply every function to all of `x` and choose by `np.where`: each must be finite everywhere.

    Where several conditions hold, the last one counts, as in NumPy.
    """
    x = traced(graph_of(x, condlist), x)
    single = not isinstance(condlist, list | tuple) or (
        not isinstance(condlist[0], list | tuple) and np.ndim(condlist[0]) == 0 and x.ndim != 0
    )
    conditions = [condlist] if single else list(condlist)
    if len(funclist) not in (len(conditions), len(conditions) + 1):
        raise ValueError(
            f"with {len(conditions)} condition(s), either {len(conditions)} or {len(conditions) + 1} "
            "functions are expected"
        )

    def value(function: Any) -> Any:
        return function(x, *args, **kw) if callable(function) else function

    rest = value(funclist[-1]) if len(funclist) > len(conditions) else 0
    result = np.broadcast_to(traced(x.graph, rest), x.shape).astype(x.dtype)
    for condition, function in zip(conditions, funclist, strict=False):
        result = np.where(condition, traced(x.graph, value(function)).astype(x.dtype), result)
    return result


@implements("lib.stride_tricks.sliding_window_view")
def sliding_window_view(
    x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False, writeable: bool = False
) -> Any:
    """View every window; NumPy's view cannot be written to either."""
    if writeable:
        raise refuse(
            "np.lib.stride_tricks.sliding_window_view with writeable=True", "assign to the array itself"
        )
    windows = (window_shape,) if np.ndim(window_shape) == 0 else tuple(window_shape)
    axes = all_axes(axis if axis is None or np.ndim(axis) == 0 else tuple(axis), x.ndim)
    if len(windows) != len(axes):
        raise ValueError(f"{len(windows)} window extents for {len(axes)} axes; give one for each")
    for extent, place in zip(windows, axes, strict=True):
        if not 0 <= extent <= x.shape[place]:
            raise ValueError("window shape cannot be larger than input array shape")
    positions = np.arange(x.size).reshape(x.shape)
    places = np.lib.stride_tricks.sliding_window_view(positions, windows, axis=axes)
    return chosen_elements(x, places, writable=False)
