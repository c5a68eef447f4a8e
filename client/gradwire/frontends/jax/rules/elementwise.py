"""Primitives that work element by element."""

from __future__ import annotations

from functools import partial

import numpy as np

from gradwire.frontends.jax.dtypes import BFLOAT16, is_float
from gradwire.frontends.jax.registry import Call, rule
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import SCI
from gradwire.graphs.nodes import GraphValue

_UINT8, _INT32 = np.dtype(np.uint8), np.dtype(np.int32)

_UNARY = {
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


def _unary(op: str, x: GraphValue) -> GraphValue:
    if x.dtype == BFLOAT16 and op in _NO_BFLOAT16:
        return ops.cast(ops.unary(op, ops.cast(x, ops.FLOAT32)), BFLOAT16)
    return ops.unary(op, x)


@rule(*_UNARY)
def unary(call: Call, x: GraphValue) -> GraphValue:
    return _unary(_UNARY[call.name], x)


@rule("abs")
def absolute(call: Call, x: GraphValue) -> GraphValue:
    """Return absolute values, with JAX's derivative 1 at 0."""
    size = ops.unary("Abs", x)
    if not is_float(x.dtype) or call.order is None:
        return size
    zero = ops.constant_like(x, 0)
    return ops.binary("Add", size, ops.where(ops.compare("Equal", x, zero), x, zero))


@rule(*_SCI_UNARY)
def unary_of_science(call: Call, x: GraphValue) -> GraphValue:
    if not is_float(x.dtype):  # the gradient of an integer is nothing to stop
        return x
    return ops.unary(_SCI_UNARY[call.name], x, SCI)


_BINARY = {"add": "Add", "add_any": "Add", "div": "Div", "mul": "Mul", "sub": "Sub"}


@rule(*_BINARY)
def binary(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    return ops.binary(_BINARY[call.name], x, y)


_EXTREMES = {"max": ("Max", "Or"), "min": ("Min", "And")}


@rule(*_EXTREMES)
def extreme(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    of_numbers, of_truths = _EXTREMES[call.name]
    return ops.binary(of_truths if x.dtype == ops.BOOL else of_numbers, x, y)


_SCI_ELEMENTWISE = {
    "atan2": "Atan2",
    "igamma": "Igamma",
    "igammac": "Igammac",
    "regularized_incomplete_beta": "Betainc",
}


@rule(*_SCI_ELEMENTWISE)
def elementwise_of_science(call: Call, *inputs: GraphValue) -> GraphValue:
    return ops.sci(_SCI_ELEMENTWISE[call.name], *inputs)


@rule("polygamma")
def polygamma(call: Call, order: GraphValue, x: GraphValue) -> GraphValue:
    known = call.graph.known(order)
    orders = None if known is None else np.unique(known)
    if orders is None or orders.size != 1 or orders[0] != int(orders[0]):
        raise call.fail("the order must be one constant whole number")
    return call.graph.one("Polygamma", [x], x.shape, x.dtype, SCI, n=int(orders[0]))


@rule("neg")
def neg(call: Call, x: GraphValue) -> GraphValue:
    if x.dtype.kind == "u":
        return ops.binary("Sub", ops.constant_like(x, 0), x)
    return ops.unary("Neg", x)


@rule("square")
def square(call: Call, x: GraphValue) -> GraphValue:
    return ops.binary("Mul", x, x)


@rule("integer_pow")
def integer_power(call: Call, x: GraphValue) -> GraphValue:
    exponent = int(call.params["y"])
    if exponent == 2:
        return ops.binary("Mul", x, x)
    if x.dtype.kind in "iu" and x.dtype.itemsize < 4:
        power = ops.binary("Pow", ops.cast(x, _INT32), call.graph.scalar(exponent, _INT32))
        return ops.cast(power, x.dtype)
    return ops.binary("Pow", x, call.graph.scalar(exponent, ops.INT64))


@rule("pow")
def power(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    return ops.binary("Pow", x, y)


@rule("rsqrt")
def reciprocal_root(call: Call, x: GraphValue) -> GraphValue:
    return ops.unary("Reciprocal", ops.unary("Sqrt", x))


@rule("rem")
def remainder(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    """Return the remainder with the sign of the dividend, as in C."""
    return ops.binary("Mod", x, y, fmod=1)


@rule("round")
def rounded(call: Call, x: GraphValue) -> GraphValue:
    if int(call.params["rounding_method"]) == 1:
        return _unary("Round", x)
    # Halves away from zero, by parts: adding a half first would round 0.49999999999999994 up.
    size = ops.unary("Abs", x)
    whole = ops.unary("Floor", size)
    half = ops.compare("GreaterOrEqual", ops.binary("Sub", size, whole), ops.constant_like(x, 0.5))
    return ops.binary("Mul", ops.unary("Sign", x), ops.binary("Add", whole, ops.cast(half, x.dtype)))


@rule("is_finite")
def is_finite(call: Call, x: GraphValue) -> GraphValue:
    """Whether a number less itself is zero: it is not for infinities and NaN."""
    return ops.compare("Equal", ops.binary("Sub", x, x), ops.constant_like(x, 0))


_COMPARISONS = {
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
}


def _ordered(*values: GraphValue) -> list[GraphValue]:
    """Truth values as numbers, which can be compared."""
    return [ops.cast(value, _UINT8) if value.dtype == ops.BOOL else value for value in values]


@rule(*_COMPARISONS)
def comparison(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    if call.name != "eq":
        x, y = _ordered(x, y)
    return ops.compare(_COMPARISONS[call.name], x, y)


@rule("ne")
def different(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    if x.dtype == ops.BOOL:
        return ops.binary("Xor", x, y)
    return ops.predicate("Not", ops.compare("Equal", x, y))


@rule("eq_to")
def equal_in_total_order(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    """Equality, where NaN is equal to itself."""
    equal = ops.compare("Equal", x, y)
    if not is_float(x.dtype):
        return equal
    both = ops.binary("And", ops.predicate("IsNaN", x), ops.predicate("IsNaN", y))
    return ops.binary("Or", equal, both)


@rule("lt_to", "le_to")
def less_in_total_order(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    """Less (or equal), where NaN is larger than any number."""
    strict = call.name == "lt_to"
    x, y = _ordered(x, y)
    less = ops.compare("Less" if strict else "LessOrEqual", x, y)
    if not is_float(x.dtype):
        return less
    last = ops.predicate("IsNaN", y)
    if strict:
        last = ops.binary("And", last, ops.predicate("Not", ops.predicate("IsNaN", x)))
    return ops.binary("Or", less, last)


@rule("not")
def invert(call: Call, x: GraphValue) -> GraphValue:
    return ops.unary("Not" if x.dtype == ops.BOOL else "BitwiseNot", x)


_LOGIC = {"and": "And", "or": "Or", "xor": "Xor"}


@rule(*_LOGIC)
def logic(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    op = _LOGIC[call.name]
    return ops.binary(op if x.dtype == ops.BOOL else f"Bitwise{op}", x, y)


def _shift(x: GraphValue, y: GraphValue, direction: str) -> GraphValue:
    """Shift the bits, which ONNX does for unsigned numbers."""
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    count = ops.cast(y, unsigned)
    shifted = ops.binary("BitShift", ops.cast(x, unsigned), count, direction=direction)
    within = ops.compare("Less", count, ops.constant_like(count, 8 * x.dtype.itemsize))
    return ops.cast(ops.where(within, shifted, ops.constant_like(shifted, 0)), x.dtype)


@rule("shift_left")
def shift_left(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    return _shift(x, y, "LEFT")


@rule("shift_right_logical")
def shift_right(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    return _shift(x, y, "RIGHT")


@rule("shift_right_arithmetic")
def shift_right_with_sign(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    """Shift the complements of negative numbers, so that ones come in from the left."""
    if x.dtype.kind == "u":
        return _shift(x, y, "RIGHT")
    negative = ops.compare("Less", x, ops.constant_like(x, 0))
    shifted = _shift(ops.where(negative, ops.unary("BitwiseNot", x), x), y, "RIGHT")
    return ops.where(negative, ops.unary("BitwiseNot", shifted), shifted)


@rule("clamp")
def clamp(call: Call, low: GraphValue, x: GraphValue, high: GraphValue) -> GraphValue:
    graph = call.graph
    if is_float(x.dtype) and not low.ndim and not high.ndim and graph.known(x) is None:
        return graph.one("Clip", [x, low, high], x.shape, x.dtype)
    return ops.binary("Min", ops.binary("Max", low, x), high)


@rule("select_n")
def select(call: Call, which: GraphValue, *cases: GraphValue) -> GraphValue:
    """Return the case that a truth value or a number names, element by element."""
    if len(cases) == 1:
        return cases[0]
    if which.dtype == ops.BOOL:
        return ops.expand(ops.where(which, cases[1], cases[0]), call.shape)
    chosen = cases[-1]
    for index in range(len(cases) - 2, -1, -1):
        here = ops.compare("Equal", which, ops.constant_like(which, index))
        chosen = ops.where(here, cases[index], chosen)
    return ops.expand(chosen, call.shape)


@rule("convert_element_type")
def convert(call: Call, x: GraphValue) -> GraphValue:
    return ops.cast(x, call.dtype)


_PRECISIONS = {
    (5, 10): np.dtype(np.float16),
    (8, 7): BFLOAT16,
    (8, 23): ops.FLOAT32,
    (11, 52): ops.FLOAT64,
}
"""Dtypes by the numbers of bits of their exponent and mantissa."""


@rule("reduce_precision")
def reduce_precision(call: Call, x: GraphValue) -> GraphValue:
    bits = (int(call.params["exponent_bits"]), int(call.params["mantissa_bits"]))
    if bits not in _PRECISIONS:
        raise call.fail(
            f"no dtype has {bits[0]} exponent and {bits[1]} mantissa bits; cast to one that exists"
        )
    return ops.cast(ops.cast(x, _PRECISIONS[bits]), x.dtype)


_EXACT = {np.dtype(np.float64): (53, -969, -1021), np.dtype(np.float32): (24, -95, -125)}
"""Digits of numbers, and the exponents from which neighbors are exact: as they are, and times 2^digits."""


@rule("nextafter")
def neighbor(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    """Return the next number on the way from x to y, with derivative 0.

    By Rump, Zimmermann, Boldo and Melquiond (2009): x (1 + u + 2u^2), where u is half of the distance of 1
    from its neighbor, is rounded to the neighbor of x.
    """
    if x.dtype not in _EXACT:
        raise call.fail(f"it has no operator for {x.dtype}; convert to float32 or float64")
    digits, exact, scalable = _EXACT[x.dtype]
    unit = 2.0**-digits
    constant = partial(ops.constant_like, x)
    size = ops.unary("Abs", x)

    def stepped(start: GraphValue) -> GraphValue:
        return ops.binary("Mul", ops.unary("Abs", start), constant(unit * (1 + 2 * unit)))

    way = ops.where(ops.compare("Greater", y, x), constant(1), constant(-1))
    scaled = ops.binary("Mul", x, constant(1 / unit))
    smallest = np.finfo(x.dtype).smallest_subnormal  # which arithmetic may take for 0
    least = ops.where(ops.compare("Greater", y, x), constant(smallest), constant(-smallest))
    near = ops.binary("Add", x, ops.binary("Mul", way, stepped(x)))
    nearer = ops.binary("Add", scaled, ops.binary("Mul", way, stepped(scaled)))
    result = ops.where(
        ops.compare("GreaterOrEqual", size, constant(2.0**scalable)),
        ops.binary("Mul", nearer, constant(unit)),
        least,
    )
    result = ops.where(ops.compare("GreaterOrEqual", size, constant(2.0**exact)), near, result)
    largest = ops.binary("Mul", ops.unary("Sign", x), constant(np.finfo(x.dtype).max))
    result = ops.where(ops.predicate("IsInf", x), largest, result)
    result = ops.where(ops.compare("Equal", x, y), y, result)
    unordered = ops.binary("Or", ops.predicate("IsNaN", x), ops.predicate("IsNaN", y))
    result = ops.where(unordered, ops.binary("Add", x, y), result)
    return ops.unary("StopGradient", ops.expand(result, call.shape), SCI)


@rule(
    "nonbatchable",
    "nondifferentiable_backward",
    "nontraceable",
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
def unchanged(call: Call, *values: GraphValue) -> tuple[GraphValue, ...]:
    return values
