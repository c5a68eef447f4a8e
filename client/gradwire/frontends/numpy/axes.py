"""Axes and dtypes as NumPy's functions take them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gradwire.graphs.nodes import DType

AxisError: type[Exception] = getattr(np, "exceptions", np).AxisError


def one_axis(axis: Any, rank: int) -> int:
    """Return an axis as a non-negative integer.

    Raises:
        AxisError: there is no such axis.
    """
    number = operator.index(axis)
    if not -rank <= number < rank:
        raise AxisError(number, rank)
    return number % rank


def all_axes(axis: Any, rank: int) -> tuple[int, ...]:
    """Return axes as non-negative integers; None stands for every axis.

    Raises:
        AxisError: there is no such axis.
        ValueError: an axis is given twice.
    """
    if axis is None:
        return tuple(range(rank))
    if isinstance(axis, Sequence):
        axes = tuple(one_axis(item, rank) for item in axis)
        if len(set(axes)) < len(axes):
            raise ValueError("repeated axis")
        return axes
    return (one_axis(axis, rank),)


def along(x: Any, axis: int, part: Any) -> Any:
    """Index one axis of an array and keep the others whole.

    Args:
        x: an array.
        axis: a non-negative axis.
        part: an integer, a slice or an array of integers.
    """
    return x[(slice(None),) * axis + (part,)]


@lru_cache(maxsize=256)
def reduction_dtype(ufunc: np.ufunc, dtype: DType) -> DType:
    """Return the dtype in which NumPy accumulates: narrow integers and bool become 64-bit."""
    result: DType = ufunc.reduce(np.ones(1, dtype)).dtype
    return result
