"""No recording is used again once something has changed that the function reads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradwire.torch as remote
from gradwire.frontends.torch.fingerprint import Fingerprint

pytestmark = pytest.mark.usefixtures("client")

f64 = torch.float64
X = torch.arange(1.0, 4.0, dtype=f64)

Step = Callable[[int], None]
"""Makes the n-th change."""


def notebook(source: str) -> ModuleType:
    """A module whose cells can be run again."""
    module = ModuleType("notebook")
    vars(module)["torch"] = torch
    vars(module)["nn"] = nn
    exec(source, vars(module))
    return module


def class_attribute() -> tuple[Callable[..., Any], Step]:
    class Net(nn.Module):
        scale = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    return Net(), lambda n: setattr(Net, "scale", float(n))


def inherited_class_attribute() -> tuple[Callable[..., Any], Step]:
    class Base:
        scale = 1.0

    class Net(Base):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    return Net(), lambda n: setattr(Base, "scale", float(n))


def replaced_forward() -> tuple[Callable[..., Any], Step]:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    def step(n: int) -> None:
        Net.forward = lambda self, x: x * n  # type: ignore[method-assign,assignment]

    return Net(), step


def forward_of_a_library() -> tuple[Callable[..., Any], Step]:
    class Linear(nn.Linear):
        pass

    layer = nn.Sequential(Linear(3, 3, dtype=f64))

    def step(n: int) -> None:
        Linear.forward = lambda self, x: x * n  # type: ignore[method-assign,assignment]

    return layer, step


def redefined_helper() -> tuple[Callable[..., Any], Step]:
    cell = notebook("def helper(x):\n    return x\ndef fn(x):\n    return helper(x) + 1\n")
    return cell.fn, lambda n: exec(f"def helper(x):\n    return x * {n}\n", vars(cell))


def redefined_method() -> tuple[Callable[..., Any], Step]:
    cell = notebook(
        "class Net(nn.Module):\n    def part(self, x):\n        return x\n"
        "    def forward(self, x):\n        return self.part(x)\nnet = Net()\n"
    )
    return cell.net, lambda n: exec(f"def part(self, x):\n    return x * {n}\nNet.part = part\n", vars(cell))


def function_attribute() -> tuple[Callable[..., Any], Step]:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * getattr(fn, "scale", 0.0)

    return fn, lambda n: setattr(fn, "scale", float(n))


def global_read_by_call() -> tuple[Callable[..., Any], Step]:
    cell = notebook("k = 1.0\nclass F:\n    def __call__(self, x):\n        return x * k\nf = F()\n")
    return cell.f, lambda n: setattr(cell, "k", float(n))


def a_property() -> tuple[Callable[..., Any], Step]:
    held = SimpleNamespace(k=1.0)

    class F:
        @property
        def scale(self) -> float:
            return float(held.k)

        @staticmethod
        def twice(x: torch.Tensor) -> torch.Tensor:
            return x * held.k

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return self.twice(x) * self.scale

    return F(), lambda n: setattr(held, "k", float(n))


def slots() -> tuple[Callable[..., Any], Step]:
    class F:
        __slots__ = ("k",)

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            k: float = self.k
            return x * k

    f = F()
    f.k = 1.0
    return f, lambda n: setattr(f, "k", float(n))


def a_partial_under_vmap() -> tuple[Callable[..., Any], Step]:
    held = {"k": 1.0}

    def fn(held: dict[str, float], x: torch.Tensor) -> torch.Tensor:
        return x * held["k"]

    return torch.vmap(functools.partial(fn, held)), lambda n: held.update(k=float(n))


def a_closure_under_vmap_of_grad() -> tuple[Callable[..., Any], Step]:
    held = {"k": 1.0}
    fn = torch.vmap(torch.func.grad(lambda x: x**2 * held["k"]))
    return fn, lambda n: held.update(k=float(n))


def the_default_dtype() -> tuple[Callable[..., Any], Step]:
    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * (2.0 if torch.tensor(1.0).dtype == f64 else 3.0)

    return fn, lambda n: torch.set_default_dtype(f64 if n % 2 else torch.float32)


def integers_through_numpy() -> tuple[Callable[..., Any], Step]:
    places = np.array([0, 1, 2])
    index = torch.from_numpy(places)
    return lambda x: x[index], lambda n: places.__setitem__(0, n % 3)


def integers_through_data() -> tuple[Callable[..., Any], Step]:
    index = torch.tensor([0, 1, 2])
    return lambda x: x[index], lambda n: index.data.fill_(n % 3)


def an_array() -> tuple[Callable[..., Any], Step]:
    table = np.ones(3)
    return lambda x: x * torch.from_numpy(table), lambda n: table.__setitem__(0, n)


def a_large_array() -> tuple[Callable[..., Any], Step]:
    table = np.ones(20_000)
    return lambda x: x * float(table[-1]), lambda n: table.__setitem__(-1, n)


def a_mask_of_a_closed_over_tensor() -> tuple[Callable[..., Any], Step]:
    data = torch.tensor([1.0, -1.0, 1.0], dtype=f64)
    return lambda x: x[data > 0].sum() * x, lambda n: data.__setitem__(n % 3, -n)


def a_generator() -> tuple[Callable[..., Any], Step]:
    numbers = iter(range(100))
    return lambda x: x * next(numbers) * 0, lambda n: None


CASES = (
    class_attribute, inherited_class_attribute, replaced_forward, forward_of_a_library, redefined_helper,
    redefined_method, function_attribute, global_read_by_call, a_property, slots, a_partial_under_vmap,
    a_closure_under_vmap_of_grad, the_default_dtype, integers_through_numpy, integers_through_data, an_array,
    a_large_array, a_mask_of_a_closed_over_tensor, a_generator,
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_change_of_what_is_read_is_seen(case: Callable[[], tuple[Callable[..., Any], Step]]) -> None:
    fn, step = case()
    dtype = torch.get_default_dtype()
    try:
        far = remote.remote(fn)
        for n in (2, 2, 3, 4):
            step(n)
            torch.testing.assert_close(far(X), fn(X), rtol=1e-12, atol=1e-12)
            found, expected = remote.jacobian(fn, X), torch.autograd.functional.jacobian(fn, X)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    finally:
        torch.set_default_dtype(dtype)


def test_numbers_drawn_by_numpy_are_drawn_in_every_call() -> None:
    f = remote.remote(lambda x: x * np.random.uniform())
    np.random.seed(3)
    found = [f(X)[0].item() for _ in range(3)]
    np.random.seed(3)
    assert found == pytest.approx([np.random.uniform() for _ in range(3)], rel=1e-12)


def test_the_order_of_equal_arguments_does_not_matter() -> None:
    def fn(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a * 2 + b * 3

    f, y = remote.remote(fn), X * 2
    for a, b in ((X, X), (X, y), (y, X), (y, y)):
        torch.testing.assert_close(f(a, b), fn(a, b), rtol=1e-12, atol=0)


def test_an_argument_that_is_closed_over_too_is_no_argument_in_the_next_call() -> None:
    def fn(a: torch.Tensor) -> torch.Tensor:
        return a * 2 + X * 3

    f = remote.remote(fn)
    for a in (X, X * 2, X, X * 3):
        torch.testing.assert_close(f(a), fn(a), rtol=1e-12, atol=0)


LAYERS = (
    nn.LSTM(3, 2),
    nn.GRUCell(3, 2),
    nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)),
    nn.TransformerEncoderLayer(4, 2, 8),
    nn.MultiheadAttention(4, 2),
    nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
    nn.Embedding(3, 2),
    nn.Conv2d(1, 2, 3),
)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_layers_can_be_looked_into_so_that_they_are_recorded_once(layer: nn.Module) -> None:
    finder = Fingerprint()
    finder.visit(layer)
    assert finder.observable
    assert {id(one) for one in layer.parameters()} <= {id(one) for one in finder.tensors}
