"""Rules for sorting, medians and running extrema."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import wrap
from gradwire.frontends.numpy.ufuncs.accumulation import accumulate
from gradwire.frontends.torch.lowering import Array, Call, rule
from gradwire.frontends.torch.rules.elementwise import where
from gradwire.graphs import operators as ops


@rule("cummax", "cummin")
def cummax(call: Call, x: Array, dim: int) -> Any:
    """Of equal elements, the last counts."""
    if not x.ndim:
        return x.copy(), np.zeros((), np.int64)
    highest = call.op == "cummax"
    running = wrap(accumulate(np.maximum if highest else np.minimum, call.value(x), dim))
    reached = np.greater_equal(x, running) if highest else np.less_equal(x, running)
    reached = np.logical_or(reached, np.isnan(x)) if x.dtype.kind == "f" else reached
    shape = [1] * x.ndim
    shape[dim] = x.shape[dim]
    places = np.where(reached, np.arange(x.shape[dim]).reshape(shape), 0)
    indices: Any = wrap(accumulate(np.maximum, call.value(places), dim))
    return np.take_along_axis(x, indices, dim), indices


def sorted_along(call: Call, x: Array, dim: int, descending: bool) -> tuple[Any, Any]:
    """Return sorted values and their indices; NaN counts as larger than every number, as in PyTorch.

    The descending order is the ascending one of the reversed array, reversed: equal elements keep their
    order.
    """
    given = np.flip(x, dim) if descending else x
    values, indices = map(wrap, ops.sort(call.value(given), dim % x.ndim))
    if not descending:
        return values, indices
    return np.flip(values, dim), x.shape[dim] - 1 - np.flip(indices, dim)


@rule("sort")
def sort(call: Call, x: Array, *args: Any, **kwargs: Any) -> Any:
    if call.overload == "stable":
        args = args[1:]
    dim = kwargs.get("dim", args[0] if args else -1)
    descending = kwargs.get("descending", args[1] if len(args) > 1 else False)
    if not x.ndim:
        return x.copy(), np.zeros((), np.int64)
    return sorted_along(call, x, dim, bool(descending))


@rule("topk")
def topk(call: Call, x: Array, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    if not x.ndim:
        return x.copy(), np.zeros((), np.int64)
    values, indices = sorted_along(call, x, dim, largest)
    first = (slice(None),) * (dim % x.ndim) + (slice(0, k),)
    return values[first], indices[first]


@rule("kthvalue")
def kthvalue(call: Call, x: Array, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    if not x.ndim:
        return x.copy(), np.zeros((), np.int64)
    values, indices = topk(call, x, k, dim, largest=False)
    last = (slice(None),) * (dim % x.ndim) + (slice(k - 1, k),)
    return values[last].reshape(call.shape), indices[last].reshape(call.shape)


@rule("median", "nanmedian")
def median(call: Call, x: Array, dim: int | None = None, keepdim: bool = False) -> Any:
    """Return the lower of the two middle elements, and NaN if there is one (`median`).

    The median of all elements shares its derivative among those that are equal to it.
    """
    if not x.ndim:
        return (x.copy(), np.zeros((), np.int64)) if dim is not None else x.copy()
    along, axis = (x.reshape(-1), 0) if dim is None else (x, dim % x.ndim)
    values, indices = sorted_along(call, along, axis, descending=False)
    place: Any = np.full((1,) * along.ndim, (along.shape[axis] - 1) // 2)
    if x.dtype.kind == "f":
        unknown = np.isnan(values)
        if call.op == "median":  # the first NaN in the sorted order
            place = np.where(
                unknown.any(axis=axis, keepdims=True),
                np.sum(np.logical_not(unknown).astype(np.int64), axis=axis, keepdims=True),
                place,
            )
        else:
            known = np.sum(np.logical_not(unknown).astype(np.int64), axis=axis, keepdims=True)
            place = np.maximum(known - 1, 0) // 2
    shape = tuple(1 if i == axis else extent for i, extent in enumerate(along.shape))
    place = np.broadcast_to(place, shape)
    ordered: Any = wrap(call.value(values))
    found: Any = np.take_along_axis(ordered, place, axis)
    if dim is not None:
        return found.reshape(call.shape), np.take_along_axis(indices, place, axis).reshape(call.shape)
    return _shared(call, along, found.reshape(()))


def _shared(call: Call, x: Array, value: Array) -> Any:
    if x.dtype.kind != "f":
        return value
    kept = call.frozen(value)
    equal = np.logical_or(np.equal(x, kept), np.logical_and(np.isnan(x), np.isnan(kept)))
    step = where(call, np.logical_and(equal, np.isfinite(x)), x - call.frozen(x), 0)
    return kept + np.sum(step) / np.sum(equal.astype(call.dtype))
