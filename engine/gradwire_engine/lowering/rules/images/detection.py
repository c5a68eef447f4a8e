"""Object detection: the suppression of overlapping boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire_engine.lowering.registry import DATA_SHAPED, Node, Value, rule

Boxes = np.ndarray[Any, Any]


def _corners(boxes: Boxes, centred: bool) -> tuple[Boxes, Boxes]:
    """Return lower and upper corners, (boxes, 2) each, from any two opposite corners or center and size."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if centred:
        return first - second / 2, first + second / 2
    return np.minimum(first, second), np.maximum(first, second)


def _overlaps(low: Boxes, high: Boxes, one: int) -> Boxes:
    """Compute intersection over union of one box with every box; 0 where either has no area."""
    sides = np.minimum(high, high[one]) - np.maximum(low, low[one])
    shared = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(high - low, axis=1)
    union = areas + areas[one] - shared
    proper = (areas > 0) & (areas[one] > 0) & (union > 0)
    return np.where(proper, shared / np.where(proper, union, 1), 0)


def _scalar(node: Node, value: Value | None, what: str, default: float) -> float:
    return default if value is None else float(node.static(value, what).reshape(-1)[0])


@rule("NonMaxSuppression", since=10, derivative="none")
def non_max_suppression(
    node: Node,
    boxes: Value,
    scores: Value,
    limit: Value | None = None,
    iou_threshold: Value | None = None,
    score_threshold: Value | None = None,
) -> Value:
    """NonMaxSuppression: indices of the boxes kept, best first (Neubeck and Van Gool, 2006).

    The number of boxes kept follows from the values, so every input must be static.

    Args:
        node: the node.
        boxes: (batch, boxes, 4), two opposite corners, or with `center_point_box` center and size.
        scores: (batch, classes, boxes).
        limit: most boxes kept for each class; 0 by default.
        iou_threshold: overlap above which a box is suppressed; 0 by default.
        score_threshold: boxes must exceed this score; none by default.

    Returns:
        (kept, 3) int64: batch, class, box.

    Raises:
        ValueNeeded: an input depends on an input of the graph.
    """
    boxes = node.static(boxes, "how many boxes are kept", DATA_SHAPED)
    scores = node.static(scores, "how many boxes are kept", DATA_SHAPED)
    kept: list[tuple[int, int, int]] = []
    most = int(_scalar(node, limit, "max_output_boxes_per_class", 0))
    threshold = _scalar(node, iou_threshold, "iou_threshold", 0.0)
    floor = _scalar(node, score_threshold, "score_threshold", -np.inf)
    for batch, (rows, classes) in enumerate(zip(boxes, scores, strict=True)):
        low, high = _corners(rows, bool(node.attr("center_point_box", 0)))
        for label, values in enumerate(classes):
            candidates = np.argsort(-values, kind="stable")
            candidates = candidates[values[candidates] > floor]
            for _ in range(most):
                if not len(candidates):
                    break
                best = int(candidates[0])
                kept.append((batch, label, best))
                candidates = candidates[1:]
                candidates = candidates[_overlaps(low, high, best)[candidates] <= threshold]
    return np.array(kept, np.int64).reshape(-1, 3)
