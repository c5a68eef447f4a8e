"""More of the ``gradwire.sci`` domain, version 1: what distributions and waves are computed from.

- ``Igamma(a, x)``, ``Igammac(a, x)``: the regularised lower and upper incomplete gamma function. The first
  derivative with respect to ``a`` exists, the second does not.
- ``Betainc(a, b, x)``: the regularised incomplete beta function; differentiable with respect to ``x``.
- ``BesselI0e(x)``, ``BesselI1e(x)``: modified Bessel functions of order 0 and 1, times exp(-|x|).
- ``LogNdtr(x)``: logarithm of the normal distribution function, to full precision in both tails.
- ``Ndtri(p)``: the inverse of the normal distribution function.
- ``Betaln(a, b)``: logarithm of the beta function of positive ``a`` and ``b``, without the cancellation of
  three logarithms of gamma functions.

Arrays are broadcast against each other.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import jax.scipy.special as special
from jax import lax

from gradwire_engine.errors import NotDifferentiable
from gradwire_engine.lowering.numeric import broadcast
from gradwire_engine.lowering.registry import SCI, Node, Value, rule

sci = partial(rule, since=1, domain=SCI)

_SERIES_ORDER = 12
"""Terms of the asymptotic series of log Ndtr below -20, where the first one left out is under 1e-16."""


def _without_derivative(node: Node, x: Value, what: str) -> Value:
    """``x``, the derivative with respect to which is refused by name."""

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


@sci("Igamma", "Igammac")
def incomplete_gamma(node: Node, a: Value, x: Value) -> Value:
    function = lax.igamma if node.op == "Igamma" else lax.igammac
    return function(*broadcast(jnp.asarray(a), jnp.asarray(x)))


@sci("Betainc")
def incomplete_beta(node: Node, a: Value, b: Value, x: Value) -> Value:
    a, b, x = jnp.broadcast_arrays(jnp.asarray(a), jnp.asarray(b), jnp.asarray(x))
    return lax.betainc(_without_derivative(node, a, "a"), _without_derivative(node, b, "b"), x)


@sci("BesselI0e", "BesselI1e")
def modified_bessel(node: Node, x: Value) -> Value:
    return (lax.bessel_i0e if node.op == "BesselI0e" else lax.bessel_i1e)(jnp.asarray(x))


@sci("LogNdtr")
def log_normal_distribution(node: Node, x: Value) -> Value:
    return special.log_ndtr(jnp.asarray(x), _SERIES_ORDER)


@sci("Ndtri")
def normal_quantile(node: Node, p: Value) -> Value:
    return special.ndtri(jnp.asarray(p))


@sci("Betaln")
def log_beta(node: Node, a: Value, b: Value) -> Value:
    return special.betaln(*broadcast(jnp.asarray(a), jnp.asarray(b)))
