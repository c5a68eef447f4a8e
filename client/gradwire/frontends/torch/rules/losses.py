"""Rules for losses whose decompositions in PyTorch have other derivatives than the losses themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray
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


@rule("_ctc_loss")
def ctc(
    call: Call,
    scores: Array,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    zero_infinity: bool = False,
) -> Any:
    """Run the forward algorithm over the target with blanks between its labels (Graves et al., 2006)."""
    if any(isinstance(one, TracedArray) for one in (targets, input_lengths, target_lengths)):
        raise call.refuse("with targets or lengths that are arguments", "close over them")
    steps, lengths = np.atleast_1d(input_lengths), np.atleast_1d(target_lengths)
    logs = scores[:, None] if scores.ndim == 2 else scores
    labels = _with_blanks(np.asarray(targets), lengths, blank)
    emitted = np.take_along_axis(np.swapaxes(logs, 0, 1), labels[:, None, :], 2)
    lowest = float(np.finfo(call.dtype).min) / 4
    skips = np.zeros(labels.shape, np.bool_)
    skips[:, 2:] = (labels[:, 2:] != blank) & (labels[:, 2:] != labels[:, :-2])
    state = where(call, np.arange(labels.shape[1]) < 2, emitted[:, 0], lowest)
    nothing = np.full_like(state[:, :2], lowest)
    for step in range(1, logs.shape[0]):
        before = np.concatenate([nothing[:, :1], state[:, :-1]], 1)
        skipped = np.concatenate([nothing, state[:, :-2]], 1)[:, : labels.shape[1]]
        reached = np.logaddexp(np.logaddexp(state, before), where(call, skips, skipped, lowest))
        state = where(call, (step < steps)[:, None], reached + emitted[:, step], state)
    last = np.take_along_axis(state, 2 * lengths[:, None], 1)[:, 0]
    label = np.take_along_axis(state, np.maximum(2 * lengths - 1, 0)[:, None], 1)[:, 0]
    whole = np.logaddexp(last, where(call, lengths > 0, label, lowest))
    impossible = np.less(whole, lowest / 2)
    loss = where(call, impossible, 0.0 if zero_infinity else np.inf, -whole).reshape(call.shape)
    return loss, call.unavailable("its state", "use the loss alone")


def _with_blanks(targets: Any, lengths: Any, blank: int) -> Any:
    """Return each row's labels with blanks around them."""
    rows = np.full((len(lengths), int(max(lengths, default=0))), blank)
    starts = np.cumsum(lengths) - lengths
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        rows[row, :length] = targets[start : start + length] if targets.ndim == 1 else targets[row, :length]
    labels = np.full((rows.shape[0], 2 * rows.shape[1] + 1), blank)
    labels[:, 1::2] = rows
    return labels
