"""Elementwise functions whose derivatives of every order keep their relative precision.

JAX differentiates tanh as 1 - tanh^2, which has no correct digit left at 20, and expm1 as expm1 + 1, which
has none at -40. The functions here know their derivatives as formulas that do not cancel. Being primitives,
they make a program no longer than JAX's own do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gradwire_engine.lowering.numeric import broadcast, constant, magnitude, select
from gradwire_engine.lowering.registry import Value

Elementwise = Callable[[Value], Value]


def _primitive(name: str, function: Elementwise, derivative: Elementwise) -> Elementwise:
    """Make a primitive of a function of one floating array.

    Args:
        name: of the primitive.
        function: computes it; is never differentiated.
        derivative: computes its derivative, which is differentiated for the next order.
    """
    # JAX's registration of primitives has no types.
    primitive: Any = Primitive(name)
    vectorized: Any = batching.defvectorized
    differentiated: Any = ad.defjvp
    primitive.def_impl(jax.jit(function))
    primitive.def_abstract_eval(lambda aval: jax.core.ShapedArray(aval.shape, aval.dtype))
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=False))
    vectorized(primitive)
    differentiated(primitive, lambda tangent, x: lax.mul(tangent, derivative(x)))

    def apply(x: Value) -> Value:
        result: Value = primitive.bind(jnp.asarray(x))
        return result

    return apply


def polynomial(coefficients: Sequence[float], t: Value) -> Value:
    """Evaluate a polynomial, the constant coefficient first."""
    result = jnp.full_like(t, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = lax.add(lax.mul(result, t), constant(coefficient, t))
    return result


def by_series(x: Value, bound: float, coefficients: Sequence[float], formula: Elementwise) -> Value:
    """Evaluate an even function by its power series in x^2 below a bound, by a formula from it on."""
    near = lax.lt(lax.abs(x), constant(bound, x))
    inner, outer = select(near, x, constant(0, x)), select(near, constant(bound, x), x)
    return select(near, polynomial(coefficients, lax.square(inner)), formula(outer))


def _sech_squared(x: Value) -> Value:
    e = lax.exp(lax.mul(constant(-2, x), lax.abs(x)))
    return 4 * e / lax.square(1 + e)


sech_squared: Elementwise = _primitive(
    "sech_squared", _sech_squared, lambda x: -2 * tanh(x) * sech_squared(x)
)
tanh: Elementwise = _primitive("precise_tanh", lax.tanh, sech_squared)
logistic: Elementwise = _primitive(
    "precise_logistic", lax.logistic, lambda x: logistic(x) * logistic(lax.neg(x))
)
expm1: Elementwise = _primitive("precise_expm1", lax.expm1, lax.exp)


def _softplus(x: Value) -> Value:
    return lax.add(lax.log1p(lax.exp(lax.neg(lax.abs(x)))), lax.max(x, constant(0, x)))


softplus: Elementwise = _primitive("softplus", _softplus, logistic)
"""log(1 + exp(x)), without overflow or loss of small values."""


def _inverse_root(x: Value, sign: int) -> Value:
    """Compute 1 / sqrt(x^2 + sign), also where the square overflows."""
    large = lax.gt(lax.abs(x), constant(2 / np.finfo(x.dtype).eps ** 0.5, x))
    inner, outer = select(large, constant(2, x), x), select(large, x, constant(2, x))
    square = lax.square(inner) + 1 if sign > 0 else (inner - 1) * (inner + 1)
    return select(large, 1 / lax.abs(outer), 1 / lax.sqrt(square))


def _root_curve(x: Value, root: Value) -> Value:
    """Compute the derivative of 1 / sqrt(x^2 + sign) from its value."""
    return -(x * root) * lax.square(root)


def _asinh_curve(x: Value) -> Value:
    return _root_curve(x, _asinh_slope(x))


def _acosh_curve(x: Value) -> Value:
    return _root_curve(x, _acosh_slope(x))


_asinh_slope: Elementwise = _primitive("asinh_slope", partial(_inverse_root, sign=1), _asinh_curve)
_acosh_slope: Elementwise = _primitive("acosh_slope", partial(_inverse_root, sign=-1), _acosh_curve)
asinh: Elementwise = _primitive("precise_asinh", lax.asinh, _asinh_slope)
acosh: Elementwise = _primitive("precise_acosh", lax.acosh, _acosh_slope)


_SINC = [(-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k + 1) for k in range(11)]


def sinc(x: Value) -> Value:
    """Compute sin(pi x) / (pi x), near 0 by its series."""

    def formula(x: Value) -> Value:
        angle = lax.mul(x, constant(math.pi, x))
        return lax.div(lax.sin(angle), angle)

    return by_series(jnp.asarray(x), 0.3, _SINC, formula)


@jax.custom_jvp
def logaddexp(a: Value, b: Value) -> Value:
    """Compute log(exp(a) + exp(b)) of arrays of one shape."""
    largest = lax.max(a, b)
    gap = select(lax.eq(a, b), constant(0, a), lax.sub(a, b))
    return lax.add(largest, lax.log1p(lax.exp(lax.neg(lax.abs(gap)))))


@partial(logaddexp.defjvp, symbolic_zeros=True)
def _logaddexp_jvp(primals: Any, tangents: Any) -> tuple[Value, Value]:
    (a, b), (da, db) = primals, tangents
    infinite = lax.bitwise_and(lax.eq(a, b), lax.eq(lax.abs(a), constant(np.inf, a)))
    first, second = (select(infinite, constant(0, a), item) for item in (a, b))
    gap = lax.sub(first, second)
    result = logaddexp(a, b)
    tangent = lax.full_like(result, 0)
    if not isinstance(da, SymbolicZero):
        tangent = lax.add(tangent, lax.mul(da, logistic(gap)))
    if not isinstance(db, SymbolicZero):
        tangent = lax.add(tangent, lax.mul(db, logistic(lax.neg(gap))))
    return result, tangent


_I1_OVER_X = [0.5 / (4**k * math.factorial(k) * math.factorial(k + 1)) for k in range(14)]


def _rescaled(function: Elementwise) -> Elementwise:
    def of(x: Value) -> Value:
        # In two factors: exp(|x|) overflows before the function does.
        half = lax.exp(lax.mul(constant(0.5, x), lax.abs(x)))
        return function(x) * half * half

    return of


bessel_i1: Elementwise = _primitive(
    "bessel_i1", _rescaled(lax.bessel_i1e), lambda x: bessel_i0(x) - _i1_over(x)
)
bessel_i0: Elementwise = _primitive("bessel_i0", _rescaled(lax.bessel_i0e), bessel_i1)


def _i1_over(x: Value) -> Value:
    return by_series(x, 1.0, _I1_OVER_X, lambda x: bessel_i1(x) / x)


def _i1e_over(x: Value) -> Value:
    near = lax.lt(lax.abs(x), constant(1, x))
    inner, outer = select(near, x, constant(0, x)), select(near, constant(1, x), x)
    series = polynomial(_I1_OVER_X, lax.square(inner)) * lax.exp(lax.neg(magnitude(inner)))
    return select(near, series, bessel_i1e(outer) / outer)


bessel_i0e: Elementwise = _primitive(
    "precise_bessel_i0e", lax.bessel_i0e, lambda x: bessel_i1e(x) - lax.sign(x) * bessel_i0e(x)
)
bessel_i1e: Elementwise = _primitive(
    "precise_bessel_i1e",
    lax.bessel_i1e,
    lambda x: bessel_i0e(x) - lax.sign(x) * bessel_i1e(x) - _i1e_over(x),
)


def logaddexp_of(a: Value, b: Value) -> Value:
    """Compute log(exp(a) + exp(b)), with broadcasting."""
    return logaddexp(*broadcast(jnp.asarray(a), jnp.asarray(b)))
