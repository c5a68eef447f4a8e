"""Quantisation: rounding, saturation, granularity, and derivatives in the scale."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_op, one_node, run

SCALE, ZERO = np.float32(0.5), np.uint8(10)


def test_quantising_rounds_halves_to_even_and_saturates() -> None:
    x = np.float32([0.25, 0.75, -0.25, 1e6, -1e6])
    quantised = run("QuantizeLinear", x, SCALE, ZERO)
    np.testing.assert_array_equal(quantised, np.uint8([10, 12, 10, 255, 0]))
    assert quantised.dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16])
def test_the_zero_point_gives_the_dtype_and_its_limits(dtype: type) -> None:
    limits = np.iinfo(dtype)
    quantised = run("QuantizeLinear", np.float32([-1e6, 1e6]), SCALE, np.zeros((), dtype))
    np.testing.assert_array_equal(quantised, [limits.min, limits.max])


def test_dequantising_differentiates_in_its_scale() -> None:
    x = np.array([-3, 0, 7], np.int8)
    scale, zero = np.array([0.5, 0.25, 2.0]), np.array([1, 0, -2], np.int8)
    jacobian = check_op("DequantizeLinear", x, scale, zero, axis=0)
    np.testing.assert_array_equal(jacobian, np.diag(x.astype(float) - zero))


def test_quantising_and_back_is_flat_in_the_input() -> None:
    x, scale = np.array([0.3, -1.2]), np.array(0.5)
    there = one_node("QuantizeLinear", x, scale, np.int8(0))
    back = one_node("DequantizeLinear", x, scale)

    def rounded(point: jax.Array) -> jax.Array:
        (quantised,) = evaluate(there, {"x0": point, "x1": scale, "x2": np.int8(0)})
        return evaluate(back, {"x0": quantised, "x1": scale})[0]

    np.testing.assert_array_equal(rounded(jnp.asarray(x)), [0.5, -1.0])
    for differentiate in (jax.jacfwd, jax.jacrev):
        np.testing.assert_array_equal(differentiate(rounded)(jnp.asarray(x)), np.zeros((2, 2)))


def test_scales_go_along_an_axis_or_by_blocks() -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    along = run("QuantizeLinear", x, np.float32([1, 2]), np.zeros(2, np.int8), axis=0)
    np.testing.assert_array_equal(along, np.rint(x / [[1], [2]]))
    scales = np.float32([[1, 2], [4, 8]])
    blocked = run("QuantizeLinear", x, scales, np.zeros((2, 2), np.int8), axis=1, block_size=4)
    spread = np.repeat(scales, 4, 1)[:, :6]
    np.testing.assert_array_equal(blocked, np.rint(x / spread))
    back = run("DequantizeLinear", blocked, scales, axis=1, block_size=4)
    np.testing.assert_array_equal(back, np.rint(x / spread) * spread)


def test_float64_scales_are_not_rounded_to_float32() -> None:
    assert run("DequantizeLinear", np.int8(1), np.array(0.1)) == 0.1


def test_the_output_dtype_may_be_named() -> None:
    quantised = run("QuantizeLinear", np.float32([1.0]), SCALE, output_dtype=onnx.TensorProto.INT4)
    assert quantised.dtype == onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.INT4)
    assert run("DequantizeLinear", np.int8([1]), SCALE, output_dtype=onnx.TensorProto.DOUBLE).dtype == float


def test_a_quantised_product_is_that_of_the_numbers_it_stands_for() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (3, 4), np.uint8), rng.integers(0, 256, (4, 2), np.uint8)
    a_scale, b_scale = np.float32([0.1, 0.2, 0.3]), np.float32([0.5, 0.25])
    a_zero, b_zero = np.uint8([100, 110, 120]), np.uint8([128, 120])
    y_scale, y_zero = np.float32(40.0), np.uint8(128)
    result = run("QLinearMatMul", a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero)
    real = ((a - a_zero[:, None].astype(int)) * a_scale[:, None]) @ ((b - b_zero.astype(int)) * b_scale)
    expected = np.clip(np.rint(real / y_scale) + 128, 0, 255)
    np.testing.assert_array_equal(result, expected.astype(np.uint8))
