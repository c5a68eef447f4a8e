"""Rules for losses whose decompositions in PyTorch have other derivatives than the losses themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.torch.lowering import Array, Call, rule
from gradwire.frontends.torch.rules.activations import softplus_of
from gradwire.frontends.torch.rules.creation import of_dtype
from gradwire.frontends.torch.rules.elementwise import where

_MEAN, _SUM = 1, 2
_SMALLEST = 1e-12
_LOWEST_LOGARITHM = -100.0


def _reduced(losses: Any, reduction: int) -> Any:
    if reduction == _MEAN:
        return np.mean(losses)
    return np.sum(losses) if reduction == _SUM else losses


@rule("huber_loss")
def huber(call: Call, x: Array, target: Array, reduction: int = _MEAN, delta: float = 1.0) -> Any:
    difference = of_dtype(x, call.dtype) - of_dtype(target, call.dtype)
    size = np.abs(difference)
    far = (size - 0.5 * delta) * delta
    return _reduced(where(call, np.less(size, delta), 0.5 * difference * difference, far), reduction)


@rule("smooth_l1_loss")
def smooth_l1(call: Call, x: Array, target: Array, reduction: int = _MEAN, beta: float = 1.0) -> Any:
    difference = of_dtype(x, call.dtype) - of_dtype(target, call.dtype)
    size = np.abs(difference)
    if not beta:
        return _reduced(size, reduction)
    near = 0.5 * difference * difference / beta
    return _reduced(where(call, np.less(size, beta), near, size - 0.5 * beta), reduction)


@rule("binary_cross_entropy_with_logits")
def cross_entropy_of_logits(
    call: Call,
    x: Array,
    target: Array,
    weight: Array | None = None,
    pos_weight: Array | None = None,
    reduction: int = _MEAN,
) -> Any:
    scale = 1.0 if pos_weight is None else (pos_weight - 1) * target + 1
    losses = (1 - target) * x + scale * softplus_of(call, -x)
    return _reduced(losses if weight is None else losses * weight, reduction)


@rule("binary_cross_entropy")
def cross_entropy(
    call: Call, x: Array, target: Array, weight: Array | None = None, reduction: int = _MEAN
) -> Any:
    """Logarithms end at -100, and the slope has a denominator of at least 1e-12, as in PyTorch."""
    inside = np.greater(x * (1 - x), _SMALLEST)
    safe = where(call, inside, x, 0.5)
    exact = -(target * np.log(safe) + (1 - target) * np.log1p(-safe))
    frozen = call.frozen(x)
    ends = -(target * _logarithm(call, frozen) + (1 - target) * _logarithm(call, 1 - frozen))
    step = x - frozen
    beyond = ends + (frozen - call.frozen(target)) / _SMALLEST * step + 0.5 / _SMALLEST * step * step
    losses = where(call, inside, exact, beyond)
    return _reduced(losses if weight is None else losses * weight, reduction)


def _logarithm(call: Call, x: Any) -> Any:
    low = np.less(x, np.exp(_LOWEST_LOGARITHM))
    return where(call, low, _LOWEST_LOGARITHM, np.log(where(call, low, 1.0, x)))


@rule("multi_margin_loss")
def multi_margin(
    call: Call,
    x: Array,
    target: Array,
    p: Any = 1,
    margin: Any = 1,
    weight: Array | None = None,
    reduction: int = _MEAN,
) -> Any:
    rows, labels = np.atleast_2d(x), np.atleast_1d(target)
    others = np.not_equal(labels[:, None], np.arange(rows.shape[1]))
    gaps = margin - np.take_along_axis(rows, labels[:, None], 1) + rows
    losses = where(call, np.logical_and(others, np.greater(gaps, 0)), gaps, 0)
    losses = losses * losses if p == 2 else losses
    if weight is not None:
        losses = losses * weight[labels][:, None]
    return _reduced((np.sum(losses, axis=1) / rows.shape[1]).reshape(x.shape[:-1]), reduction)


@rule("multilabel_margin_loss_forward")
def multilabel_margin(call: Call, x: Array, target: Array, reduction: int) -> Any:
    """Labels end before the first -1."""
    rows, labels = np.atleast_2d(x), np.atleast_2d(target)
    count = rows.shape[1]
    kept = np.equal(np.cumsum(np.less(labels, 0).astype(np.int64), axis=1), 0)
    labels = np.where(kept, labels, 0)
    named = np.logical_and(np.equal(labels[:, :, None], np.arange(count)), kept[:, :, None]).any(axis=1)
    gaps = 1 - np.take_along_axis(rows, labels, 1)[:, :, None] + rows[:, None, :]
    counted = np.logical_and(kept[:, :, None], np.logical_not(named)[:, None, :])
    losses = where(call, np.logical_and(counted, np.greater(gaps, 0)), gaps, 0)
    losses = (np.sum(losses, axis=(1, 2)) / count).reshape(x.shape[:-1])
    return _reduced(losses, reduction), named.astype(call.dtype).reshape(x.shape)
