"""Primitives of complex arrays, which a graph holds as pairs of real ones.

What is linear over the real numbers applies to both parts alike; sums, products, exponentials, sines and
cosines are real arithmetic. Functions with a branch cut or a pole are operators of `gradwire.sci`, from pairs
to pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jax import lax

from gradwire.frontends.jax.dtypes import is_complex, part_dtype
from gradwire.frontends.jax.registry import Call, Pair, Type, Value, complex_rule, rules
from gradwire.frontends.jax.rules.calls import INLINED
from gradwire.frontends.jax.rules.custom_derivatives import with_rule
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import SCI
from gradwire.graphs.nodes import GraphValue, Shape

_mul, _add, _sub = (partial(ops.binary, op) for op in ("Mul", "Add", "Sub"))


def _parts(value: Value) -> Pair:
    return value if isinstance(value, Pair) else Pair(value, _zero(value))


def _zero(like: GraphValue) -> GraphValue:
    return _zero_of(like, like.shape)


def _zero_of(like: GraphValue, shape: Shape) -> GraphValue:
    return ops.expand(like.graph.scalar(0, like.dtype), shape)


def _is_zero(x: GraphValue) -> bool:
    known = x.graph.known(x)
    return known is not None and not known.any()


def _of_parts(call: Call) -> Call:
    """Return the equation as one of real arrays, whose results are the parts of one half."""
    return replace(call, results=tuple(Type(kind.shape, part_dtype(kind.dtype)) for kind in call.results))


def _real_rule(call: Call, *inputs: GraphValue) -> list[GraphValue]:
    outputs = rules[call.name](_of_parts(call), *inputs)
    return [outputs] if isinstance(outputs, GraphValue) else list(outputs)


_ALIKE = """
    neg add_any add sub reshape squeeze expand_dims transpose broadcast_in_dim concatenate stack unstack
    split tile rev slice pad gather scatter scatter-add dynamic_slice dynamic_update_slice select_n
    reduce_sum cumsum reduce_window_sum copy optimization_barrier stop_gradient sharding_constraint
    device_put name mesh_cast zeros_like empty
"""
"""Primitives that are linear over the real numbers, or only move elements."""


@complex_rule(*_ALIKE.split())
def alike(call: Call, *inputs: Value) -> list[Value]:
    """Apply to the real parts and to the imaginary parts; indices and conditions are shared."""
    halves = [
        _real_rule(call, *(item[half] if isinstance(item, Pair) else item for item in inputs))
        for half in (0, 1)
    ]
    return [
        Pair(real, imag) if is_complex(kind.dtype) else real
        for real, imag, kind in zip(*halves, call.results, strict=True)
    ]


@complex_rule("mul", "dot_general", "conv_general_dilated")
def bilinear(call: Call, z: Value, w: Value) -> Pair:

    def product(x: GraphValue, y: GraphValue) -> GraphValue:
        return _real_rule(call, x, y)[0]

    (a, b), (c, d) = _parts(z), _parts(w)
    if _is_zero(d):
        return Pair(product(a, c), product(b, c))
    if _is_zero(b):
        return Pair(product(a, c), product(a, d))
    return Pair(_sub(product(a, c), product(b, d)), _add(product(a, d), product(b, c)))


def _times(z: Pair, w: Pair) -> Pair:
    (a, b), (c, d) = z, w
    return Pair(_sub(_mul(a, c), _mul(b, d)), _add(_mul(a, d), _mul(b, c)))


def _operator(op: str, *operands: Pair) -> Pair:
    values = [part for operand in operands for part in operand]
    shape, graph = ops.broadcast(*(value.shape for value in values)), values[0].graph
    return Pair(*graph.emit(op, values, [(shape, values[0].dtype)] * 2, SCI))


_OPERATORS = {
    "sqrt": "ComplexSqrt",
    "log": "ComplexLog",
    "log1p": "ComplexLog1p",
    "tan": "ComplexTan",
    "tanh": "ComplexTanh",
    "asin": "ComplexAsin",
    "acos": "ComplexAcos",
    "atan": "ComplexAtan",
    "asinh": "ComplexAsinh",
    "acosh": "ComplexAcosh",
    "atanh": "ComplexAtanh",
}


@complex_rule(*_OPERATORS)
def operator(call: Call, z: Pair) -> Pair:
    return _operator(_OPERATORS[call.name], z)


@complex_rule("div")
def divide(call: Call, z: Pair, w: Pair) -> Pair:
    if _is_zero(w.imag):
        return Pair(*(ops.binary("Div", part, w.real) for part in z))
    return _operator("ComplexDiv", z, w)


@complex_rule("rsqrt")
def reciprocal_root(call: Call, z: Pair) -> Pair:
    return _reciprocal(_operator("ComplexSqrt", z))


def _reciprocal(z: Pair) -> Pair:
    one = ops.constant_like(z.real, 1)
    return _operator("ComplexDiv", Pair(one, ops.constant_like(z.real, 0)), z)


@complex_rule("pow")
def power(call: Call, z: Value, exponent: Value) -> Pair:
    pairs = [_parts(item) for item in (z, exponent)]
    kind = part_dtype(call.dtype)
    return _operator("ComplexPow", *(Pair(*(ops.cast(part, kind) for part in pair)) for pair in pairs))


@complex_rule("integer_pow")
def integer_power(call: Call, z: Pair) -> Pair:
    """Square repeatedly."""
    exponent = int(call.params["y"])
    result, square, left = None, z, abs(exponent)
    while left:
        if left & 1:
            result = square if result is None else _times(result, square)
        left >>= 1
        square = _times(square, square) if left else square
    if result is None:
        return Pair(ops.expand(ops.constant_like(z.real, 1), z.real.shape), _zero(z.real))
    return _reciprocal(result) if exponent < 0 else result


@complex_rule("square")
def square(call: Call, z: Pair) -> Pair:
    return _times(z, z)


@complex_rule("exp")
def exponential(call: Call, z: Pair) -> Pair:
    return _turned(ops.unary("Exp", z.real), z.imag)


def _turned(length: GraphValue, angle: GraphValue) -> Pair:
    return Pair(_mul(length, ops.unary("Cos", angle)), _mul(length, ops.unary("Sin", angle)))


@complex_rule("exp2")
def power_of_two(call: Call, z: Pair) -> Pair:
    scaled = Pair(*(_mul(part, ops.constant_like(part, math.log(2))) for part in z))
    return _turned(ops.unary("Exp", scaled.real), scaled.imag)


@complex_rule("reduce_prod")
def product(call: Call, z: Pair) -> Pair:
    """Multiply the elements in pairs: a number of nodes logarithmic in their number."""
    axes = [int(axis) for axis in call.params["axes"]]
    rest = [axis for axis in range(z.real.ndim) if axis not in axes]
    count = math.prod(z.real.shape[axis] for axis in axes)
    shape = (count, *call.shape)
    z = Pair(*(ops.reshape(ops.transpose(part, axes + rest), shape) for part in z))
    if not count:
        return Pair(
            ops.expand(z.real.graph.scalar(1, z.real.dtype), call.shape), _zero_of(z.real, call.shape)
        )
    while count > 1:
        half = count // 2
        first, second, odd = (
            Pair(*(ops.slices(part, [(0, start, 1, size)]) for part in z))
            for start, size in ((0, half), (half, half), (2 * half, count - 2 * half))
        )
        z = _times(first, second)
        if count % 2:
            z = Pair(*(ops.concat(list(parts), 0) for parts in zip(z, odd, strict=True)))
        count = z.real.shape[0]
    return Pair(*(ops.reshape(part, call.shape) for part in z))


@complex_rule("expm1")
def exponential_less_one(call: Call, z: Pair) -> Pair:
    """Compute exp(z) - 1, where exp(a) cos b - 1 = expm1(a) cos b - 2 sin^2(b / 2)."""
    a, b = z
    half = ops.unary("Sin", ops.binary("Div", b, ops.constant_like(b, 2)))
    less = _mul(ops.constant_like(b, 2), _mul(half, half))
    real = _sub(_mul(ops.unary("Expm1", a, SCI), ops.unary("Cos", b)), less)
    return Pair(real, _mul(ops.unary("Exp", a), ops.unary("Sin", b)))


@complex_rule("logistic")
def logistic(call: Call, z: Pair) -> Pair:
    size = _turned(ops.unary("Exp", ops.unary("Neg", z.real)), ops.unary("Neg", z.imag))
    return _reciprocal(Pair(_add(ops.constant_like(z.real, 1), size.real), size.imag))


# The parts of a function of a + ib: two products of a function of a with one of b, and the second one's sign.
_TRIGONOMETRIC = {
    "sin": (("Sin", "Cosh"), ("Cos", "Sinh"), 1),
    "cos": (("Cos", "Cosh"), ("Sin", "Sinh"), -1),
    "sinh": (("Sinh", "Cos"), ("Cosh", "Sin"), 1),
    "cosh": (("Cosh", "Cos"), ("Sinh", "Sin"), 1),
}


@complex_rule(*_TRIGONOMETRIC)
def trigonometric(call: Call, z: Pair) -> Pair:
    *pairs, sign = _TRIGONOMETRIC[call.name]
    real, imag = (_mul(ops.unary(f, z.real), ops.unary(g, z.imag)) for f, g in pairs)
    return Pair(real, imag if sign > 0 else ops.unary("Neg", imag))


@complex_rule("complex")
def of_parts(call: Call, real: GraphValue, imag: GraphValue) -> Pair:
    return Pair(*(ops.expand(part, call.shape) for part in (real, imag)))


@complex_rule("real")
def real_part(call: Call, z: Pair) -> GraphValue:
    return z.real


@complex_rule("imag")
def imaginary_part(call: Call, z: Pair) -> GraphValue:
    return z.imag


@complex_rule("conj")
def conjugate(call: Call, z: Value) -> Pair:
    real, imag = _parts(z)
    return Pair(real, ops.unary("Neg", imag))


@complex_rule("abs")
def absolute(call: Call, z: Pair) -> GraphValue:
    """Return absolute values; the derivative at 0 is 0."""
    return ops.sci("Hypot", *z)


@complex_rule("eq", "ne")
def equal(call: Call, z: Pair, w: Pair) -> GraphValue:
    same = [ops.compare("Equal", *parts) for parts in zip(z, w, strict=True)]
    both = ops.binary("And", *same)
    return both if call.name == "eq" else ops.predicate("Not", both)


@complex_rule("is_finite")
def finite(call: Call, z: Pair) -> GraphValue:
    return ops.binary("And", *(_real_rule(call, part)[0] for part in z))


@complex_rule("convert_element_type")
def convert(call: Call, z: Value) -> Value:
    kind = part_dtype(call.dtype)
    if not isinstance(z, Pair):
        real = ops.cast(z, kind)
        return Pair(real, _zero(real))
    return Pair(*(ops.cast(part, kind) for part in z)) if is_complex(call.dtype) else ops.cast(z.real, kind)


def _transform(
    z: Pair | GraphValue, count: int, axis: int, inverse: bool = False, onesided: bool = False
) -> Pair:
    """Transform along one axis; the operator crops the signal, or pads it with zeros, to the length."""
    parts = z if isinstance(z, Pair) else (z,)
    first, graph = parts[0], parts[0].graph
    columns = ops.concat([ops.reshape(part, (*first.shape, 1)) for part in parts], first.ndim)
    bins = count // 2 + 1 if onesided else count
    shape = (*first.shape[:axis], bins, *first.shape[axis + 1 :])
    pairs = graph.one(
        "DFT",
        [columns, graph.scalar(count, ops.INT64), graph.scalar(axis, ops.INT64)],
        (*shape, 2),
        first.dtype,
        inverse=int(inverse),
        onesided=int(onesided),
    )
    return Pair(*(ops.reshape(ops.slices(pairs, [(len(shape), half, 1, 1)]), shape) for half in (0, 1)))


@complex_rule("fft")
def fourier(call: Call, z: Value) -> Value:
    """Transform along the last axes, one after the other; a real signal, or result, has half of the bins."""
    kind = str(getattr(call.params["fft_type"], "name", call.params["fft_type"])).upper()
    lengths = [int(length) for length in call.params["fft_lengths"]]
    axes = range(len(call.shape) - len(lengths), len(call.shape))
    *others, (count, last) = zip(lengths, axes, strict=True)
    pair: Value = z
    if kind == "RFFT":
        pair = _transform(pair, count, last, onesided=True)
    elif kind != "IRFFT":
        others.append((count, last))
    for length, axis in others:
        pair = _transform(pair, length, axis, inverse=kind.startswith("I"))
    return _to_real(_parts(pair), count, last) if kind == "IRFFT" else pair


def _to_real(z: Pair, count: int, axis: int) -> GraphValue:
    """Return the real part of the inverse transform, with the bins that stand for two counted twice."""
    bins = z.real.shape[axis]
    weights = np.full(bins, 2.0)
    weights[0] = 1.0
    if count % 2 == 0 and bins == count // 2 + 1:
        weights[-1] = 1.0
    shape = (-1, *(1,) * (z.real.ndim - axis - 1))
    factor = z.real.graph.constant(weights.reshape(shape).astype(z.real.dtype))
    return _transform(Pair(*(_mul(part, factor) for part in z)), count, axis, inverse=True).real


@complex_rule(*INLINED)
def call(call: Call, *inputs: Value) -> list[Value]:
    """Convert the inner function in place of the call."""
    return list(rules[call.name](call, *inputs))


def _flat(values: Sequence[Value]) -> list[GraphValue]:
    return [part for value in values for part in (value if isinstance(value, Pair) else (value,))]


def _grouped(flat: Sequence[GraphValue], avals: Sequence[Any]) -> list[Value]:
    given = iter(flat)
    return [Pair(next(given), next(given)) if is_complex(aval.dtype) else next(given) for aval in avals]


def _flattened(call: Call) -> Call:
    """Return a loop or branch in which every complex array is two real ones."""

    def inline(closed: Any, inputs: Sequence[GraphValue], **options: Any) -> list[GraphValue]:
        return _flat(call.inline(closed, _grouped(inputs, closed.in_avals), **options))

    results: list[Type] = []
    for kind in call.results:
        results += [Type(kind.shape, part_dtype(kind.dtype))] * (2 if is_complex(kind.dtype) else 1)
    return replace(call, results=tuple(results), inline=inline)


@complex_rule("custom_jvp_call", "custom_vjp_call")
def custom_derivative(call: Call, *inputs: Value) -> list[Value]:
    """Convert the function of the parts, and its rule."""
    body = call.params["call_jaxpr"]

    def function(*arrays: Any) -> list[Any]:
        given = iter(arrays)
        grouped = [
            lax.complex(next(given), next(given)) if is_complex(aval.dtype) else next(given)
            for aval in body.in_avals
        ]
        results = call.primitive.bind(*grouped, **call.primitive.get_bind_params(call.params))
        split = ([one.real, one.imag] if is_complex(one.dtype) else [one] for one in results)
        return [part for parts in split for part in parts]

    return _grouped(list(with_rule(_flattened(call), _flat(inputs), function)), call.results)


_Counts = Callable[[Call, Sequence[Value]], dict[str, int]]


def _counts_of_scan(call: Call, inputs: Sequence[Value]) -> dict[str, int]:
    constants, carry = call.params["num_consts"], call.params["num_carry"]
    return {
        "num_consts": len(_flat(inputs[:constants])),
        "num_carry": len(_flat(inputs[constants : constants + carry])),
    }


def _counts_of_while(call: Call, inputs: Sequence[Value]) -> dict[str, int]:
    first, second = call.params["cond_nconsts"], call.params["body_nconsts"]
    return {
        "cond_nconsts": len(_flat(inputs[:first])),
        "body_nconsts": len(_flat(inputs[first : first + second])),
    }


_COUNTS: dict[str, _Counts] = {"scan": _counts_of_scan, "while": _counts_of_while, "cond": lambda *_: {}}


@complex_rule(*_COUNTS)
def repeated(call: Call, *inputs: Value) -> list[Value]:
    """Convert loops and branches with the parts as states of their own."""
    flat = _flattened(replace(call, params={**call.params, **_COUNTS[call.name](call, inputs)}))
    return _grouped(list(rules[call.name](flat, *_flat(inputs))), call.results)
