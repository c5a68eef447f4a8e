"""Creates arrays: like a traced one, or of a given shape while a trace is running."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gradwire.frontends.numpy.arrays.array import TracedArray, copied_in_order, fitted, graph_of, traced, wrap
from gradwire.frontends.numpy.arrays.complex_array import TracedComplex, combine, parts
from gradwire.frontends.numpy.dispatch import implements
from gradwire.frontends.numpy.functions.manipulation.joining import common_dtype
from gradwire.frontends.numpy.functions.manipulation.shaping import as_shape
from gradwire.graphs.builder import GraphBuilder, active
from gradwire.graphs.refusals import refuse


def filled(graph: GraphBuilder, shape: Any, number: Any, dtype: npt.DTypeLike) -> Any:
    """Make an array filled with a number or a broadcast array, which can hold traced values.

    Args:
        graph: where the array is made.
        shape: an extent or several.
        number: a number, or an array that broadcasts to the shape.
        dtype: real or complex.
    """
    kind = np.dtype(dtype)
    if kind.kind == "c":
        part = np.float32 if kind == np.complex64 else np.float64
        real, imag = parts(number)
        return combine(*(filled(graph, shape, item, part) for item in (real, 0.0 if imag is None else imag)))
    return wrap(fitted(graph, number, as_shape(shape), kind))


def zeros(shape: Any, dtype: npt.DTypeLike = np.float64) -> Any:
    """Make zeros that traced values can be assigned to; a plain NumPy array outside a traced function."""
    return full(shape, 0, dtype)


def ones(shape: Any, dtype: npt.DTypeLike = np.float64) -> Any:
    """Make ones that traced values can be assigned to; a plain NumPy array outside a traced function."""
    return full(shape, 1, dtype)


def full(shape: Any, fill_value: Any, dtype: npt.DTypeLike | None = None) -> Any:
    """Fill an array that traced values can be assigned to; a plain NumPy array outside a traced function."""
    graph = active.get()
    if graph is None:
        return np.full(shape, fill_value, dtype)
    return filled(graph, shape, fill_value, common_dtype(fill_value) if dtype is None else dtype)


def asarray(obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None) -> Any:
    """Make an array of traced values, in place of `np.array([[np.cos(a), 0], [0, 1]])` of a traced `a`.

    Lists are stacked, at any depth. A traced array is returned as it is. Anything else becomes a constant of
    the running trace, if there is one: a plain table must be a constant before a traced array can index it.

    Args:
        obj: a traced array, a nested list or anything array-like.
        dtype: the dtype of the result; None keeps that of `obj`.
        device: accepted for the Array API; there is one device.
        copy: whether a traced array is copied.
    """
    if isinstance(obj, TracedArray | TracedComplex):
        return obj.astype(dtype) if dtype is not None and obj.dtype != dtype else obj.copy() if copy else obj
    if _holds_traced(obj):
        stacked = _stacked(obj)
        return stacked if dtype is None else stacked.astype(dtype)
    graph = active.get()
    plain = np.asarray(obj, dtype)
    # Complex constants stay plain: they become pairs of real ones in operations with traced values.
    return plain if graph is None or plain.dtype.kind == "c" else traced(graph, plain)


def _holds_traced(item: Any) -> bool:
    return isinstance(item, TracedArray | TracedComplex) or (
        isinstance(item, list | tuple) and any(map(_holds_traced, item))
    )


def _stacked(item: Any) -> Any:
    """Stack a nested list into one array, complex if an entry is."""
    if not isinstance(item, list | tuple):
        return item
    return np.stack([_stacked(part) for part in item]) if _holds_traced(item) else np.asarray(item)


@implements("full_like")
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Any:
    kind = np.asarray(a).dtype if not isinstance(a, TracedArray) else a.dtype
    made = filled(graph_of(a, fill_value), np.shape(a) if shape is None else shape, fill_value, dtype or kind)
    if isinstance(made, TracedArray):
        # Laid out like `a` only if it has as many axes.
        like = a if isinstance(a, TracedArray) and a.ndim == made.ndim else made
        made._cell.ordered = copied_in_order(like, order)
    return made


@implements("zeros_like", "empty_like")
def zeros_like(
    a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Any:
    return full_like(a, 0, dtype, order, subok, shape, device=device)


@implements("ones_like")
def ones_like(
    a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Any:
    return full_like(a, 1, dtype, order, subok, shape, device=device)


@implements("copy")
def copy(a: TracedArray, order: str = "K", subok: bool = False) -> Any:
    return a.copy(order)


@implements("array")
def array(
    object: Any,
    dtype: Any = None,
    *,
    copy: Any = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    ndmax: int = 0,
) -> Any:
    """Implement what NumPy calls with `like=` a traced array."""
    if ndmax:
        raise refuse("np.array with ndmax=", "give the array its shape with np.reshape")
    made = _laid_out(asarray(object, dtype=dtype, copy=copy), order)
    return made.reshape((1,) * (ndmin - made.ndim) + made.shape) if ndmin > made.ndim else made


@implements("asarray", "asanyarray")
def asarray_like(
    a: Any, dtype: Any = None, order: str | None = None, *, device: Any = None, copy: bool | None = None
) -> Any:
    """Implement what NumPy calls with `like=` a traced array."""
    return _laid_out(asarray(a, dtype=dtype, copy=copy), order or "K")


@implements("ascontiguousarray")
def ascontiguousarray(a: Any, dtype: Any = None) -> Any:
    return _laid_out(asarray(a, dtype=dtype), "C")


def _laid_out(made: Any, order: str) -> Any:
    """Copy an array where NumPy would, to lay it out in the order "C" or "F"."""
    if not isinstance(made, TracedArray) or made.ndim < 2 or order in ("K", "A"):
        return made
    return made if order == "C" and made._cell.contiguous else made.copy(order)


@implements("astype")
def astype(x: TracedArray, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    return x.astype(dtype, copy=copy)


@implements("real")
def real(val: TracedArray) -> Any:
    return val


@implements("real_if_close")
def real_if_close(a: TracedArray, tol: float = 100) -> Any:
    return a


@implements("imag")
def imag(val: TracedArray) -> Any:
    return zeros_like(val)


@implements("isreal")
def isreal(x: TracedArray) -> Any:
    return full_like(x, True, np.bool_)


@implements("iscomplex")
def iscomplex(x: TracedArray) -> Any:
    return full_like(x, False, np.bool_)


@implements("isrealobj")
def isrealobj(x: Any) -> bool:
    return True


@implements("iscomplexobj")
def iscomplexobj(x: Any) -> bool:
    return False


@implements("linspace")
def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    graph = graph_of(start, stop)
    start, stop = (traced(graph, end) * 1.0 for end in (start, stop))
    parts = num - 1 if endpoint else num
    step = (stop - start) / parts if parts > 0 else stop * np.nan
    # From the nearer end, so that both ends are exact.
    steps = np.arange(num).reshape(
        (-1,) + (1,) * np.broadcast(np.empty(start.shape), np.empty(stop.shape)).ndim
    )
    points = start + steps * step if parts > 0 else start + steps * 0.0
    if endpoint and num > 1:
        points[-1] = stop
    points = points if dtype is None else points.astype(dtype)
    points = np.moveaxis(points, 0, axis) if axis else points
    return (points, step) if retstep else points


@implements("logspace")
def logspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    base: Any = 10.0,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    points = np.power(base, np.linspace(start, stop, num, endpoint, axis=axis))
    return points if dtype is None else points.astype(dtype)


@implements("geomspace")
def geomspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0
) -> Any:
    """Space numbers geometrically between ends of the same sign."""
    ratio = np.power(
        np.divide(stop, start), np.linspace(0.0, 1.0, num, endpoint)[(...,) + (None,) * np.ndim(start)]
    )
    points = np.moveaxis(start * ratio, 0, axis)
    return points if dtype is None else points.astype(dtype)


@implements("diag")
def diag(v: Any, k: int = 0) -> Any:
    if v.ndim == 2:
        return np.diagonal(v, k)
    if v.ndim != 1:
        raise ValueError("Input must be 1- or 2-d.")
    extent = v.size + abs(k)
    result = filled(v.graph, (extent, extent), 0, v.dtype)
    rows = np.arange(v.size)
    result[rows - min(k, 0), rows + max(k, 0)] = v
    return result


@implements("diagflat")
def diagflat(v: Any, k: int = 0) -> Any:
    return diag(np.ravel(v), k)


@implements("fill_diagonal")
def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """Fill every (columns + 1)-th element; `wrap` goes on past a tall matrix's square part."""
    if not isinstance(a, TracedArray):
        raise refuse(
            "np.fill_diagonal of a plain NumPy array",
            "make the array with np.zeros_like(x) or gw.zeros(shape)",
        )
    if a.ndim < 2 or (a.ndim > 2 and len(set(a.shape)) > 1):
        raise ValueError("All dimensions of input must be of equal length, and there must be at least 2")
    step = sum(int(np.prod(a.shape[axis + 1 :])) for axis in range(a.ndim))
    last = a.size if wrap or a.ndim > 2 else a.shape[1] * a.shape[1]
    places = np.arange(0, min(last, a.size), step)
    values = np.ravel(traced(a.graph, val))
    repeated = np.take(values, np.arange(places.size) % max(values.size, 1))
    a[np.unravel_index(places, a.shape)] = repeated


@implements("vander")
def vander(x: Any, N: Any = None, increasing: bool = False) -> Any:
    columns = len(x) if N is None else N
    powers = np.arange(columns) if increasing else np.arange(columns)[::-1]
    return x[:, None] ** powers.astype(x.dtype)


@implements("diag_indices_from")
def diag_indices_from(arr: TracedArray) -> Any:
    return np.diag_indices(arr.shape[0], arr.ndim)


@implements("tril_indices_from")
def tril_indices_from(arr: TracedArray, k: int = 0) -> Any:
    return np.tril_indices(arr.shape[-2], k, arr.shape[-1])


@implements("triu_indices_from")
def triu_indices_from(arr: TracedArray, k: int = 0) -> Any:
    return np.triu_indices(arr.shape[-2], k, arr.shape[-1])


def _like(function: Any) -> Any:
    """Make the constructor that NumPy calls with `like=` a traced array: its plain result, traced."""

    def make(*args: Any, **kwargs: Any) -> Any:
        graph = active.get()
        plain = function(*args, **kwargs)
        if graph is None:
            return plain
        made = traced(graph, plain)
        made._cell.ordered = plain.flags.c_contiguous
        return made

    return make


for _name in ("zeros", "ones", "empty", "full", "arange", "eye", "identity", "tri"):
    implements(_name)(_like(getattr(np, _name)))
