"""Recurrent layers against a plain loop over time, and derivatives through the scan."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import pytest

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_op, one_node, run

rng = np.random.default_rng(3)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STATES = {"RNN": 1, "GRU": 1, "LSTM": 2}
TIME, BATCH, WIDTH, HIDDEN = 4, 2, 3, 2


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _inputs(op: str, directions: int = 1) -> dict[str, np.ndarray]:
    gates = GATES[op] * HIDDEN
    values = {
        "x": rng.standard_normal((TIME, BATCH, WIDTH)),
        "w": rng.standard_normal((directions, gates, WIDTH)),
        "r": rng.standard_normal((directions, gates, HIDDEN)),
        "b": rng.standard_normal((directions, 2 * gates)),
        "h": rng.standard_normal((directions, BATCH, HIDDEN)),
    }
    if op == "LSTM":
        values["c"] = rng.standard_normal((directions, BATCH, HIDDEN))
        values["p"] = rng.standard_normal((directions, 3 * HIDDEN))
    return values


def _arguments(values: dict[str, np.ndarray], lengths: np.ndarray | None = None) -> list[np.ndarray | None]:
    first = [values["x"], values["w"], values["r"], values["b"], lengths, values["h"]]
    return [*first, values["c"], values["p"]] if "c" in values else first


def _rnn_step(
    v: dict[str, np.ndarray], x: np.ndarray, state: list[np.ndarray], f: Callable = np.tanh
) -> list[np.ndarray]:
    wb, rb = np.split(v["b"][0], 2)
    return [f(x @ v["w"][0].T + state[0] @ v["r"][0].T + wb + rb)]


def _gru_step(v: dict[str, np.ndarray], x: np.ndarray, state: list[np.ndarray], after: bool = False) -> list:
    (h,) = state
    wz, wr, wh = np.split(v["w"][0], 3)
    rz, rr, rh = np.split(v["r"][0], 3)
    bz, br, bh, cz, cr, ch = np.split(v["b"][0], 6)
    z, r = _sigmoid(x @ wz.T + h @ rz.T + bz + cz), _sigmoid(x @ wr.T + h @ rr.T + br + cr)
    past = r * (h @ rh.T + ch) if after else (r * h) @ rh.T + ch
    return [(1 - z) * np.tanh(x @ wh.T + bh + past) + z * h]


def _lstm_step(v: dict[str, np.ndarray], x: np.ndarray, state: list[np.ndarray]) -> list[np.ndarray]:
    h, c = state
    wb, rb = np.split(v["b"][0], 2)
    i, o, f, g = np.split(x @ v["w"][0].T + h @ v["r"][0].T + wb + rb, 4, axis=1)
    pi, po, pf = np.split(v["p"][0], 3)
    c = _sigmoid(f + pf * c) * c + _sigmoid(i + pi * c) * np.tanh(g)
    return [_sigmoid(o + po * c) * np.tanh(c), c]


STEPS: dict[str, Callable] = {"RNN": _rnn_step, "GRU": _gru_step, "LSTM": _lstm_step}


def _loop(
    values: dict[str, np.ndarray], step: Callable, lengths: np.ndarray, backwards: bool
) -> list[np.ndarray]:
    """Outputs over time and final states, one sequence at a time up to its own length."""
    names = ["h", "c"] if "c" in values else ["h"]
    y = np.zeros((TIME, 1, BATCH, HIDDEN))
    finals = [values[name].copy() for name in names]
    for b in range(BATCH):
        state = [values[name][0, b : b + 1] for name in names]
        order = range(lengths[b])
        for t in reversed(order) if backwards else order:
            state = step(values, values["x"][t, b : b + 1], state)
            y[t, 0, b] = state[0]
        for final, part in zip(finals, state, strict=True):
            final[0, b] = part
    return [y, *finals]


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("lengths", [[4, 4], [2, 3], [0, 4]])
@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_a_layer_is_a_loop_over_each_sequence_up_to_its_length(
    op: str, lengths: list, direction: str
) -> None:
    values, given = _inputs(op), np.array(lengths, np.int32)
    outputs = run(
        op, *_arguments(values, given), outputs=1 + STATES[op], hidden_size=HIDDEN, direction=direction
    )
    expected = _loop(values, STEPS[op], given, direction == "reverse")
    for actual, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-14)


def test_gru_applies_the_reset_gate_after_the_product_when_asked() -> None:
    values = _inputs("GRU")
    y, _ = run("GRU", *_arguments(values), outputs=2, hidden_size=HIDDEN, linear_before_reset=1)
    expected = _loop(values, partial(_gru_step, after=True), np.full(BATCH, TIME), False)
    np.testing.assert_allclose(y, expected[0], rtol=1e-12)


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_bidirectional_is_both_directions_side_by_side_in_either_layout(op: str) -> None:
    values, count = _inputs(op, 2), 1 + STATES[op]
    both = run(op, *_arguments(values), outputs=count, hidden_size=HIDDEN, direction="bidirectional")
    for index, direction in enumerate(("forward", "reverse")):
        half = {key: item if key == "x" else item[index : index + 1] for key, item in values.items()}
        single = run(op, *_arguments(half), outputs=count, hidden_size=HIDDEN, direction=direction)
        np.testing.assert_allclose(both[0][:, index], single[0][:, 0])
        np.testing.assert_allclose(both[1][index], single[1][0])
    turned = {key: np.swapaxes(item, 0, 1) if key in "xhc" else item for key, item in values.items()}
    batch_first = run(
        op, *_arguments(turned), outputs=count, hidden_size=HIDDEN, direction="bidirectional", layout=1
    )
    np.testing.assert_allclose(batch_first[0], np.moveaxis(both[0], 2, 0))
    for actual, wanted in zip(batch_first[1:], both[1:], strict=True):
        np.testing.assert_allclose(actual, np.swapaxes(wanted, 0, 1))


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_layers_differentiate_in_every_input(op: str) -> None:
    values = _inputs(op, 2)
    lengths = np.array([2, 4], np.int32)
    check_op(
        op,
        *_arguments(values, lengths),
        outputs=1 + STATES[op],
        hidden_size=HIDDEN,
        direction="bidirectional",
    )


def test_an_lstm_has_second_derivatives() -> None:
    values = _inputs("LSTM")
    check_op("LSTM", *_arguments(values), wrt=[0], hidden_size=HIDDEN, check={"order": 2, "step": 1e-3})


def test_clip_bounds_what_enters_the_activation() -> None:
    values = _inputs("RNN")
    y, _ = run("RNN", *_arguments(values), outputs=2, hidden_size=HIDDEN, activations=["Affine"], clip=0.25)
    assert np.abs(y).max() == 0.25


ACTIVATIONS = {
    "Relu": ([], [], lambda x: np.maximum(x, 0)),
    "LeakyRelu": ([0.5], [], lambda x: np.where(x > 0, x, 0.5 * x)),
    "ThresholdedRelu": ([0.25], [], lambda x: np.where(x > 0.25, x, 0)),
    "ScaledTanh": ([0.5], [2.0], lambda x: 0.5 * np.tanh(2 * x)),
    "HardSigmoid": ([0.25], [0.5], lambda x: np.clip(0.25 * x + 0.5, 0, 1)),
    "Elu": ([0.5], [], lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
    "Softsign": ([], [], lambda x: x / (1 + np.abs(x))),
    "Softplus": ([], [], lambda x: np.log1p(np.exp(x))),
    "Affine": ([2.0], [0.5], lambda x: 2 * x + 0.5),
    "sigmoid": ([], [], _sigmoid),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_the_operator_lists_is_there(name: str) -> None:
    alpha, beta, function = ACTIVATIONS[name]
    values = _inputs("RNN")
    parameters = {"activation_alpha": alpha, "activation_beta": beta}
    y, _ = run(
        "RNN",
        *_arguments(values),
        outputs=2,
        hidden_size=HIDDEN,
        activations=[name],
        **{key: item for key, item in parameters.items() if item},
    )
    expected = _loop(values, partial(_rnn_step, f=function), np.full(BATCH, TIME), False)[0]
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)


def test_parameters_are_consumed_only_by_activations_that_have_them() -> None:
    values = _inputs("RNN", 2)
    y, _ = run(
        "RNN",
        *_arguments(values),
        outputs=2,
        hidden_size=HIDDEN,
        direction="bidirectional",
        activations=["Tanh", "LeakyRelu"],
        activation_alpha=[0.5],
    )
    half = {key: item if key == "x" else item[1:] for key, item in values.items()}
    single, _ = run(
        "RNN",
        *_arguments(half),
        outputs=2,
        hidden_size=HIDDEN,
        direction="reverse",
        activations=["LeakyRelu"],
        activation_alpha=[0.5],
    )
    np.testing.assert_allclose(y[:, 1], single[:, 0])


def test_an_unknown_activation_is_refused_by_name() -> None:
    with pytest.raises(InvalidGraph, match="'Swoosh'"):
        run("RNN", *_arguments(_inputs("RNN")), hidden_size=HIDDEN, activations=["Swoosh"])


@pytest.mark.parametrize(("second", "loops"), [("Tanh", 1), ("LeakyRelu", 2)])
def test_directions_with_the_same_activations_are_one_loop(second: str, loops: int) -> None:
    values = _arguments(_inputs("RNN", 2), np.array([4, 2], np.int32))
    options = {"hidden_size": HIDDEN, "direction": "bidirectional", "activations": ["Tanh", second]}
    model = one_node("RNN", *values, outputs=2, **options)
    given = {f"x{place}": item for place, item in enumerate(values) if item is not None}
    jaxpr = jax.make_jaxpr(lambda x: evaluate(model, {**given, "x0": x}))(values[0]).jaxpr
    assert sum(equation.primitive.name == "scan" for equation in jaxpr.eqns) == loops
