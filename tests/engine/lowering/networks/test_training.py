"""Optimiser steps against their formulas, and the Gradient operator, once and twice."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_derivatives, check_op, gradient_of, run

TRAINING = "ai.onnx.preview.training"
rng = np.random.default_rng(4)
STEPS = {
    "Adagrad": (3, {"norm_coefficient": 0.25, "decay_factor": 0.5, "epsilon": 0.125}),
    "Adam": (4, {"norm_coefficient": 0.25, "alpha": 0.5, "beta": 0.75, "epsilon": 0.125}),
    "Momentum": (3, {"norm_coefficient": 0.25, "alpha": 0.5, "beta": 0.75, "mode": "nesterov"}),
}


def _tensors(kinds: int) -> list[np.ndarray]:
    """Two tensors of different shapes, grouped by kind; the last kind (squares) is positive."""
    groups = [[rng.standard_normal(3), rng.standard_normal((2, 2))] for _ in range(kinds - 1)]
    groups.append([rng.uniform(0.5, 1, 3), rng.uniform(0.5, 1, (2, 2))])
    return [tensor for group in groups for tensor in group]


@pytest.mark.parametrize("op", STEPS)
def test_optimiser_steps_differentiate_in_every_input(op: str) -> None:
    kinds, options = STEPS[op]
    inputs = [np.array(0.1), np.int64(3), *_tensors(kinds)]
    check_op(op, *inputs, outputs=2 * (kinds - 1), domain=TRAINING, check={"order": 2}, **options)


def test_adam_corrects_its_bias_by_the_step_count() -> None:
    x, g, v, h = (tensor for tensor in _tensors(4)[::2])
    new, mean, squares = run(
        "Adam", np.array(0.1), np.int64(3), x, g, v, h, domain=TRAINING, outputs=3, **STEPS["Adam"][1]
    )
    g = 0.25 * x + g
    v, h = 0.5 * v + 0.5 * g, 0.75 * h + 0.25 * g * g
    rate = 0.1 * np.sqrt(1 - 0.75**3) / (1 - 0.5**3)
    np.testing.assert_allclose(new, x - rate * v / (np.sqrt(h) + 0.125), rtol=1e-12)
    np.testing.assert_allclose(mean, v, rtol=1e-12)
    np.testing.assert_allclose(squares, h, rtol=1e-12)


def test_momentum_ignores_beta_at_the_first_step() -> None:
    x, g, v = (tensor for tensor in _tensors(3)[::2])
    options = {**STEPS["Momentum"][1], "mode": "standard", "norm_coefficient": 0.0}
    for count, weight in ((0, 1.0), (1, 0.75)):
        new, _ = run(
            "Momentum", np.array(0.1), np.int64(count), x, g, v, domain=TRAINING, outputs=2, **options
        )
        np.testing.assert_allclose(new, x - 0.1 * (0.5 * v + weight * g), rtol=1e-12)


def test_an_empty_accumulator_has_a_finite_derivative() -> None:
    zero = np.zeros(2)
    forward, reverse = gradient_of(
        "Adagrad", np.array(0.1), np.int64(0), zero, zero, zero, outputs=2, domain=TRAINING
    )
    assert np.all(np.isfinite(forward))
    assert np.all(np.isfinite(reverse))


def test_steps_keep_single_precision() -> None:
    tensors = [tensor.astype(np.float32) for tensor in _tensors(4)]
    outputs = run("Adam", np.float32(0.1), np.int64(1), *tensors, domain=TRAINING, outputs=6)
    assert {output.dtype for output in outputs} == {np.dtype(np.float32)}


def _model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 20, "{TRAINING}": 1]> agraph {text}')


CUBE = """(double[3] x0, double[3] x1) => (double[3] d) {
    s = Mul(x0, x0)
    c = Mul(s, x0)
    y = Mul(c, x1)
"""


def test_gradient_evaluates_the_part_of_the_graph_it_names() -> None:
    model = _model(CUBE + f'd = {TRAINING}.Gradient<xs = ["x0"], zs = ["x1"], y = "y">(x0, x1) }}')
    x, w = rng.standard_normal(3), rng.standard_normal(3)
    (d,) = evaluate(model, {"x0": x, "x1": w})
    np.testing.assert_allclose(d, 3 * x**2 * w, rtol=1e-12)
    check_derivatives(model, x, w, order=2)


def test_gradient_with_respect_to_an_intermediate_holds_the_rest_fixed() -> None:
    model = _model(CUBE + f'd = {TRAINING}.Gradient<xs = ["s"], y = "y">(s) }}')
    x, w = rng.standard_normal(3), rng.standard_normal(3)
    (d,) = evaluate(model, {"x0": x, "x1": w})
    np.testing.assert_allclose(d, x * w, rtol=1e-12)


def test_gradient_at_other_values_than_the_graphs_own() -> None:
    model = _model(CUBE + f'd = {TRAINING}.Gradient<xs = ["x0"], y = "y">(x1) }}')
    x, w = rng.standard_normal(3), rng.standard_normal(3)
    (d,) = evaluate(model, {"x0": x, "x1": w})
    np.testing.assert_allclose(d, 3 * w**2 * w, rtol=1e-12)


def test_gradient_of_a_gradient_is_the_second_derivative() -> None:
    model = _model(
        CUBE
        + f"""g = {TRAINING}.Gradient<xs = ["x0"], zs = ["x1"], y = "y">(x0, x1)
    d = {TRAINING}.Gradient<xs = ["x0"], zs = ["x1"], y = "g">(x0, x1) }}"""
    )
    x, w = rng.standard_normal(3), rng.standard_normal(3)
    (d,) = evaluate(model, {"x0": x, "x1": w})
    np.testing.assert_allclose(d, 6 * x * w, rtol=1e-12)


def test_gradient_of_an_unknown_tensor_is_refused_by_name() -> None:
    model = _model(CUBE + f'd = {TRAINING}.Gradient<xs = ["x0"], y = "nowhere">(x0) }}')
    with pytest.raises(InvalidGraph, match="'nowhere'"):
        evaluate(model, {"x0": np.ones(3), "x1": np.ones(3)})
