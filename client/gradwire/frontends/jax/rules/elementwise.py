"""Primitives that work element by element."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from gradwire.frontends.jax import ops
from gradwire.frontends.jax.graph import SCI, Value
from gradwire.frontends.jax.registry import Call, rule

_FLOAT32, _BOOL = np.dtype(np.float32), np.dtype(np.bool_)
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

_UNARY = {
    "abs": "Abs",
    "acos": "Acos",
    "acosh": "Acosh",
    "asin": "Asin",
    "asinh": "Asinh",
    "atan": "Atan",
    "atanh": "Atanh",
    "ceil": "Ceil",
    "cos": "Cos",
    "cosh": "Cosh",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "logistic": "Sigmoid",
    "sign": "Sign",
    "sin": "Sin",
    "sinh": "Sinh",
    "sqrt": "Sqrt",
    "tan": "Tan",
    "tanh": "Tanh",
}

_SCI_UNARY = {
    "bessel_i0e": "BesselI0e",
    "bessel_i1e": "BesselI1e",
    "cbrt": "Cbrt",
    "digamma": "Digamma",
    "erf_inv": "Erfinv",
    "erfc": "Erfc",
    "exp2": "Exp2",
    "expm1": "Expm1",
    "lgamma": "Lgamma",
    "log1p": "Log1p",
    "stop_gradient": "StopGradient",
}

# Operators that opset 21 does not define for bfloat16.
_NO_BFLOAT16 = {
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Cos",
    "Cosh",
    "Sin",
    "Sinh",
    "Tan",
    "Round",
}


def _unary(call: Call, op: str, x: Value) -> Value:
    if x.dtype == _BFLOAT16 and op in _NO_BFLOAT16:
        wide = ops.same(call.graph, op, ops.cast(call.graph, x, _FLOAT32))
        return ops.cast(call.graph, wide, _BFLOAT16)
    return ops.same(call.graph, op, x)


@rule(*_UNARY)
def unary(call: Call, x: Value) -> Value:
    return _unary(call, _UNARY[call.name], x)


@rule(*_SCI_UNARY)
def unary_of_science(call: Call, x: Value) -> Value:
    if not ops.is_float(x.dtype):  # the gradient of an integer is nothing to stop
        return x
    return ops.same(call.graph, _SCI_UNARY[call.name], x, SCI)


_BINARY = {"add": "Add", "add_any": "Add", "div": "Div", "mul": "Mul", "sub": "Sub"}


@rule(*_BINARY)
def binary(call: Call, x: Value, y: Value) -> Value:
    return ops.broadcast(call.graph, _BINARY[call.name], x, y)


_EXTREMES = {"max": ("Max", "Or"), "min": ("Min", "And")}


@rule(*_EXTREMES)
def extreme(call: Call, x: Value, y: Value) -> Value:
    of_numbers, of_truths = _EXTREMES[call.name]
    return ops.broadcast(call.graph, of_truths if x.dtype == _BOOL else of_numbers, x, y)


_SCI_BINARY = {"atan2": "Atan2", "igamma": "Igamma", "igammac": "Igammac"}


@rule(*_SCI_BINARY)
def binary_of_science(call: Call, x: Value, y: Value) -> Value:
    return ops.broadcast(call.graph, _SCI_BINARY[call.name], x, y, domain=SCI)


@rule("regularized_incomplete_beta")
def betainc(call: Call, a: Value, b: Value, x: Value) -> Value:
    return ops.broadcast(call.graph, "Betainc", a, b, x, domain=SCI)


@rule("polygamma")
def polygamma(call: Call, order: Value, x: Value) -> Value:
    orders = None if order.known is None else np.unique(order.known)
    if orders is None or orders.size != 1 or orders[0] != int(orders[0]):
        raise call.fail("the order must be one constant whole number")
    return ops.same(call.graph, "Polygamma", x, SCI, n=int(orders[0]))


@rule("neg")
def neg(call: Call, x: Value) -> Value:
    if x.dtype.kind == "u":
        return ops.broadcast(call.graph, "Sub", ops.scalar(0, x.dtype), x)
    return ops.same(call.graph, "Neg", x)


@rule("square")
def square(call: Call, x: Value) -> Value:
    return ops.broadcast(call.graph, "Mul", x, x)


@rule("integer_pow")
def integer_power(call: Call, x: Value) -> Value:
    exponent = int(call.params["y"])
    if exponent == 2:
        return ops.broadcast(call.graph, "Mul", x, x)
    if x.dtype.kind in "iu" and x.dtype.itemsize < 4:
        wide = ops.cast(call.graph, x, np.int32)
        power = call.graph.one("Pow", [wide, ops.scalar(exponent, np.int32)], x.shape, np.int32)
        return ops.cast(call.graph, power, x.dtype)
    return call.graph.one("Pow", [x, ops.scalar(exponent, np.int64)], x.shape, x.dtype)


@rule("pow")
def power(call: Call, x: Value, y: Value) -> Value:
    return call.graph.one("Pow", [x, y], call.shape, call.dtype)


@rule("rsqrt")
def reciprocal_root(call: Call, x: Value) -> Value:
    return ops.same(call.graph, "Reciprocal", ops.same(call.graph, "Sqrt", x))


@rule("rem")
def remainder(call: Call, x: Value, y: Value) -> Value:
    """The remainder has the sign of the dividend, as in C."""
    return call.graph.one("Mod", [x, y], call.shape, call.dtype, fmod=1)


@rule("round")
def rounded(call: Call, x: Value) -> Value:
    if int(call.params["rounding_method"]) == 1:
        return _unary(call, "Round", x)
    # Halves away from zero, by parts: adding a half first would round 0.49999999999999994 up.
    g, size = call.graph, _unary(call, "Abs", x)
    whole = ops.same(g, "Floor", size)
    half = ops.broadcast(g, "GreaterOrEqual", ops.broadcast(g, "Sub", size, whole), ops.scalar(0.5, x.dtype))
    return ops.broadcast(
        g, "Mul", ops.same(g, "Sign", x), ops.broadcast(g, "Add", whole, ops.cast(g, half, x.dtype))
    )


@rule("is_finite")
def is_finite(call: Call, x: Value) -> Value:
    """A number less itself is zero, unless it is infinite or no number."""
    g = call.graph
    return ops.broadcast(g, "Equal", ops.broadcast(g, "Sub", x, x), ops.scalar(0, x.dtype))


_COMPARISONS = {
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
}


def _ordered(call: Call, *values: Value) -> list[Value]:
    """Truth values as numbers, which can be compared."""
    return [ops.cast(call.graph, v, np.uint8) if v.dtype == _BOOL else v for v in values]


@rule(*_COMPARISONS)
def comparison(call: Call, x: Value, y: Value) -> Value:
    if call.name != "eq":
        x, y = _ordered(call, x, y)
    return ops.broadcast(call.graph, _COMPARISONS[call.name], x, y)


@rule("ne")
def different(call: Call, x: Value, y: Value) -> Value:
    if x.dtype == _BOOL:
        return ops.broadcast(call.graph, "Xor", x, y)
    return _not(call, ops.broadcast(call.graph, "Equal", x, y))


@rule("eq_to")
def equal_in_total_order(call: Call, x: Value, y: Value) -> Value:
    equal = ops.broadcast(call.graph, "Equal", x, y)
    if not ops.is_float(x.dtype):
        return equal
    both = ops.broadcast(call.graph, "And", _is_nan(call, x), _is_nan(call, y))
    return ops.broadcast(call.graph, "Or", equal, both)


@rule("lt_to", "le_to")
def less_in_total_order(call: Call, x: Value, y: Value) -> Value:
    """Less, where NaN is larger than any number."""
    g, strict = call.graph, call.name == "lt_to"
    x, y = _ordered(call, x, y)
    less = ops.broadcast(g, "Less" if strict else "LessOrEqual", x, y)
    if not ops.is_float(x.dtype):
        return less
    last = _is_nan(call, y)
    if strict:
        last = ops.broadcast(g, "And", last, _not(call, _is_nan(call, x)))
    return ops.broadcast(g, "Or", less, last)


def _is_nan(call: Call, x: Value) -> Value:
    return call.graph.one("IsNaN", [x], x.shape, _BOOL)


def _not(call: Call, x: Value) -> Value:
    if x.known is not None:
        return Value("", x.shape, x.dtype, np.logical_not(x.known))
    return ops.same(call.graph, "Not", x)


@rule("not")
def invert(call: Call, x: Value) -> Value:
    return _not(call, x) if x.dtype == _BOOL else ops.same(call.graph, "BitwiseNot", x)


_LOGIC = {"and": "And", "or": "Or", "xor": "Xor"}


@rule(*_LOGIC)
def logic(call: Call, x: Value, y: Value) -> Value:
    op = _LOGIC[call.name]
    return ops.broadcast(call.graph, op if x.dtype == _BOOL else f"Bitwise{op}", x, y)


def _shift(call: Call, x: Value, y: Value, direction: str) -> Value:
    """A shift of the bits, which ONNX has for unsigned numbers."""
    g, unsigned = call.graph, np.dtype(f"u{x.dtype.itemsize}")
    bits, count = ops.cast(g, x, unsigned), ops.cast(g, y, unsigned)
    shape = np.broadcast_shapes(x.shape, y.shape)
    shifted = g.one("BitShift", [bits, count], shape, unsigned, direction=direction)
    within = ops.broadcast(g, "Less", count, ops.scalar(8 * x.dtype.itemsize, unsigned))
    return ops.cast(g, ops.where(g, within, shifted, ops.scalar(0, unsigned)), x.dtype)


@rule("shift_left")
def shift_left(call: Call, x: Value, y: Value) -> Value:
    return _shift(call, x, y, "LEFT")


@rule("shift_right_logical")
def shift_right(call: Call, x: Value, y: Value) -> Value:
    return _shift(call, x, y, "RIGHT")


@rule("shift_right_arithmetic")
def shift_right_with_sign(call: Call, x: Value, y: Value) -> Value:
    """Negative numbers are shifted as their complements, so that ones come in from the left."""
    if x.dtype.kind == "u":
        return _shift(call, x, y, "RIGHT")
    g = call.graph
    negative = ops.broadcast(g, "Less", x, ops.scalar(0, x.dtype))
    flipped = ops.where(g, negative, ops.same(g, "BitwiseNot", x), x)
    shifted = _shift(call, flipped, y, "RIGHT")
    return ops.where(g, negative, ops.same(g, "BitwiseNot", shifted), shifted)


@rule("clamp")
def clamp(call: Call, low: Value, x: Value, high: Value) -> Value:
    g = call.graph
    if x.known is None and ops.is_float(x.dtype) and not low.ndim and not high.ndim:
        return g.one("Clip", [x, low, high], x.shape, x.dtype)
    return ops.broadcast(g, "Min", ops.broadcast(g, "Max", low, x), high)


@rule("select_n")
def select(call: Call, which: Value, *cases: Value) -> Value:
    if len(cases) == 1:
        return cases[0]
    g = call.graph
    if which.dtype == _BOOL:
        return ops.expand(g, ops.where(g, which, cases[1], cases[0]), call.shape)
    chosen = cases[-1]
    for index in range(len(cases) - 2, -1, -1):
        here = ops.broadcast(g, "Equal", which, ops.scalar(index, which.dtype))
        chosen = ops.where(g, here, cases[index], chosen)
    return ops.expand(g, chosen, call.shape)


@rule("convert_element_type")
def convert(call: Call, x: Value) -> Value:
    return ops.cast(call.graph, x, call.dtype)


_PRECISIONS: dict[tuple[int, int], Any] = {
    (5, 10): np.float16,
    (8, 7): _BFLOAT16,
    (8, 23): np.float32,
    (11, 52): np.float64,
}


@rule("reduce_precision")
def reduce_precision(call: Call, x: Value) -> Value:
    bits = (int(call.params["exponent_bits"]), int(call.params["mantissa_bits"]))
    if bits not in _PRECISIONS:
        raise call.fail(
            f"no dtype has {bits[0]} exponent and {bits[1]} mantissa bits; cast to one that exists"
        )
    return ops.cast(call.graph, ops.cast(call.graph, x, _PRECISIONS[bits]), x.dtype)


@rule(
    "copy",
    "mesh_cast",
    "name",
    "optimization_barrier",
    "pvary",
    "sharding_constraint",
    "device_put",
    "layout_constraint",
    "reshard",
    "with_memory_space_constraint",
)
def unchanged(call: Call, *values: Value) -> tuple[Value, ...]:
    return values
