"""Elementwise arithmetic and elementary functions, of one, two or any number of operands.

Where a function has a kink, its derivative there is:

- `Abs`, `Sign`, `Floor`, `Ceil`, `Round`: 0;
- `Max`, `Min`: equal operands share the derivative, half each, pair by pair from the left;
- `Clip`: 1 at a bound (the interval is closed), 0 outside;
- `Mod`: that of the right-hand branch.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from gradwire_engine.lowering import smooth
from gradwire_engine.lowering.numeric import (
    aligned,
    broadcast,
    cast,
    constant,
    is_floating,
    magnitude,
    pointwise,
    real_power,
    select,
    widened,
)
from gradwire_engine.lowering.registry import Node, Value, is_static, namespace, rule

_UNARY: dict[str, tuple[int, Any, Any]] = {
    "Abs": (1, np.abs, magnitude),
    "Acos": (7, np.arccos, lax.acos),
    "Acosh": (9, np.arccosh, smooth.acosh),
    "Asin": (7, np.arcsin, lax.asin),
    "Asinh": (9, np.arcsinh, smooth.asinh),
    "Atan": (7, np.arctan, lax.atan),
    "Atanh": (9, np.arctanh, lax.atanh),
    "Ceil": (1, np.ceil, lax.ceil),
    "Cos": (1, np.cos, lax.cos),
    "Cosh": (9, np.cosh, lax.cosh),
    "Exp": (1, np.exp, lax.exp),
    "Floor": (1, np.floor, lax.floor),
    "IsNaN": (9, np.isnan, lambda x: lax.ne(x, x)),
    "Log": (1, np.log, lax.log),
    "Neg": (1, np.negative, lax.neg),
    "Round": (11, np.rint, partial(lax.round, rounding_method=lax.RoundingMethod.TO_NEAREST_EVEN)),
    "Sign": (9, np.sign, lax.sign),
    "Sin": (1, np.sin, lax.sin),
    "Sinh": (9, np.sinh, lax.sinh),
    "Sqrt": (1, np.sqrt, lax.sqrt),
    "Tan": (1, np.tan, lax.tan),
    "Tanh": (1, np.tanh, smooth.tanh),
}

_BINARY: dict[str, tuple[int, Any, Any]] = {
    "Add": (1, np.add, lax.add),
    "Sub": (1, np.subtract, lax.sub),
    "Mul": (1, np.multiply, lax.mul),
}

for _op, (_since, _numpy, _lax) in {**_UNARY, **_BINARY}.items():
    rule(_op, since=_since)(pointwise(_numpy, _lax))


@rule("Erf", since=9)
def erf(node: Node, x: Value) -> Value:
    """Erf: the error function."""
    return lax.erf(jnp.asarray(x))


@rule("Reciprocal", since=1)
def reciprocal(node: Node, x: Value) -> Value:
    """Reciprocal: 1 / x."""
    return lax.integer_pow(x, -1)


@rule("IsInf", since=10)
def is_inf(node: Node, x: Value) -> Value:
    """IsInf: whether an element is infinite, of the signs that the attributes name."""
    positive, negative = node.attr("detect_positive", 1), node.attr("detect_negative", 1)
    xp = namespace(x)
    if positive and negative:
        return xp.isinf(x)
    if not (positive or negative):
        return np.zeros(x.shape, np.bool_)
    return xp.equal(x, constant(np.inf if positive else -np.inf, x))


def _truncated_quotient(a: Value, b: Value) -> Value:
    """Divide integers toward zero in NumPy, whose own division rounds down."""
    quotient = np.floor_divide(a, b)
    inexact = np.remainder(a, b) != 0
    return quotient + (inexact & ((a < 0) != (b < 0))).astype(quotient.dtype)


@rule("Div", since=1)
def div(node: Node, a: Value, b: Value) -> Value:
    """Div: the quotient; that of integers is rounded toward zero."""
    return pointwise(np.true_divide if is_floating(a) else _truncated_quotient, lax.div)(node, a, b)


@rule("Mod", since=10)
def mod(node: Node, a: Value, b: Value) -> Value:
    """Mod: the remainder with the sign of `b`, or of `a` with `fmod`."""
    if node.attr("fmod", 0):
        return pointwise(np.fmod, lax.rem)(node, a, b)
    return pointwise(np.mod, jnp.mod)(node, a, b)


LARGEST_UNROLLED_POWER = 32
"""Largest known integer exponent, the same for all elements, that is computed by multiplication."""


@jax.custom_jvp
def _whole_power(x: Value, n: Value) -> Value:
    """Compute `x ** n` for integers `n`; at `x == 0` it has derivatives of every order."""
    return lax.pow(x, n)


@partial(_whole_power.defjvp, symbolic_zeros=True)
def _whole_power_jvp(primals: Any, tangents: Any) -> tuple[Value, Value]:
    (x, n), (dx, _) = primals, tangents
    result = _whole_power(x, n)
    if isinstance(dx, SymbolicZero):
        return result, lax.full_like(result, 0)
    # At n == 0 the factor is 0, and x^(n - 1) may be infinite.
    lower = select(lax.eq(n, constant(0, n)), n, lax.sub(n, constant(1, n)))
    return result, lax.mul(dx, lax.mul(cast(n, x.dtype), _whole_power(x, lower)))


def _integer_exponent(y: Value) -> Value | None:
    """Return the exponent as integers where it is integral by dtype or by value, else None."""
    if not is_floating(y):
        return y
    if not is_static(y) or not np.all(np.abs(y) < 2**31) or np.any(y != np.rint(y)):
        return None
    return np.asarray(y).astype(np.int32)


@rule("Pow", since=1)
def power(node: Node, x: Value, y: Value) -> Value:
    """Pow: `x` to the power `y`, in the dtype of `x`.

    At `x == 0` the derivative with respect to `x` is that of the limit (0 for `y` above 1 and for
    `y == 0`), and with respect to `y` it is 0. For negative `x` the derivative with respect to `y` is
    NaN, as the function is then defined at integers only.
    """
    y = aligned(node, x, y)
    if not is_floating(x):
        xp = namespace(x, y)
        if is_floating(y):
            return cast(xp.power(cast(x, np.float64), cast(y, np.float64)), x.dtype)
        return cast(xp.power(x, y), x.dtype)
    integral = _integer_exponent(y)
    if integral is None:
        working = jnp.promote_types(x.dtype, y.dtype)
        bases, exponents = broadcast(jnp.asarray(x, working), jnp.asarray(y, working))
        return cast(real_power(bases, exponents), x.dtype)
    if is_static(integral) and integral.size and not is_static(x):
        first = int(np.ravel(integral)[0])
        if abs(first) <= LARGEST_UNROLLED_POWER and np.all(integral == first):
            shape = np.broadcast_shapes(x.shape, y.shape)
            return jnp.broadcast_to(lax.integer_pow(x, first), shape)
    return _whole_power(*broadcast(jnp.asarray(x), jnp.asarray(integral)))


def _clipped(x: Value, low: Value, high: Value) -> Value:
    if is_static(x, low, high):
        raised = x if low is None else np.maximum(x, low)
        return raised if high is None else np.minimum(raised, high)
    if low is not None:
        low = jnp.broadcast_to(low, x.shape)
        x = lax.select(lax.lt(x, low), low, x)
    if high is not None:
        high = jnp.broadcast_to(high, x.shape)
        x = lax.select(lax.gt(x, high), high, x)
    return x


@rule("Clip", since=1)
def clip_by_attributes(node: Node, x: Value) -> Value:
    """Clip before opset 11: the bounds are attributes."""
    low, high = node.attr("min"), node.attr("max")
    return _clipped(x, None if low is None else constant(low, x), None if high is None else constant(high, x))


@rule("Clip", since=11)
def clip(node: Node, x: Value, low: Value = None, high: Value = None) -> Value:
    """Clip: restricts `x` to [low, high]; `high` is the result where low > high."""
    return _clipped(x, low, high)


@rule("Where", since=9)
def where(node: Node, condition: Value, x: Value, y: Value) -> Value:
    """Where: `x` where the condition holds, else `y`, with broadcasting."""
    if namespace(condition, x, y) is np:
        return np.where(condition, x, y)
    return lax.select(*broadcast(jnp.asarray(condition, bool), x, y))


_VARIADIC: dict[str, tuple[Any, Any]] = {
    "Max": (np.maximum, lax.max),
    "Min": (np.minimum, lax.min),
    "Sum": (np.add, lax.add),
}


@rule("Max", "Min", "Sum", since=1)
def variadic(node: Node, *values: Value) -> Value:
    """Max, Min, Sum: combines any number of operands, pair by pair from the left."""
    numpy_function, lax_function = _VARIADIC[node.op]
    if namespace(*values) is np:
        return reduce(numpy_function, values)
    return reduce(lambda a, b: lax_function(*broadcast(a, b)), values)


@rule("Mean", since=1)
def mean(node: Node, *values: Value) -> Value:
    """Mean: the mean of any number of operands, half precision summed in float32."""
    total = reduce(lambda a, b: lax.add(*broadcast(a, b)), map(widened, values))
    return cast(lax.div(total, constant(len(values), total)), values[0].dtype)
