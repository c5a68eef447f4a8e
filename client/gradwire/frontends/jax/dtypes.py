"""The dtypes of JAX arrays: those of NumPy and of ml_dtypes, without promotion between them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from onnx import helper

from gradwire.errors import TraceError
from gradwire.graphs.nodes import DType

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

KINDS = "fiubV"
"""Kinds of the dtypes that converted graphs may have; the last is that of most of ml_dtypes."""


def graph_dtype(dtype: Any) -> DType:
    """Return the NumPy dtype of a JAX array in a graph.

    Raises:
        TraceError: graphs have no such dtype (complex numbers, random keys).
    """
    if dtype == jax.dtypes.float0:  # of tangents of integers, which JAX keeps as truths
        return np.dtype(np.bool_)
    try:
        plain: DType = np.dtype(dtype)
        if plain.kind in KINDS:
            helper.np_dtype_to_tensor_dtype(plain)
            return plain
    except (TypeError, ValueError, KeyError):
        pass
    raise TraceError(
        f"an array of dtype {dtype} has no place in a graph: use real, integer or boolean arrays; "
        "give and return complex numbers as two real parts, and draw random samples outside"
    )


def is_float(dtype: DType) -> bool:
    """Return whether a dtype is a floating-point one, bfloat16 and others of ml_dtypes included."""
    return dtype.kind == "f" or (dtype.kind == "V" and bool(jnp.issubdtype(dtype, jnp.floating)))


def is_complex(dtype: Any) -> bool:
    """Return whether a dtype is a complex one."""
    return bool(jnp.issubdtype(dtype, jnp.complexfloating))


def part_dtype(dtype: Any) -> DType:
    """Return the dtype of the parts of a complex array; that of another array is its own.

    Raises:
        TraceError: as for `graph_dtype`.
    """
    return np.dtype(np.finfo(dtype).dtype) if is_complex(dtype) else graph_dtype(dtype)
