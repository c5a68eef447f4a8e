"""Activations, softmaxes and dropout.

At a kink an activation has the derivative of its left-hand branch: 0 for `Relu` and
`ThresholdedRelu`, the slope of the negative side for `LeakyRelu`, `PRelu`, `Elu`, `Selu`.
"""

from __future__ import annotations

from math import pi, prod, sqrt

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering import smooth
from gradwire_engine.lowering.arrays import axis_of
from gradwire_engine.lowering.numeric import cast, constant, float_attribute, magnitude, select, widened
from gradwire_engine.lowering.registry import Node, Value, is_static, namespace, rule


def _nonpositive(x: Value) -> Value:
    """Return where `x <= 0`. NaN is not, and so goes through unchanged."""
    return lax.le(x, constant(0, x))


@rule("Relu", since=1)
def relu(node: Node, x: Value) -> Value:
    """Relu: derivative 0 at 0."""
    if namespace(x) is np:
        return np.maximum(x, constant(0, x))
    return select(_nonpositive(x), constant(0, x), x)


@rule("LeakyRelu", since=1)
def leaky_relu(node: Node, x: Value) -> Value:
    """LeakyRelu: slope `alpha` at 0 and below."""
    alpha = constant(float_attribute(node, "alpha", 0.01), x)
    return select(_nonpositive(x), lax.mul(x, alpha), x)


@rule("PRelu", since=1)
def prelu_by_channel(node: Node, x: Value, slope: Value) -> Value:
    """PRelu before opset 7: a vector of slopes belongs to axis 1."""
    return prelu(node, x, slope.reshape((-1,) + (1,) * max(0, x.ndim - 2)))


@rule("PRelu", since=7)
def prelu(node: Node, x: Value, slope: Value) -> Value:
    """PRelu: the slope is an input, broadcast to `x`."""
    return select(_nonpositive(x), lax.mul(x, jnp.broadcast_to(slope, x.shape)), x)


@rule("ThresholdedRelu", since=10)
def thresholded_relu(node: Node, x: Value) -> Value:
    """ThresholdedRelu: `x` above `alpha`, else 0."""
    alpha = constant(float_attribute(node, "alpha", 1.0), x)
    return select(lax.le(x, alpha), constant(0, x), x)


def _exponential_unit(x: Value, alpha: float, gamma: float = 1.0, width: float = 1.0) -> Value:
    """Compute `gamma * x` above 0, `gamma * alpha * (exp(x / width) - 1)` below."""
    left = _nonpositive(x)
    inner = select(left, x, constant(0, x))
    if width != 1.0:
        inner = lax.div(inner, constant(width, x))
    curved = lax.mul(smooth.expm1(inner), constant(gamma * alpha, x))
    return select(left, curved, x if gamma == 1.0 else lax.mul(x, constant(gamma, x)))


@rule("Elu", since=1)
def elu(node: Node, x: Value) -> Value:
    """Elu: alpha (exp(x) - 1) below 0."""
    return _exponential_unit(x, float_attribute(node, "alpha", 1.0))


@rule("Selu", since=1)
def selu(node: Node, x: Value) -> Value:
    """Selu: gamma times Elu."""
    alpha = float_attribute(node, "alpha", 1.67326319217681884765625)
    return _exponential_unit(x, alpha, float_attribute(node, "gamma", 1.05070102214813232421875))


@rule("Celu", since=12)
def celu(node: Node, x: Value) -> Value:
    """Celu: alpha (exp(x / alpha) - 1) below 0."""
    alpha = float_attribute(node, "alpha", 1.0)
    return _exponential_unit(x, alpha, width=alpha)


@rule("Gelu", since=20)
def gelu(node: Node, x: Value) -> Value:
    """Gelu: x times the normal distribution function, or its approximation by tanh."""
    return gelu_of(x, node.attr("approximate", "none") == "tanh")


def gelu_of(x: Value, approximate: bool = False) -> Value:
    """Computes Gelu, or its approximation by tanh."""
    if approximate:
        cubic = lax.mul(lax.integer_pow(x, 3), constant(0.044715, x))
        inner = lax.mul(lax.add(x, cubic), constant(2 * sqrt(2 / pi), x))
        # (1 + tanh(u)) / 2 is the logistic function of 2 u, which does not cancel for negative u.
        return lax.mul(x, smooth.logistic(inner))
    # 1 + erf(z) cancels for negative z; erfc(-z) is the same number without it.
    return lax.mul(lax.mul(x, constant(0.5, x)), lax.erfc(lax.mul(x, constant(-sqrt(0.5), x))))


@rule("Softplus", since=1)
def softplus(node: Node, x: Value) -> Value:
    """Softplus: log(1 + exp(x))."""
    return smooth.softplus(x)


@rule("Mish", since=18)
def mish(node: Node, x: Value) -> Value:
    """Mish: x tanh(softplus(x))."""
    return lax.mul(x, smooth.tanh(smooth.softplus(x)))


@rule("Softsign", since=1)
def softsign(node: Node, x: Value) -> Value:
    """Softsign: x / (1 + |x|)."""
    return lax.div(x, lax.add(magnitude(x), constant(1, x)))


@rule("Sigmoid", since=1)
def sigmoid(node: Node, x: Value) -> Value:
    """Sigmoid: the logistic function."""
    return smooth.logistic(x)


def _hard_sigmoid(x: Value, alpha: float, beta: float) -> Value:
    line = lax.add(lax.mul(x, constant(alpha, x)), constant(beta, x))
    return lax.clamp(constant(0, x), line, constant(1, x))


@rule("HardSigmoid", since=1)
def hard_sigmoid(node: Node, x: Value) -> Value:
    """HardSigmoid: a line clamped to [0, 1]; its derivative at either end is 0."""
    return _hard_sigmoid(x, float_attribute(node, "alpha", 0.2), float_attribute(node, "beta", 0.5))


@rule("HardSwish", since=14)
def hard_swish(node: Node, x: Value) -> Value:
    """HardSwish: x times HardSigmoid with slope 1/6."""
    return lax.mul(x, _hard_sigmoid(x, 1 / 6, 0.5))


def _swish(node: Node, x: Value) -> Value:
    alpha = float_attribute(node, "alpha", 1.0)
    return lax.mul(x, smooth.logistic(x if alpha == 1.0 else lax.mul(x, constant(alpha, x))))


@rule("Swish", since=24)
def swish(node: Node, x: Value) -> Value:
    """Swish: x sigmoid(alpha x)."""
    return _swish(node, x)


@rule("SwiGLU", since=28)
def swiglu(node: Node, gate: Value, value: Value) -> Value:
    """SwiGLU: Swish of the gate, times the value."""
    return lax.mul(_swish(node, gate), value)


@rule("Shrink", since=9)
def shrink(node: Node, x: Value) -> Value:
    """Shrink: `x` moved toward 0 by `bias` outside [-lambd, lambd], and 0 within."""
    lambd, bias = float_attribute(node, "lambd", 0.5), float_attribute(node, "bias", 0.0)
    # Compared in floating point: the threshold of an integer array may be a fraction.
    wide = x if jnp.issubdtype(x.dtype, jnp.floating) else cast(x, np.float64)
    lowered = cast(wide - constant(bias, wide), x.dtype)
    raised = cast(wide + constant(bias, wide), x.dtype)
    inner = select(wide < constant(-lambd, wide), raised, constant(0, x))
    return select(wide > constant(lambd, wide), lowered, inner)


def _shifted(x: Value, axes: tuple[int, ...]) -> Value:
    """Subtract the largest element, which does not change a softmax and prevents overflow."""
    return lax.sub(x, lax.stop_gradient(jnp.broadcast_to(_kept(lax.reduce_max(x, axes), axes), x.shape)))


def _kept(x: Value, axes: tuple[int, ...]) -> Value:
    """Insert the reduced axes again, with size 1."""
    return lax.expand_dims(x, axes)


def softmax_over(x: Value, axes: tuple[int, ...]) -> Value:
    """Compute the softmax over some axes, with sums in float32 at least."""
    exponentials = lax.exp(_shifted(widened(x), axes))
    total = _kept(lax.reduce_sum(exponentials, axes), axes)
    return cast(lax.div(exponentials, jnp.broadcast_to(total, x.shape)), x.dtype)


def log_softmax_over(x: Value, axes: tuple[int, ...]) -> Value:
    """Compute the logarithm of the softmax over some axes, without forming the softmax."""
    shifted = _shifted(widened(x), axes)
    total = _kept(lax.log(lax.reduce_sum(lax.exp(shifted), axes)), axes)
    return cast(lax.sub(shifted, jnp.broadcast_to(total, x.shape)), x.dtype)


_SOFTMAXES = {"Softmax": softmax_over, "LogSoftmax": log_softmax_over}


@rule("Softmax", "LogSoftmax", since=1)
def softmax_of_the_flattened(node: Node, x: Value) -> Value:
    """Softmax, LogSoftmax before opset 13: over all axes from `axis` on together."""
    axis = node.attr("axis", 1)
    first = x.ndim if axis == x.ndim else axis_of(node, axis, x.ndim)
    return _SOFTMAXES[node.op](jnp.asarray(x), tuple(range(first, x.ndim)))


@rule("Softmax", "LogSoftmax", since=13)
def softmax(node: Node, x: Value) -> Value:
    """Softmax, LogSoftmax: over one axis."""
    return _SOFTMAXES[node.op](jnp.asarray(x), (axis_of(node, node.attr("axis", -1), x.ndim),))


def _one_at_largest(x: Value, axis: int) -> Value:
    """Return 1 at the first largest element along an axis, 0 elsewhere."""
    first = lax.argmax(x, axis, np.int64)
    positions = lax.broadcasted_iota(np.int64, x.shape, axis)
    return cast(lax.eq(positions, jnp.broadcast_to(_kept(first, (axis,)), x.shape)), x.dtype)


@rule("Hardmax", since=1)
def hardmax_of_the_flattened(node: Node, x: Value) -> Value:
    """Hardmax before opset 13: over all axes from `axis` on together."""
    axis = node.attr("axis", 1)
    first = x.ndim if axis == x.ndim else axis_of(node, axis, x.ndim)
    rows = lax.reshape(x, (prod(x.shape[:first]), prod(x.shape[first:])))
    return lax.reshape(_one_at_largest(rows, 1), x.shape)


@rule("Hardmax", since=13)
def hardmax(node: Node, x: Value) -> Value:
    """Hardmax: 1 at the first largest element along the axis, 0 elsewhere; its derivative is 0."""
    return _one_at_largest(jnp.asarray(x), axis_of(node, node.attr("axis", -1), x.ndim))


@rule("Dropout", since=1)
def dropout_with_flag(node: Node, x: Value) -> tuple[Value, ...]:
    """Dropout before opset 7: nothing is dropped where the attribute `is_test` is set."""
    if not node.attr("is_test", 0) and node.attr("ratio", 0.5):
        raise node.fail(
            "dropout in training mode draws at random, and a derivative needs a function: set is_test"
        )
    outputs: tuple[Value, ...] = dropout_at_inference(node, x)
    return outputs


@rule("Dropout", since=7)
def dropout_at_inference(node: Node, x: Value) -> tuple[Value, ...]:
    """Dropout from opset 7: the identity. The mask has the dtype of `x`, bool from opset 10 on."""
    mask = jnp.ones(x.shape, x.dtype if node.opset < 10 else np.bool_) if node.wants(1) else None
    return x, mask


@rule("Dropout", since=12)
def dropout(node: Node, x: Value, ratio: Value = None, training: Value = None) -> tuple[Value, ...]:
    """Dropout from opset 12: drops elements at random in training mode, which needs a `seed`.

    The random numbers are NumPy's (MT19937, `RandomState(seed).uniform`), those of ONNX's reference, so
    that a graph is the same function at every evaluation.
    """
    kept = jnp.ones(x.shape, np.bool_) if node.wants(1) else None
    ratio = np.asarray(0.5, x.dtype) if ratio is None else ratio
    if training is None or (is_static(training) and not np.any(training)):
        return x, kept
    if is_static(ratio) and not np.any(ratio):
        return x, kept
    if node.attr("seed") is None:
        raise node.fail(
            "dropout in training mode draws at random, and a derivative needs a function: set the "
            "attribute seed, or training_mode to false"
        )
    draws = np.random.RandomState(int(node.attr("seed")) % 2**32).uniform(0, 1, x.shape)
    mask = lax.ge(draws, jnp.broadcast_to(cast(ratio, np.float64), x.shape))
    scale = lax.div(constant(1, x), lax.sub(constant(1, x), jnp.asarray(cast(ratio, x.dtype))))
    dropped = select(mask, lax.mul(x, jnp.broadcast_to(scale, x.shape)), constant(0, x))
    if is_static(training):
        return dropped, mask
    on = jnp.broadcast_to(training, x.shape)
    return lax.select(on, dropped, x), lax.bitwise_or(mask, lax.bitwise_not(on))
