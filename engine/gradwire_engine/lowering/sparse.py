"""Sparse tensors of a model as dense arrays."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from gradwire_engine.errors import LimitExceeded
from gradwire_engine.limits import Limits


def dense(sparse: onnx.SparseTensorProto, limits: Limits) -> np.ndarray[Any, Any]:
    """Return a sparse tensor as a dense array.

    Raises:
        LimitExceeded: that is too large.
        IndexError, ValueError: indices or values do not fit the shape.
    """
    values = numpy_helper.to_array(sparse.values)
    size = prod(sparse.dims) * values.dtype.itemsize
    if size > limits.array_bytes:
        raise LimitExceeded(
            f"sparse tensor {sparse.values.name!r} of shape {tuple(sparse.dims)} has {size} bytes when made "
            f"dense; the limit for one array is {limits.array_bytes} bytes",
            "array_bytes",
            limits.array_bytes,
            size,
        )
    indices = numpy_helper.to_array(sparse.indices)
    array = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.size and indices.min() < 0:
        raise IndexError(f"index {indices.min()} is negative")
    if indices.ndim == 1:
        array.reshape(-1)[indices] = values
    else:
        array[tuple(indices.T)] = values
    return array
