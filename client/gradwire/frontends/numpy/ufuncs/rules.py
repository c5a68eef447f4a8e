"""Rules that write NumPy's universal functions as ONNX operators; SciPy's are in `ufuncs.special`.

A rule takes operands in the dtypes of NumPy's loop and returns the result. NumPy itself resolves the loop, so
promotion is exactly NumPy's. Rules are found by the ufunc's name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from gradwire.frontends.numpy.sparse import is_sparse
from gradwire.frontends.numpy.ufuncs.special import SPECIAL
from gradwire.graphs import operators as ops
from gradwire.graphs import sizes
from gradwire.graphs.builder import GraphBuilder
from gradwire.graphs.nodes import DType, GraphValue
from gradwire.graphs.operators import binary, cast, compare, constant_like, predicate, sci, unary, where
from gradwire.graphs.refusals import refuse
from gradwire.graphs.sizes import is_symbolic

Rule = Callable[..., GraphValue | tuple[GraphValue, ...]]


@lru_cache(maxsize=4096)
def loop(ufunc: np.ufunc, types: tuple[Any, ...]) -> tuple[DType, ...]:
    """Return the dtypes of operands and results of NumPy's loop; `int` and `float` are weak.

    Raises:
        TypeError: the ufunc has no loop for these types.
    """
    return tuple(ufunc.resolve_dtypes(types + (None,) * ufunc.nout))


def type_of(operand: Any) -> Any:
    """Return an operand's dtype, or `int` or `float` for a Python number, which is weak."""
    if isinstance(operand, GraphValue | np.ndarray | np.generic):
        return operand.dtype
    if isinstance(operand, bool):
        return ops.BOOL
    if isinstance(operand, int | float):
        return type(operand)
    if is_symbolic(operand):
        return int
    return np.asarray(operand).dtype


def as_value(graph: GraphBuilder, operand: Any, dtype: DType) -> GraphValue:
    """Convert an operand to a value of the given dtype."""
    if isinstance(operand, GraphValue):
        return cast(operand, dtype)
    if isinstance(operand, bool | int | float):
        return graph.scalar(operand, dtype)
    if is_symbolic(operand):
        return cast(sizes.scalar(graph, operand), dtype)
    check_plain(operand)
    return graph.constant(np.asarray(operand).astype(dtype, copy=False))


def check_plain(operand: Any) -> None:
    """Check that an array is one of NumPy's own: a subclass may compute differently.

    Raises:
        TraceError: it is a masked array, a matrix or an array of another subclass.
    """
    kind = type(operand)
    if is_sparse(operand):
        raise refuse(
            "a sparse matrix but in a product with a traced array",
            "write A @ x or x @ A, or take A.toarray()",
        )
    if issubclass(kind, np.ndarray) and kind not in (np.ndarray, np.memmap):
        raise refuse(
            f"a constant of class {kind.__module__.removesuffix('.core')}.{kind.__name__}",
            "take np.asarray(a) (of a matrix, with @ for products), and of a masked array a.filled(0.0) and "
            "np.where(a.mask, other, result)",
        )


def call(
    ufunc: np.ufunc, operands: Sequence[Any], graph: GraphBuilder, dtype: DType | None = None
) -> list[GraphValue]:
    """Apply a ufunc.

    Args:
        ufunc: one of NumPy's or SciPy's.
        operands: values, arrays and Python numbers.
        graph: where the result is computed.
        dtype: the dtype to compute in; None for that of NumPy's loop.

    Returns:
        One value for each output of the ufunc.

    Raises:
        TraceError: the ufunc has no rule.
    """
    rule = RULES.get(ufunc.__name__)
    if rule is None:
        raise refuse(
            f"the ufunc {ufunc.__name__}",
            "compose it from arithmetic, np.where, exp, log and the other ufuncs that ONNX can express",
        )
    types = loop(ufunc, tuple(type_of(operand) if dtype is None else dtype for operand in operands))
    values = [as_value(graph, item, kind) for item, kind in zip(operands, types, strict=False)]
    results = rule(*values)
    outputs = results if isinstance(results, tuple) else (results,)
    return [cast(item, kind) for item, kind in zip(outputs, types[len(operands) :], strict=True)]


def truth(x: GraphValue) -> GraphValue:
    """Cast a value to bool."""
    return cast(x, ops.BOOL)


def negate(x: GraphValue) -> GraphValue:
    """Negate a bool value."""
    return predicate("Not", x)


def _is_float(x: GraphValue) -> bool:
    return x.dtype.kind == "f"


def _arithmetic(op: str, boolean: str, a: GraphValue, b: GraphValue) -> GraphValue:
    """Apply an arithmetic operator, or NumPy's logical counterpart to bool."""
    return compare(boolean, a, b) if a.dtype == ops.BOOL else binary(op, a, b)


def _comparison(op: str, a: GraphValue, b: GraphValue) -> GraphValue:
    if a.dtype != b.dtype:  # signed against unsigned 64-bit integers
        a, b = cast(a, ops.FLOAT64), cast(b, ops.FLOAT64)
    if a.dtype == ops.BOOL and op != "Equal":
        a, b = cast(a, ops.INT64), cast(b, ops.INT64)
    return compare(op, a, b)


def _logical(op: str, a: GraphValue, b: GraphValue) -> GraphValue:
    return compare(op, truth(a), truth(b))


def _bitwise(op: str, boolean: str, a: GraphValue, b: GraphValue) -> GraphValue:
    return compare(boolean, a, b) if a.dtype == ops.BOOL else binary(op, a, b)


def _float_only(op: str, x: GraphValue) -> GraphValue:
    """Round floating numbers; integers stay as they are."""
    return unary(op, x) if _is_float(x) else x


def _scaled(factor: float, x: GraphValue) -> GraphValue:
    return binary("Mul", x, constant_like(x, factor))


def _square(x: GraphValue) -> GraphValue:
    return _arithmetic("Mul", "And", x, x)


def _negative(x: GraphValue) -> GraphValue:
    if x.dtype.kind == "u":
        return binary("Sub", constant_like(x, 0), x)
    return unary("Neg", x)


def _absolute(x: GraphValue) -> GraphValue:
    return x if x.dtype.kind in "bu" else unary("Abs", x)


def _identity(x: GraphValue) -> GraphValue:
    return x


def _reciprocal(x: GraphValue) -> GraphValue:
    return unary("Reciprocal", x) if _is_float(x) else binary("Div", constant_like(x, 1), x)


def _truncate(x: GraphValue) -> GraphValue:
    if not _is_float(x):
        return x
    return where(compare("Less", x, constant_like(x, 0)), unary("Ceil", x), unary("Floor", x))


def _modf(x: GraphValue) -> tuple[GraphValue, GraphValue]:
    whole = _truncate(x)
    return binary("Sub", x, whole), whole


def _power(a: GraphValue, b: GraphValue) -> GraphValue:
    exponent = a.graph.known_scalar(b)
    if exponent is not None:
        if exponent == 2:
            return binary("Mul", a, a)
        if exponent == 1:
            return a
        if _is_float(a) and exponent == 0.5:
            return unary("Sqrt", a)
        if _is_float(a) and exponent == -1:
            return unary("Reciprocal", a)
        if not _is_float(a) and exponent < 0:
            raise ValueError("Integers to negative integer powers are not allowed.")
    return cast(binary("Pow", _pow_type(a), _pow_type(b)), a.dtype)


def _pow_type(x: GraphValue) -> GraphValue:
    return x if _is_float(x) else cast(x, ops.INT64)


def _opposite_signs(a: GraphValue, b: GraphValue) -> GraphValue:
    """Return where a remainder is nonzero and its sign differs from the divisor's."""
    zero = constant_like(a, 0)
    differs = compare("Xor", compare("Less", a, zero), compare("Less", b, zero))
    return compare("And", differs, negate(compare("Equal", a, zero)))


def _fmod(a: GraphValue, b: GraphValue) -> GraphValue:
    return binary("Mod", a, b, fmod=1)


def _remainder(a: GraphValue, b: GraphValue) -> GraphValue:
    """Compute the remainder with the sign of the divisor, which ONNX has for integers only."""
    if not _is_float(a):
        return binary("Mod", a, b)
    rest = _fmod(a, b)
    return where(_opposite_signs(rest, b), binary("Add", rest, b), rest)


def _floor_divide(a: GraphValue, b: GraphValue) -> GraphValue:
    if a.dtype.kind == "u":
        return binary("Div", a, b)
    rest = _fmod(a, b) if _is_float(a) else binary("Sub", a, binary("Mul", binary("Div", a, b), b))
    below = cast(_opposite_signs(rest, b), a.dtype)
    quotient = binary("Sub", binary("Div", binary("Sub", a, rest), b), below)
    if not _is_float(a):
        return quotient
    # (a - rest) / b is an integer up to rounding, so rounding makes it exact.
    zero = constant_like(b, 0)
    return where(compare("Equal", b, zero), binary("Div", a, b), unary("Round", quotient))


def _divmod(a: GraphValue, b: GraphValue) -> tuple[GraphValue, GraphValue]:
    return _floor_divide(a, b), _remainder(a, b)


def _skip_nan(op: str, a: GraphValue, b: GraphValue) -> GraphValue:
    """Take the maximum or minimum and ignore NaN."""
    if not _is_float(a):
        return _extremum(op, a, b)
    other = where(predicate("IsNaN", b), a, binary(op, a, b))
    return where(predicate("IsNaN", a), b, other)


def _extremum(op: str, a: GraphValue, b: GraphValue) -> GraphValue:
    return _arithmetic(op, "Or" if op == "Max" else "And", a, b)


def _is_nan_or_inf(op: str, x: GraphValue) -> GraphValue:
    if _is_float(x):
        return predicate(op, x)
    return x.graph.constant(np.zeros(x.shape, np.bool_))


def _is_finite(x: GraphValue) -> GraphValue:
    return negate(compare("Or", _is_nan_or_inf("IsNaN", x), _is_nan_or_inf("IsInf", x)))


def _sign_bit(x: GraphValue) -> GraphValue:
    zero = constant_like(x, 0)
    below = compare("Less", x, zero)
    if not _is_float(x):
        return below
    # Only the reciprocal distinguishes -0.0 from 0.0.
    below_zero = compare("Less", binary("Div", constant_like(x, 1), x), zero)
    return compare("Or", below, below_zero)


def _copy_sign(a: GraphValue, b: GraphValue) -> GraphValue:
    size = unary("Abs", a)
    return where(_sign_bit(b), unary("Neg", size), size)


def _heaviside(x: GraphValue, at_zero: GraphValue) -> GraphValue:
    zero = constant_like(x, 0)
    steps = where(compare("Greater", x, zero), constant_like(x, 1), zero)
    value = where(compare("Equal", x, zero), at_zero, steps)
    return where(predicate("IsNaN", x), x, value)


def _log_add_exp2(a: GraphValue, b: GraphValue) -> GraphValue:
    natural = sci("LogAddExp", _scaled(math.log(2), a), _scaled(math.log(2), b))
    return _scaled(1 / math.log(2), natural)


def _ldexp(x: GraphValue, exponent: GraphValue) -> GraphValue:
    return sci("Ldexp", x, cast(exponent, ops.INT64))


def _shift_left(a: GraphValue, b: GraphValue) -> GraphValue:
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    return binary("BitShift", cast(a, unsigned), cast(b, unsigned), direction="LEFT")


def _shift_right(a: GraphValue, b: GraphValue) -> GraphValue:
    if a.dtype.kind == "u":
        return binary("BitShift", a, b, direction="RIGHT")
    return _floor_divide(a, cast(_shift_left(constant_like(a, 1), b), a.dtype))


def matmul(a: GraphValue, b: GraphValue) -> GraphValue:
    """Multiply matrices; narrow integers are multiplied in 64 bits."""
    dtype = a.dtype
    return cast(ops.matmul(ops.wide(a), ops.wide(b)), dtype)


def _vecdot(a: GraphValue, b: GraphValue) -> GraphValue:
    product = binary("Mul", ops.wide(a), ops.wide(b))
    return cast(ops.reduce("ReduceSum", product, [product.ndim - 1]), a.dtype)


def _matvec(a: GraphValue, b: GraphValue) -> GraphValue:
    product = matmul(a, ops.reshape(b, (*b.shape, 1)))
    return ops.reshape(product, product.shape[:-1])


def _vecmat(a: GraphValue, b: GraphValue) -> GraphValue:
    product = matmul(ops.reshape(a, (*a.shape[:-1], 1, a.shape[-1])), b)
    return ops.reshape(product, (*product.shape[:-2], product.shape[-1]))


_UNARY = {
    "sqrt": "Sqrt", "exp": "Exp", "log": "Log", "sin": "Sin", "cos": "Cos", "tan": "Tan", "arcsin": "Asin",
    "arccos": "Acos", "arctan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh", "arcsinh": "Asinh",
    "arccosh": "Acosh", "arctanh": "Atanh", "sign": "Sign",
}  # fmt: skip

_SCI = {
    "exp2": "Exp2", "expm1": "Expm1", "log1p": "Log1p", "log2": "Log2", "log10": "Log10", "cbrt": "Cbrt",
    "hypot": "Hypot", "arctan2": "Atan2", "logaddexp": "LogAddExp",
}  # fmt: skip

_COMPARISONS = {
    "equal": "Equal", "less": "Less", "less_equal": "LessOrEqual", "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
}  # fmt: skip

RULES: dict[str, Rule] = {
    **{name: partial(unary, op) for name, op in _UNARY.items()},
    **{name: partial(sci, op) for name, op in _SCI.items()},
    **{name: partial(_comparison, op) for name, op in _COMPARISONS.items()},
    "not_equal": lambda a, b: negate(_comparison("Equal", a, b)),
    "add": partial(_arithmetic, "Add", "Or"),
    "subtract": partial(binary, "Sub"),
    "multiply": partial(_arithmetic, "Mul", "And"),
    "divide": partial(binary, "Div"),
    "true_divide": partial(binary, "Div"),
    "power": _power,
    "float_power": _power,
    "remainder": _remainder,
    "fmod": _fmod,
    "floor_divide": _floor_divide,
    "divmod": _divmod,
    "modf": _modf,
    "ldexp": _ldexp,
    "maximum": partial(_extremum, "Max"),
    "minimum": partial(_extremum, "Min"),
    "fmax": partial(_skip_nan, "Max"),
    "fmin": partial(_skip_nan, "Min"),
    "negative": _negative,
    "positive": _identity,
    "conjugate": _identity,
    "absolute": _absolute,
    "fabs": _absolute,
    "square": _square,
    "reciprocal": _reciprocal,
    "floor": partial(_float_only, "Floor"),
    "ceil": partial(_float_only, "Ceil"),
    "rint": partial(_float_only, "Round"),
    "trunc": _truncate,
    "deg2rad": partial(_scaled, math.pi / 180),
    "radians": partial(_scaled, math.pi / 180),
    "rad2deg": partial(_scaled, 180 / math.pi),
    "degrees": partial(_scaled, 180 / math.pi),
    "logaddexp2": _log_add_exp2,
    "heaviside": _heaviside,
    "copysign": _copy_sign,
    "signbit": _sign_bit,
    "isnan": partial(_is_nan_or_inf, "IsNaN"),
    "isinf": partial(_is_nan_or_inf, "IsInf"),
    "isfinite": _is_finite,
    "logical_and": partial(_logical, "And"),
    "logical_or": partial(_logical, "Or"),
    "logical_xor": partial(_logical, "Xor"),
    "logical_not": lambda x: negate(truth(x)),
    "bitwise_and": partial(_bitwise, "BitwiseAnd", "And"),
    "bitwise_or": partial(_bitwise, "BitwiseOr", "Or"),
    "bitwise_xor": partial(_bitwise, "BitwiseXor", "Xor"),
    "invert": lambda x: negate(x) if x.dtype == ops.BOOL else unary("BitwiseNot", x),
    "left_shift": _shift_left,
    "right_shift": _shift_right,
    "matmul": matmul,
    "vecdot": _vecdot,
    "matvec": _matvec,
    "vecmat": _vecmat,
    **SPECIAL,
}
