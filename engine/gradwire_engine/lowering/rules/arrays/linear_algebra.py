"""Matrix products, einsum, determinants, triangles and identities."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.numeric import cast, constant, float_attribute, is_floating, select, widened
from gradwire_engine.lowering.registry import STATIC_ELEMENTS, Node, Value, is_static, namespace, rule
from gradwire_engine.lowering.rules.elementwise.casting import element_type


def matmul_of(a: Value, b: Value) -> Value:
    """Multiply as NumPy's `matmul` does; equal batch shapes become one primitive."""
    if namespace(a, b) is np and not is_floating(a):
        return np.matmul(a, b)
    batch = a.ndim - 2
    if a.ndim == b.ndim >= 2 and a.shape[:-2] == b.shape[:-2]:
        leading = tuple(range(batch))
        return lax.dot_general(a, b, (((batch + 1,), (batch,)), (leading, leading)))
    return jnp.matmul(a, b)


@rule("MatMul", since=1)
def matmul(node: Node, a: Value, b: Value) -> Value:
    """MatMul: NumPy's `matmul`."""
    return matmul_of(a, b)


@rule("Gemm", since=1)
def gemm(node: Node, a: Value, b: Value, c: Value = None) -> Value:
    """Gemm: `alpha * A B + beta * C` with either matrix transposed; `C` is broadcast."""
    contracted = (0 if node.attr("transA", 0) else 1, 1 if node.attr("transB", 0) else 0)
    result = lax.dot_general(a, b, (((contracted[0],), (contracted[1],)), ((), ())))
    result = _scaled(result, float_attribute(node, "alpha", 1.0))
    if c is None:
        return result
    c = _scaled(jnp.asarray(c), float_attribute(node, "beta", 1.0))
    return lax.add(result, jnp.broadcast_to(c, result.shape))


def _scaled(x: Value, factor: float) -> Value:
    """Multiply by a factor; integers in float64, truncated afterwards."""
    if factor == 1.0:
        return x
    if is_floating(x):
        return lax.mul(x, constant(factor, x))
    return cast(lax.mul(cast(x, np.float64), np.float64(factor)), x.dtype)


@rule("Einsum", since=12)
def einsum(node: Node, *operands: Value) -> Value:
    """Einsum: with the equation of the attribute."""
    equation = node.attr("equation")
    if not equation:
        raise node.fail("attribute equation is missing")
    return jnp.einsum(equation.replace(" ", ""), *operands)


@rule("Det", since=11)
def determinant(node: Node, x: Value) -> Value:
    """Det: determinants of stacked matrices, with a correct derivative at singular ones too."""
    return cast(jnp.linalg.det(widened(jnp.asarray(x))), x.dtype)


def centred(x: Value, zero_point: Value, axis: int) -> Value:
    """Subtract the zero point (one, or one for each row or column) from a quantised matrix, in int32."""
    wide = cast(x, np.int32)
    if zero_point is None:
        return wide
    zero = cast(zero_point, np.int32)
    if zero.ndim == 1 and zero.size > 1 and axis == -2:
        zero = zero.reshape((-1, 1))
    return namespace(wide, zero).subtract(wide, zero)


@rule("MatMulInteger", since=10)
def matmul_integer(node: Node, a: Value, b: Value, a_zero: Value = None, b_zero: Value = None) -> Value:
    """MatMulInteger: in int32; zero points are per row of `a`, per column of `b`."""
    return matmul_of(centred(a, a_zero, -2), centred(b, b_zero, -1))


@rule("Trilu", since=14)
def triangle(node: Node, x: Value, k: Value = None) -> Value:
    """Trilu: the upper (or lower) triangle, from the `k`-th diagonal on; zero elsewhere."""
    if x.ndim < 2:
        raise node.fail(f"a triangle needs a matrix; the input has shape {tuple(x.shape)}")
    rows, columns = x.shape[-2:]
    offset = 0 if k is None else k.reshape(())
    below = (
        np.arange(columns)[None, :] - np.arange(rows)[:, None]
        if rows * columns <= STATIC_ELEMENTS
        else (
            lax.broadcasted_iota(np.int64, (rows, columns), 1)
            - lax.broadcasted_iota(np.int64, (rows, columns), 0)
        )
    )
    mask = below >= offset if node.attr("upper", 1) else below <= offset
    if is_static(x, mask):
        return np.where(mask, x, constant(0, x))
    return select(jnp.broadcast_to(mask, x.shape), x, constant(0, x))


@rule("EyeLike", since=9)
def eye_like(node: Node, x: Value) -> Value:
    """EyeLike: ones on the `k`-th diagonal of a matrix of the input's shape."""
    dtype = x.dtype if node.attr("dtype") is None else element_type(node, node.attr("dtype"))
    rows, columns = x.shape
    xp: Any = np if rows * columns <= STATIC_ELEMENTS else jnp
    return xp.eye(rows, columns, k=node.attr("k", 0), dtype=dtype)
