"""Modules and functions that draw random numbers from a seed, against PyTorch after `torch.manual_seed`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradwire as gw
import gradwire.torch as remote
from gradwire.frontends.torch.export import convert
from tests.client.frontends.numpy.oracle import by_engine

f64 = torch.float64
SEED = 7
X = np.random.default_rng(0).standard_normal((4, 5))


def attention(x: torch.Tensor) -> torch.Tensor:
    q = x[None]
    return nn.functional.scaled_dot_product_attention(q, q, q, dropout_p=0.5)


DRAWING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "dropout": nn.Dropout(0.3),
    "in place": nn.Dropout(0.3, inplace=True),
    "two of them": nn.Sequential(nn.Dropout(0.5), nn.Tanh(), nn.Dropout(0.2)),
    "channels": nn.Dropout1d(0.5),
    "alpha": nn.AlphaDropout(0.3),
    "attention": attention,
    "noise": lambda x: x + torch.randn_like(x) * torch.rand(5, dtype=f64),
    "normal": lambda x: x * torch.normal(0.0, 1.0, (5,), dtype=f64),
    "bernoulli": lambda x: x * torch.bernoulli(torch.full((5,), 0.5, dtype=f64)),
    "permuted": lambda x: x[torch.randperm(4)],
    "chosen": lambda x: x[torch.multinomial(torch.ones(4), 2)],
    "uniform in place": lambda x: x * torch.empty(5, dtype=f64).uniform_(),
    "transposed": lambda x: x[:, :4] * torch.empty(4, 4, dtype=f64).t().bernoulli_(0.5),
    "gumbel": nn.functional.gumbel_softmax,
    "sampled": lambda x: torch.distributions.Normal(x, 1.0).rsample(),
}


@pytest.mark.parametrize("name", DRAWING)
def test_what_is_drawn_is_what_torch_draws_after_the_seed(name: str) -> None:
    fn = DRAWING[name]
    before = torch.default_generator.get_state()
    bound = convert(fn, [gw.spec((4, 5))], None, SEED)
    assert torch.equal(before, torch.default_generator.get_state())
    torch.manual_seed(SEED)
    expected = fn(torch.tensor(X)).numpy()
    model = bound.embedded()
    found, *_ = by_engine(model, {model.graph.input[0].name: X})
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert bound.reference is not None
    np.testing.assert_array_equal(bound.reference.values([X])[0], expected)


def test_another_seed_draws_other_numbers() -> None:
    first, again, second = (convert(nn.Dropout(0.5), [gw.spec(64)], None, seed).proto for seed in (1, 1, 2))
    assert first == again != second


def test_a_distribution_that_depends_on_arguments_is_refused() -> None:
    with pytest.raises(gw.TraceError, match=r"aten\.bernoulli, which draws random numbers"):
        convert(lambda x: x * torch.bernoulli(torch.sigmoid(x)), [gw.spec(3)], None, SEED)


def test_without_a_seed_the_refusal_names_it() -> None:
    with pytest.raises(gw.TraceError, match="seed="):
        convert(nn.Dropout(0.5), [gw.spec(3)], None)


@pytest.mark.usefixtures("client")
def test_derivatives_are_those_of_the_same_mask() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 8, dtype=f64), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1, dtype=f64))
    f = remote.function(module, gw.spec((4, 5)), params=True, seed=SEED)
    weights = dict(module.named_parameters())
    arrays: dict[str, Any] = {f.signature.inputs[0].name: X}
    arrays |= {name: value.detach().numpy() for name, value in weights.items()}
    found = f.jacobian(arrays, wrt="0.weight")

    def by_weight(weight: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(SEED)
        y: torch.Tensor = torch.func.functional_call(module, {**weights, "0.weight": weight}, torch.tensor(X))
        return y

    expected = torch.autograd.functional.jacobian(by_weight, weights["0.weight"])
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-11, atol=1e-13)
    assert (found == 0).any() and (found != 0).any()
