"""Rules for activation functions: at kinks they have the derivatives that PyTorch gives them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.torch.lowering import Array, Call, rule
from gradwire.frontends.torch.rules.elementwise import where
from gradwire.graphs.builder import SCI


def softplus_of(call: Call, x: Any) -> Any:
    """Return log(1 + exp(x)), smooth everywhere."""
    return call.emit("LogAddExp", call.value(x), call.value(0.0, call.dtype), domain=SCI, shape=x.shape)


@rule("leaky_relu")
def leaky_relu(call: Call, x: Array, slope: float = 0.01) -> Any:
    return where(call, np.greater(x, 0), x, x * slope)


@rule("rrelu_with_noise", "rrelu_with_noise_functional")
def rrelu(
    call: Call, x: Array, noise: Any, low: float = 1 / 8, high: float = 1 / 3, training: bool = False, *_: Any
) -> Any:
    if training:
        raise call.refuse("in training, where it draws its slopes,", "use module.eval(), or leaky_relu")
    return where(call, np.greater(x, 0), x, x * ((low + high) / 2))


@rule("softplus")
def softplus(call: Call, x: Array, beta: float = 1, threshold: float = 20) -> Any:
    scaled = x * beta
    return where(call, np.greater(scaled, threshold), x, softplus_of(call, scaled) / beta)


@rule("log_sigmoid_forward")
def log_sigmoid(call: Call, x: Array) -> Any:
    return -softplus_of(call, -x), np.zeros((0,), call.dtype)


@rule("hardtanh")
def hardtanh(call: Call, x: Array, low: Any = -1, high: Any = 1) -> Any:
    """Clamp, with the derivative 0 at both bounds, other than that of `clamp`."""
    inner = where(call, np.less_equal(x, low), low, x)
    return where(call, np.greater_equal(x, high), high, inner)


@rule("relu6")
def relu6(call: Call, x: Array) -> Any:
    return hardtanh(call, x, 0, 6)


@rule("hardsigmoid")
def hardsigmoid(call: Call, x: Array) -> Any:
    return hardtanh(call, x + 3, 0, 6) / 6


@rule("hardswish")
def hardswish(call: Call, x: Array) -> Any:
    outer = where(call, np.less_equal(x, -3), 0, x)
    return where(call, np.less(np.abs(x), 3), x * (x + 3) / 6, outer)


@rule("elu")
def elu(call: Call, x: Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Any:
    """At 0 the slope is that from the left, and the second derivative 0."""
    below = np.less(x, 0)
    # The exponential of a large number would make NaN of a slope that is not used.
    curve = np.expm1(where(call, below, x, 0) * input_scale) * (alpha * scale)
    line = where(call, np.equal(x, 0), x * (alpha * scale * input_scale), x * scale)
    return where(call, below, curve, line)


@rule("celu")
def celu(call: Call, x: Array, alpha: float = 1.0) -> Any:
    return elu(call, x, alpha, 1.0, 1 / alpha)
