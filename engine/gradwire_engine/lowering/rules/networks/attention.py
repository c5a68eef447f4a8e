"""Attention: scaled dot products with masks and caches, rotary positions, linear attention."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from onnx import helper

from gradwire_engine.lowering import smooth
from gradwire_engine.lowering.arrays import take, wrap_index
from gradwire_engine.lowering.registry import Node, Value, rule

_einsum = partial(jnp.einsum, precision=lax.Precision.HIGHEST)


def _heads(node: Node, x: Value, attribute: str) -> Value:
    """Reshape (batch, sequence, heads * size) to (batch, heads, sequence, size)."""
    heads = int(node.attr(attribute, 0))
    if heads < 1 or x.shape[2] % heads:
        raise node.fail(f"{attribute} {heads} does not divide the hidden size {x.shape[2]}")
    return x.reshape(x.shape[0], x.shape[1], heads, x.shape[2] // heads).swapaxes(1, 2)


def _scores(node: Node, q: Value, k: Value) -> Value:
    """Compute dot products of queries and keys; consecutive query heads share a key head."""
    heads, shared = q.shape[1], k.shape[1]
    if heads % shared:
        raise node.fail(f"{heads} query heads cannot share {shared} key heads")
    grouped = q.reshape(q.shape[0], shared, heads // shared, *q.shape[2:])
    return _einsum("bkgld,bksd->bkgls", grouped, k).reshape(*q.shape[:3], k.shape[2])


def _mix(p: Value, v: Value) -> Value:
    """Compute sums of the values weighted by probabilities, with the same sharing of heads."""
    shared = v.shape[1]
    grouped = p.reshape(p.shape[0], shared, p.shape[1] // shared, *p.shape[2:])
    return _einsum("bkgls,bksd->bkgld", grouped, v).reshape(*p.shape[:3], v.shape[3])


def _softmax(scores: Value, allowed: Value | None = None) -> Value:
    """Compute the softmax over keys.

    Disallowed keys get 0 whatever their score; a row without keys is all zeros.
    """
    if allowed is not None:
        scores = jnp.where(allowed, scores, -jnp.inf)
    top = lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True, initial=-jnp.inf))
    weights = jnp.exp(scores - jnp.where(jnp.isneginf(top), 0, top))
    if allowed is not None:
        weights = jnp.where(allowed, weights, 0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.where(total == 0, 1, total)


def _allowed(node: Node, queries: int, keys: int, past: int, lengths: Value | None) -> Value | None:
    """Return the keys that each query may attend to by causality, window and padding; None where all."""
    causal = bool(node.attr("is_causal", 0))
    left, right = int(node.attr("left_window_size", -1)), int(node.attr("right_window_size", -1))
    column = np.arange(keys)
    allowed: Any = None
    if causal or left >= 0 or right >= 0:
        row: Any = np.arange(queries)[:, None]
        # A query's position counts the cached keys before it.
        row = row + past if lengths is None else row + (jnp.ravel(lengths) - queries)[:, None, None, None]
        allowed = np.ones((queries, keys), bool)
        if causal:
            allowed = allowed & (column <= row)
        if left >= 0:
            allowed = allowed & (column >= row - left)
        if right >= 0:
            allowed = allowed & (column <= row + right)
    if lengths is not None:
        present = column < jnp.ravel(lengths)[:, None, None, None]
        allowed = present if allowed is None else allowed & present
    return allowed


def _pad_keys(mask: Value, keys: int) -> Value:
    """Extend a mask that is shorter than the keys; it disallows the rest."""
    missing = keys - mask.shape[-1]
    if missing <= 0:
        return mask
    fill = False if mask.dtype == np.bool_ else -jnp.inf
    return jnp.pad(jnp.asarray(mask), [(0, 0)] * (mask.ndim - 1) + [(0, missing)], constant_values=fill)


@rule("Attention", since=23)
def attention(
    node: Node,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None = None,
    past_key: Value | None = None,
    past_value: Value | None = None,
    lengths: Value | None = None,
) -> tuple[Value, ...]:
    """Attention: scaled dot products (Vaswani et al., 2017), with grouped queries and caches.

    A query that may attend to no key gets zeros.

    Args:
        node: the node.
        q: queries, (batch, heads, sequence, size) or (batch, sequence, heads * size).
        k: keys, in the same layout, with heads that divide those of `q`.
        v: values, in the same layout.
        mask: boolean, or added to the scores; broadcast to (batch, heads, queries, keys).
        past_key: cached keys, (batch, heads, past, size).
        past_value: cached values, likewise.
        lengths: (batch,) number of keys that are not padding.

    Returns:
        Y in the layout of `q`, the keys and values with their caches, and the scores at the stage
        that `qk_matmul_output_mode` names.
    """
    flat = q.ndim == 3
    if flat:
        q, k, v = (
            _heads(node, q, "q_num_heads"),
            _heads(node, k, "kv_num_heads"),
            _heads(node, v, "kv_num_heads"),
        )
    if (past_key is None) != (past_value is None):
        raise node.fail("past_key and past_value go together")
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.shape[2]
        k, v = jnp.concatenate([past_key, k], axis=2), jnp.concatenate([past_value, v], axis=2)
    root = math.sqrt(float(node.attr("scale", 1.0 / math.sqrt(q.shape[3]))))
    stages = [_scores(node, q * root, k * root)]
    softcap = float(node.attr("softcap", 0.0))
    stages.append(softcap * smooth.tanh(stages[0] / softcap) if softcap > 0 else stages[0])
    queries, keys = stages[0].shape[2:]
    allowed = _allowed(node, queries, keys, past, lengths)
    biased = stages[1]
    if mask is not None:
        mask = _pad_keys(mask, keys)
        open_keys = mask if mask.dtype == np.bool_ else ~jnp.isneginf(mask)
        allowed = open_keys if allowed is None else allowed & open_keys
        biased = biased if mask.dtype == np.bool_ else biased + mask
    stages.append(biased if allowed is None else jnp.where(allowed, biased, -jnp.inf))
    precision = node.attr("softmax_precision")
    wide = biased if precision is None else biased.astype(helper.tensor_dtype_to_np_dtype(precision))
    probabilities = _softmax(wide, allowed).astype(q.dtype)
    stages.append(probabilities)
    y = _mix(probabilities, v)
    if flat:
        y = y.swapaxes(1, 2).reshape(y.shape[0], y.shape[2], y.shape[1] * y.shape[3])
    return y, k, v, stages[int(node.attr("qk_matmul_output_mode", 0))].astype(q.dtype)


@rule("FlexAttention", domain="ai.onnx.preview")
def flex_attention(node: Node, q: Value, k: Value, v: Value) -> Value:
    """FlexAttention: scores and probabilities pass through subgraphs of the model."""
    precision = node.attr("softmax_precision")
    wide = (
        jnp.promote_types(q.dtype, jnp.float32)
        if precision is None
        else helper.tensor_dtype_to_np_dtype(precision)
    )
    scores = _scores(node, jnp.asarray(q, wide), jnp.asarray(k, wide))
    scores = scores * float(node.attr("scale", 1.0 / math.sqrt(q.shape[3])))
    if node.attr("score_mod") is not None:
        (scores,) = node.run(node.subgraph("score_mod"), scores)
    p = _softmax(scores)
    if node.attr("prob_mod") is not None:
        (p,) = node.run(node.subgraph("prob_mod"), p)
    return _mix(p.astype(v.dtype), v)


@rule("RotaryEmbedding", since=23)
def rotary_embedding(node: Node, x: Value, cos: Value, sin: Value, positions: Value | None = None) -> Value:
    """RotaryEmbedding: rotates pairs of features by angles that grow with position (Su et al., 2021)."""
    heads_first = x.ndim == 4
    heads = x.shape[1] if heads_first else int(node.attr("num_heads", 0))
    if heads < 1:
        raise node.fail("a 3-D input needs the attribute num_heads")
    split = (
        jnp.swapaxes(x, 1, 2) if heads_first else jnp.reshape(x, (*x.shape[:2], heads, x.shape[2] // heads))
    )
    size = int(node.attr("rotary_embedding_dim", 0)) or split.shape[3]
    if positions is not None:
        rows = wrap_index(node, positions, cos.shape[0], negative=False)
        cos, sin = take(cos, rows, 0), take(sin, rows, 0)
    cos, sin = cos[:, :, None], sin[:, :, None]
    if cos.shape[-1] * 2 != size:
        raise node.fail(f"the caches hold {cos.shape[-1]} angles; rotating {size} features needs {size // 2}")
    if node.attr("interleaved", 0):
        first, second = split[..., 0:size:2], split[..., 1:size:2]
    else:
        first, second = split[..., : size // 2], split[..., size // 2 : size]
    parts = [cos * first - sin * second, sin * first + cos * second]
    if node.attr("interleaved", 0):
        turned = jnp.stack(parts, axis=-1).reshape(*split.shape[:3], size)
    else:
        turned = jnp.concatenate(parts, axis=-1)
    y = jnp.concatenate([turned, split[..., size:]], axis=-1)
    return jnp.swapaxes(y, 1, 2) if heads_first else y.reshape(x.shape)


@rule("LinearAttention", since=27)
def linear_attention(
    node: Node,
    q: Value,
    k: Value,
    v: Value,
    past: Value | None = None,
    decay: Value | None = None,
    beta: Value | None = None,
) -> tuple[Value, Value]:
    """LinearAttention: a recurrence on a (key, value) state: plain, gated, delta rule, or both.

    Katharopoulos et al. (2020); Yang et al. (2024) for the gated delta rule.

    Args:
        node: the node.
        q: queries, (batch, sequence, heads * size).
        k: keys, (batch, sequence, shared heads * size).
        v: values, (batch, sequence, shared heads * value size).
        past: initial state, (batch, shared heads, size, value size); zeros where None.
        decay: logarithms of the gate, (batch, sequence, shared heads), or (batch, sequence,
            shared heads * size) with a gate for each key feature.
        beta: rate of the delta rule, broadcast to (batch, sequence, shared heads).

    Returns:
        The output in the dtype and layout of `q`, and the final state.
    """
    update = node.attr("update_rule", "gated_delta")
    if update not in ("linear", "gated", "delta", "gated_delta"):
        raise node.fail(f"update_rule {update!r} is not linear, gated, delta or gated_delta")
    gated, delta = "gated" in update, "delta" in update
    if (gated and decay is None) or (delta and beta is None):
        raise node.fail(f"update_rule {update!r} needs {'decay' if gated and decay is None else 'beta'}")
    state_dtype = q.dtype if past is None else past.dtype
    wide = jnp.promote_types(jnp.promote_types(q.dtype, state_dtype), jnp.float32)
    shared = int(node.attr("kv_num_heads", 0))
    # Time first: (time, batch, heads, size).
    steps = [
        jnp.moveaxis(_heads(node, jnp.asarray(item, wide), name), 2, 0)
        for item, name in ((q, "q_num_heads"), (k, "kv_num_heads"), (v, "kv_num_heads"))
    ]
    scale = float(node.attr("scale", 0.0)) or 1.0 / math.sqrt(steps[0].shape[3])
    time, batch, heads, size = steps[0].shape
    if heads % shared:
        raise node.fail(f"{heads} query heads cannot share {shared} key heads")
    steps[0] = steps[0].reshape(time, batch, shared, heads // shared, size)
    if gated and decay is not None:
        gate = jnp.exp(jnp.asarray(decay, wide)).reshape(batch, time, shared, decay.shape[2] // shared)
        steps.append(jnp.moveaxis(gate, 1, 0))
    if delta:
        rate = jnp.asarray(beta, wide)
        rate = jnp.broadcast_to(rate, (batch, time, shared))
        steps.append(jnp.moveaxis(rate, 1, 0)[..., None])
    start = jnp.zeros((batch, shared, size, steps[2].shape[3]), wide) if past is None else past.astype(wide)

    def step(state: Value, now: list[Value]) -> tuple[Value, Value]:
        q_t, k_t, v_t = now[:3]
        if gated:
            state = state * now[3][..., None]
        if delta:
            v_t = now[-1] * (v_t - _einsum("bhkv,bhk->bhv", state, k_t))
        state = state + k_t[..., :, None] * v_t[..., None, :]
        return state, scale * _einsum("bhgk,bhkv->bhgv", q_t, state)

    end, outputs = lax.scan(step, start, steps)
    y = jnp.moveaxis(outputs, 0, 1).reshape(batch, time, heads * steps[2].shape[3])
    return y.astype(q.dtype), end.astype(state_dtype)
