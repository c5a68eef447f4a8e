"""Non-maximum suppression against a search by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import Notes, evaluate
from tests.engine.lowering.derivative_checks import one_node, run

rng = np.random.default_rng(12)


def _suppress(boxes: np.ndarray, scores: np.ndarray, *rest: Any, **options: Any) -> np.ndarray:
    inputs = [boxes.astype(np.float32), scores.astype(np.float32), *rest]
    model = one_node("NonMaxSuppression", *inputs, **options)
    named = {f"x{index}": np.asarray(value) for index, value in enumerate(inputs) if value is not None}
    (y,) = evaluate(model, named)
    return np.asarray(y)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes given by sorted corners (y1, x1, y2, x2)."""
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    area = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return float(height * width / (sum(area) - height * width))


def test_the_best_boxes_are_kept_and_what_overlaps_them_dropped() -> None:
    corners = np.sort(rng.uniform(0, 1, (2, 12, 2, 2)), axis=2)
    boxes, scores = corners.reshape(2, 12, 4).astype(np.float32), rng.random((2, 3, 12)).astype(np.float32)
    expected = []
    for batch in range(2):
        for label in range(3):
            kept: list[int] = []
            for index in np.argsort(-scores[batch, label]):
                free = all(_overlap(boxes[batch, index], boxes[batch, other]) <= 0.25 for other in kept)
                if scores[batch, label, index] > 0.3 and free and len(kept) < 4:
                    kept.append(int(index))
            expected += [(batch, label, index) for index in kept]
    y = _suppress(boxes, scores, np.array([4]), np.array([0.25], np.float32), np.array([0.3], np.float32))
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, expected)


def test_a_missing_limit_keeps_nothing() -> None:
    assert _suppress(np.ones((1, 2, 4)), np.ones((1, 1, 2))).shape == (0, 3)


def test_centres_and_flipped_corners_mean_the_same_boxes() -> None:
    centred = np.array([[[1.0, 1.0, 2.0, 2.0], [1.1, 1.0, 2.0, 2.0], [5.0, 5.0, 1.0, 1.0]]])
    half = centred[..., 2:] / 2
    flipped = np.concatenate([centred[..., :2] + half, centred[..., :2] - half], -1)
    scores, limit, threshold = np.array([[[0.9, 0.8, 0.7]]]), np.array([3]), np.array([0.5], np.float32)
    expected = [[0, 0, 0], [0, 0, 2]]
    np.testing.assert_array_equal(_suppress(centred, scores, limit, threshold, center_point_box=1), expected)
    np.testing.assert_array_equal(_suppress(flipped, scores, limit, threshold), expected)


def test_boxes_that_depend_on_an_input_are_refused() -> None:
    with pytest.raises(InvalidGraph, match="how many boxes are kept"):
        run(
            "NonMaxSuppression", np.ones((1, 1, 4), np.float32), np.ones((1, 1, 1), np.float32), np.array([1])
        )


def test_constant_boxes_leave_the_rest_of_a_graph_its_derivatives() -> None:
    boxes, scores = np.ones((1, 1, 4), np.float32), np.ones((1, 1, 1), np.float32)
    notes = Notes()
    evaluate(one_node("NonMaxSuppression", boxes, scores), {"x0": boxes, "x1": scores}, notes=notes)
    assert notes.no_derivative == {}
