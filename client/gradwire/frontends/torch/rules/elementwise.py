"""Rules for elementwise operators and comparisons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray
from gradwire.frontends.torch.lowering import Array, Call, rule
from gradwire.frontends.torch.rules.creation import of_dtype
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import SCI

_STANDARD = {
    "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan", "atanh": "Atanh",
    "cos": "Cos", "cosh": "Cosh", "erf": "Erf", "exp": "Exp", "log": "Log", "reciprocal": "Reciprocal",
    "relu": "Relu", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip
_SCIENCE = {
    "digamma": "Digamma", "erfc": "Erfc", "erfinv": "Erfinv", "exp2": "Exp2", "expm1": "Expm1",
    "lgamma": "Lgamma", "log10": "Log10", "log1p": "Log1p", "log2": "Log2", "sigmoid": "Expit",
    "special_digamma": "Digamma", "special_psi": "Digamma", "sinc": "Sinc",
}  # fmt: skip


_INVERSE = {"acos", "acosh", "asin", "asinh", "atan", "atanh"}


def _complex(call: Call, x: Array) -> Array:
    name = f"arc{call.op[1:]}" if call.op in _INVERSE else call.op
    if not hasattr(np, name):
        raise call.refuse("of complex numbers", "compute it from real and imaginary parts")
    result: Array = getattr(np, name)(x)
    return result


@rule(*_STANDARD)
def standard(call: Call, x: Array) -> Array:
    if x.dtype.kind == "c":
        return _complex(call, x)
    return call.emit(_STANDARD[call.op], call.value(x, call.dtype))


@rule(*_SCIENCE)
def science(call: Call, x: Array) -> Array:
    if x.dtype.kind == "c":
        return _complex(call, x)
    return call.emit(_SCIENCE[call.op], call.value(x, call.dtype), domain=SCI)


@rule("polygamma")
def polygamma(call: Call, order: int, x: Array) -> Array:
    return call.emit("Polygamma", call.value(x, call.dtype), domain=SCI, n=order)


@rule("rsqrt")
def rsqrt(call: Call, x: Array) -> Array:
    return call.emit("Reciprocal", ops.unary("Sqrt", call.value(x, call.dtype)))


_EITHER: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "ceil": np.ceil, "floor": np.floor, "neg": np.negative, "sign": np.sign, "sgn": np.sign,
    "trunc": np.trunc, "square": np.square, "bitwise_not": np.invert, "isnan": np.isnan, "isinf": np.isinf,
    "isfinite": np.isfinite, "signbit": np.signbit, "positive": np.positive,
}  # fmt: skip


@rule(*_EITHER)
def either(call: Call, x: Array) -> Any:
    if x.dtype.kind in "iub" and call.op in ("ceil", "floor", "trunc"):
        return x.copy()
    return of_dtype(_EITHER[call.op](x), call.dtype)


@rule("round")
def round_(call: Call, x: Array, decimals: int = 0) -> Any:
    return np.round(x, decimals)


@rule("logical_not")
def logical_not(call: Call, x: Array) -> Any:
    return np.logical_not(x)


def _pair(call: Call, a: Any, b: Any) -> tuple[Any, Any]:
    return of_dtype(a, call.dtype), of_dtype(b, call.dtype)


@rule("add", "sub", "rsub")
def add(call: Call, a: Any, b: Any, alpha: Any = 1) -> Any:
    if call.op == "rsub":
        a, b = b, a
    a, b = _pair(call, a, b)
    if alpha != 1:
        b = b * alpha
    return a + b if call.op == "add" else a - b


@rule("mul")
def mul(call: Call, a: Any, b: Any) -> Any:
    a, b = _pair(call, a, b)
    return a * b


@rule("div", "true_divide")
def div(call: Call, a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    a, b = _pair(call, a, b)
    if rounding_mode is None:
        return np.divide(a, b)
    if rounding_mode == "floor":
        return np.floor_divide(a, b)
    if call.dtype.kind == "f":
        return np.trunc(np.divide(a, b))
    return np.floor_divide(np.abs(a), np.abs(b)) * (np.sign(a) * np.sign(b))


@rule("floor_divide")
def floor_divide(call: Call, a: Any, b: Any) -> Any:
    return np.floor_divide(*_pair(call, a, b))


@rule("pow")
def power(call: Call, a: Any, b: Any) -> Any:
    a = of_dtype(a, call.dtype)
    return np.power(a, b if isinstance(b, int | float) else of_dtype(b, call.dtype))


_BINARY: dict[str, Callable[..., Any]] = {
    "remainder": np.remainder, "fmod": np.fmod, "maximum": np.maximum, "minimum": np.minimum,
    "atan2": np.arctan2, "arctan2": np.arctan2, "hypot": np.hypot,
    "logaddexp": np.logaddexp, "logaddexp2": np.logaddexp2, "copysign": np.copysign,
    "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor,
    "bitwise_left_shift": np.left_shift, "bitwise_right_shift": np.right_shift, "heaviside": np.heaviside,
}  # fmt: skip


@rule(*_BINARY)
def binary(call: Call, a: Any, b: Any) -> Any:
    return of_dtype(_BINARY[call.op](*_pair(call, a, b)), call.dtype)


@rule("fmax", "fmin")
def fmax(call: Call, a: Any, b: Any) -> Any:
    """Give the derivative at a tie to the first operand alone."""
    a, b = _pair(call, a, b)
    first = np.greater_equal(a, b) if call.op == "fmax" else np.less_equal(a, b)
    return where(call, np.logical_or(first, np.isnan(b)), a, b)


@rule("special_xlog1py")
def xlog1py(call: Call, x: Any, y: Any) -> Any:
    x, y = _pair(call, x, y)
    pole = np.logical_and(np.equal(x, 0), np.less_equal(y, -1))
    return x * np.log1p(where(call, pole, 0, y))


@rule("xlogy", "special_xlogy")
def xlogy(call: Call, x: Any, y: Any) -> Array:
    return call.emit("Xlogy", call.value(x, call.dtype), call.value(y, call.dtype), domain=SCI)


_COMPARISONS: dict[str, Callable[..., Any]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal,
}  # fmt: skip


@rule(*_COMPARISONS)
def comparison(call: Call, a: Any, b: Any) -> Any:
    dtype = call.common_dtype
    return _COMPARISONS[call.op](of_dtype(a, dtype), of_dtype(b, dtype))


@rule("logical_and", "logical_or", "logical_xor")
def logical(call: Call, a: Any, b: Any) -> Any:
    return getattr(np, call.op)(a, b)


@rule("where")
def where(call: Call, condition: Any, a: Any, b: Any) -> Any:
    a, b = _pair(call, a, b)
    if call.dtype.kind == "c":
        return np.where(condition, a, b)
    if not any(isinstance(one, TracedArray) for one in (condition, a, b)):
        return np.where(condition, a, b).astype(call.dtype)
    operands = [call.value(condition), call.value(a, call.dtype), call.value(b, call.dtype)]
    shape = np.broadcast_shapes(*(one.shape for one in operands))
    return call.emit("Where", *operands, shape=shape)


@rule("masked_fill")
def masked_fill(call: Call, x: Any, mask: Any, number: Any) -> Any:
    return where(call, mask, number, x)


@rule("clamp", "clip", "clamp_min", "clamp_max")
def clamp(call: Call, x: Any, low: Any = None, high: Any = None, **named: Any) -> Any:
    """Clip, with derivative 1 at the bounds; beyond a bound that is a tensor it is that of the bound."""
    if call.op == "clamp_max":
        low, high = None, low
    low, high = named.get("min", low), named.get("max", high)
    x = of_dtype(x, call.dtype)
    for bound, beyond in ((low, np.less), (high, np.greater)):
        if bound is not None:
            bound = of_dtype(bound, call.dtype)
            x = where(call, beyond(x, bound), bound, x)
    return x


@rule("sigmoid_backward")
def sigmoid_backward(call: Call, cotangent: Array, y: Array) -> Any:
    return cotangent * y * (1 - y)


@rule("tanh_backward")
def tanh_backward(call: Call, cotangent: Array, y: Array) -> Any:
    return cotangent * (1 - y * y)
