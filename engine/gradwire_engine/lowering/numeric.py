"""Shared by the rules of numerical operators: constants, broadcasting, safe selection, precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from gradwire_engine.lowering.arrays import axis_of
from gradwire_engine.lowering.registry import Node, Value, namespace


def is_floating(value: Value) -> bool:
    """Return whether an array's dtype is floating point, bfloat16 and the float8 family included."""
    return bool(jnp.issubdtype(value.dtype, jnp.floating))


def float_attribute(node: Node, name: str, default: float) -> float:
    """Read a FLOAT attribute.

    ONNX stores these attributes as float32, so the default is rounded to float32 as well.
    """
    return float(node.attr(name, float(np.float32(default))))


def constant(value: Any, like: Value) -> np.ndarray[Any, Any]:
    """Return a scalar of the dtype of `like`."""
    return np.asarray(value, like.dtype)


def broadcast(*values: Value) -> list[Value]:
    """Broadcast the arrays to their common shape."""
    shapes = {tuple(value.shape) for value in values}
    if len(shapes) == 1:
        return list(values)
    shape = np.broadcast_shapes(*shapes)
    return [value if value.shape == shape else jnp.broadcast_to(value, shape) for value in values]


def select(condition: Value, x: Value, y: Value) -> Value:
    """Select `x` where the condition holds, else `y`.

    Both are broadcast to the shape of the condition and have one dtype.
    """
    shape = condition.shape
    x, y = (value if value.shape == shape else jnp.broadcast_to(value, shape) for value in (x, y))
    return lax.select(condition, x, y)


def magnitude(x: Value) -> Value:
    """Compute the absolute value, with derivative 0 at 0 (that of `lax.abs` is 1)."""
    return lax.mul(x, lax.sign(x)) if is_floating(x) else jnp.abs(x)


def guarded(
    condition: Value, function: Callable[[Value], Value], x: Value, safe: float, other: Value
) -> Value:
    """Compute `function(x)` where the condition holds, else `other`, with no NaN in any derivative.

    Where the condition fails the function is evaluated at `safe`: an infinite slope there would be
    multiplied by the zero derivative of the selection and give NaN.

    Args:
        condition: boolean array of the shape of `x`.
        function: elementwise, differentiable at `safe`.
        x: floating array.
        safe: a point at which the function and its derivatives are finite.
        other: array or scalar of the dtype of `x`.

    Returns:
        An array of the shape and dtype of `x`.
    """
    inner = select(condition, x, constant(safe, x))
    return select(condition, function(inner), other)


def widened(x: Value) -> Value:
    """Convert half precision to float32, in which sums are accumulated; return anything else unchanged."""
    if is_floating(x) and np.dtype(x.dtype).itemsize < 4:
        return lax.convert_element_type(x, np.float32)
    return x


def cast(x: Value, dtype: Any) -> Value:
    """Convert an array to another dtype; return it unchanged if it has it already."""
    if x.dtype == dtype:
        return x
    return x.astype(dtype) if isinstance(x, np.ndarray | np.generic) else lax.convert_element_type(x, dtype)


def axes_of(node: Node, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Return axes counted from the front, sorted, without repeats."""
    return tuple(sorted({axis_of(node, int(axis), rank) for axis in axes}))


def aligned(node: Node, a: Value, b: Value) -> Value:
    """Reshape `b` for NumPy's broadcasting against `a`.

    Before opset 7 the attribute `axis` names the axis of `a` at which `b` starts.
    """
    axis = node.attr("axis")
    if node.opset >= 7 or axis is None or not node.attr("broadcast", 0):
        return b
    return b.reshape((*b.shape, *(1 for _ in range(a.ndim - axis_of(node, axis, a.ndim) - b.ndim))))


def pointwise(numpy_function: Callable[..., Any], lax_function: Callable[..., Any]) -> Callable[..., Value]:
    """Return the rule of an operator that NumPy computes on static values and `lax` on any other."""

    def apply(node: Node, *inputs: Value) -> Value:
        if len(inputs) == 2 and node.opset < 7:
            inputs = (inputs[0], aligned(node, *inputs))
        if namespace(*inputs) is np:
            with np.errstate(all="ignore"):
                return numpy_function(*inputs)
        return lax_function(*broadcast(*inputs))

    return apply


@jax.custom_jvp
def real_power(x: Value, y: Value) -> Value:
    """Compute `x ** y` for floating `y`; at `x == 0` it has derivatives of every order that exist."""
    return lax.pow(x, y)


@partial(real_power.defjvp, symbolic_zeros=True)
def _real_power_jvp(primals: Any, tangents: Any) -> tuple[Value, Value]:
    (x, y), (dx, dy) = primals, tangents
    result = real_power(x, y)
    tangent = lax.full_like(result, 0)
    zero = constant(0, x)
    if not isinstance(dx, SymbolicZero):
        # At x == 0, y * x^(y - 1) is 0 * inf for y == 0, where x^0 has derivative 0.
        flat = lax.bitwise_and(lax.eq(x, zero), lax.eq(y, zero))
        factor = select(flat, zero, y)
        exponent = select(flat, constant(1, y), lax.sub(y, constant(1, y)))
        tangent = lax.mul(dx, lax.mul(factor, real_power(x, exponent)))
    if not isinstance(dy, SymbolicZero):
        logarithm = lax.log(select(lax.eq(x, zero), constant(1, x), x))
        tangent = lax.add(tangent, lax.mul(dy, lax.mul(logarithm, result)))
    return result, tangent
