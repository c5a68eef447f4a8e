"""Classification losses: negative log likelihood and softmax cross-entropy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.arrays import marked, take
from gradwire_engine.lowering.numeric import cast, constant, select, widened
from gradwire_engine.lowering.registry import Node, Value, is_static, rule
from gradwire_engine.lowering.rules.networks.activations import log_softmax_over


def _likelihood_loss(node: Node, scores: Value, target: Value, weight: Value) -> Value:
    """Compute `-scores[n, target[n]]`, weighted by class and reduced as the node says.

    Samples of the class `ignore_index` are left out, of the mean's divisor as well; a class outside
    [0, C) gives NaN, and derivatives of NaN.
    """
    ignored = node.attr("ignore_index")
    if is_static(target):
        _check_classes(node, target, ignored, scores.shape[1])
    target = cast(jnp.asarray(target), np.int64)
    kept = None if ignored is None else lax.ne(target, constant(ignored, target))
    labels = target if kept is None else select(kept, target, constant(0, target))
    inside = lax.ge(labels, constant(0, labels)) & lax.lt(labels, constant(scores.shape[1], labels))
    labels = select(inside, labels, constant(0, labels))
    chosen = jnp.take_along_axis(scores, jnp.expand_dims(labels, 1), 1, mode="promise_in_bounds")
    chosen = marked(chosen.squeeze(1), inside)
    weights = None if weight is None else marked(take(weight, labels, 0, trusted=True), inside)
    if kept is not None:
        ones = jnp.ones(labels.shape, scores.dtype) if weights is None else weights
        weights = select(kept, ones, constant(0, scores))
    loss = lax.neg(chosen) if weights is None else lax.mul(lax.neg(chosen), cast(weights, scores.dtype))
    if kept is not None:
        # A score may be infinite where its sample is ignored.
        loss = select(kept, loss, constant(0, loss))
    reduction = node.attr("reduction", "mean")
    if reduction == "none":
        return loss
    total = jnp.sum(loss)
    if reduction == "sum":
        return total
    if reduction != "mean":
        raise node.fail(f"attribute reduction is {reduction!r}; it must be none, sum or mean")
    return lax.div(total, constant(loss.size, total) if weights is None else jnp.sum(weights))


def _check_classes(node: Node, target: Value, ignored: int | None, classes: int) -> None:
    """Raise `InvalidGraph` if a static target is outside [0, C) and not ignored."""
    outside = (target < 0) | (target >= classes)
    if ignored is not None:
        outside = outside & (target != ignored)
    if np.any(outside):
        raise node.fail(
            f"class {np.asarray(target)[outside][0]} is outside [0, {classes}); "
            "set ignore_index if samples of that class shall not count"
        )


@rule("NegativeLogLikelihoodLoss", since=12)
def negative_log_likelihood(node: Node, scores: Value, target: Value, weight: Value = None) -> Value:
    """NegativeLogLikelihoodLoss: of log-probabilities."""
    wide = widened(jnp.asarray(scores))
    weight = None if weight is None else widened(jnp.asarray(weight))
    return cast(_likelihood_loss(node, wide, target, weight), scores.dtype)


@rule("SoftmaxCrossEntropyLoss", since=12)
def softmax_cross_entropy(
    node: Node, scores: Value, labels: Value, weights: Value = None
) -> tuple[Value, ...]:
    """SoftmaxCrossEntropyLoss: the loss, and log softmax over axis 1 where it is wanted."""
    logarithms = log_softmax_over(widened(jnp.asarray(scores)), (1,))
    weights = None if weights is None else widened(jnp.asarray(weights))
    loss = cast(_likelihood_loss(node, logarithms, labels, weights), scores.dtype)
    return (loss, cast(logarithms, scores.dtype)) if node.wants(1) else (loss,)
