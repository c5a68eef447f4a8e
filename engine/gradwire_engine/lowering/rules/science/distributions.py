"""Special functions of the `gradwire.sci` domain for probability distributions and waves.

- `Igamma(a, x)`, `Igammac(a, x)`: the regularised lower and upper incomplete gamma function. The first
  derivative with respect to `a` exists, the second does not.
- `Betainc(a, b, x)`: the regularised incomplete beta function; differentiable with respect to `x`.
- `BesselI0(x)`, `BesselI1(x)`: modified Bessel functions of order 0 and 1.
- `BesselI0e(x)`, `BesselI1e(x)`: modified Bessel functions of order 0 and 1, times exp(-|x|).
- `LogNdtr(x)`: logarithm of the normal distribution function, to full precision in both tails.
- `Ndtri(p)`: the inverse of the normal distribution function.
- `Betaln(a, b)`: logarithm of the beta function of positive `a` and `b`, without the cancellation of
  three logarithms of gamma functions.

Arrays are broadcast against each other.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from gradwire_engine.errors import NotDifferentiable
from gradwire_engine.lowering import smooth
from gradwire_engine.lowering.numeric import broadcast, constant, real_power, select
from gradwire_engine.lowering.registry import SCI, Node, Value, rule

sci = partial(rule, since=1, domain=SCI)

_SERIES_BELOW, _SERIES_BELOW_IN_SINGLE, _SERIES_ORDER = -20.0, -8.0, 12
"""Bounds below which the asymptotic series of log Ndtr is used, and its terms."""


_STIRLING_FROM = 10.0
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)
"""Coefficients of 1/x, 1/x^3, ... in Stirling's series; from _STIRLING_FROM on the next is below 1e-16."""


def _without_derivative(node: Node, x: Value, what: str) -> Value:
    """Return `x`; a derivative with respect to it raises `NotDifferentiable`."""

    @jax.custom_jvp
    def same(value: Value) -> Value:
        return value

    @same.defjvp
    def refuse(primals: Any, tangents: Any) -> NoReturn:
        raise NotDifferentiable(
            f"node {node.name} ({node.op}) has no derivative with respect to {what}; "
            "differentiate with respect to other inputs only"
        )

    return same(x)


def _gamma_density(a: Value, x: Value) -> Value:
    """Computes x^(a - 1) exp(-x) / Gamma(a) for positive `a`, with derivatives of every order at 0.

    By powers where they do not overflow, by logarithms elsewhere.
    """
    one = constant(1, x)
    moderate = (a < (100 if x.dtype == np.float64 else 20)) & (x < (400 if x.dtype == np.float64 else 60))
    p, t = select(moderate, a, one), select(moderate, x, one)
    product = real_power(t, p - 1) * lax.exp(-t - lax.lgamma(p))
    p, t = select(moderate, one, a), select(moderate | (x <= 0), one, x)
    far = lax.exp((p - 1) * lax.log(t) - t - lax.lgamma(p))
    return select(moderate, product, select(x <= 0, constant(0, x), far))


def _incomplete_gamma(function: Any, sign: int) -> Any:
    """Give an incomplete gamma function its density for a derivative, which is right at 0 too."""

    @jax.custom_jvp
    def incomplete(a: Value, x: Value) -> Value:
        return function(a, x)

    @partial(incomplete.defjvp, symbolic_zeros=True)
    def jvp(primals: Any, tangents: Any) -> tuple[Value, Value]:
        (a, x), (da, dx) = primals, tangents
        result = incomplete(a, x)
        tangent = lax.full_like(result, 0)
        if not isinstance(da, SymbolicZero):
            tangent = tangent + sign * da * lax.igamma_grad_a(a, x)
        if not isinstance(dx, SymbolicZero):
            tangent = tangent + sign * dx * _gamma_density(a, x)
        return result, tangent

    return incomplete


_INCOMPLETE = {"Igamma": _incomplete_gamma(lax.igamma, 1), "Igammac": _incomplete_gamma(lax.igammac, -1)}


@sci("Igamma", "Igammac")
def incomplete_gamma(node: Node, a: Value, x: Value) -> Value:
    """Igamma, Igammac: regularised incomplete gamma functions."""
    return _INCOMPLETE[node.op](*broadcast(jnp.asarray(a), jnp.asarray(x)))


def _beta_density(a: Value, b: Value, x: Value) -> Value:
    """Computes x^(a - 1) (1 - x)^(b - 1) / B(a, b), with derivatives of every order at 0 and 1."""
    scale = -_log_beta(a, b)
    half, inner = constant(0.5, x), (x > 0) & (x < 1)
    moderate = (scale < (300 if x.dtype == np.float64 else 40)) | ~inner
    t = select(moderate, x, half)
    product = (
        real_power(t, a - 1) * real_power(1 - t, b - 1) * lax.exp(select(moderate, scale, constant(0, x)))
    )
    t = select(moderate, half, x)
    far = lax.exp((a - 1) * lax.log(t) + (b - 1) * lax.log1p(-t) + scale)
    return select(moderate, product, far)


@jax.custom_jvp
def _incomplete_beta(a: Value, b: Value, x: Value) -> Value:
    return lax.betainc(a, b, x)


@partial(_incomplete_beta.defjvp, symbolic_zeros=True)
def _incomplete_beta_jvp(primals: Any, tangents: Any) -> tuple[Value, Value]:
    a, b, x = primals
    result = _incomplete_beta(a, b, x)
    if isinstance(tangents[2], SymbolicZero):
        return result, lax.full_like(result, 0)
    return result, tangents[2] * _beta_density(a, b, x)


@sci("Betainc")
def incomplete_beta(node: Node, a: Value, b: Value, x: Value) -> Value:
    """Betainc: differentiable with respect to `x` only."""
    a, b, x = jnp.broadcast_arrays(jnp.asarray(a), jnp.asarray(b), jnp.asarray(x))
    return _incomplete_beta(_without_derivative(node, a, "a"), _without_derivative(node, b, "b"), x)


_BESSEL = {
    "BesselI0": smooth.bessel_i0,
    "BesselI1": smooth.bessel_i1,
    "BesselI0e": smooth.bessel_i0e,
    "BesselI1e": smooth.bessel_i1e,
}


@sci(*_BESSEL)
def modified_bessel(node: Node, x: Value) -> Value:
    """BesselI0, BesselI1, and BesselI0e, BesselI1e: exponentially scaled."""
    return _BESSEL[node.op](jnp.asarray(x))


@sci("LogNdtr")
def log_normal_distribution(node: Node, x: Value) -> Value:
    """LogNdtr: in the left tail by its asymptotic series (Abramowitz and Stegun, 26.2.12).

    The derivative of the series is precise there, unlike a ratio of densities.
    """
    x = jnp.asarray(x)
    root_half = constant(math.sqrt(0.5), x)
    below = _SERIES_BELOW if x.dtype == np.float64 else _SERIES_BELOW_IN_SINGLE
    left, right = x < below, x > 0
    far = select(left, x, constant(below, x))
    inverse_square = lax.integer_pow(far, -2)
    series = jnp.ones_like(x)
    for order in range(_SERIES_ORDER, 0, -1):
        series = 1 - (2 * order - 1) * inverse_square * series
    half_log = constant(0.5 * math.log(2 * math.pi), x)
    tail = -0.5 * lax.square(far) - lax.log(-far) - half_log + lax.log(series)
    middle = select(left | right, constant(0, x), x)
    body = lax.log(0.5 * lax.erfc(-middle * root_half))
    above = lax.log1p(-0.5 * lax.erfc(select(right, x, constant(0, x)) * root_half))
    return select(left, tail, select(right, above, body))


@sci("Ndtri")
def normal_quantile(node: Node, p: Value) -> Value:
    """Ndtri: the normal quantile."""
    return special.ndtri(jnp.asarray(p))


def _stirling_remainder(x: Value) -> Value:
    """Compute log Gamma(x) - ((x - 1/2) log x - x + log(2 pi) / 2) to double precision, for x >= 10.

    Stirling's series: DLMF 5.11.1.
    """
    inverse_square = lax.integer_pow(x, -2)
    series = constant(_STIRLING[-1], x)
    for coefficient in reversed(_STIRLING[:-1]):
        series = series * inverse_square + constant(coefficient, x)
    return series / x


@sci("Betaln")
def log_beta(node: Node, a: Value, b: Value) -> Value:
    """Betaln: with the leading terms of Stirling's series cancelled analytically for large arguments.

    As in Didonato and Morris ("Algorithm 708", ACM Transactions on Mathematical Software, 1992), with the
    series in place of their minimax fit. JAX's own is wrong in the eighth digit from 8 on.
    """
    return _log_beta(*broadcast(jnp.asarray(a), jnp.asarray(b)))


def _log_beta(a: Value, b: Value) -> Value:
    # By select, as min and max have wrong second derivatives where a = b.
    swapped = a > b
    small, large = select(swapped, b, a), select(swapped, a, b)
    one, limit = constant(1, a), constant(_STIRLING_FROM, a)
    large_only = large >= limit
    both = small >= limit
    p, q = select(large_only, one, small), select(large_only, one, large)
    direct = lax.lgamma(p) + lax.lgamma(q) - lax.lgamma(p + q)

    p, q = select(both, one, small), select(large_only, large, limit)
    rest = _stirling_remainder(q) - _stirling_remainder(p + q)
    mixed = lax.lgamma(p) + (p - p * lax.log(q) - (p + q - 0.5) * lax.log1p(p / q)) + rest

    p, q = select(both, small, limit), select(both, large, limit)
    rest = _stirling_remainder(p) + _stirling_remainder(q) - _stirling_remainder(p + q)
    half_log = constant(0.5 * math.log(2 * math.pi), a) - 0.5 * lax.log(q)
    far = half_log - (p - 0.5) * lax.log1p(q / p) - q * lax.log1p(p / q) + rest
    return select(both, far, select(large_only, mixed, direct))
