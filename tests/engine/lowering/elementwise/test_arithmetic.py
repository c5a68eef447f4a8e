"""Elementwise operators: values, dtypes, derivatives, and the conventions at kinks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import onnx
import pytest
import scipy.special

from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_op, gradient_of, one_node, run

TWICE = {"order": 2}

ANYWHERE = np.array([-1.7, -0.4, 0.3, 0.8, 2.2])
POSITIVE = np.array([0.3, 0.8, 2.2])
INSIDE = np.array([-0.9, -0.3, 0.2, 0.7])

UNARY = {
    "Acos": (np.arccos, INSIDE),
    "Acosh": (np.arccosh, POSITIVE + 1),
    "Asin": (np.arcsin, INSIDE),
    "Asinh": (np.arcsinh, ANYWHERE),
    "Atan": (np.arctan, ANYWHERE),
    "Atanh": (np.arctanh, INSIDE),
    "Cos": (np.cos, ANYWHERE),
    "Cosh": (np.cosh, ANYWHERE),
    "Erf": (scipy.special.erf, ANYWHERE),
    "Exp": (np.exp, ANYWHERE),
    "Log": (np.log, POSITIVE),
    "Neg": (np.negative, ANYWHERE),
    "Reciprocal": (np.reciprocal, ANYWHERE),
    "Sin": (np.sin, ANYWHERE),
    "Sinh": (np.sinh, ANYWHERE),
    "Sqrt": (np.sqrt, POSITIVE),
    "Tan": (np.tan, INSIDE),
    "Tanh": (np.tanh, ANYWHERE),
}


@pytest.mark.parametrize("op", UNARY)
def test_a_smooth_function_agrees_with_its_closed_form_and_differentiates_twice(op: str) -> None:
    function, x = UNARY[op]
    np.testing.assert_allclose(run(op, x), function(x), rtol=3e-15)
    check_op(op, x, check=TWICE)


@pytest.mark.parametrize("op", [*UNARY, "Abs", "Ceil", "Floor", "Round", "Sign"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_function_keeps_its_dtype_whether_its_input_is_traced_or_static(op: str, dtype: type) -> None:
    x = UNARY.get(op, (None, ANYWHERE))[1].astype(dtype)
    (static,) = evaluate(one_node(op, x), {"x0": x})
    assert run(op, x).dtype == dtype == static.dtype
    tolerance = float(jnp.finfo(dtype).eps) * 4
    np.testing.assert_allclose(run(op, x).astype(float), np.asarray(static).astype(float), rtol=tolerance)


@pytest.mark.parametrize("op", ["Abs", "Sign", "Floor", "Ceil", "Round"])
def test_the_derivative_of_a_step_or_corner_is_zero_at_it(op: str) -> None:
    for jacobian in gradient_of(op, np.zeros(1)):
        assert jacobian == 0


def test_round_goes_to_the_even_neighbour_in_both_readings() -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 1e300])
    for value in (run("Round", x), evaluate(one_node("Round", x), {"x0": x})[0]):
        np.testing.assert_array_equal(value, np.rint(x))


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_arithmetic_broadcasts_and_differentiates_twice(op: str) -> None:
    rng = np.random.default_rng(0)
    check_op(op, rng.uniform(0.5, 2, (2, 1, 3)), rng.uniform(0.5, 2, (2, 1)), check=TWICE)


@pytest.mark.parametrize("op", ["Add", "Mul", "Div", "Pow"])
def test_before_opset_7_the_axis_attribute_places_the_second_operand(op: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.5, 2, (2, 3, 4)), rng.uniform(0.5, 2, (2, 3))
    old = run(op, a, b, opset=6, broadcast=1, axis=0)
    np.testing.assert_array_equal(old, run(op, a, b[:, :, None]))


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_integer_division_rounds_toward_zero_traced_and_static(dtype: type) -> None:
    a, b = np.array([7, -7, 7, -7, 6], dtype), np.array([2, 2, -2, -2, 3], dtype)
    expected = np.trunc(a / b).astype(dtype)
    model = one_node("Div", a, b)
    (static,) = evaluate(model, {"x0": a, "x1": b})
    (traced,) = evaluate(model, {"x0": jnp.asarray(a), "x1": jnp.asarray(b)})
    for value in (static, np.asarray(traced)):
        np.testing.assert_array_equal(value, expected)
        assert value.dtype == dtype


def test_mod_follows_the_sign_of_the_divisor_or_with_fmod_of_the_dividend() -> None:
    a, b = np.array([5.3, -5.3, 5.3, -5.3]), np.array([3.0, 3.0, -3.0, -3.0])
    np.testing.assert_allclose(run("Mod", a, b), np.mod(a, b), rtol=1e-15)
    np.testing.assert_allclose(run("Mod", a, b, fmod=1), np.fmod(a, b), rtol=1e-15)
    check_op("Mod", a, b)
    check_op("Mod", a, b, fmod=1)


def test_a_remainder_by_infinity_is_the_dividend_or_infinity_by_its_sign() -> None:
    a, b = np.array([2.0, -2.0]), np.array([np.inf, np.inf])
    np.testing.assert_array_equal(run("Mod", a, b), [2.0, np.inf])


def test_pow_differentiates_twice_in_both_arguments() -> None:
    rng = np.random.default_rng(0)
    check_op("Pow", rng.uniform(0.5, 2, (3, 1)), rng.uniform(-2, 2, 2), check=TWICE)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0, -2.0, 7.0])
def test_a_static_integer_power_differentiates_twice_at_negative_bases(exponent: float) -> None:
    x = np.array([-1.3, 0.7])
    np.testing.assert_allclose(run("Pow", x, np.array(2)), x**2)
    jacobian = check_op("Pow", x, np.array(exponent), wrt=[0], check=TWICE)
    np.testing.assert_allclose(np.diag(jacobian), exponent * x ** (exponent - 1), rtol=1e-14)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 2.5])
def test_pow_at_base_zero_has_finite_derivatives(exponent: float) -> None:
    expected = 1.0 if exponent == 1 else 0.0
    for wrt in ([0], [0, 1]):
        for jacobian in gradient_of("Pow", np.zeros(1), np.array([exponent]), wrt=wrt):
            np.testing.assert_array_equal(jacobian[0, 0], expected)
            np.testing.assert_array_equal(jacobian[0, 1:], 0)


def test_pow_at_base_zero_has_derivatives_of_every_order_for_a_traced_exponent() -> None:
    model = one_node("Pow", np.zeros(1), np.zeros(1))

    def f(x: float, y: float) -> jnp.ndarray:
        return evaluate(model, {"x0": x, "x1": y})[0]

    for exponent, orders in ((0.0, [1, 0, 0, 0]), (1.0, [0, 1, 0, 0]), (2.0, [0, 0, 2, 0])):
        derivative = f
        for expected in orders:
            assert derivative(jnp.array(0.0), jnp.array(exponent)) == expected
            derivative = jax.grad(derivative)


def test_negative_bases_have_a_derivative_while_the_exponent_stays() -> None:
    x, y = np.array([-2.0, -2.0]), np.array([3.0, 2.0])
    for jacobian in gradient_of("Pow", x, y, wrt=[0]):
        np.testing.assert_allclose(np.diag(jacobian), [12, -4])
    traced = jax.jvp(
        lambda base: evaluate(one_node("Pow", x, y), {"x0": base, "x1": jnp.asarray(y)})[0], (x,), (x,)
    )[1]
    np.testing.assert_allclose(traced, [-24, 8])


def test_integer_exponents_are_exact_and_differentiate_when_they_differ() -> None:
    x, y = np.array([-1.5, 0.5, -3.0]), np.array([2, 3, 40])
    np.testing.assert_allclose(run("Pow", x, y), x**y, rtol=1e-14)
    check_op("Pow", x, y, check=TWICE)
    check_op("Pow", x, y.astype(float), wrt=[0], check=TWICE)


def test_pow_of_mixed_dtypes_keeps_that_of_the_base() -> None:
    assert run("Pow", np.float32([2, 3]), np.array([2, 3], np.int64)).dtype == np.float32
    assert run("Pow", np.float32([2, 3]), np.array([0.5, 0.5])).dtype == np.float32
    integers = run("Pow", np.array([2, 3], np.int32), np.float32([2, 3]))
    np.testing.assert_array_equal(integers, np.array([4, 27], np.int32))
    assert integers.dtype == np.int32


def test_an_integer_power_broadcasts_to_the_shape_of_the_exponent() -> None:
    assert run("Pow", np.ones(3), np.full((2, 1), 2.0)).shape == (2, 3)


@pytest.mark.parametrize("op", ["Max", "Min", "Sum", "Mean"])
def test_an_operator_of_many_operands_differentiates(op: str) -> None:
    rng = np.random.default_rng(0)
    check_op(op, rng.normal(size=(2, 3)), rng.normal(size=(2, 1)), rng.normal(size=3))


def test_equal_operands_of_max_and_min_share_the_derivative() -> None:
    for op in ("Max", "Min"):
        for jacobian in gradient_of(op, np.ones(1), np.ones(1)):
            np.testing.assert_array_equal(jacobian, [[0.5, 0.5]])


def test_max_and_min_pass_on_nan() -> None:
    assert np.isnan(run("Max", np.array([np.nan]), np.array([1.0])))
    assert np.isnan(run("Min", np.array([1.0]), np.array([np.nan])))


def test_clip_has_derivative_one_within_and_at_its_bounds_and_zero_outside() -> None:
    x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0, np.nan])
    for jacobian in gradient_of("Clip", x, np.array(-1.0), np.array(1.0), wrt=[0]):
        np.testing.assert_array_equal(np.diag(jacobian), [0, 1, 1, 1, 0, 1])
    assert np.isnan(run("Clip", x, np.array(-1.0), np.array(1.0))[-1])


def test_clip_differentiates_in_its_bounds_and_reads_attributes_before_opset_11() -> None:
    x = np.array([-2.0, -0.5, 0.4, 3.0])
    check_op("Clip", x, np.array(-1.0), np.array(1.0))
    check_op("Clip", x, None, np.array(1.0))
    np.testing.assert_array_equal(run("Clip", x, opset=6, min=-1.0, max=1.0), np.clip(x, -1, 1))


@pytest.mark.parametrize("integer", [np.int8, np.uint64])
def test_clip_of_static_integers_takes_either_bound_alone(integer: type) -> None:
    x = np.array([0, 3, 9], integer)
    np.testing.assert_array_equal(run("Clip", x, np.array(2, integer)), [2, 3, 9])
    np.testing.assert_array_equal(run("Clip", x, None, np.array(4, integer)), [0, 3, 4])


def test_where_sends_the_derivative_to_the_branch_taken() -> None:
    condition = np.array([[True], [False]])
    jacobian = check_op("Where", condition, np.array([1.0, 2.0]), np.array([[3.0], [4.0]]))
    np.testing.assert_array_equal(jacobian.sum(0), [1, 1, 0, 2])


@pytest.mark.parametrize(("positive", "negative"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_is_inf_looks_for_the_signs_asked(positive: int, negative: int) -> None:
    x = np.array([1.0, np.inf, -np.inf, np.nan])
    found = run("IsInf", x, detect_positive=positive, detect_negative=negative)
    np.testing.assert_array_equal(found, [False, bool(positive), bool(negative), False])
    assert found.dtype == np.bool_


def test_float_to_float_casts_pass_the_derivative_and_integer_casts_stop_it() -> None:
    x = np.array([1.25, -2.5])
    for jacobian in gradient_of("Cast", x, to=onnx.TensorProto.FLOAT):
        np.testing.assert_array_equal(jacobian, np.eye(2))
    assert run("Cast", x, to=onnx.TensorProto.INT32).dtype == np.int32
    assert run("Cast", x, opset=1, to="FLOAT").dtype == np.float32


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("source", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize(
    "target", ["FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"], ids=str
)
def test_casts_to_float8_saturate_only_if_told_traced_and_static(
    target: str, source: type, saturate: int
) -> None:
    code = getattr(onnx.TensorProto, target)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(code)
    with np.errstate(over="ignore"):  # -1e30 is infinite in float16
        x = np.array([1.5, -1e30, np.inf, np.nan, 0.3]).astype(source)
    limit = float(ml_dtypes.finfo(dtype).max)
    infinite = np.inf if target == "FLOAT8E5M2" else np.nan
    outside = limit if saturate else infinite
    expected = [1.5, -outside, outside, np.nan, float(np.asarray(0.3, dtype))]
    (static,) = evaluate(one_node("Cast", x, to=code, saturate=saturate), {"x0": x})
    for value in (run("Cast", x, to=code, saturate=saturate), static):
        assert value.dtype == dtype
        np.testing.assert_array_equal(np.asarray(value, np.float32), np.float32(expected))


@pytest.mark.parametrize(
    ("round_mode", "expected"),
    [("up", [4.0, 4.0, 4.0]), ("down", [2.0, 2.0, 4.0]), ("nearest", [2.0, 4.0, 4.0])],
)
def test_a_cast_to_a_power_of_two_rounds_as_asked(round_mode: str, expected: list[float]) -> None:
    code = onnx.TensorProto.FLOAT8E8M0
    value = run("Cast", np.float32([2.9, 3.0, 4.0]), to=code, round_mode=round_mode)
    np.testing.assert_array_equal(value.astype(np.float32), np.float32(expected))


def test_shifts_past_the_width_leave_only_the_sign() -> None:
    x, y = np.array([-8, 8, -8, 8], np.int32), np.array([40, 40, 1, 1], np.int32)
    np.testing.assert_array_equal(run("BitShift", x, y, direction="RIGHT", opset=28), [-1, 0, -4, 4])
    np.testing.assert_array_equal(run("BitShift", x, y, direction="LEFT", opset=28), [0, 0, -16, 16])


def test_the_bits_of_a_traced_float_are_recorded_as_having_no_derivative() -> None:
    from gradwire_engine.lowering.interpreter import Notes

    notes = Notes()
    model = one_node("BitCast", np.ones(2), to=onnx.TensorProto.INT64, opset=26)
    (bits,) = evaluate(model, {"x0": jnp.ones(2)}, notes=notes)
    np.testing.assert_array_equal(bits, np.ones(2).view(np.int64))
    assert notes.no_derivative == {"BitCast": "BitCast"}


@pytest.mark.parametrize("op", ["Abs", "Sign", "Relu", "Max", "Min", "Add", "Mul", "Div", "Mod", "Clip"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_integers_of_any_kind_are_computed_alike_static_and_traced(op: str, dtype: type) -> None:
    x, y = np.array([0, 3, 9], dtype), np.array([2, 2, 4], dtype)
    inputs = {"Abs": [x], "Sign": [x], "Relu": [x], "Clip": [x, y[0]]}.get(op, [x, y])
    model = one_node(op, *inputs)
    named = {f"x{index}": np.asarray(value) for index, value in enumerate(inputs)}
    (static,) = evaluate(model, named)
    (traced,) = jax.jit(lambda values: evaluate(model, values))(named)
    np.testing.assert_array_equal(static, traced)
    assert static.dtype == traced.dtype == dtype
