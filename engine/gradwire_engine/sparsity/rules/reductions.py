"""Reductions: each element of the result depends on what the elements that it sums depend on."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire_engine.sparsity.taps import Taps
from gradwire_engine.sparsity.walking import Reach, Visit, rule, unfollowed


@rule("reduce_sum")
def reduction(visit: Visit) -> list[Reach]:
    """Unite rows along axes: the pattern of y = sum(x) is one full row."""
    return [visit.sets.union_along(visit.ids(0), tuple(visit.params["axes"]))]


@rule("cumsum")
def scan_along(visit: Visit) -> list[Reach]:
    """Unite each row with those before it: a lower triangle, an upper one in reverse."""
    axis, backwards = visit.params["axis"], visit.params["reverse"]
    rows = np.moveaxis(visit.ids(0), axis, 0)
    if backwards:
        rows = rows[::-1]
    result = np.empty(rows.shape, np.int32)
    united: Any = None
    for k, row in enumerate(rows):
        united = visit.sets.union(united, row)
        result[k] = united
    if backwards:
        result = result[::-1]
    return [np.moveaxis(result, 0, axis)]


@rule("reduce_window_sum", "reduce_window")
def window(visit: Visit) -> list[Reach]:
    """Unite the rows of each window, axis by axis."""
    if len(visit.equation.outvars) > 1 or any(ids is not None for ids in visit.reached[1:]):
        return unfollowed(visit)
    ids = visit.ids(0)
    for axis, taps in enumerate(windows_of(visit)):
        ids = taps.united(visit.sets, ids, axis)
    return [ids]


@rule("select_and_gather_add")
def chosen_from_window(visit: Visit) -> list[Reach]:
    """Unite the rows of each window: which of them a maximum takes is not known."""
    ids = visit.ids(0)
    for axis, taps in enumerate(windows_of(visit)):
        ids = taps.united(visit.sets, ids, axis)
    return [ids]


@rule("select_and_scatter_add")
def spread_to_window(visit: Visit) -> list[Reach]:
    """Unite the rows of all windows that hold an element: the transpose of `chosen_from_window`."""
    ids, shape = visit.ids(0), visit.result_shape()
    params = visit.params
    for axis in range(ids.ndim):
        taps = Taps.of_windows(
            shape[axis],
            params["window_dimensions"][axis],
            params["window_strides"][axis],
            params["padding"][axis],
        )
        ids = taps.spread(visit.sets, ids, axis, shape[axis])
    return [ids]


def windows_of(visit: Visit) -> list[Taps]:
    """Return the windows of a reduction, one set of taps an axis."""
    params = visit.params
    return [
        Taps.of_windows(
            extent,
            params["window_dimensions"][axis],
            params["window_strides"][axis],
            params["padding"][axis],
            params["base_dilation"][axis],
            params["window_dilation"][axis],
        )
        for axis, extent in enumerate(visit.shape(0))
    ]
