"""Elementwise functions, sorting and StopGradient of the `gradwire.sci` domain.

Functions of one array:

- `Cbrt`, `Digamma`, `Erfc`, `Erfinv`, `Exp2`, `Expit`, `Expm1`, `Lgamma`,
  `Log10`, `Log1p`, `Log2`;
- `Sinc(x)`: sin(pi x) / (pi x), 1 at 0;
- `Polygamma(x; n=1)`: the n-th derivative of Digamma, for positive `x`.

Functions of two arrays, broadcast:

- `Atan2(y, x)`: derivative 0 at the origin;
- `Hypot(x, y)`: derivative 0 at the origin;
- `Ldexp(x, n)`: x times 2 to the power of the integer n, right where that power alone overflows;
- `LogAddExp(a, b)`;
- `Xlogy(x, y)`: x log(y), 0 where x is 0 (and derivatives 0 there unless 0 < y < inf).

Sorting:

- `Sort(x; axis=-1, descending=0) -> (values, indices)`: stable, NaN last, indices int64.

Differentiation:

- `StopGradient(x)`: x itself, with derivative zero (PyTorch's `detach`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering import smooth
from gradwire_engine.lowering.arrays import axis_of
from gradwire_engine.lowering.numeric import broadcast, cast, constant, guarded, is_floating, select
from gradwire_engine.lowering.registry import SCI, Node, Value, rule

sci = partial(rule, since=1, domain=SCI)

_UNARY: dict[str, Any] = {
    "Cbrt": lax.cbrt,
    "Digamma": lax.digamma,
    "Erfc": lax.erfc,
    "Erfinv": lax.erf_inv,
    "Exp2": lax.exp2,
    "Expit": smooth.logistic,
    "Expm1": smooth.expm1,
    "Lgamma": lax.lgamma,
    "Log10": jnp.log10,
    "Log1p": lax.log1p,
    "Log2": jnp.log2,
    "Sinc": smooth.sinc,
}


@sci(*_UNARY)
def of_one_array(node: Node, x: Value) -> Value:
    """Evaluate any of the functions of one array that have no attributes."""
    return _UNARY[node.op](jnp.asarray(x))


@sci("Polygamma")
def polygamma(node: Node, x: Value) -> Value:
    """Polygamma: the `n`-th derivative of Digamma."""
    order = int(node.attr("n", 1))
    if order < 0:
        raise node.fail(f"attribute n is {order}; it must be 0 or more")
    x = jnp.asarray(x)
    return lax.polygamma(jnp.full(x.shape, order, x.dtype), x) if order else lax.digamma(x)


@sci("Atan2")
def atan2(node: Node, y: Value, x: Value) -> Value:
    """Atan2: with derivative 0 at the origin."""
    y, x = broadcast(jnp.asarray(y), jnp.asarray(x))
    zero = constant(0, x)
    origin = lax.bitwise_and(lax.eq(x, zero), lax.eq(y, zero))
    # At the origin the angle is that of x = +1 or -1, by the sign of the zero, and gets no derivative.
    direction = lax.stop_gradient(jnp.copysign(constant(1, x), x))
    return lax.atan2(select(origin, lax.stop_gradient(y), y), select(origin, direction, x))


@sci("Hypot")
def hypot(node: Node, x: Value, y: Value) -> Value:
    """Hypot: scaled by the larger of the two so that squares neither overflow nor underflow."""
    x, y = broadcast(jnp.asarray(x), jnp.asarray(y))
    largest = lax.stop_gradient(lax.max(lax.abs(x), lax.abs(y)))
    usable = lax.bitwise_and(largest > 0, jnp.isfinite(largest))
    scale = select(usable, largest, constant(1, x))
    total = lax.add(lax.square(lax.div(x, scale)), lax.square(lax.div(y, scale)))
    length = guarded(lax.ne(total, constant(0, x)), lax.sqrt, total, 1.0, constant(0, x))
    return lax.mul(scale, length)


def _power_of_two(exponent: Value, dtype: Any) -> Value:
    """Makes 2 to the power of int64 exponents within the range of normal numbers, exactly: by its bits."""
    bits, mantissa = (np.int64, 52) if dtype == np.float64 else (np.int32, 23)
    bias = np.finfo(dtype).maxexp - 1
    pattern = lax.shift_left(cast(exponent + bias, bits), bits(mantissa))
    return lax.bitcast_convert_type(pattern, dtype)


@sci("Ldexp")
def ldexp(node: Node, x: Value, exponent: Value) -> Value:
    """Ldexp: in three steps, of which only the last one rounds."""
    x, exponent = broadcast(jnp.asarray(x), jnp.asarray(exponent, np.int64))
    wide = x if x.dtype in (np.float32, np.float64) else cast(x, np.float32)
    low, high = int(np.finfo(wide.dtype).minexp), int(np.finfo(wide.dtype).maxexp) - 1
    last = jnp.clip(exponent, low, high)
    middle = jnp.clip(exponent - last, low, high)
    first = jnp.clip(exponent - last - middle, low, high)
    for step in (first, middle, last):
        # The barrier keeps XLA from multiplying the powers first, which may overflow.
        wide = lax.optimization_barrier(lax.mul(wide, _power_of_two(step, wide.dtype)))  # type: ignore[no-untyped-call]
    return cast(wide, x.dtype)


@sci("LogAddExp")
def logaddexp(node: Node, a: Value, b: Value) -> Value:
    """LogAddExp: log(exp(a) + exp(b))."""
    return smooth.logaddexp_of(a, b)


@sci("Xlogy")
def xlogy(node: Node, x: Value, y: Value) -> Value:
    """Xlogy: 0, with derivative 0, where `x` is 0 and log(y) is not finite."""
    x, y = broadcast(jnp.asarray(x), jnp.asarray(y))
    improper = lax.bitwise_or(y <= 0, y == np.inf)
    vanishes = lax.bitwise_and(lax.eq(x, constant(0, x)), improper)
    return lax.mul(x, lax.log(select(vanishes, constant(1, y), y)))


@sci("Sort")
def sort(node: Node, x: Value) -> tuple[Value, Value]:
    """Sort: stable; the derivative of each value is that of the element it comes from."""
    axis = axis_of(node, node.attr("axis", -1), x.ndim)
    x = jnp.asarray(x)
    positions = lax.broadcasted_iota(np.int64, x.shape, axis)
    if not node.attr("descending", 0):
        values, indices = lax.sort((x, positions), dimension=axis, is_stable=True, num_keys=1)
        return values, indices
    # Reversing the keys, and not the result, keeps the order of equal elements.
    reverse = lax.neg if is_floating(x) else lax.bitwise_not
    keys, indices = lax.sort((reverse(x), positions), dimension=axis, is_stable=True, num_keys=1)
    return cast(reverse(keys), x.dtype), indices


@sci("StopGradient")
def stop_gradient(node: Node, x: Value) -> Value:
    """StopGradient: the input, with derivative zero."""
    return lax.stop_gradient(x)
