"""Shared by the classical classifiers and regressors: transforms of scores, labels from scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import erfinv

from gradwire_engine.lowering import smooth
from gradwire_engine.lowering.registry import Node, Value

POST_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
"""Names of transforms, in the order of the numbers that TreeEnsemble uses."""

_ZERO = 1e-7


def softmax(scores: Value) -> Value:
    """Compute the softmax over the last axis."""
    weights = jnp.exp(scores - lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def _softmax_zero(scores: Value) -> Value:
    """Compute a softmax in which a score of zero stays zero; all 0.5 where every score is zero."""
    top = lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    scaled = jnp.where(jnp.abs(scores) > _ZERO, jnp.exp(scores - top), scores * jnp.exp(-top))
    total = jnp.sum(scaled, axis=-1, keepdims=True)
    empty = total == 0
    return jnp.where(empty, 0.5, scaled / jnp.where(empty, 1, total))


def post_transform(node: Node, scores: Value, name: str | None = None) -> Value:
    """Apply the transform that the node names to the last axis of `scores`.

    Args:
        node: read for `post_transform` where `name` is None.
        scores: (batch, classes) floating array.
        name: the transform, one of `POST_TRANSFORMS`.

    Raises:
        InvalidGraph: there is no transform of that name.
    """
    match node.attr("post_transform", "NONE") if name is None else name:
        case "NONE":
            return scores
        case "SOFTMAX":
            return softmax(scores)
        case "LOGISTIC":
            return smooth.logistic(scores)
        case "SOFTMAX_ZERO":
            return _softmax_zero(scores)
        case "PROBIT":
            return math.sqrt(2) * erfinv(2 * scores - 1)
        case other:
            raise node.fail(f"post_transform {other!r} is not one of {', '.join(POST_TRANSFORMS)}")


def two_classes(node: Node, score: Value, complement: bool) -> Value:
    """Compute the scores of both classes from that of the positive one, (batch, 1) to (batch, 2).

    A probability's complement is 1 - p and is not transformed further; a margin's is its negative.
    """
    name = node.attr("post_transform", "NONE")
    if name == "PROBIT":
        return post_transform(node, score)
    if complement:
        return jnp.concatenate([1 - score, score], axis=1)
    return post_transform(node, jnp.concatenate([-score, score], axis=1))


def labels_of(node: Node, attribute: str) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """Return integer class labels, or None where classes are named by strings."""
    labels = node.attr(attribute)
    return None if not labels else np.asarray(labels, np.int64)


def pick_labels(node: Node, labels: Sequence[int] | Value | None, best: Value) -> Value:
    """Return the label of the best class of each row.

    Args:
        node: its first output is the label.
        labels: integer labels by class, or None where they are strings.
        best: (batch,) indices of classes.

    Raises:
        InvalidGraph: labels are strings and the label output is used.
    """
    if labels is None:
        if node.wants(0):
            raise node.fail(
                "string labels have no numeric value: use integer labels, or drop the label output"
            )
        return best.astype(jnp.int64)
    return jnp.take(jnp.asarray(labels), best, axis=0)


def floating(x: Value) -> Value:
    """Convert an input to the dtype that scores are computed in: integers to float32 (float64 if wide)."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.asarray(x)
    return jnp.asarray(x, jnp.float64 if np.dtype(x.dtype).itemsize > 4 else jnp.float32)
