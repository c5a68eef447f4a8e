"""Operators of com.microsoft that onnxruntime's optimizer writes for patterns of ONNX's own.

Those that are sums, products and elementwise functions in another spelling are here; models with others are
told to be exported without the optimizer.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from gradwire_engine.lowering.numeric import broadcast, constant
from gradwire_engine.lowering.registry import MICROSOFT, Node, Value, rule
from gradwire_engine.lowering.rules.arrays.linear_algebra import matmul_of
from gradwire_engine.lowering.rules.networks.activations import gelu_of
from gradwire_engine.lowering.rules.networks.normalization import standardize


def _factor(x: Value, batch_first: bool, transposed: bool) -> Value:
    """Returns a factor of FusedMatMul as a stack of matrices."""
    if batch_first and x.ndim > 2:
        x = jnp.moveaxis(x, 0, -2)
    return jnp.swapaxes(x, -1, -2) if transposed and x.ndim > 1 else x


@rule("FusedMatMul", domain=MICROSOFT)
def fused_matmul(node: Node, a: Value, b: Value) -> Value:
    """FusedMatMul: `alpha` times a matrix product, of transposed factors if asked for."""
    a = _factor(jnp.asarray(a), bool(node.attr("transBatchA", 0)), bool(node.attr("transA", 0)))
    b = _factor(jnp.asarray(b), bool(node.attr("transBatchB", 0)), bool(node.attr("transB", 0)))
    product = matmul_of(a, b)
    return lax.mul(product, jnp.full_like(product, node.attr("alpha", 1.0)))


def _sum(*values: Value | None) -> Value:
    given = [jnp.asarray(value) for value in values if value is not None]
    total = given[0]
    for one in given[1:]:
        total = lax.add(*broadcast(total, one))
    return total


@rule("Gelu", "BiasGelu", domain=MICROSOFT)
def gelu(node: Node, x: Value, bias: Value = None) -> Value:
    """Gelu, of com.microsoft, and BiasGelu: Gelu with the error function, of the sum with a bias."""
    return gelu_of(_sum(x, bias))


@rule("FastGelu", domain=MICROSOFT)
def fast_gelu(node: Node, x: Value, bias: Value = None) -> Value:
    """FastGelu: Gelu's approximation by tanh, of the sum with a bias if there is one."""
    return gelu_of(_sum(x, bias), approximate=True)


@rule("QuickGelu", domain=MICROSOFT)
def quick_gelu(node: Node, x: Value) -> Value:
    """QuickGelu: `x * sigmoid(alpha * x)`."""
    x = jnp.asarray(x)
    return lax.mul(x, lax.logistic(lax.mul(x, constant(node.attr("alpha", 1.702), x))))


@rule("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(
    node: Node, x: Value, skip: Value, scale: Value, shift: Value = None, bias: Value = None
) -> tuple[Value, ...]:
    """SkipLayerNormalization: LayerNormalization of a sum over its last axis, statistics, and the sum."""
    total = _sum(x, skip, bias)
    wide = total.astype(jnp.promote_types(total.dtype, jnp.float32))
    y, mean, inverse = standardize(wide, (total.ndim - 1,), float(node.attr("epsilon", 1e-12)))
    y = _sum(y.astype(total.dtype) * scale, shift)
    return y, mean, inverse, total
