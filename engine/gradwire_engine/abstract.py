"""Configures JAX, and makes abstract arrays (shape and dtype, no elements) for tracing."""

from __future__ import annotations

from typing import Any

import jax

from gradwire_engine.values import ArrayType, dtype_of

jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
# On GPUs the default would round float32 products to TF32, ten bits.
jax.config.update("jax_default_matmul_precision", "highest")  # type: ignore[no-untyped-call]


def abstract(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """Make an abstract array of a shape and dtype."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def abstract_argument(value: ArrayType) -> jax.ShapeDtypeStruct:
    """Make an abstract array of an argument's type."""
    return abstract(value.shape, dtype_of(value.dtype))
