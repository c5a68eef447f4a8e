"""Universal functions and operators give NumPy's numbers, shapes and dtypes."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
import scipy.special

from tests.client.frontends.numpy.oracle import agree, operators

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4))
Y = RNG.normal(size=(3, 4))
UNIT = RNG.uniform(0.05, 0.95, size=(3, 4))
POSITIVE = RNG.uniform(0.1, 4.0, size=(3, 4))
SPECIAL = np.array([0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan, 2.0])
INTS = np.array([-7, -3, -1, 1, 2, 5, 9])
DIVISORS = np.array([2, -2, 3, -3, 5, -4, 4])

ANYWHERE = [
    "sin",
    "cos",
    "tan",
    "arctan",
    "sinh",
    "cosh",
    "tanh",
    "arcsinh",
    "exp",
    "exp2",
    "expm1",
    "square",
    "absolute",
    "fabs",
    "negative",
    "positive",
    "sign",
    "floor",
    "ceil",
    "rint",
    "trunc",
    "cbrt",
    "deg2rad",
    "rad2deg",
    "degrees",
    "radians",
    "conjugate",
    "isnan",
    "isinf",
    "isfinite",
    "signbit",
    "logical_not",
]
ON_UNIT = ["arcsin", "arccos", "arctanh"]
ON_POSITIVE = ["sqrt", "log", "log2", "log10", "log1p", "reciprocal"]
BINARY = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "arctan2",
    "hypot",
    "logaddexp",
    "logaddexp2",
    "remainder",
    "fmod",
    "floor_divide",
    "copysign",
    "heaviside",
    "equal",
    "not_equal",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "logical_and",
    "logical_or",
    "logical_xor",
]


@pytest.mark.parametrize("name", ANYWHERE)
def test_ufuncs_of_any_number_match(name: str) -> None:
    agree(getattr(np, name), X * 3)


@pytest.mark.parametrize("name", ON_UNIT)
def test_ufuncs_of_the_unit_interval_match(name: str) -> None:
    agree(getattr(np, name), UNIT)


@pytest.mark.parametrize("name", ON_POSITIVE)
def test_ufuncs_of_positive_numbers_match(name: str) -> None:
    agree(getattr(np, name), POSITIVE)


def test_arccosh_matches_beyond_one() -> None:
    agree(np.arccosh, POSITIVE + 1)


@pytest.mark.parametrize("name", BINARY)
def test_binary_ufuncs_match_and_broadcast(name: str) -> None:
    agree(getattr(np, name), X * 5, Y)
    agree(getattr(np, name), X, Y[0])


@pytest.mark.parametrize(
    "name",
    [
        "isnan",
        "isinf",
        "isfinite",
        "sign",
        "absolute",
        "maximum",
        "minimum",
        "fmax",
        "fmin",
        "copysign",
        "heaviside",
        "signbit",
        "remainder",
        "floor_divide",
        "fmod",
        "less",
        "equal",
        "floor",
        "trunc",
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_corners_of_floating_point_match(name: str) -> None:
    ufunc = getattr(np, name)
    if ufunc.nin == 1:
        agree(ufunc, SPECIAL[:-1] if name == "signbit" else SPECIAL)
    else:
        finite = SPECIAL if name not in ("copysign",) else SPECIAL[~np.isnan(SPECIAL)]
        agree(ufunc, np.repeat(finite, 4), np.tile(np.array([1.5, -1.5, 2.0, -0.5]), finite.size))


@pytest.mark.parametrize(
    "name", ["remainder", "floor_divide", "fmod", "divide", "power", "maximum", "bitwise_and"]
)
def test_integer_ufuncs_match(name: str) -> None:
    left = np.abs(INTS) if name == "power" else INTS
    right = np.abs(DIVISORS) if name == "power" else DIVISORS
    agree(getattr(np, name), left, right)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.uint8, np.uint16, np.uint32, np.uint64])
def test_arithmetic_of_every_integer_type_matches(kind: Any) -> None:
    values = np.array([1, 2, 3, 7], kind)
    agree(lambda a, b: (a + b, a - b, a * b, a // b, a % b, a < b, -a, abs(a)), values, values[::-1].copy())


@pytest.mark.parametrize(
    "name", ["bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift", "invert"]
)
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32])
def test_bit_operations_match(name: str, kind: Any) -> None:
    a, b = np.array([12, 5, 100, 3], kind), np.array([1, 2, 3, 0], kind)
    agree(getattr(np, name), *([a] if name == "invert" else [a, b]))


def test_boolean_arithmetic_is_logic() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    agree(lambda a, b: (a + b, a * b, a & b, a | b, a ^ b, ~a, np.maximum(a, b), a < b, a == b), a, b)


PAIRS = [np.bool_, np.int8, np.int32, np.int64, np.uint8, np.uint64, np.float16, np.float32, np.float64]


@pytest.mark.parametrize("left", PAIRS)
@pytest.mark.parametrize("right", PAIRS)
def test_promotion_of_every_pair_of_dtypes_is_numpys(left: Any, right: Any) -> None:
    a, b = np.array([1, 1, 0]).astype(left), np.array([1, 0, 1]).astype(right)
    agree(
        lambda a, b: (a + b, a * b, np.maximum(a, b), np.divide(a, b + 1), a > b),
        a,
        b,
        rtol=1e-3,
        engine=False,
    )


@pytest.mark.parametrize("number", [2, 2.5, True, np.float32(2), np.float64(2), np.int8(2)])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.uint8])
def test_python_numbers_are_weak_and_numpy_scalars_are_not(number: Any, kind: Any) -> None:
    agree(lambda x: (x + number, number * x, x / number, x > number), np.array([1, 2, 3], kind), rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["add", "sub", "mul", "truediv", "floordiv", "mod", "matmul", "pow", "lt", "le", "gt", "ge", "eq", "ne"],
)
def test_operators_match_in_both_orders(name: str) -> None:
    op = getattr(operator, name)
    square = np.abs(RNG.normal(size=(3, 3))) + 0.5
    agree(lambda x: (op(x, square), op(square, x)), np.abs(RNG.normal(size=(3, 3))) + 0.5)


@pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow"])
def test_in_place_operators_match(name: str) -> None:
    def fn(x: Any, y: Any) -> Any:
        z = x.copy()
        other = z
        z = getattr(operator, name)(z, y)
        return z, other, x

    agree(fn, POSITIVE, UNIT)


def test_in_place_on_a_scalar_binds_anew() -> None:
    def fn(x: Any) -> Any:
        first = x.sum()
        second = first
        second += 1.0
        return first, second

    agree(fn, X)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, -2, 0.5, 1.5, 2.0])
def test_powers_by_constants_match(exponent: float) -> None:
    agree(lambda x: (x**exponent, np.power(x, exponent), np.float_power(x, exponent)), POSITIVE)


def test_a_square_is_one_multiplication() -> None:
    assert operators(agree(lambda x: x**2, X)) == ["Mul"]


def test_integers_to_negative_powers_are_refused_as_numpy_does() -> None:
    with pytest.raises(ValueError, match="negative integer powers"):
        agree(lambda x: x**-2, INTS)


def test_divmod_modf_and_ldexp_match() -> None:
    agree(divmod, X * 7, Y)
    agree(divmod, INTS, DIVISORS)
    agree(np.modf, X * 7)
    agree(lambda x: np.ldexp(x, 3), X)


@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "minimum"])
def test_reduce_accumulate_and_outer_match(name: str) -> None:
    ufunc = getattr(np, name)
    agree(lambda x: (ufunc.reduce(x), ufunc.reduce(x, axis=1, keepdims=True), ufunc.accumulate(x, axis=1)), X)
    agree(lambda x, y: ufunc.outer(x, y), X, Y[0])
    agree(lambda x: ufunc.accumulate(x), RNG.normal(size=13))


def test_ufunc_at_counts_repeated_positions() -> None:
    def fn(x: Any) -> Any:
        z = np.zeros_like(x)
        np.add.at(z, [0, 2, 2], x[:3])
        return z

    agree(fn, RNG.normal(size=4))


def test_matrix_ufuncs_match() -> None:
    a, b = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(4, 5))
    agree(np.matmul, a, b)
    agree(np.matmul, a[0, 0], b)
    agree(np.matmul, a, b[:, 0])
    agree(np.matmul, b[:, 0], b[:, 1])
    agree(np.matmul, np.arange(6, dtype=np.int8).reshape(2, 3), np.arange(3, dtype=np.int8))
    if hasattr(np, "vecmat"):
        agree(lambda a, v: (np.matvec(a, v), np.vecdot(a, v)), a, RNG.normal(size=4))
        agree(lambda v, a: np.vecmat(v, a), RNG.normal(size=3), a)


def test_dtype_argument_fixes_the_loop() -> None:
    agree(lambda x: np.add(x, 1, dtype=np.float64), X.astype(np.float32))


SCIPY = {
    "gammaln": POSITIVE, "digamma": POSITIVE, "erf": X, "erfc": X, "erfinv": UNIT, "expit": X, "logit": UNIT,
    "ndtr": X, "gamma": X, "log_expit": X, "entr": POSITIVE, "log1p": UNIT, "cbrt": X,
}  # fmt: skip


@pytest.mark.parametrize("name", SCIPY)
def test_special_functions_of_scipy_match(name: str) -> None:
    agree(getattr(scipy.special, name), SCIPY[name], rtol=1e-11)


@pytest.mark.parametrize("name", ["xlogy", "xlog1py", "rel_entr"])
def test_binary_special_functions_of_scipy_match(name: str) -> None:
    agree(getattr(scipy.special, name), POSITIVE, UNIT)
    agree(getattr(scipy.special, name), np.zeros(3), UNIT[0, :3])


def test_plain_arrays_on_the_left_give_way_to_traced_ones() -> None:
    agree(lambda x: X + x, Y)
    agree(lambda x: X @ x.T, Y)
    agree(lambda x: np.float64(3) * x - np.array(2.0), Y)
