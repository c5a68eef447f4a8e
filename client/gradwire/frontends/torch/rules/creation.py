"""Rules for new tensors, copies and conversions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gradwire.frontends.numpy.arrays.array import TracedArray, wrap
from gradwire.frontends.torch.lowering import Array, Call, numpy_dtype, rule
from gradwire.graphs.builder import SCI


def constant(call: Call, values: np.ndarray[Any, Any]) -> Array:
    """Make a constant; integers and bools stay NumPy, so that arithmetic on them is done while lowering."""
    return wrap(call.graph.constant(values)) if values.dtype.kind == "f" else values


def of_dtype(x: Any, dtype: np.dtype[Any]) -> Any:
    """Convert an array to a dtype; Python numbers are left as they are."""
    return x if isinstance(x, bool | int | float | complex) or x.dtype == dtype else x.astype(dtype)


@rule("full", "new_full")
def full(call: Call, *args: Any, **_: Any) -> Array:
    return _filled(call, args[-1])


@rule("full_like")
def full_like(call: Call, x: Array, number: Any, **_: Any) -> Array:
    return _filled(call, number)


@rule("fill")
def fill(call: Call, x: Array, number: Any) -> Array:
    return _filled(call, number)


@rule("zeros", "new_zeros", "zeros_like", "empty", "new_empty", "empty_like", "empty_strided",
      "new_empty_strided", "empty_permuted", "zero", "_efficientzerotensor")  # fmt: skip
def zeros(call: Call, *_: Any, **__: Any) -> Array:
    return _filled(call, 0)


@rule("ones", "new_ones", "ones_like")
def ones(call: Call, *_: Any, **__: Any) -> Array:
    return _filled(call, 1)


def _filled(call: Call, number: Any) -> Array:
    if isinstance(number, TracedArray):
        return np.broadcast_to(number.astype(call.dtype), call.shape)
    return constant(call, np.full(call.shape, number, call.dtype))


@rule("scalar_tensor")
def scalar_tensor(call: Call, number: Any, **_: Any) -> Array:
    return _filled(call, number)


@rule("arange")
def arange(call: Call, *bounds: Any, **_: Any) -> Array:
    start, step = (bounds[0] if len(bounds) > 1 else 0), (bounds[2] if len(bounds) > 2 else 1)
    steps = np.arange(call.shape[0])
    return constant(call, (start + step * steps).astype(call.dtype))


@rule("linspace")
def linspace(call: Call, start: float, end: float, steps: int, **_: Any) -> Array:
    return constant(call, np.linspace(start, end, steps).astype(call.dtype))


@rule("eye")
def eye(call: Call, *_: Any, **__: Any) -> Array:
    return constant(call, np.eye(*call.shape, dtype=call.dtype))


@rule("clone", "contiguous", "lift_fresh_copy")
def clone(call: Call, x: Array, **_: Any) -> Array:
    return x.copy()


@rule("alias", "detach", "lift_fresh", "lift")
def alias(call: Call, x: Array, **_: Any) -> Array:
    # Tensors that the user detached pass through stop_gradient; autograd detaches others internally.
    return x


@rule("_to_copy", "to")
def to_copy(call: Call, x: Array, **_: Any) -> Array:
    if x.dtype == call.dtype:
        return x.copy()
    if x.dtype.kind == "f" and call.dtype.kind in "iu" and isinstance(x, TracedArray):
        return np.trunc(x).astype(call.dtype)
    return x.astype(call.dtype)


@rule("convert_element_type")
def convert_element_type(call: Call, x: Array, dtype: torch.dtype) -> Array:
    return x.astype(numpy_dtype(dtype))


@rule("copy")
def copy(call: Call, target: Array, source: Any, non_blocking: bool = False) -> Array:
    return np.broadcast_to(of_dtype(source, call.dtype), call.shape)


@rule("stop_gradient")
def stop_gradient(call: Call, x: Array) -> Array:
    if not isinstance(x, TracedArray):
        return x.copy()
    return call.emit("StopGradient", x.value, domain=SCI)
