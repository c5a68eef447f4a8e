"""Joins arrays: concatenation, stacking, insertion, grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray, graph_of, traced, value_of, wrap
from gradwire.frontends.numpy.axes import along, one_axis
from gradwire.frontends.numpy.casts import check_cast
from gradwire.frontends.numpy.dispatch import implements
from gradwire.frontends.numpy.functions.manipulation.shaping import atleast_1d, atleast_2d, atleast_3d
from gradwire.frontends.numpy.ufuncs.rules import type_of
from gradwire.graphs import operators as ops
from gradwire.graphs.refusals import refuse


def common_dtype(*arrays: Any, dtype: Any = None) -> np.dtype[Any]:
    """Return the dtype to which NumPy promotes arrays; a Python number counts as an array."""
    if dtype is not None:
        fixed: np.dtype[Any] = np.dtype(dtype)
        return fixed
    kinds = (x.dtype if isinstance(x, TracedArray) else np.asarray(x).dtype for x in arrays)
    promoted: np.dtype[Any] = np.result_type(*kinds)
    return promoted


@implements("result_type")
def result_type(*arrays_and_dtypes: Any) -> np.dtype[Any]:
    return np.result_type(*(x.dtype if isinstance(x, TracedArray) else x for x in arrays_and_dtypes))


@implements("can_cast")
def can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    return np.can_cast(from_.dtype if isinstance(from_, TracedArray) else from_, to, casting)


def _nested(arrays: Any) -> list[Any]:
    """Stack the lists of traced arrays among the arrays."""
    return [np.stack(_nested(item)) if holds_traced(item) else item for item in arrays]


def holds_traced(item: Any) -> bool:
    """Return whether a list or tuple contains a traced array, at any depth."""
    return isinstance(item, list | tuple) and any(
        isinstance(part, TracedArray) or holds_traced(part) for part in item
    )


def _checked_dtype(parts: Any, dtype: Any, casting: Any) -> np.dtype[Any]:
    """Return the dtype of joined arrays, if the casting rule lets each of them have it.

    Raises:
        TypeError: it does not.
    """
    kind = common_dtype(*parts, dtype=dtype)
    for part in parts:
        check_cast(part.dtype if isinstance(part, TracedArray) else np.asarray(part).dtype, kind, casting)
    return kind


@implements("concatenate", "concat")
def concatenate(arrays: Any, axis: Any = 0, *, dtype: Any = None, casting: str = "same_kind") -> TracedArray:
    parts = _nested(arrays)
    graph = graph_of(*parts)
    kind = _checked_dtype(parts, dtype, casting)
    values = [value_of(graph, part, kind) for part in parts]
    if axis is None:
        values, axis = [ops.reshape(value, (value.size,)) for value in values], 0
    if not values[0].ndim:
        raise ValueError("zero-dimensional arrays cannot be concatenated")
    place = one_axis(axis, values[0].ndim)
    for value in values:
        if value.ndim != values[0].ndim or any(
            extent != other
            for item, (extent, other) in enumerate(zip(value.shape, values[0].shape, strict=True))
            if item != place
        ):
            raise ValueError(
                f"np.concatenate: shapes {values[0].shape} and {value.shape} differ off axis {place}"
            )
    return wrap(ops.concat(values, place))


@implements("stack")
def stack(arrays: Any, axis: int = 0, *, dtype: Any = None, casting: str = "same_kind") -> TracedArray:
    parts = _nested(arrays)
    shapes = {np.shape(part) for part in parts}
    if len(shapes) != 1:
        raise ValueError("all input arrays must have the same shape")
    shape = shapes.pop()
    place = one_axis(axis, len(shape) + 1)
    graph = graph_of(*parts)
    kind = _checked_dtype(parts, dtype, casting)
    longer = (*shape[:place], 1, *shape[place:])
    return wrap(ops.concat([ops.reshape(value_of(graph, part, kind), longer) for part in parts], place))


def _raised(lift: Any, arrays: Any) -> list[Any]:
    parts = _nested(arrays)
    return [
        lift(part) if isinstance(part, TracedArray) else getattr(np, lift.__name__)(part) for part in parts
    ]


@implements("vstack")
def vstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> TracedArray:
    return concatenate(_raised(atleast_2d, tup), 0, dtype=dtype, casting=casting)


@implements("hstack")
def hstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> TracedArray:
    parts = _raised(atleast_1d, tup)
    return concatenate(parts, 0 if parts[0].ndim == 1 else 1, dtype=dtype, casting=casting)


@implements("dstack")
def dstack(tup: Any) -> TracedArray:
    return concatenate(_raised(atleast_3d, tup), 2)


@implements("column_stack")
def column_stack(tup: Any) -> TracedArray:
    parts = _raised(atleast_1d, tup)
    return concatenate([part[:, None] if part.ndim == 1 else part for part in parts], 1)


@implements("append")
def append(arr: Any, values: Any, axis: Any = None) -> TracedArray:
    return concatenate([arr, values] if axis is not None else [np.ravel(arr), np.ravel(values)], axis or 0)


@implements("delete")
def delete(arr: Any, obj: Any, axis: Any = None) -> Any:
    if axis is None:
        arr, axis = arr.ravel(), 0
    place = one_axis(axis, arr.ndim)
    return along(arr, place, np.delete(np.arange(arr.shape[place]), obj))


@implements("insert")
def insert(arr: Any, obj: Any, values: Any, axis: Any = None) -> Any:
    """Insert values in the order that NumPy's own insertion gives to positions."""
    graph = graph_of(arr, values)
    arr = traced(graph, arr)
    if axis is None:
        arr, axis = arr.ravel(), 0
    place = one_axis(axis, arr.ndim)
    extent = arr.shape[place]
    new: Any = traced(graph, values).astype(arr.dtype)
    single = np.ndim(obj) == 0 and not isinstance(obj, slice)
    if single and new.ndim:
        # A single position takes all values along the axis; several positions take one each.
        new = np.moveaxis(np.reshape(new, (1,) * (arr.ndim - new.ndim) + new.shape), 0, place)
    if single:
        count = new.shape[place] if new.ndim else 1
    else:
        count = len(range(extent)[obj]) if isinstance(obj, slice) else np.size(obj)
    shape = (*arr.shape[:place], count, *arr.shape[place + 1 :])
    source = np.insert(np.arange(extent), obj, np.arange(extent, extent + count))
    joined = np.concatenate([arr, np.broadcast_to(new, shape)], axis=place)
    return along(joined, place, source)


@implements("resize")
def resize(a: Any, new_shape: Any) -> Any:
    shape = (new_shape,) if np.ndim(new_shape) == 0 else tuple(new_shape)
    size = int(np.prod(shape))
    return np.reshape(np.take(a, np.arange(size) % max(a.size, 1)), shape)


@implements("block")
def block(arrays: Any) -> Any:
    depth = _depth(arrays)
    rank = max(depth, _rank(arrays))
    return _block(arrays, depth, rank)


def _depth(arrays: Any) -> int:
    return 1 + _depth(arrays[0]) if isinstance(arrays, list) else 0


def _rank(arrays: Any) -> int:
    return max(_rank(item) for item in arrays) if isinstance(arrays, list) else np.ndim(arrays)


def _block(arrays: Any, depth: int, rank: int) -> Any:
    if isinstance(arrays, list):
        return np.concatenate([_block(item, depth - 1, rank) for item in arrays], axis=-depth)
    return np.reshape(arrays, (1,) * (rank - np.ndim(arrays)) + np.shape(arrays))


@implements("meshgrid")
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> Any:
    rank = len(xi)
    order = list(range(rank))
    if indexing == "xy" and rank > 1:
        order[:2] = [1, 0]
    grids: Sequence[Any] = [
        np.reshape(x, tuple(-1 if item == order[place] else 1 for item in range(rank)))
        for place, x in enumerate(xi)
    ]
    grids = tuple(grids) if sparse else tuple(np.broadcast_arrays(*grids))
    return tuple(grid.copy() for grid in grids) if copy else grids


@implements("ix_")
def ix_(*args: Any) -> tuple[Any, ...]:
    return tuple(
        np.reshape(item, tuple(-1 if place == axis else 1 for place in range(len(args))))
        for axis, item in enumerate(args)
    )


@implements("copyto")
def copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = True) -> None:
    if not isinstance(dst, TracedArray):
        raise refuse(
            "np.copyto into a plain NumPy array", "make the target with np.zeros_like(x) or gw.zeros(shape)"
        )
    if not np.can_cast(type_of(src) if not isinstance(src, TracedArray) else src.dtype, dst.dtype, casting):  # type: ignore[arg-type]
        raise TypeError(f"np.copyto: cannot cast to {dst.dtype} according to the rule {casting!r}")
    dst[...] = src if where is True else np.where(where, src, dst)
