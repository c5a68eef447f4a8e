"""Sorting, partitioning and the permutations that sort."""

from __future__ import annotations

from typing import Any

from gradwire.frontends.numpy.arrays.array import TracedArray, wrap
from gradwire.frontends.numpy.axes import one_axis
from gradwire.frontends.numpy.dispatch import implements
from gradwire.graphs import operators as ops


def _sorted(x: TracedArray, axis: Any) -> tuple[TracedArray, TracedArray]:
    if axis is None:
        x, axis = x.ravel(), 0
    values, indices = ops.sort(x.value, one_axis(axis, x.ndim))
    return wrap(values), wrap(indices)


@implements("sort")
def sort(
    a: TracedArray, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> TracedArray:
    _no_fields(order)
    return _sorted(a, axis)[0]


@implements("argsort")
def argsort(
    a: TracedArray, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> TracedArray:
    """Sort stably, which every kind of sorting allows."""
    _no_fields(order)
    return _sorted(a, axis)[1]


def _no_fields(order: Any) -> None:
    if order is not None:
        raise ValueError("Cannot specify order when the array has no fields.")


@implements("partition")
def partition(
    a: TracedArray, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None
) -> TracedArray:
    """Sort fully, which is one of the orders that NumPy allows."""
    _no_fields(order)
    return _sorted(a, axis)[0]


@implements("argpartition")
def argpartition(
    a: TracedArray, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None
) -> TracedArray:
    """Sort fully, which is one of the orders that NumPy allows."""
    _no_fields(order)
    return _sorted(a, axis)[1]
