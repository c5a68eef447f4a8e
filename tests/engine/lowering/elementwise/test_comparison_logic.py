"""Comparisons and logic: the same whether their operands are static or traced."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import gradient_of, one_node, run

NUMBERS = (np.array([[1, 2, 3]]), np.array([[2], [3]]))
TRUTHS = (np.array([[True, False]]), np.array([[True], [False]]))

PAIRWISE = {
    "Equal": (np.equal, NUMBERS),
    "Greater": (np.greater, NUMBERS),
    "GreaterOrEqual": (np.greater_equal, NUMBERS),
    "Less": (np.less, NUMBERS),
    "LessOrEqual": (np.less_equal, NUMBERS),
    "And": (np.logical_and, TRUTHS),
    "Or": (np.logical_or, TRUTHS),
    "Xor": (np.logical_xor, TRUTHS),
    "BitwiseAnd": (np.bitwise_and, NUMBERS),
    "BitwiseOr": (np.bitwise_or, NUMBERS),
    "BitwiseXor": (np.bitwise_xor, NUMBERS),
}


@pytest.mark.parametrize("op", PAIRWISE)
def test_a_pairwise_operator_broadcasts_and_agrees_with_numpy_static_and_traced(op: str) -> None:
    function, (a, b) = PAIRWISE[op]
    expected = function(a, b)
    model = one_node(op, a, b)
    for wrap in (np.asarray, jnp.asarray):
        (result,) = evaluate(model, {"x0": wrap(a), "x1": wrap(b)})
        np.testing.assert_array_equal(result, expected)
        assert result.dtype == expected.dtype


@pytest.mark.parametrize(("op", "x"), [("Not", np.array([True, False])), ("BitwiseNot", np.array([5, -1]))])
def test_negation_agrees_with_numpy_static_and_traced(op: str, x: np.ndarray) -> None:
    for wrap in (np.asarray, jnp.asarray):
        np.testing.assert_array_equal(evaluate(one_node(op, x), {"x0": wrap(x)})[0], np.invert(x))


def test_nothing_equals_nan() -> None:
    nan = np.array([np.nan])
    assert not run("Equal", nan, nan)
    assert not run("LessOrEqual", nan, nan)


def test_before_opset_7_the_axis_attribute_places_the_second_operand() -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.array([1.0, 4.0])
    np.testing.assert_array_equal(run("Less", a, b, opset=6, broadcast=1, axis=0), a < b[:, None])


def test_a_mask_from_a_comparison_is_constant_under_differentiation() -> None:
    x = np.array([1.0, 3.0])
    mask = run("Greater", x, np.array(2.0))
    for jacobian in gradient_of("Where", mask, x, np.zeros(2), wrt=[1]):
        np.testing.assert_array_equal(jacobian, np.diag([0.0, 1.0]))


def test_a_shift_without_a_direction_is_refused_by_name() -> None:
    with pytest.raises(InvalidGraph, match=r"BitShift.*LEFT or RIGHT"):
        run("BitShift", np.array([1]), np.array([1]))
