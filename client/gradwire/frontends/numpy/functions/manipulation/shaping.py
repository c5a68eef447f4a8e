"""Rearranges elements: shapes, axes, order, splitting, diagonals and triangles."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray, graph_of, reshaped, traced, view, wrap
from gradwire.frontends.numpy.arrays.cells import ViewCell
from gradwire.frontends.numpy.axes import all_axes, along, one_axis
from gradwire.frontends.numpy.casts import fits
from gradwire.frontends.numpy.dispatch import implements
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import GraphValue, Shape
from gradwire.graphs.refusals import refuse
from gradwire.graphs.sizes import any_symbolic, as_extent, is_long, is_symbolic, quotient, surely_equal


def as_shape(shape: Any) -> Shape:
    """Convert one extent or several to a tuple."""
    if isinstance(shape, Sequence | np.ndarray):
        return tuple(as_extent(extent) for extent in shape)
    return (as_extent(shape),)


@implements("shape")
def shape_of(x: TracedArray) -> Shape:
    return x.shape


@implements("ndim")
def ndim(x: TracedArray) -> int:
    return x.ndim


@implements("size")
def size(x: TracedArray, axis: Any = None) -> int:
    return ops.size_of(tuple(x.shape[item] for item in all_axes(axis, x.ndim)))


@implements("reshape")
def reshape(
    x: TracedArray, /, shape: Any = None, order: str = "C", *, newshape: Any = None, copy: Any = None
) -> Any:
    extents = list(as_shape(newshape if shape is None else shape))
    if extents.count(-1) == 1:
        rest = ops.size_of(tuple(extent for extent in extents if extent != -1))
        whole = quotient(x.size, rest) if is_symbolic(rest) or rest else None
        if whole is not None:
            extents[extents.index(-1)] = whole
        elif any_symbolic(x.shape):
            raise refuse(
                f"an array of shape {x.shape} in the shape {shape}",
                f"its size is no multiple of {rest} for all sizes: give them as numbers, as in gw.spec(100)",
            )
    if any(surely_equal(extent, -1) for extent in extents) or ops.size_of(tuple(extents)) != x.size:
        raise ValueError(f"cannot reshape array of size {x.size} into shape {shape}")
    x = x.copy() if copy else x
    if in_memory_order(x, order, "np.reshape"):
        return reshaped(x, tuple(extents))
    return np.transpose(reshaped(transpose(x), tuple(extents[::-1])))


def in_memory_order(x: Any, order: str, name: str) -> bool:
    """Whether to read elements with the last axis fastest ("C"), not the first ("F").

    Args:
        x: the array that is read.
        order: "C", "F", or "A" or "K", which read an array with one long axis like "C".
        name: of the function, for messages.

    Raises:
        TraceError: the order of elements in memory would decide, which a trace does not know.
        ValueError: NumPy has no such order.
    """
    if order not in ("C", "F", "A", "K"):
        raise ValueError(f"order must be one of 'C', 'F', 'A', or 'K' (got {order!r})")
    if order in ("A", "K") and sum(map(is_long, x.shape)) > 1:
        raise refuse(
            f"{name} with order={order!r}",
            'it goes by how elements lie in memory, which is not part of a function: use order "C" or "F"',
        )
    return order != "F"


@implements("ravel")
def ravel(x: TracedArray, order: str = "C") -> Any:
    in_memory_order(x, order, "np.ravel")
    return reshape(x, (0,) if surely_equal(x.size, 0) else (-1,), "F" if order == "F" else "C")


@implements("transpose", "permute_dims")
def transpose(x: Any, axes: Any = None) -> TracedArray:
    x = traced(graph_of(x), x)
    order = tuple(range(x.ndim))[::-1] if axes is None else all_axes(tuple(axes), x.ndim)
    if len(order) != x.ndim:
        raise ValueError("axes don't match array")
    back = [order.index(axis) for axis in range(x.ndim)]
    shape = tuple(x.shape[axis] for axis in order)
    cell = x._cell
    before = cell.key.order if isinstance(cell, ViewCell) and isinstance(cell.key, _Transposed) else ()
    if isinstance(cell, ViewCell) and before and [before[axis] for axis in order] == list(range(x.ndim)):
        return TracedArray(cell.base)[...]
    long = [axis for axis in order if is_long(x.shape[axis])]
    ordered = long == sorted(long)
    forward, backward = partial(ops.transpose, order=order), partial(ops.transpose, order=back)
    return view(x, shape, forward, backward, ordered, _Transposed(order))


class _Transposed(NamedTuple):
    """What makes a transposed view."""

    order: tuple[int, ...]


@implements("swapaxes")
def swapaxes(x: TracedArray, axis1: int, axis2: int) -> TracedArray:
    order = list(range(x.ndim))
    first, second = one_axis(axis1, x.ndim), one_axis(axis2, x.ndim)
    order[first], order[second] = second, first
    return transpose(x, order)


@implements("matrix_transpose", "linalg.matrix_transpose")
def matrix_transpose(x: TracedArray, /) -> TracedArray:
    return swapaxes(x, -1, -2)


@implements("moveaxis")
def moveaxis(x: TracedArray, source: Any, destination: Any) -> TracedArray:
    sources, targets = all_axes(source, x.ndim), all_axes(destination, x.ndim)
    order = [axis for axis in range(x.ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return transpose(x, order)


@implements("rollaxis")
def rollaxis(x: TracedArray, axis: int, start: int = 0) -> TracedArray:
    place = one_axis(axis, x.ndim)
    start = start + x.ndim if start < 0 else start
    return moveaxis(x, place, start - (place < start))


def _same_elements(x: TracedArray, shape: Shape) -> TracedArray:
    """Make a view whose axes differ from those of `x` only by axes of extent 1."""
    before = x.shape

    def forward(value: GraphValue) -> GraphValue:
        return ops.reshape(value, shape)

    return view(x, shape, forward, lambda value: ops.reshape(value, before), ordered=True)


@implements("expand_dims")
def expand_dims(x: TracedArray, axis: Any) -> TracedArray:
    count = 1 if not isinstance(axis, Sequence) else len(axis)
    new = all_axes(axis, x.ndim + count)
    old = iter(x.shape)
    return _same_elements(x, tuple(1 if item in new else next(old) for item in range(x.ndim + count)))


@implements("squeeze")
def squeeze(x: TracedArray, axis: Any = None) -> TracedArray:
    axes = all_axes(axis, x.ndim)
    gone = [item for item in axes if x.shape[item] == 1]
    if axis is not None and len(gone) < len(axes):
        raise ValueError("cannot select an axis to squeeze out which has size not equal to one")
    return _same_elements(x, tuple(extent for item, extent in enumerate(x.shape) if item not in gone))


@implements("atleast_1d")
def atleast_1d(*arrays: Any) -> Any:
    return _each(arrays, lambda x: reshaped(x, (1,)) if x.ndim == 0 else x)


@implements("atleast_2d")
def atleast_2d(*arrays: Any) -> Any:
    return _each(arrays, lambda x: x if x.ndim > 1 else _same_elements(x, (1, x.size)))


@implements("atleast_3d")
def atleast_3d(*arrays: Any) -> Any:
    def deep(x: TracedArray) -> TracedArray:
        return x if x.ndim > 2 else _same_elements(x, (1, x.size, 1) if x.ndim < 2 else (*x.shape, 1))

    return _each(arrays, deep)


def _each(arrays: tuple[Any, ...], function: Any) -> Any:
    graph = graph_of(*arrays)
    results = tuple(function(traced(graph, array)) for array in arrays)
    return results[0] if len(results) == 1 else results


@implements("broadcast_to")
def broadcast_to(x: TracedArray, shape: Any, subok: bool = False) -> TracedArray:
    target = as_shape(shape)
    if not fits(x.shape, target):
        raise ValueError(f"cannot broadcast an array of shape {x.shape} to shape {target}")
    return view(x, target, lambda value: ops.expand(value, target), None, ordered=True)


@implements("broadcast_arrays")
def broadcast_arrays(*arrays: Any, subok: bool = False) -> Any:
    target = ops.broadcast(*(np.shape(array) for array in arrays))
    return tuple(np.broadcast_to(array, target) for array in arrays)


@implements("flip")
def flip(x: Any, axis: Any = None) -> Any:
    axes = all_axes(axis, np.ndim(x))
    return x[tuple(slice(None, None, -1) if item in axes else slice(None) for item in range(np.ndim(x)))]


@implements("flipud")
def flipud(x: Any) -> Any:
    return flip(x, 0)


@implements("fliplr")
def fliplr(x: Any) -> Any:
    return flip(x, 1)


@implements("rot90")
def rot90(x: TracedArray, k: int = 1, axes: Sequence[int] = (0, 1)) -> Any:
    first, second = all_axes(tuple(axes), x.ndim)
    if k % 4 == 0:
        return x[...]
    if k % 4 == 2:
        return flip(x, (first, second))
    turned = flip(x, second) if k % 4 == 1 else x
    turned = swapaxes(turned, first, second)
    return turned if k % 4 == 1 else flip(turned, second)


@implements("roll")
def roll(x: TracedArray, shift: Any, axis: Any = None) -> Any:
    if axis is None:
        return np.reshape(roll(x.ravel(), shift, 0), x.shape)
    axes = axis if isinstance(axis, Sequence) else (axis,)
    pairs = np.broadcast(shift, axes)
    value = x.value
    for amount, item in pairs:
        place = one_axis(int(item), x.ndim)
        extent = x.shape[place]
        if is_symbolic(extent):
            cut = extent - int(amount) if amount > 0 else -int(amount)
        else:
            cut = -int(amount) % extent if extent else 0
        tail = ops.slices(value, [(place, cut, 1, extent - cut)])
        value = ops.concat([tail, ops.slices(value, [(place, 0, 1, cut)])], place)
    return wrap(value)


@implements("tile")
def tile(x: TracedArray, reps: Any) -> TracedArray:
    counts = as_shape(reps)
    rank = max(x.ndim, len(counts))
    value = ops.reshape(x.value, (1,) * (rank - x.ndim) + x.shape)
    return wrap(ops.tile(value, (1,) * (rank - len(counts)) + counts))


@implements("repeat")
def repeat(x: Any, repeats: Any, axis: Any = None) -> Any:
    if axis is None:
        x, axis = x.ravel(), 0
    place = one_axis(axis, x.ndim)
    return along(x, place, np.repeat(np.arange(x.shape[place]), repeats))


@implements("split")
def split(x: TracedArray, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    sections = indices_or_sections
    if np.ndim(sections) == 0 and x.shape[axis] % operator.index(sections):
        raise ValueError("array split does not result in an equal division")
    return array_split(x, sections, axis)


@implements("array_split")
def array_split(x: TracedArray, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    place = one_axis(axis, x.ndim)
    if np.ndim(indices_or_sections):
        cuts = [None, *(operator.index(cut) for cut in indices_or_sections), None]
    else:
        parts = np.array_split(np.arange(x.shape[place]), operator.index(indices_or_sections))
        ends = np.cumsum([0, *(len(part) for part in parts)])
        cuts = [int(end) for end in ends]
    return [along(x, place, slice(low, high)) for low, high in pairwise(cuts)]


@implements("hsplit")
def hsplit(x: TracedArray, indices_or_sections: Any) -> list[Any]:
    return split(x, indices_or_sections, 1 if x.ndim > 1 else 0)


@implements("vsplit")
def vsplit(x: TracedArray, indices_or_sections: Any) -> list[Any]:
    return split(x, indices_or_sections, 0)


@implements("dsplit")
def dsplit(x: TracedArray, indices_or_sections: Any) -> list[Any]:
    return split(x, indices_or_sections, 2)


@implements("unstack")
def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    return tuple(np.moveaxis(x, axis, 0))


@implements("diagonal")
def diagonal(x: TracedArray, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """View the diagonals along two axes, which become the last axis; NumPy's view cannot be written to."""
    places = np.diagonal(np.arange(x.size).reshape(x.shape), offset, axis1, axis2)
    return chosen_elements(x, places, writable=False)


def chosen_elements(x: TracedArray, places: Any, writable: bool = True) -> TracedArray:
    """View elements of an array at flat positions that are all different.

    Args:
        x: the array.
        places: integers, of the shape of the view.
        writable: whether the view can be assigned to.
    """
    flat = x.graph.constant(np.asarray(places, np.int64))

    def forward(value: GraphValue) -> GraphValue:
        return ops.gather(ops.reshape(value, (value.size,)), flat, 0)

    def backward(value: GraphValue, new: GraphValue) -> GraphValue:
        return ops.scatter_flat(value, flat, ops.reshape(new, (new.size,)))

    return TracedArray(ViewCell(x._cell, flat.shape, forward, backward if writable else None))


@implements("linalg.diagonal")
def linalg_diagonal(x: TracedArray, /, *, offset: int = 0) -> Any:
    return diagonal(x, offset, -2, -1)


@implements("linalg.trace")
def linalg_trace(x: TracedArray, /, *, offset: int = 0, dtype: Any = None) -> Any:
    return diagonal(x, offset, -2, -1).sum(-1, dtype)


@implements("trace")
def trace(x: TracedArray, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Any:
    return diagonal(x, offset, axis1, axis2).sum(-1, dtype)


@implements("tril")
def tril(m: TracedArray, k: int = 0) -> TracedArray:
    return _triangle(m, k, False)


@implements("triu")
def triu(m: TracedArray, k: int = 0) -> TracedArray:
    return _triangle(m, k, True)


def _triangle(m: TracedArray, k: int, upper: bool) -> TracedArray:
    if m.ndim == 1:
        m = broadcast_to(m, (m.size, m.size))
    return wrap(ops.triangle(m.value, operator.index(k), upper))
