"""Functions of complex numbers in the `gradwire.sci` domain; graphs hold their parts as pairs of real arrays.

Inputs are the real and the imaginary part, of float64 or float32, broadcast against each other; outputs are
the two parts of the result. Inside, an operator computes with native complex numbers.

- `ComplexSqrt`, `ComplexLog`, `ComplexLog1p`, `ComplexTan`, `ComplexTanh`, `ComplexAsin`, `ComplexAcos`,
  `ComplexAtan`, `ComplexAsinh`, `ComplexAcosh`, `ComplexAtanh`, each `(re, im) -> (re, im)`;
- `ComplexDiv(a, b, c, d) -> (re, im)`: (a + ib) / (c + id);
- `ComplexPow(a, b, c, d) -> (re, im)`: (a + ib) ** (c + id); at base 0 it is 0 for an exponent of positive
  real part, 1 for the exponent 0, and else NaN.

On a branch cut the sign of a zero part selects the side, as in Annex G of the C standard and in NumPy; the
derivatives are those of that side. There are operators for functions that have a branch cut or a pole; sums,
products, exponentials, sines and cosines of pairs are exact in ONNX's own operators.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.numeric import broadcast, select
from gradwire_engine.lowering.registry import SCI, Node, Value, rule

sci = partial(rule, since=1, domain=SCI)

Function = Callable[[Value], Value]


def _holomorphic(value: Function, derivative: Function) -> Function:
    """Give a function of complex numbers its complex derivative, in place of JAX's."""
    function = jax.custom_jvp(value)

    @function.defjvp
    def push(primals: tuple[Value], tangents: tuple[Value]) -> tuple[Value, Value]:
        (z,), (tangent,) = primals, tangents
        return function(z), lax.mul(derivative(z), tangent)

    return function


def _mirrored(function: Function, odd: bool = False) -> Function:
    """Compute in the upper half plane only, or for an odd function in the first quadrant.

    All functions here commute with conjugation. XLA takes -0.0 for 0.0, which is the wrong side of a cut.
    """

    def mirrored(z: Value) -> Value:
        a, b = lax.real(z), lax.imag(z)
        w = function(lax.complex(lax.abs(a) if odd else a, lax.abs(b)))
        return lax.complex(_signed(lax.real(w), a) if odd else lax.real(w), _signed(lax.imag(w), b))

    return mirrored


def _signed(x: Value, sign: Value) -> Value:
    """`x` times the sign of another number, -1 for a negative zero."""
    return lax.mul(x, jnp.copysign(np.ones((), x.dtype), sign))


def _turned(z: Value) -> Value:
    """Multiply by i; signs of zeros stay exact."""
    return lax.complex(lax.neg(lax.imag(z)), lax.real(z))


def _swapped(function: Function) -> Function:
    """-i f(iz) of an odd function f, by exchanging the parts of its argument and result."""

    def swapped(z: Value) -> Value:
        w = function(lax.complex(lax.imag(z), lax.real(z)))
        return lax.complex(lax.imag(w), lax.real(w))

    return swapped


def _plus_one(z: Value) -> Value:
    """Add 1 to the real part alone, so that a negative zero in the imaginary part stays."""
    return lax.complex(lax.add(lax.real(z), np.ones((), lax.real(z).dtype)), lax.imag(z))


def _reciprocal(z: Value) -> Value:
    return divide(jnp.ones_like(z), z)


def _sech_squared(z: Value) -> Value:
    """Return the derivative of tanh, without the cancellation of 1 - tanh^2.

    With e = exp(-2a), sech(a + ib) = 2 exp(-a) ((1 + e) cos b - i (1 - e) sin b) / ((1 - e)^2 + 4 e cos^2 b),
    in which nothing overflows for a >= 0; sech is even.
    """
    a, b = lax.real(z), lax.imag(z)
    one, two, four = (np.asarray(number, a.dtype) for number in (1, 2, 4))
    a, b = _signed(a, a), _signed(b, a)
    e = lax.exp(-two * a)
    gap = -lax.expm1(-two * a)
    scale = two * lax.exp(-a) / (gap * gap + four * e * lax.square(lax.cos(b)))
    return lax.square(lax.complex(scale * (one + e) * lax.cos(b), -scale * gap * lax.sin(b)))


def _over_roots(f: Function, g: Function) -> Function:
    """1 / (sqrt(f) sqrt(g)): the root of a product would lose the side of a cut."""
    return lambda z: _reciprocal(lax.mul(_sqrt(f(z)), _sqrt(g(z))))


def _over_squares(z: Value) -> Value:
    """1 / (1 - z^2)."""
    return _reciprocal(lax.mul(_plus_one(z), _plus_one(lax.neg(z))))


@jax.custom_jvp
def divide(z: Value, w: Value) -> Value:
    """Divide by the conjugate, with the divisor scaled so that its squares neither overflow nor vanish."""
    c, d = lax.real(w), lax.imag(w)
    size = lax.max(lax.abs(c), lax.abs(d))
    usable = lax.bitwise_and(size > 0, jnp.isfinite(size))
    scale = select(usable, size, jnp.ones_like(size))
    c, d = lax.div(c, scale), lax.div(d, scale)
    length = lax.mul(lax.add(lax.square(c), lax.square(d)), scale)
    product = lax.mul(z, lax.complex(c, lax.neg(d)))
    return lax.complex(lax.div(lax.real(product), length), lax.div(lax.imag(product), length))


@divide.defjvp
def _push_quotient(primals: tuple[Value, Value], tangents: tuple[Value, Value]) -> tuple[Value, Value]:
    (z, w), (dz, dw) = primals, tangents
    quotient, inverse = divide(z, w), _reciprocal(w)
    return quotient, lax.mul(inverse, lax.sub(dz, lax.mul(quotient, dw)))


@jax.custom_jvp
def power(z: Value, w: Value) -> Value:
    """Compute z^w = exp(w log z), complex arrays of one shape and dtype; the cut is that of `log`.

    At z = 0 the value is 1 for w = 0, else 0 where the real part of w is positive, and NaN elsewhere.
    """
    zero = lax.eq(z, jnp.zeros_like(z))
    found = lax.exp(lax.mul(w, _log(select(zero, jnp.ones_like(z), z))))
    exponent = lax.real(w)
    at_zero = select(exponent > 0, jnp.zeros_like(z), jnp.full_like(z, complex(np.nan, np.nan)))
    at_zero = select(lax.eq(w, jnp.zeros_like(w)), jnp.ones_like(z), at_zero)
    return select(zero, at_zero, found)


@power.defjvp
def _push_power(primals: tuple[Value, Value], tangents: tuple[Value, Value]) -> tuple[Value, Value]:
    """w z^(w-1) and z^w log z; at z = 0 the first is 0 for w = 0, and the second wherever z^w is 0."""
    (z, w), (dz, dw) = primals, tangents
    value = power(z, w)
    zero = lax.eq(z, jnp.zeros_like(z))
    one = jnp.ones_like(z)
    constant = lax.bitwise_and(zero, lax.eq(w, jnp.zeros_like(w)))
    by_base = lax.mul(w, power(select(constant, one, z), lax.sub(w, one)))
    by_exponent = lax.mul(value, _log(select(zero, one, z)))
    return value, lax.add(lax.mul(by_base, dz), lax.mul(by_exponent, dw))


_sqrt: Function = _holomorphic(
    _mirrored(lax.sqrt), lambda z: lax.mul(_reciprocal(_sqrt(z)), np.asarray(0.5, z.dtype))
)
_log: Function = _holomorphic(_mirrored(lax.log), _reciprocal)
_arcsine_slope = _over_roots(_plus_one, lambda z: _plus_one(lax.neg(z)))

_FUNCTIONS: dict[str, Function] = {
    "ComplexSqrt": _sqrt,
    "ComplexLog": _log,
    "ComplexLog1p": _holomorphic(_mirrored(lax.log1p), lambda z: _reciprocal(_plus_one(z))),
    "ComplexTan": _holomorphic(_mirrored(lax.tan, odd=True), lambda z: _sech_squared(_turned(z))),
    "ComplexTanh": _holomorphic(_mirrored(lax.tanh, odd=True), _sech_squared),
    "ComplexAsin": _holomorphic(_mirrored(lax.asin, odd=True), _arcsine_slope),
    "ComplexAcos": _holomorphic(_mirrored(lax.acos), lambda z: lax.neg(_arcsine_slope(z))),
    "ComplexAtan": _holomorphic(
        _mirrored(_swapped(lax.atanh), odd=True), lambda z: _over_squares(_turned(z))
    ),
    "ComplexAsinh": _holomorphic(
        _mirrored(_swapped(lax.asin), odd=True), lambda z: _arcsine_slope(_turned(z))
    ),
    "ComplexAcosh": _holomorphic(
        _mirrored(lax.acosh), _over_roots(_plus_one, lambda z: lax.neg(_plus_one(lax.neg(z))))
    ),
    "ComplexAtanh": _holomorphic(_mirrored(lax.atanh, odd=True), _over_squares),
}


def _pairs(node: Node, parts: tuple[Value, ...]) -> list[Value]:
    """Native complex numbers of one shape from pairs of parts.

    Raises:
        InvalidGraph: a part is neither float64 nor float32.
    """
    for place, part in enumerate(parts):
        if part.dtype not in (np.float64, np.float32):
            raise node.fail(f"input {place} is {part.dtype}; parts are float64 or float32, so cast it")
    arrays = broadcast(*(jnp.asarray(part) for part in parts))
    return [lax.complex(*pair) for pair in zip(arrays[::2], arrays[1::2], strict=True)]


@sci(*_FUNCTIONS)
def of_one_number(node: Node, real: Value, imag: Value) -> tuple[Value, Value]:
    """ComplexSqrt, ComplexLog, ...: the parts of the function at `real + i imag`, broadcast to one shape.

    Raises:
        InvalidGraph: a part is neither float64 nor float32.
    """
    result = _FUNCTIONS[node.op](*_pairs(node, (real, imag)))
    return lax.real(result), lax.imag(result)


@sci("ComplexDiv", "ComplexPow")
def of_two_numbers(node: Node, *parts: Any) -> tuple[Value, Value]:
    """ComplexDiv, ComplexPow: the parts of the result for two numbers, given as four parts that broadcast.

    Raises:
        InvalidGraph: a part is neither float64 nor float32.
    """
    function = divide if node.op == "ComplexDiv" else power
    result = function(*_pairs(node, parts))
    return lax.real(result), lax.imag(result)
