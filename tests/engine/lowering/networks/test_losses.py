"""Negative log likelihood and softmax cross-entropy, weighted, reduced, with samples ignored."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_op, gradient_of, one_node, run

SCORES = np.random.default_rng(0).normal(size=(3, 4, 2))
LABELS = np.array([[0, 3], [2, 2], [1, 3]])
WEIGHT = np.array([0.5, 1.0, 2.0, 0.25])


def expected_loss(
    scores: np.ndarray, labels: np.ndarray, weight: np.ndarray | None, ignored: int | None, reduction: str
) -> np.ndarray:
    kept = np.ones(labels.shape, bool) if ignored is None else labels != ignored
    safe = np.where(kept, labels, 0)
    weights = kept * (1.0 if weight is None else weight[safe])
    loss = -np.take_along_axis(scores, safe[:, None], 1)[:, 0] * weights
    return {"none": loss, "sum": loss.sum(), "mean": loss.sum() / weights.sum()}[reduction]


@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, 2, -100])
def test_a_loss_agrees_with_its_formula(op: str, reduction: str, weighted: bool, ignored: int | None) -> None:
    labels = np.where(LABELS == 2, ignored, LABELS) if ignored == -100 else LABELS
    inputs = [SCORES, labels] + ([WEIGHT] if weighted else [])
    options = {"reduction": reduction} | ({} if ignored is None else {"ignore_index": ignored})
    scores = SCORES if op.startswith("Neg") else scipy.special.log_softmax(SCORES, 1)
    expected = expected_loss(scores, labels, WEIGHT if weighted else None, ignored, reduction)
    np.testing.assert_allclose(run(op, *inputs, **options), expected, rtol=1e-13)
    if ignored == -100:
        check_op(op, *inputs, check={"order": 2}, **options)


def test_cross_entropy_gives_the_log_probabilities_where_they_are_wanted() -> None:
    _, logarithms = run("SoftmaxCrossEntropyLoss", SCORES, LABELS, outputs=2)
    np.testing.assert_allclose(logarithms, scipy.special.log_softmax(SCORES, 1), rtol=1e-13)
    check_op("SoftmaxCrossEntropyLoss", SCORES, LABELS, outputs=2)


def test_an_ignored_sample_sends_nothing_back_even_from_an_infinite_score() -> None:
    scores = np.array([[0.3, 0.7], [-np.inf, -np.inf]])
    options = {"ignore_index": 1, "reduction": "sum"}
    assert run("NegativeLogLikelihoodLoss", scores, np.array([0, 1]), **options) == -0.3
    for jacobian in gradient_of("NegativeLogLikelihoodLoss", scores, np.array([0, 1]), **options):
        np.testing.assert_array_equal(jacobian, [[-1, 0, 0, 0]])


def test_a_class_out_of_range_is_refused_where_known_and_nan_where_not() -> None:
    labels = np.array([0, 4, 1])
    with pytest.raises(InvalidGraph, match=r"NegativeLogLikelihoodLoss.*class 4"):
        run("NegativeLogLikelihoodLoss", SCORES[..., 0], labels)
    model = one_node("NegativeLogLikelihoodLoss", SCORES, labels)
    (loss,) = evaluate(model, {"x0": SCORES[..., 0], "x1": jnp.asarray(labels)})
    assert np.isnan(loss)
