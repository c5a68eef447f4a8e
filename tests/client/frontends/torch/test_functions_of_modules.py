"""Modules as functions of the client, with their parameters as inputs, compiled or not."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

import gradwire as gw
import gradwire.torch as remote

if TYPE_CHECKING:
    from gradwire_server.process.embedded import Handle

f64 = torch.float64


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4, dtype=f64), nn.Tanh(), nn.Linear(4, 1, dtype=f64))


@pytest.mark.usefixtures("client")
def test_parameters_are_inputs_by_name() -> None:
    module, x = model(), torch.rand(2, 3, dtype=f64)
    f = remote.function(module, gw.spec((2, 3)), params=True)
    names = [name for name, _ in module.named_parameters()]
    assert [value.name for value in f.signature.inputs][1:] == names
    arrays = {f.signature.inputs[0].name: x.numpy()}
    arrays |= {name: value.detach().numpy() for name, value in module.named_parameters()}
    found = f.jacobian(arrays, wrt="0.weight")
    weights = dict(module.named_parameters())

    def by_weight(weight: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.func.functional_call(module, {**weights, "0.weight": weight}, (x,))
        return y

    expected = torch.func.jacrev(by_weight)(weights["0.weight"])
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-11)


@pytest.mark.usefixtures("client")
def test_without_params_they_are_constants_and_functions_have_none() -> None:
    f = remote.function(model(), gw.spec((2, 3)))
    assert len(f.signature.inputs) == 1
    with pytest.raises(gw.TraceError, match="modules"):
        remote.function(torch.sin, gw.spec(3), params=True)


@pytest.mark.usefixtures("client")
def test_a_full_backward_hook_is_refused_by_name() -> None:
    module = model()
    module[0].register_full_backward_hook(lambda module, given, made: None)
    with pytest.raises(gw.TraceError, match="full backward hook"):
        remote.remote(module)(torch.rand(2, 3, dtype=f64, requires_grad=True))


@pytest.mark.usefixtures("client")
def test_a_rule_that_fails_names_its_operator() -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x[None], 2, ceil_mode=True, divisor_override=3)

    with pytest.raises(gw.TraceError, match=r"aten\.avg_pool2d with divisor_override"):
        remote.remote(fn)(torch.rand(1, 5, 5, dtype=f64))


PROGRAM = """
import sys, torch, gradwire as gw, gradwire.torch as gt
with gw.connect(sys.argv[1]) as client, gt.use(client):
    module = torch.nn.Linear(3, 2, dtype=torch.float64)
    x = torch.rand(3, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(module, x)
    for one in (torch.compile(module), torch.compile(lambda x: module(x))):
        torch.testing.assert_close(gt.jacobian(one, x), expected)
        torch.testing.assert_close(gt.remote(one)(x), module(x))
    f = client.function(torch.compile(module), gw.spec(3))
    torch.testing.assert_close(torch.from_numpy(f(x.numpy())), module(x).detach())
    inner = torch.nn.Sequential(torch.compile(module), torch.nn.Tanh())
    torch.testing.assert_close(gt.remote(inner)(x), module(x).tanh())
    far = gt.remote(module)
    around = torch.compile(lambda x: far(x * 2) + 1, backend="eager")
    torch.testing.assert_close(around(x), module(x * 2) + 1)
print("done")
"""


def test_compiled_modules_are_unwrapped_and_remote_ones_left_alone(server: Handle) -> None:
    """In a process of its own: the compiler is imported."""
    run = [sys.executable, "-c", PROGRAM, server.address]
    result = subprocess.run(run, capture_output=True, text=True, timeout=180, check=False)
    assert result.stdout.strip() == "done", result.stderr


@pytest.mark.usefixtures("client")
def test_per_sample_derivatives_are_those_of_torch() -> None:
    module, x = model(), torch.rand(5, 3, dtype=f64)
    f = remote.function(module, gw.spec(3), params=True)
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    arrays = {name: value.numpy() for name, value in parameters.items()}
    found = f.jacobian({"input": x.numpy(), **arrays}, batched="input")

    def one(values: dict[str, torch.Tensor], sample: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, values, (sample,))

    by_parameters, by_sample = torch.func.vmap(torch.func.jacrev(one, (0, 1)), (None, 0))(parameters, x)
    expected = [by_sample, *by_parameters.values()]
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-12)
