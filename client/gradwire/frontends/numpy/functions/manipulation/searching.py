"""Searching and counting, whose results are integers, and conversions of flat positions."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy

from gradwire.frontends.numpy.arrays.array import TracedArray, graph_of, traced
from gradwire.frontends.numpy.dispatch import implements
from gradwire.frontends.numpy.functions.manipulation.creation import filled
from gradwire.graphs.nodes import DType
from gradwire.graphs.operators import FLOAT64
from gradwire.graphs.refusals import refuse

# Untyped: NumPy's annotations do not know that any object may dispatch.
np: Any = numpy


@implements("searchsorted")
def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    """Compare every value with every knot: the work grows with the product of their numbers."""
    graph = graph_of(a, v)
    a, v = traced(graph, a), traced(graph, v)
    if sorter is not None:
        a = np.take(a, sorter)
    if a.ndim != 1:
        raise ValueError("object too deep for desired array")
    if side not in ("left", "right"):
        raise ValueError(f"'{side}' is an invalid value for keyword 'side'")
    compare = np.less if side == "left" else np.less_equal
    return np.sum(compare(a, v[..., None]), axis=-1, dtype=np.int64)


@implements("digitize")
def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    if isinstance(bins, TracedArray):
        raise refuse(
            "np.digitize with traced bins", "use np.searchsorted, which takes them in ascending order"
        )
    edges = np.asarray(bins)
    falling = edges.size > 1 and edges[0] > edges[-1]
    side = "left" if right else "right"
    if not falling:
        return searchsorted(edges, x, side)
    return edges.size - searchsorted(edges[::-1], x, "left" if side == "right" else "right")


@implements("isin")
def isin(
    element: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False, *, kind: Any = None
) -> Any:
    graph = graph_of(element, test_elements)
    found = np.any(traced(graph, element)[..., None] == np.ravel(traced(graph, test_elements)), axis=-1)
    return ~found if invert else found


@implements("bincount")
def bincount(x: Any, /, weights: Any = None, minlength: int = 0) -> Any:
    if isinstance(x, TracedArray):
        raise refuse(
            "np.bincount of traced positions, whose number of bins would depend on values",
            "add weights into bins that are there: bins = gw.zeros(count); np.add.at(bins, x, weights)",
        )
    places = np.asarray(x)
    count = max(operator.index(minlength), int(places.max()) + 1 if places.size else 0)
    bins = filled(graph_of(weights), count, 0, FLOAT64)
    np.add.at(bins, places, weights)
    return bins


@implements("unravel_index")
def unravel_index(indices: Any, shape: Any, order: str = "C") -> tuple[Any, ...]:
    extents = [shape] if np.ndim(shape) == 0 else list(shape)
    rest, found = indices, []
    for extent in extents if order == "F" else reversed(extents):
        found.append(rest % extent)
        rest = rest // extent
    return tuple(found if order == "F" else reversed(found))


@implements("ravel_multi_index")
def ravel_multi_index(multi_index: Sequence[Any], dims: Any, mode: str = "raise", order: str = "C") -> Any:
    """Convert positions without a check of their range, since a graph cannot raise."""
    if mode not in ("raise", "clip", "wrap"):
        raise refuse(f"np.ravel_multi_index with mode={mode!r}", "use raise, clip or wrap")
    extents = [dims] if np.ndim(dims) == 0 else list(dims)
    pairs = list(zip(multi_index, extents, strict=True))
    position: Any = 0
    for index, extent in pairs if order == "C" else reversed(pairs):
        place = (
            index % extent if mode == "wrap" else np.clip(index, 0, extent - 1) if mode == "clip" else index
        )
        position = position * extent + place
    return position


@implements("lexsort")
def lexsort(keys: Any, axis: int = -1) -> Any:
    """Sort stably by one key after another, the least significant first."""
    graph = graph_of(keys) if isinstance(keys, list | tuple) else keys.graph
    rows = [traced(graph, key) for key in keys]
    order = np.argsort(rows[0], axis=axis, stable=True)
    for key in rows[1:]:
        within = np.argsort(np.take_along_axis(key, order, axis), axis=axis, stable=True)
        order = np.take_along_axis(order, within, axis)
    return order


@implements("common_type")
def common_type(*arrays: Any) -> Any:
    kinds: list[DType] = [array.dtype for array in arrays]
    return numpy.common_type(*(np.empty(0, kind) for kind in kinds))
