"""A call changes what one call of the function changes, recording without a point changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import gradwire as gw
import gradwire.torch as remote
from gradwire.frontends.torch.capture import capture, tensor_spec

pytestmark = pytest.mark.usefixtures("client")

f64 = torch.float64


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.2 + torch.rand(shape, dtype=f64, generator=torch.Generator().manual_seed(seed))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRUCell(3, 3, dtype=f64)
        self.norm = nn.BatchNorm1d(3, dtype=f64)
        self.h = torch.zeros(1, 3, dtype=f64)
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))
        self.seen: list[torch.Tensor] = []
        self.table: dict[str, Any] = {}
        self.total = uniform(3)
        self.register_forward_hook(lambda module, inputs, output: self.seen.append(output))


class Recurrent(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.h = self.cell(x, self.h)
        return self.h * 2


class Collecting(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.cell(x)
        self.table["last"] = y
        self.table.setdefault("all", []).append(x)
        return torch.tanh(y)


class Accumulating(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total += x.detach()[0]
        self.total.data[1] = 5.0
        assert isinstance(self.count, torch.Tensor)
        self.count += 1
        y: torch.Tensor = self.norm(torch.cat([x, x * 2])) + self.total
        return y


class Flat(Layer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        v = parameters_to_vector(self.cell.parameters()) * 0.5
        vector_to_parameters(v, self.cell.parameters())
        y: torch.Tensor = self.cell(x)
        return y


CASES = (Recurrent, Collecting, Accumulating, Flat)


def state(item: Any) -> Any:
    """What can be seen of an object: numbers, and which tensors have a gradient."""
    if isinstance(item, torch.Tensor):
        assert type(item) in (torch.Tensor, nn.Parameter)
        assert item.device.type == "cpu"
        return "tensor", item.detach().numpy().round(12).tolist(), item.requires_grad
    if isinstance(item, dict):
        return {key: state(value) for key, value in item.items() if key != "_forward_hooks"}
    if isinstance(item, list | tuple):
        return [state(one) for one in item]
    return state(vars(item)) if isinstance(item, nn.Module) else item if isinstance(item, str) else None


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("face", ["remote", "jacobian"])
def test_calls_leave_the_callers_objects_as_calls_of_the_function_do(kind: type[Layer], face: str) -> None:
    here, there = kind(), kind()
    far = remote.remote(there)
    for seed in range(3):
        x = uniform(1, 3, seed=seed)
        if face == "remote":
            expected, found = here(x), far(x)
        else:
            expected = torch.autograd.functional.jacobian(here, x)
            found = remote.jacobian(there, x)
        torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-10, atol=1e-12)
        assert state(there) == state(here)


@pytest.mark.parametrize("kind", CASES)
def test_recording_without_a_point_leaves_the_callers_objects_as_they_were(kind: type[Layer]) -> None:
    module = kind()
    before, held = state(module), [id(one) for one in module.parameters()]
    capture(module, [tensor_spec(uniform(1, 3))])
    assert state(module) == before
    assert [id(one) for one in module.parameters()] == held


def test_a_converted_module_computes_what_it_computes_and_stays_as_it_was(client: gw.Client) -> None:
    module = Accumulating().eval()
    x, before = uniform(1, 3), state(module)
    f = client.function(module, gw.spec((1, 3)))
    assert state(module) == before
    np.testing.assert_allclose(f(x.numpy()), Accumulating().eval()(x).detach().numpy(), rtol=1e-12)
    assert state(module) == before


def appended(kept: list[torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    def fn(x: torch.Tensor) -> torch.Tensor:
        kept.append(x * 2)
        return x.exp()

    return fn


def test_a_list_that_a_function_appends_to_grows_with_every_call() -> None:
    kept: list[torch.Tensor] = []
    f = remote.remote(appended(kept))
    for seed in range(3):
        f(uniform(2, seed=seed))
    torch.testing.assert_close(torch.stack(kept), torch.stack([uniform(2, seed=s) * 2 for s in range(3)]))


def test_an_argument_that_is_changed_in_place_is_changed_once_in_every_call() -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.mul_(2).add_(y)
        return x * y

    f = remote.remote(fn)
    x, y = uniform(3), uniform(3, seed=1)
    expected = x.clone()
    for _ in range(3):
        torch.testing.assert_close(f(x, y), fn(expected, y), rtol=1e-12, atol=0)
        torch.testing.assert_close(x, expected, rtol=1e-12, atol=0)


def test_a_refusal_leaves_the_callers_objects_as_they_were() -> None:
    module = Recurrent()
    kept: list[torch.Tensor] = []
    total = uniform(3)

    def fn(x: torch.Tensor) -> torch.Tensor:
        kept.append(module(x))
        total.add_(1)
        with torch.no_grad():
            x.mul_(2)
        return x if x.sum() > 0 else -x

    before = state(module), total.clone()
    x = uniform(1, 3)
    for face in (remote.jacobian, lambda fn, x: remote.remote(fn)(x)):
        with pytest.raises(gw.TraceError, match=r"torch\.where"):
            face(fn, x)
    assert torch.equal(x, uniform(1, 3))
    assert not kept
    assert state(module) == before[0]
    assert torch.equal(total, before[1])


def test_a_write_to_memory_that_another_tensor_shares_is_refused() -> None:
    w = uniform(4)
    half = w[:2]

    def fn(x: torch.Tensor) -> torch.Tensor:
        w.mul_(2)
        return x * half

    with pytest.raises(gw.TraceError, match="shares"):
        remote.remote(fn)(uniform(2))
    assert torch.equal(w, uniform(4))


def test_values_are_printed_and_not_made_part_of_the_graph(capsys: pytest.CaptureFixture[str]) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        print(x, f"{x.sum():.3f}")
        return x * 2

    remote.remote(fn)(torch.ones(2, dtype=f64))
    assert capsys.readouterr().out == "tensor([1., 1.], dtype=torch.float64) 2.000\n"
