"""Functions that modify an argument in place."""

from __future__ import annotations

from typing import Any

import numpy

from gradwire.frontends.numpy.arrays.array import TracedArray
from gradwire.frontends.numpy.axes import one_axis
from gradwire.frontends.numpy.dispatch import implements
from gradwire.frontends.numpy.functions.manipulation.joining import holds_traced
from gradwire.graphs.refusals import refuse

# Untyped: NumPy's annotations do not know that any object may dispatch.
np: Any = numpy


def _target(name: str, array: Any) -> TracedArray:
    """Return the array if it can hold traced values.

    Raises:
        TraceError: it is a plain array.
    """
    if not isinstance(array, TracedArray):
        raise refuse(
            f"np.{name} into a plain NumPy array", "make the array with np.zeros_like(x) or gw.zeros(shape)"
        )
    return array


@implements("put")
def put(a: Any, ind: Any, v: Any, mode: str = "raise") -> None:
    target = _target("put", a)
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"clipmode must be one of 'clip', 'raise', or 'wrap' (got {mode!r})")
    places = ind if isinstance(ind, TracedArray) else np.asarray(ind)
    if mode == "wrap":
        places = places % target.size
    elif mode == "clip":
        places = np.clip(places, 0, target.size - 1)
    count = np.size(places)
    values = np.ravel(np.stack(v) if holds_traced(v) else v)
    repeated = np.tile(values, -(-count // max(np.size(values), 1)))[:count]
    flat = target.ravel().copy()
    flat[np.ravel(places)] = repeated
    target[...] = flat.reshape(target.shape)


@implements("put_along_axis")
def put_along_axis(arr: Any, indices: Any, values: Any, axis: Any) -> None:
    target = _target("put_along_axis", arr)
    if axis is None:
        put(target, indices, np.broadcast_to(values, np.shape(indices)))
        return
    place = one_axis(axis, target.ndim)
    grid = list(np.indices(np.shape(indices), sparse=True))
    grid[place] = indices
    target[tuple(grid)] = values


@implements("putmask")
def putmask(a: Any, /, mask: Any, values: Any) -> None:
    target = _target("putmask", a)
    if np.size(values) == 1:
        new: Any = np.reshape(values, ())
    else:
        repeats = -(-target.size // np.size(values))
        new = np.reshape(np.tile(np.ravel(values), repeats)[: target.size], target.shape)
    target[...] = np.where(mask, new, target)


@implements("place")
def place(arr: Any, mask: Any, vals: Any) -> None:
    target = _target("place", arr)
    if np.size(vals) != 1:
        raise refuse("np.place with several values, which go where the mask happens to hold", "use np.where")
    target[...] = np.where(mask, np.reshape(vals, ()), target)
