"""Activations and softmaxes: closed forms in float64, derivatives, corners, extreme inputs."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_op, gradient_of, one_node, run

TWICE = {"order": 2}
X = np.array([-7.3, -2.1, -0.6, 0.35, 1.4, 6.2])
LEAKY, HARD = float(np.float32(0.01)), float(np.float32(0.2))
SELU_ALPHA, SELU_GAMMA = float(np.float32(1.67326319217681884765625)), 1.05070102214813232421875


def elu(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


FORMULAS: dict[str, tuple[Any, dict[str, Any]]] = {
    "Relu": (lambda x: np.maximum(x, 0), {}),
    "LeakyRelu": (lambda x: np.where(x > 0, x, LEAKY * x), {}),
    "ThresholdedRelu": (lambda x: np.where(x > 1.25, x, 0), {"alpha": 1.25}),
    "Elu": (lambda x: elu(x, float(np.float32(0.3))), {"alpha": 0.3}),
    "Selu": (lambda x: SELU_GAMMA * elu(x, SELU_ALPHA), {}),
    "Celu": (lambda x: elu(x / 2, 1.0) * 2, {"alpha": 2.0}),
    "Gelu": (lambda x: x * scipy.special.ndtr(x), {}),
    "Softplus": (lambda x: np.logaddexp(x, 0), {}),
    "Mish": (lambda x: x * np.tanh(np.logaddexp(x, 0)), {}),
    "Softsign": (lambda x: x / (1 + np.abs(x)), {}),
    "Sigmoid": (scipy.special.expit, {}),
    "HardSigmoid": (lambda x: np.clip(HARD * x + 0.5, 0, 1), {}),
    "HardSwish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), {}),
    "Swish": (lambda x: x * scipy.special.expit(1.5 * x), {"alpha": 1.5}),
    "Shrink": (
        lambda x: np.where(x < -1, x + 0.25, np.where(x > 1, x - 0.25, 0)),
        {"lambd": 1.0, "bias": 0.25},
    ),
    "Softmax": (scipy.special.softmax, {}),
    "LogSoftmax": (scipy.special.log_softmax, {}),
}


@pytest.mark.parametrize("op", FORMULAS)
def test_an_activation_agrees_with_its_formula_in_float64_and_differentiates_twice(op: str) -> None:
    formula, attributes = FORMULAS[op]
    np.testing.assert_allclose(run(op, X, **attributes), formula(X), rtol=1e-14, atol=1e-16)
    check_op(op, X, check=TWICE, **attributes)


def test_the_tanh_form_of_gelu_agrees_with_its_formula() -> None:
    expected = X * scipy.special.expit(2 * np.sqrt(2 / np.pi) * (X + 0.044715 * X**3))
    np.testing.assert_allclose(run("Gelu", X, approximate="tanh"), expected, rtol=1e-13)
    check_op("Gelu", X, approximate="tanh", check=TWICE)


def test_default_attributes_are_float32_numbers() -> None:
    assert run("LeakyRelu", np.array([-1.0])) == -float(np.float32(0.01))
    assert run("HardSigmoid", np.array([1.0])) == float(np.float32(0.2)) + 0.5


CORNERS = {"Relu": 0.0, "LeakyRelu": LEAKY, "Elu": 2.0, "Selu": SELU_GAMMA * SELU_ALPHA, "Softplus": 0.5}


@pytest.mark.parametrize("op", CORNERS)
def test_the_derivative_at_zero_is_that_of_the_left(op: str) -> None:
    attributes = {"alpha": 2.0} if op == "Elu" else {}
    for jacobian in gradient_of(op, np.zeros(1), **attributes):
        np.testing.assert_allclose(jacobian, CORNERS[op], rtol=1e-15)


def test_hard_sigmoid_is_flat_at_its_ends() -> None:
    for jacobian in gradient_of("HardSigmoid", np.array([-2.0, 2.0]), alpha=0.25, beta=0.5):
        np.testing.assert_array_equal(jacobian, 0)


@pytest.mark.parametrize("op", sorted(set(FORMULAS) - {"Softmax", "LogSoftmax"}))
def test_no_derivative_is_nan_far_from_zero(op: str) -> None:
    for jacobian in gradient_of(op, np.array([-1e4, -800.0, 800.0, 1e4]), **FORMULAS[op][1]):
        assert np.all(np.isfinite(jacobian))


@pytest.mark.parametrize("op", ["Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Softplus", "PRelu"])
def test_nan_goes_through(op: str) -> None:
    inputs = [np.array([np.nan])] + ([np.array([0.5])] if op == "PRelu" else [])
    assert np.isnan(run(op, *inputs))


def test_prelu_differentiates_in_its_slope_and_before_opset_7_has_a_slope_per_channel() -> None:
    x, slope = np.random.default_rng(0).normal(size=(2, 3, 2)), np.array([[0.1], [0.2], [0.3]])
    check_op("PRelu", x, slope)
    np.testing.assert_array_equal(run("PRelu", x, slope[:, 0], opset=6), run("PRelu", x, slope))


def test_swiglu_gates_its_second_input() -> None:
    a, b = X, X[::-1].copy()
    expected = a * scipy.special.expit(a) * b
    np.testing.assert_allclose(run("SwiGLU", a, b, opset=28), expected, rtol=1e-14)
    check_op("SwiGLU", a, b, opset=28, check=TWICE)


@pytest.mark.parametrize("op", ["Relu", "Shrink"])
def test_integers_stay_integers(op: str) -> None:
    x = np.array([-3, 0, 3], np.int32)
    (traced,) = evaluate(one_node(op, x), {"x0": jnp.asarray(x)})
    assert traced.dtype == np.int32
    np.testing.assert_array_equal(traced, [0, 0, 3] if op == "Relu" else [-3, 0, 3])


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_before_opset_13_the_axes_from_axis_on_are_one(op: str) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    flat = run(op, x.reshape(2, 12), axis=1)
    np.testing.assert_array_equal(run(op, x, opset=11), flat.reshape(2, 3, 4))
    np.testing.assert_array_equal(run(op, x, opset=11, axis=3), run(op, x[..., None], axis=-1)[..., 0])


def test_softmax_neither_overflows_nor_loses_its_derivative() -> None:
    x = np.array([[1e4, 1e4 - 1], [-1e4, 1e4]])
    np.testing.assert_allclose(run("Softmax", x, axis=1), scipy.special.softmax(x, 1), rtol=1e-14)
    np.testing.assert_allclose(run("LogSoftmax", x, axis=1), scipy.special.log_softmax(x, 1), rtol=1e-14)
    check_op("LogSoftmax", x, axis=1)


def test_softmax_of_halves_sums_in_float32() -> None:
    result = run("Softmax", np.zeros(5000, np.float16))
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, np.float16(1 / 5000))


def test_hardmax_chooses_the_first_of_equals_and_is_flat() -> None:
    x = np.array([[1.0, 3.0, 3.0]])
    np.testing.assert_array_equal(run("Hardmax", x), [[0, 1, 0]])
    for jacobian in gradient_of("Hardmax", x):
        np.testing.assert_array_equal(jacobian, 0)


def test_dropout_is_the_identity_at_inference() -> None:
    y, mask = run("Dropout", X, outputs=2)
    np.testing.assert_array_equal(y, X)
    assert mask.dtype == np.bool_ and mask.all()
    np.testing.assert_array_equal(run("Dropout", X, opset=6, is_test=1), X)


def test_dropout_in_training_is_the_seeds_own_function() -> None:
    inputs = (X, np.array(0.25), np.array(True))
    y, mask = run("Dropout", *inputs, outputs=2, seed=7)
    np.testing.assert_array_equal(mask, np.random.RandomState(7).uniform(size=X.shape) >= 0.25)
    np.testing.assert_allclose(y, np.where(mask, X / 0.75, 0), rtol=1e-15)
    check_op("Dropout", *inputs, seed=7, wrt=[0])


def test_dropout_in_training_without_a_seed_is_refused_by_name() -> None:
    with pytest.raises(InvalidGraph, match=r"Dropout.*seed"):
        run("Dropout", X, np.array(0.25), np.array(True))
    with pytest.raises(InvalidGraph, match=r"Dropout.*is_test"):
        run("Dropout", X, opset=6)
