"""Recurrent layers are one operator each, with the values and derivatives that PyTorch gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import gradwire as gw
from gradwire.frontends.torch.capture import tensor_spec
from gradwire.frontends.torch.export import export
from tests.client.frontends.torch.torch_oracle import agree, exported

f64 = torch.float64
NODES = {"LSTM", "GRU", "RNN"}


def points(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=f64, generator=torch.Generator().manual_seed(sum(shape)))


def layers_of(fn: Callable[..., Any], *tensors: torch.Tensor) -> list[str]:
    nodes = exported(fn, *tensors).model.graph.node
    return [node.op_type for node in nodes if node.op_type in NODES]


KINDS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "LSTM": (nn.LSTM, {}),
    "GRU": (nn.GRU, {}),
    "RNN": (nn.RNN, {}),
    "RNN with relu": (nn.RNN, {"nonlinearity": "relu"}),
}
OPTIONS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "plain": ({}, (4, 2, 3)),
    "two layers in both directions": ({"num_layers": 2, "bidirectional": True}, (3, 2, 3)),
    "without bias": ({"bias": False}, (3, 2, 3)),
    "batch first": ({"batch_first": True, "bidirectional": True}, (2, 3, 3)),
    "without a batch": ({"num_layers": 2}, (3, 3)),
    "one step": ({"bidirectional": True}, (1, 1, 3)),
}


SEEN = [
    *(("LSTM", options) for options in OPTIONS),
    ("GRU", "two layers in both directions"),
    ("GRU", "without bias"),
    ("RNN", "batch first"),
    ("RNN", "without bias"),
    ("RNN with relu", "two layers in both directions"),
]


@pytest.mark.parametrize(("kind", "options"), SEEN)
def test_a_recurrent_module_is_a_node_a_layer_and_agrees_with_pytorch(kind: str, options: str) -> None:
    make, own = KINDS[kind]
    chosen, shape = OPTIONS[options]
    torch.manual_seed(3)
    module = make(3, 4, dtype=f64, **own, **chosen)
    assert layers_of(module, points(*shape)) == [kind.partition(" ")[0]] * chosen.get("num_layers", 1)
    agree(module, points(*shape))


@pytest.mark.parametrize("kind", KINDS)
def test_initial_states_and_weights_have_derivatives(kind: str) -> None:
    make, own = KINDS[kind]
    torch.manual_seed(4)
    module = make(3, 2, bidirectional=True, dtype=f64, **own)
    weights = dict(module.named_parameters())

    def fn(x: torch.Tensor, h: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> Any:
        given = {**weights, "weight_hh_l0": w, "bias_hh_l0_reverse": b}
        states = (h, h.sin()) if kind == "LSTM" else h
        return torch.func.functional_call(module, given, (x, states))

    tensors = points(3, 2, 3), points(2, 2, 2), module.weight_hh_l0.detach(), module.bias_hh_l0.detach()
    assert len(layers_of(fn, *tensors)) == 1
    agree(fn, *tensors)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_single_precision_stays_single(kind: str) -> None:
    torch.manual_seed(5)
    module = KINDS[kind][0](3, 4)
    assert layers_of(module, points(3, 2, 3).float()) == [kind]
    agree(module, points(3, 2, 3).float(), rtol=2e-5)


torch.manual_seed(6)
LSTM = nn.LSTM(3, 2, dtype=f64)
GRU = nn.GRU(3, 2, dtype=f64)
PROJECTED = nn.LSTM(3, 4, proj_size=2, dtype=f64)
DROPPING = nn.LSTM(3, 2, num_layers=2, dropout=0.5, dtype=f64)


def packed(x: torch.Tensor) -> Any:
    y, (h, c) = LSTM(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2])))
    return nn.utils.rnn.pad_packed_sequence(y)[0], h, c


def slope_inside(x: torch.Tensor) -> Any:
    x = x if x.requires_grad else x.detach().requires_grad_()
    return torch.autograd.grad(GRU(x)[0].sin().sum(), x, create_graph=True)[0]


@pytest.mark.parametrize(
    "fn",
    [
        packed,
        PROJECTED,
        slope_inside,
        lambda x: torch.func.grad(lambda x: LSTM(x)[0].sum())(x),
    ],
    ids=["packed", "projected", "autograd inside", "func.grad inside"],
)
def test_what_one_operator_cannot_stand_for_is_recorded_step_by_step(fn: Callable[..., Any]) -> None:
    assert not layers_of(fn, points(3, 2, 3))
    agree(fn, points(3, 2, 3), rtol=1e-11, second=False)


def changed_afterwards(x: torch.Tensor) -> Any:
    y, (h, c) = LSTM(x)
    seen = y[0]
    y[0] *= 2
    h.add_(c)
    return y, seen * 3, h, c


def without_gradients(x: torch.Tensor) -> Any:
    with torch.no_grad():
        y = GRU(x)[0]
    return y * x.sum() + GRU(x.detach() + x.sin())[1]


@pytest.mark.parametrize("fn", [changed_afterwards, without_gradients])
def test_results_may_be_changed_and_have_no_gradient(fn: Callable[..., Any]) -> None:
    assert layers_of(fn, points(3, 2, 3))
    agree(fn, points(3, 2, 3))


def test_a_recording_at_a_point_is_the_same() -> None:
    x = points(3, 2, 3)
    without = export(LSTM, [tensor_spec(x)], ["x"])
    found = export(LSTM, [tensor_spec(x)], ["x"], point=[x.clone().requires_grad_()])
    assert found.model.SerializeToString() == without.model.SerializeToString()


def test_dropout_between_layers_is_refused_in_training_and_off_in_evaluation() -> None:
    with pytest.raises(gw.TraceError, match="random"):
        export(DROPPING.train(), [tensor_spec(points(3, 2, 3))])
    assert layers_of(DROPPING.eval(), points(3, 2, 3)) == ["LSTM", "LSTM"]
    agree(DROPPING, points(3, 2, 3))
