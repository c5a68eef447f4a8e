"""Arrays without contents, for tracing; and the one place where JAX is configured."""

from __future__ import annotations

from typing import Any

import jax

from gradwire_engine.values import ArrayType, dtype_of

jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
# On GPUs the default would round float32 products to TF32, ten bits.
jax.config.update("jax_default_matmul_precision", "highest")  # type: ignore[no-untyped-call]


def abstract(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """An array of a shape and dtype, for tracing."""
    return jax.ShapeDtypeStruct(shape, dtype)  # type: ignore[no-untyped-call]


def abstract_argument(value: ArrayType) -> jax.ShapeDtypeStruct:
    """An argument of a given type, for tracing."""
    return abstract(value.shape, dtype_of(value.dtype))
