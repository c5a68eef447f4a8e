"""Running sums, products and extrema: the `accumulate` method of ufuncs."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.numpy.axes import one_axis, reduction_dtype
from gradwire.frontends.numpy.ufuncs.rules import call
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import GraphValue


def accumulate(ufunc: np.ufunc, x: GraphValue, axis: Any, dtype: Any = None) -> GraphValue:
    """Apply `ufunc.accumulate` of an associative ufunc, in a number of nodes logarithmic in the extent.

    Each round combines every element with the partial result that ends where its own begins
    (Hillis and Steele, "Data parallel algorithms", 1986).

    Args:
        ufunc: an associative ufunc of two operands.
        x: the elements.
        axis: the axis to run along; negative axes count from the end.
        dtype: the dtype to compute in; None for the dtype in which NumPy accumulates.

    Raises:
        AxisError: there is no such axis.
    """
    place = one_axis(axis, x.ndim)
    kind = np.dtype(dtype) if dtype is not None else reduction_dtype(ufunc, x.dtype)
    value = ops.cast(x, kind)
    if ufunc is np.add:
        return ops.cast(ops.cumulative_sum(ops.wide(value), place), kind)
    extent, reach = x.shape[place], 1
    while reach < extent:
        head = ops.slices(value, [(place, 0, 1, reach)])
        early = ops.slices(value, [(place, 0, 1, extent - reach)])
        late = ops.slices(value, [(place, reach, 1, extent - reach)])
        value = ops.concat([head, *call(ufunc, [early, late], x.graph)], place)
        reach *= 2
    return value
