"""Attention: masks and empty rows in value and derivative, recurrences, rotations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_derivatives, check_op, gradient_of, run

rng = np.random.default_rng(2)


def _normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def _plain(q: np.ndarray, k: np.ndarray, v: np.ndarray, bias: Any = 0.0) -> np.ndarray:
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = q @ np.swapaxes(k, 2, 3) / np.sqrt(q.shape[3]) + bias
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True) @ v


def test_attention_in_float64_is_exact_to_rounding() -> None:
    q, k, v, mask = _normal(2, 4, 3, 5), _normal(2, 2, 6, 5), _normal(2, 2, 6, 7), _normal(3, 6)
    y = run("Attention", q, k, v, mask)
    np.testing.assert_allclose(y, _plain(q, k, v, mask), rtol=1e-13)


@pytest.mark.parametrize(
    ("mask", "options"),
    [
        (None, {}),
        (_normal(3, 4), {"softcap": 2.0}),
        (rng.random((3, 4)) > 0.3, {"is_causal": 1}),
        (None, {"is_causal": 1, "left_window_size": 1, "opset": 25}),
    ],
)
def test_attention_differentiates(mask: Any, options: dict) -> None:
    inputs = [_normal(1, 2, 3, 2), _normal(1, 1, 4, 2), _normal(1, 1, 4, 2), mask]
    check_op("Attention", *inputs, check={"order": 2, "step": 1e-3}, **options)


def test_attention_differentiates_through_its_caches_and_scores() -> None:
    inputs = [
        _normal(1, 2, 4),
        _normal(1, 2, 4),
        _normal(1, 2, 4),
        None,
        _normal(1, 2, 1, 2),
        _normal(1, 2, 1, 2),
    ]
    options = {"q_num_heads": 2, "kv_num_heads": 2, "is_causal": 1, "qk_matmul_output_mode": 3}
    check_op("Attention", *inputs, outputs=4, **options)


def test_a_query_without_keys_gets_zeros_and_derivative_zero() -> None:
    q, k, v = _normal(1, 1, 2, 2), _normal(1, 1, 3, 2), _normal(1, 1, 3, 2)
    mask = np.array([[True, False, True], [False, False, False]])
    y = run("Attention", q, k, v, mask)
    np.testing.assert_array_equal(y[0, 0, 1], 0)
    forward, reverse = gradient_of("Attention", q, k, v, mask)
    assert np.all(np.isfinite(forward))
    np.testing.assert_array_equal(forward[2:], 0)
    np.testing.assert_allclose(reverse, forward, rtol=1e-12, atol=1e-15)


def test_minus_infinity_in_a_float_mask_masks_without_nan_derivatives() -> None:
    q, k, v = _normal(1, 1, 2, 2), _normal(1, 1, 3, 2), _normal(1, 1, 3, 2)
    allowed = np.array([[True, False, True], [False, True, False]])
    additive = np.where(allowed, 0.0, -np.inf)
    by_bool, _ = gradient_of("Attention", q, k, v, allowed, wrt=[0, 1, 2])
    by_float, reverse = gradient_of("Attention", q, k, v, additive, wrt=[0, 1, 2])
    np.testing.assert_allclose(by_float, by_bool, rtol=1e-12)
    np.testing.assert_allclose(reverse, by_bool, rtol=1e-12, atol=1e-15)


def test_a_short_mask_leaves_the_remaining_keys_out() -> None:
    q, k, v = _normal(1, 1, 2, 2), _normal(1, 1, 5, 2), _normal(1, 1, 5, 2)
    y = run("Attention", q, k, v, np.ones((2, 3), bool))
    np.testing.assert_allclose(y, _plain(q, k[:, :, :3], v[:, :, :3]), rtol=1e-12)


def test_key_lengths_shift_the_causal_frontier_for_each_sequence() -> None:
    q, k, v = _normal(2, 1, 2, 2), _normal(2, 1, 5, 2), _normal(2, 1, 5, 2)
    y = run("Attention", q, k, v, None, None, None, np.array([3, 5]), is_causal=1)
    for b, length in enumerate((3, 5)):
        for i in range(2):
            seen = slice(0, i + 1 + length - 2)
            part = _plain(q[b : b + 1, :, i : i + 1], k[b : b + 1, :, seen], v[b : b + 1, :, seen])
            np.testing.assert_allclose(y[b, :, i], part[0, :, 0], rtol=1e-12)


def test_head_counts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidGraph, match="3 query heads cannot share 2"):
        run("Attention", _normal(1, 3, 2, 2), _normal(1, 2, 2, 2), _normal(1, 2, 2, 2))


def _flex_model(score: str, probability: str) -> onnx.ModelProto:
    def body(op: str, name: str) -> onnx.GraphProto:
        info = onnx.helper.make_tensor_value_info
        double = onnx.TensorProto.DOUBLE
        return onnx.helper.make_graph(
            [onnx.helper.make_node(op, ["in"], ["out"])],
            name,
            [info("in", double, [None] * 4)],
            [info("out", double, [None] * 4)],
        )

    node = onnx.helper.make_node(
        "FlexAttention",
        ["x0", "x1", "x2"],
        ["y0"],
        domain="ai.onnx.preview",
        score_mod=body(score, "score"),
        prob_mod=body(probability, "probability"),
    )
    values = [onnx.ValueInfoProto(name=name) for name in ("x0", "x1", "x2", "y0")]
    graph = onnx.helper.make_graph([node], "flex", values[:3], values[3:])
    opsets = [onnx.helper.make_opsetid("", 24), onnx.helper.make_opsetid("ai.onnx.preview", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets)


def test_flex_attention_runs_and_differentiates_its_subgraphs_in_double() -> None:
    inputs = [_normal(1, 2, 3, 2), _normal(1, 1, 4, 2), _normal(1, 1, 4, 2)]
    model = _flex_model("Tanh", "Exp")
    q, k, v = inputs
    scores = np.tanh(q @ np.swapaxes(k, 2, 3) / np.sqrt(2))
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    (y,) = evaluate(model, dict(zip(("x0", "x1", "x2"), inputs, strict=True)))
    np.testing.assert_allclose(y, np.exp(p) @ v, rtol=1e-12)
    check_derivatives(model, *inputs, order=2)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding_turns_pairs_by_the_angle_of_their_position(interleaved: int) -> None:
    x = _normal(1, 2, 3, 6)
    angles = rng.uniform(0, 6, (9, 2))
    positions = np.array([[4, 0, 8]])
    options = {"interleaved": interleaved, "rotary_embedding_dim": 4}
    y = run("RotaryEmbedding", x, np.cos(angles), np.sin(angles), positions, **options)
    first, second = ([0, 2], [1, 3]) if interleaved else ([0, 1], [2, 3])
    turned = (x[..., first] + 1j * x[..., second]) * np.exp(1j * angles[positions[0]])
    np.testing.assert_allclose(y[..., first], turned.real, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(y[..., second], turned.imag, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(y[..., 4:], x[..., 4:])
    check_op("RotaryEmbedding", x, np.cos(angles), np.sin(angles), positions, **options)


RULES = ["linear", "gated", "delta", "gated_delta"]


def _linear_inputs(rule: str, time: int = 3) -> list[np.ndarray | None]:
    decay = -rng.uniform(0.1, 1, (1, time, 4)) if "gated" in rule else None
    beta = rng.uniform(0.2, 0.8, (1, time, 2)) if "delta" in rule else None
    return [_normal(1, time, 8), _normal(1, time, 4), _normal(1, time, 6), _normal(1, 2, 2, 3), decay, beta]


@pytest.mark.parametrize("rule", RULES)
def test_linear_attention_is_its_recurrence(rule: str) -> None:
    q, k, v, state, decay, beta = _linear_inputs(rule)
    options = {"update_rule": rule, "q_num_heads": 4, "kv_num_heads": 2, "opset": 27, "outputs": 2}
    y, end = run("LinearAttention", q, k, v, state, decay, beta, **options)
    state = state[0].copy()
    for t in range(3):
        for h in range(2):
            if decay is not None:
                state[h] *= np.exp(decay[0, t].reshape(2, 2)[h])[:, None]
            key, value = k[0, t].reshape(2, 2)[h], v[0, t].reshape(2, 3)[h]
            if beta is not None:
                value = beta[0, t, h] * (value - state[h].T @ key)
            state[h] += np.outer(key, value)
            for g in range(2):
                query = q[0, t].reshape(4, 2)[2 * h + g]
                expected = query @ state[h] / np.sqrt(2)
                np.testing.assert_allclose(y[0, t].reshape(4, 3)[2 * h + g], expected, rtol=1e-10)
    np.testing.assert_allclose(end[0], state, rtol=1e-10)


@pytest.mark.parametrize("rule", RULES)
def test_linear_attention_differentiates(rule: str) -> None:
    options = {"update_rule": rule, "q_num_heads": 4, "kv_num_heads": 2, "opset": 27, "outputs": 2}
    check_op("LinearAttention", *_linear_inputs(rule, 2), **options)


def test_attention_over_no_keys_at_all_is_zero() -> None:
    y = run("Attention", _normal(1, 1, 2, 2), np.zeros((1, 1, 0, 2)), np.zeros((1, 1, 0, 3)))
    np.testing.assert_array_equal(y, np.zeros((1, 1, 2, 3)))
