"""Indices that are known only at run time and lie outside: NaN values, and derivatives that are NaN too."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import onnx
import pytest

from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import one_node

RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(3, 4))
IMAGES = RANDOM.normal(size=(2, 1, 4, 4))
COLUMNS = {"rotated": RANDOM.normal(size=(1, 2, 2, 4)), "angles": RANDOM.normal(size=(5, 2))}


def i64(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


# An operator, its inputs with legal indices, the position of the indices, the indices that lie outside, the
# outputs that they spoil (None: all), attributes.
CASES: dict[str, tuple[str, list[Any], int, Any, Any, dict[str, Any]]] = {
    "Gather": ("Gather", [X, i64(0, 2)], 1, i64(0, 3), np.s_[1], {}),
    "Gather, negative": ("Gather", [X, i64(0, -3)], 1, i64(0, -4), np.s_[1], {}),
    "Gather, axis": ("Gather", [X, i64(0, 3)], 1, i64(4, 3), np.s_[:, 0], {"axis": 1}),
    "GatherElements": ("GatherElements", [X, i64([0, 1], [2, 0])], 1, i64([0, 1], [2, 9]), np.s_[1, 1], {}),
    "GatherND": ("GatherND", [X, i64([0, 1], [2, 0])], 1, i64([0, 1], [2, 4]), np.s_[1], {}),
    "ScatterElements": ("ScatterElements", [X, i64([0, 1]), X[:1, :2]], 1, i64([0, 3]), None, {}),
    "ScatterElements, add": (
        "ScatterElements",
        [X, i64([0, 1]), X[:1, :2]],
        1,
        i64([0, 3]),
        None,
        {"reduction": "add"},
    ),
    "ScatterND": ("ScatterND", [X, i64([0], [1]), X[:2]], 1, i64([0], [7]), None, {}),
    "ScatterND, mul": ("ScatterND", [X, i64([0], [1]), X[:2]], 1, i64([0], [-7]), None, {"reduction": "mul"}),
    "TensorScatter": (
        "TensorScatter",
        [IMAGES, IMAGES[:, :, :2], i64(0, 2)],
        2,
        i64(0, 3),
        None,
        {},
    ),
    "loss": ("NegativeLogLikelihoodLoss", [X, i64(0, 1, 2)], 1, i64(0, 1, 4), None, {}),
    "loss, element by element": (
        "NegativeLogLikelihoodLoss",
        [X, i64(0, 1, 2)],
        1,
        i64(0, -1, 3),
        np.s_[1],
        {"reduction": "none"},
    ),
    "cross-entropy": ("SoftmaxCrossEntropyLoss", [X, i64(0, 1, 2)], 1, i64(0, 1, 4), None, {}),
    "cross-entropy, weights": (
        "SoftmaxCrossEntropyLoss",
        [X, i64(0, 1, 2), np.array([0.5, 1.5, 1.0, 2.0])],
        1,
        i64(0, 1, 4),
        None,
        {"ignore_index": 2},
    ),
    "MaxUnpool": (
        "MaxUnpool",
        [IMAGES[:1, :, :2, :2], i64([[[0, 3], [9, 10]]])],
        1,
        i64([[[0, 3], [9, 16]]]),
        None,
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
    "RotaryEmbedding": (
        "RotaryEmbedding",
        [COLUMNS["rotated"], COLUMNS["angles"], COLUMNS["angles"], i64([0, 4])],
        3,
        i64([0, 5]),
        np.s_[:, :, 1],
        {},
    ),
    "RoiAlign": (
        "RoiAlign",
        [IMAGES, np.array([[0.0, 0, 3, 3], [0, 0, 2, 2]]), i64(0, 1)],
        2,
        i64(0, 2),
        np.s_[1],
        {"sampling_ratio": 2, "output_height": 2, "output_width": 2},
    ),
    "ReverseSequence": ("ReverseSequence", [X, i64(1, 2, 3, 3)], 1, i64(1, 2, 3, 4), np.s_[:1, 3], {}),
}


def _function(model: onnx.ModelProto, inputs: list[Any], place: int) -> Any:
    """Returns the first output as a function of a floating input and of the indices; the rest is static."""
    rest = {f"x{index}": array for index, array in enumerate(inputs) if index not in (0, place)}

    def function(x: Any, indices: Any) -> Any:
        return evaluate(model, {**rest, "x0": x, f"x{place}": indices})[0]

    return function


@pytest.mark.parametrize("name", CASES)
def test_an_index_outside_makes_values_and_derivatives_nan(name: str) -> None:
    op, inputs, place, outside, spoilt, attributes = CASES[name]
    function = _function(one_node(op, *inputs, **attributes), inputs, place)
    value = np.asarray(jax.jit(function)(inputs[0], outside))
    expected = np.zeros(value.shape, bool)
    expected[... if spoilt is None else spoilt] = True
    np.testing.assert_array_equal(np.isnan(value), expected)
    forward = np.asarray(jax.jit(jax.jacfwd(function))(inputs[0], outside))
    reverse = np.asarray(jax.jit(jax.jacrev(function))(inputs[0], outside))
    assert np.isnan(forward[expected]).all()
    assert not np.isnan(forward[~expected]).any()
    assert all(np.isnan(row).any() for row in reverse[expected])


@pytest.mark.parametrize("name", CASES)
def test_indices_inside_have_the_values_and_derivatives_of_known_ones(name: str) -> None:
    op, inputs, place, _, _, attributes = CASES[name]
    function = _function(one_node(op, *inputs, **attributes), inputs, place)
    x, indices = inputs[0], inputs[place]
    np.testing.assert_allclose(jax.jit(function)(x, indices), function(x, indices), rtol=1e-14)
    known = jax.jacrev(lambda x: function(x, indices))(x)
    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(jacobian(function))(x, indices), known, rtol=1e-13, atol=1e-15)


def test_one_hot_of_an_index_outside_is_off_as_onnx_says() -> None:
    depth, values = np.array(3), np.array([0.0, 1.0])
    model = one_node("OneHot", i64(0, 5), depth, values)
    result = jax.jit(lambda indices: evaluate(model, {"x0": indices, "x1": depth, "x2": values})[0])(
        i64(0, 5)
    )
    np.testing.assert_array_equal(result, [[1, 0, 0], [0, 0, 0]])


def test_integers_read_outside_are_the_lowest_and_writes_outside_are_dropped() -> None:
    x = np.arange(3)
    read = one_node("Gather", x, i64(5))
    assert jax.jit(lambda i: evaluate(read, {"x0": x, "x1": i})[0])(i64(5)) == np.iinfo(np.int64).min
    write = one_node("ScatterElements", x, i64(5), i64(9))
    result = jax.jit(lambda i: evaluate(write, {"x0": x, "x1": i, "x2": i64(9)})[0])(i64(5))
    np.testing.assert_array_equal(result, x)
