"""Arithmetic and elementary functions of complex traced arrays.

Sums, products, exponentials, sines and cosines are real arithmetic on the two parts, exact in ONNX's own
operators. Functions with a branch cut or a pole are operators of `gradwire.sci`, from pairs to pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

from gradwire.frontends.numpy.arrays.array import TracedArray, graph_of, value_of, wrap
from gradwire.frontends.numpy.arrays.complex_array import TracedComplex, combine, part_dtype, parts
from gradwire.frontends.numpy.complex_dispatch import complex_ufunc
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import SCI

# Untyped: NumPy's annotations do not know that any object may dispatch.
np: Any = numpy

_OPERATORS = {
    "sqrt": "ComplexSqrt", "log": "ComplexLog", "log1p": "ComplexLog1p", "tan": "ComplexTan",
    "tanh": "ComplexTanh", "arcsin": "ComplexAsin", "arccos": "ComplexAcos", "arctan": "ComplexAtan",
    "arcsinh": "ComplexAsinh", "arccosh": "ComplexAcosh", "arctanh": "ComplexAtanh",
}  # fmt: skip


def _operator(op: str, *operands: Any) -> TracedComplex:
    """Apply an elementwise operator of `gradwire.sci` to the parts of its operands."""
    given = [0.0 if part is None else part for operand in operands for part in parts(operand)]
    graph, kind = graph_of(*given), part_dtype(*given)
    values = [value_of(graph, part, kind) for part in given]
    shape = ops.broadcast(*(value.shape for value in values))
    real, imag = graph.emit(op, values, [(shape, kind)] * 2, SCI)
    return TracedComplex(wrap(real), wrap(imag))


for _name, _op in _OPERATORS.items():
    complex_ufunc(_name)(partial(_operator, _op))


def bilinear(product: Callable[[Any, Any], Any], z: Any, w: Any) -> TracedComplex:
    """Extend a product of real arrays, linear in both, to complex arrays."""
    (a, b), (c, d) = parts(z), parts(w)
    if d is None:
        return combine(product(a, c), None if b is None else product(b, c))
    if b is None:
        return combine(product(a, c), product(a, d))
    return combine(product(a, c) - product(b, d), product(a, d) + product(b, c))


for _name in ("multiply", "matmul"):
    complex_ufunc(_name)(partial(bilinear, getattr(np, _name)))


@complex_ufunc("vecdot")
def vecdot(z: Any, w: Any) -> Any:
    return np.sum(np.conjugate(z) * w, axis=-1)


@complex_ufunc("add")
def add(z: Any, w: Any) -> TracedComplex:
    (a, b), (c, d) = parts(z), parts(w)
    return combine(a + c, d if b is None else b if d is None else b + d)


@complex_ufunc("subtract")
def subtract(z: Any, w: Any) -> TracedComplex:
    (a, b), (c, d) = parts(z), parts(w)
    return combine(a - c, b if d is None else -d if b is None else b - d)


@complex_ufunc("divide")
def divide(z: Any, w: Any) -> TracedComplex:
    (a, b), (c, d) = parts(z), parts(w)
    if d is None:
        return combine(a / c, None if b is None else b / c)
    return _operator("ComplexDiv", z, w)


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
    """Return absolute values; the derivative at 0 is 0."""
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


@complex_ufunc("expm1")
def expm1(z: Any) -> TracedComplex:
    """Compute exp(z) - 1, where exp(a) cos b - 1 = expm1(a) cos b - 2 sin^2(b / 2)."""
    a, b = parts(z)
    return combine(np.expm1(a) * np.cos(b) - 2 * np.sin(b / 2) ** 2, np.exp(a) * np.sin(b))


@complex_ufunc("exp2")
def exp2(z: Any) -> Any:
    return exp(z * math.log(2))


@complex_ufunc("log2")
def log2(z: Any) -> Any:
    return np.log(z) / math.log(2)


@complex_ufunc("log10")
def log10(z: Any) -> Any:
    return np.log(z) / math.log(10)


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


@complex_ufunc("power", "float_power")
def power(z: Any, exponent: Any) -> Any:
    """Multiply for a fixed integer exponent, take the root for 1/2, and use an operator otherwise."""
    if _is_number(exponent):
        if float(exponent).is_integer() and abs(exponent) <= 1024:
            return _whole_power(combine(*parts(z)), int(exponent))
        if exponent == 0.5:
            return np.sqrt(z)
    return _operator("ComplexPow", z, exponent)


def _is_number(item: Any) -> bool:
    """Return whether an item is one real number that is not traced."""
    return not isinstance(item, TracedArray | TracedComplex) and np.ndim(item) == 0 and np.isrealobj(item)


def _whole_power(z: Any, exponent: int) -> Any:
    """Compute an integer power by repeated squaring."""
    if exponent < 0:
        return reciprocal(_whole_power(z, -exponent))
    result: Any = None
    while exponent:
        if exponent & 1:
            result = z if result is None else result * z
        exponent >>= 1
        z = square(z) if exponent else z
    return np.ones_like(z) if result is None else result


def _of_either(test: Any, z: Any) -> Any:
    return numpy.logical_or(*(test(part) for part in parts(z)))


for _name in ("isnan", "isinf"):
    complex_ufunc(_name)(partial(_of_either, getattr(np, _name)))


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
