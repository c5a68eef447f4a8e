"""Linear quantisation to small integers and float8, and dequantisation.

Rounding makes the quantised value piecewise constant: its derivative is zero, unless the graph is registered
with rounding "straight_through" (`straight_quantized`). Dequantisation is differentiable in its scale.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.arrays import axis_of
from gradwire_engine.lowering.numeric import broadcast, cast, constant, select
from gradwire_engine.lowering.registry import Node, Value, rule
from gradwire_engine.lowering.rules.arrays.linear_algebra import centred, matmul_of
from gradwire_engine.lowering.rules.elementwise.casting import cast_to, element_type, is_small


def _spread(node: Node, parameter: Value, x: Value) -> Value:
    """Broadcast a scale or zero point to `x`: one for all, one for each along `axis`, or per block."""
    if parameter.size == 1:
        return jnp.broadcast_to(parameter.reshape(()), x.shape)
    axis = axis_of(node, node.attr("axis", 1), x.ndim)
    if (parameter.ndim == 1 and x.ndim > 1) or not node.attr("block_size", 0):
        shape = [1] * x.ndim
        shape[axis] = -1
        return jnp.broadcast_to(parameter.reshape(shape), x.shape)
    repeated = jnp.repeat(jnp.asarray(parameter), node.attr("block_size"), axis)
    return lax.slice_in_dim(repeated, 0, x.shape[axis], axis=axis)


def _saturated(node: Node, x: Value, target: np.dtype[Any]) -> Value:
    """Clamp a floating `x` to the target's range, then convert it."""
    if not jnp.issubdtype(target, jnp.integer):
        return cast_to(node, x, target)
    limits = jnp.iinfo(target)  # type: ignore[no-untyped-call]
    held = lax.clamp(constant(int(limits.min), x), x, constant(int(limits.max), x))
    return lax.convert_element_type(cast(held, np.int32) if is_small(target) else held, target)


@rule("QuantizeLinear", since=10)
def quantize(node: Node, x: Value, scale: Value, zero_point: Value = None) -> Value:
    """QuantizeLinear: `saturate(round(x / scale) + zero_point)`, rounding halves to even.

    The quotient is computed in `precision`.
    """
    target = _target(node, zero_point)
    quotient = _quotient(node, x, scale)
    if jnp.issubdtype(target, jnp.integer):
        # The zero point is added in float32 at least: a half cannot hold every integer of 16 bits.
        quotient = lax.round(quotient, lax.RoundingMethod.TO_NEAREST_EVEN)
        quotient = cast(quotient, jnp.promote_types(quotient.dtype, np.float32))
    return _saturated(node, _shifted(node, quotient, zero_point, x), target)


def straight_quantized(node: Node, x: Value, scale: Value, zero_point: Value = None) -> Value | None:
    """Returns floats equal to what QuantizeLinear gives, with the derivative of the number before rounding.

    Where it saturates the derivative is 0, as in PyTorch's `fake_quantize`. None for types other than
    integers.
    """
    target = _target(node, zero_point)
    if not jnp.issubdtype(target, jnp.integer):
        return None
    quotient = _quotient(node, x, scale)
    quotient = cast(quotient, jnp.promote_types(quotient.dtype, np.float32))
    rounded = lax.round(quotient, lax.RoundingMethod.TO_NEAREST_EVEN)
    shifted = _shifted(node, rounded, zero_point, x)
    limits = jnp.iinfo(target)  # type: ignore[no-untyped-call]
    held = lax.clamp(constant(int(limits.min), shifted), shifted, constant(int(limits.max), shifted))
    return with_derivative_of(select(lax.eq(held, shifted), quotient, lax.stop_gradient(quotient)), held)


def with_derivative_of(x: Value, y: Value) -> Value:
    """Returns `y` with the derivative of `x`, which is 0 where `x` is not finite."""
    change = lax.sub(x, lax.stop_gradient(x))
    return lax.add(lax.stop_gradient(y), select(lax.is_finite(x), change, jnp.zeros_like(change)))


def _target(node: Node, zero_point: Value) -> np.dtype[Any]:
    if zero_point is not None:
        target: np.dtype[Any] = np.dtype(zero_point.dtype)
        return target
    return element_type(node, node.attr("output_dtype", 0) or 2)


def _quotient(node: Node, x: Value, scale: Value) -> Value:
    precision = element_type(node, node.attr("precision")) if node.attr("precision", 0) else scale.dtype
    return lax.div(cast(jnp.asarray(x), precision), _spread(node, cast(scale, precision), x))


def _shifted(node: Node, quotient: Value, zero_point: Value, x: Value) -> Value:
    if zero_point is None:
        return quotient
    return lax.add(quotient, _spread(node, cast(zero_point, quotient.dtype), x))


@rule("DequantizeLinear", since=10)
def dequantize(node: Node, x: Value, scale: Value, zero_point: Value = None) -> Value:
    """DequantizeLinear: `(x - zero_point) * scale` in `output_dtype`, by default the dtype of the scale."""
    target = element_type(node, node.attr("output_dtype")) if node.attr("output_dtype", 0) else scale.dtype
    working = np.int32 if jnp.issubdtype(x.dtype, jnp.integer) else target
    wide = cast(jnp.asarray(cast(x, working)), working)
    if zero_point is not None:
        wide = lax.sub(wide, _spread(node, cast(zero_point, working), x))
    return lax.mul(cast(wide, target), _spread(node, cast(scale, target), x))


@rule("QLinearMatMul", since=10)
def quantized_matmul(
    node: Node,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    y_scale: Value,
    y_zero: Value,
) -> Value:
    """QLinearMatMul: accumulates in int32, then quantises the result.

    Args:
        node: the node.
        a: (..., rows, inner) 8-bit integers.
        a_scale: one for all, or per row of `a`.
        a_zero: zero point, likewise.
        b: (..., inner, columns) 8-bit integers.
        b_scale: one for all, or per column of `b`.
        b_zero: zero point, likewise.
        y_scale: one for all, or per row of the result.
        y_zero: zero point, likewise; its dtype is that of the result.

    Returns:
        (..., rows, columns) integers.
    """
    product = matmul_of(centred(a, a_zero, -2), centred(b, b_zero, -1))
    working = jnp.promote_types(a_scale.dtype, np.float32)

    def by_row(parameter: Value) -> Value:
        wide = jnp.asarray(cast(parameter, working))
        return wide.reshape((-1, 1)) if wide.ndim == 1 and wide.size > 1 else wide

    scale = by_row(a_scale) * jnp.asarray(cast(b_scale, working)) / by_row(y_scale)
    scaled = lax.mul(*broadcast(cast(product, working), jnp.broadcast_to(scale, product.shape)))
    rounded = lax.round(scaled, lax.RoundingMethod.TO_NEAREST_EVEN)
    shifted = lax.add(rounded, jnp.broadcast_to(by_row(y_zero), rounded.shape))
    return _saturated(node, shifted, np.dtype(y_zero.dtype))
