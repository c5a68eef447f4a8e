"""Arithmetic and elementary functions of complex traced arrays, written with real ones."""

from __future__ import annotations

import math
from typing import Any

import numpy

from gradwire.frontends.numpy.array import TracedArray, wrap
from gradwire.frontends.numpy.complex_array import TracedComplex, combine, parts
from gradwire.frontends.numpy.complex_dispatch import complex_ufunc
from gradwire.graphs.builder import SCI

np: Any = numpy


@complex_ufunc("add")
def add(z: Any, w: Any) -> TracedComplex:
    (a, b), (c, d) = parts(z), parts(w)
    return combine(a + c, d if b is None else b if d is None else b + d)


@complex_ufunc("subtract")
def subtract(z: Any, w: Any) -> TracedComplex:
    (a, b), (c, d) = parts(z), parts(w)
    return combine(a - c, -d if b is None else b if d is None else b - d)


@complex_ufunc("multiply")
def multiply(z: Any, w: Any) -> TracedComplex:
    (a, b), (c, d) = parts(z), parts(w)
    if d is None:
        return combine(a * c, b * c)
    if b is None:
        return combine(a * c, a * d)
    return combine(a * c - b * d, a * d + b * c)


@complex_ufunc("divide")
def divide(z: Any, w: Any) -> TracedComplex:
    """By the conjugate, scaled by the larger part of the divisor: squares neither overflow nor vanish."""
    (a, b), (c, d) = parts(z), parts(w)
    if d is None:
        return combine(a / c, b / c)
    scale = _unmoved(np.maximum(np.abs(c), np.abs(d)))
    scale = np.where(scale > 0, scale, 1.0)
    c, d = c / scale, d / scale
    length = (c * c + d * d) * scale
    if b is None:
        return combine(a * c / length, -(a * d) / length)
    return combine((a * c + b * d) / length, (b * c - a * d) / length)


def _unmoved(x: Any) -> Any:
    """A number that cancels in the end, so that its derivative need not be carried along."""
    if not isinstance(x, TracedArray):
        return x
    return wrap(x.graph.one("StopGradient", [x.value], x.shape, x.dtype, SCI))


@complex_ufunc("reciprocal")
def reciprocal(z: Any) -> TracedComplex:
    return divide(1.0, z)


@complex_ufunc("negative")
def negative(z: Any) -> TracedComplex:
    a, b = parts(z)
    return combine(-a, -b)


@complex_ufunc("positive")
def positive(z: Any) -> Any:
    return z.copy()


@complex_ufunc("conjugate")
def conjugate(z: Any) -> TracedComplex:
    a, b = parts(z)
    return combine(a, -b)


@complex_ufunc("absolute")
def absolute(z: Any) -> Any:
    """The derivative at 0 is 0."""
    return np.hypot(*parts(z))


@complex_ufunc("square")
def square(z: Any) -> TracedComplex:
    a, b = parts(z)
    return combine((a - b) * (a + b), 2 * a * b)


@complex_ufunc("exp")
def exp(z: Any) -> TracedComplex:
    a, b = parts(z)
    size = np.exp(a)
    return combine(size * np.cos(b), size * np.sin(b))


@complex_ufunc("exp2")
def exp2(z: Any) -> Any:
    return exp(z * math.log(2))


@complex_ufunc("log")
def log(z: Any) -> TracedComplex:
    a, b = parts(z)
    return combine(np.log(np.hypot(a, b)), np.arctan2(b, a))


@complex_ufunc("log2")
def log2(z: Any) -> Any:
    return log(z) / math.log(2)


@complex_ufunc("log10")
def log10(z: Any) -> Any:
    return log(z) / math.log(10)


@complex_ufunc("sqrt")
def sqrt(z: Any) -> TracedComplex:
    """The root with a real part that is not negative; the part that would cancel comes from the other."""
    a, b = parts(z)
    size = np.hypot(a, b)
    zero = size == 0
    larger = np.sqrt(np.where(zero, 1.0, (size + np.abs(a)) / 2))
    smaller = np.abs(b) / (2 * larger)
    larger = np.where(zero, 0.0, larger)
    right = a >= 0
    return combine(np.where(right, larger, smaller), np.copysign(np.where(right, smaller, larger), b))


@complex_ufunc("sin")
def sin(z: Any) -> TracedComplex:
    a, b = parts(z)
    return combine(np.sin(a) * np.cosh(b), np.cos(a) * np.sinh(b))


@complex_ufunc("cos")
def cos(z: Any) -> TracedComplex:
    a, b = parts(z)
    return combine(np.cos(a) * np.cosh(b), -(np.sin(a) * np.sinh(b)))


@complex_ufunc("sinh")
def sinh(z: Any) -> TracedComplex:
    a, b = parts(z)
    return combine(np.sinh(a) * np.cos(b), np.cosh(a) * np.sin(b))


@complex_ufunc("cosh")
def cosh(z: Any) -> TracedComplex:
    a, b = parts(z)
    return combine(np.cosh(a) * np.cos(b), np.sinh(a) * np.sin(b))


@complex_ufunc("tanh")
def tanh(z: Any) -> TracedComplex:
    """(t + i s) / (1 + i t s), where t = tanh(real part) and s = tan(imaginary part) do not overflow."""
    a, b = parts(z)
    t, s = np.tanh(a), np.tan(b)
    return divide(combine(t, s), combine(1.0, t * s))


@complex_ufunc("tan")
def tan(z: Any) -> TracedComplex:
    """-i tanh(i z)."""
    a, b = parts(z)
    turned = tanh(combine(-b, a))
    return combine(turned.imag, -turned.real)


@complex_ufunc("power", "float_power")
def power(z: Any, exponent: Any) -> Any:
    """Products for a whole exponent that is fixed; else exp(exponent log z), and 0 where z is 0."""
    whole = _whole(exponent)
    if whole is not None:
        return _whole_power(combine(*parts(z)), whole)
    if not isinstance(exponent, TracedArray | TracedComplex) and np.ndim(exponent) == 0 and exponent == 0.5:
        return sqrt(z)
    a, b = parts(z)
    b = np.zeros_like(a) if b is None else b
    zero = np.equal(a, 0) & np.equal(b, 0)
    base = combine(np.where(zero, 1.0, a), b) if _is_traced(a, b) else None
    logarithm = log(base) if base is not None else np.log(np.where(zero, 1.0, z))
    return np.where(zero, 0.0, exp(multiply(logarithm, exponent)))


def _is_traced(*items: Any) -> bool:
    return any(isinstance(item, TracedArray) for item in items)


def _whole(exponent: Any) -> int | None:
    if isinstance(exponent, TracedArray | TracedComplex | complex) or np.ndim(exponent):
        return None
    return int(exponent) if float(exponent).is_integer() and abs(exponent) <= 1024 else None


def _whole_power(z: Any, exponent: int) -> Any:
    if exponent < 0:
        return reciprocal(_whole_power(z, -exponent))
    result: Any = None
    while exponent:
        if exponent & 1:
            result = z if result is None else multiply(result, z)
        exponent >>= 1
        z = square(z) if exponent else z
    return np.ones_like(z) if result is None else result


@complex_ufunc("isnan")
def isnan(z: Any) -> Any:
    a, b = parts(z)
    return np.isnan(a) | np.isnan(b)


@complex_ufunc("isinf")
def isinf(z: Any) -> Any:
    a, b = parts(z)
    return np.isinf(a) | np.isinf(b)


@complex_ufunc("isfinite")
def isfinite(z: Any) -> Any:
    a, b = parts(z)
    return np.isfinite(a) & np.isfinite(b)


@complex_ufunc("equal")
def equal(z: Any, w: Any) -> Any:
    (a, b), (c, d) = parts(z), parts(w)
    return np.equal(a, c) & np.equal(0.0 if b is None else b, 0.0 if d is None else d)


@complex_ufunc("not_equal")
def not_equal(z: Any, w: Any) -> Any:
    return np.logical_not(equal(z, w))


def bilinear(product: Any, z: Any, w: Any) -> TracedComplex:
    """A product of real arrays that is linear in both, of complex ones."""
    (a, b), (c, d) = parts(z), parts(w)
    if d is None:
        return combine(product(a, c), product(b, c))
    if b is None:
        return combine(product(a, c), product(a, d))
    return combine(product(a, c) - product(b, d), product(a, d) + product(b, c))


@complex_ufunc("matmul")
def matmul(z: Any, w: Any) -> TracedComplex:
    return bilinear(np.matmul, z, w)


@complex_ufunc("vecdot")
def vecdot(z: Any, w: Any) -> Any:
    return np.sum(np.conjugate(z) * w, axis=-1)
