"""Batches of gradients through remote functions, and functions on the service inside torch graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import gradwire as gw
import gradwire.torch
from gradwire.frontends.torch.autograd import Evaluation

pytestmark = pytest.mark.usefixtures("client")

A = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
EYE = torch.eye(4, dtype=torch.float64)


def wave(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(A @ x)


def point() -> torch.Tensor:
    return torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)


def test_a_batch_of_gradients_is_the_jacobian_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[bool, ...]] = []
    forward = Evaluation.forward

    def counted(program: Any, batched: tuple[bool, ...], *tensors: torch.Tensor) -> Any:
        calls.append(batched)
        return forward(program, batched, *tensors)

    monkeypatch.setattr(Evaluation, "forward", staticmethod(counted))
    x = point()
    (rows,) = torch.autograd.grad(gradwire.torch.remote(wave)(x), x, EYE, is_grads_batched=True)
    close(rows, torch.autograd.functional.jacobian(wave, x))
    assert calls == [(), (False, False, True)]  # x, and A, which it closes over, are shared


def test_a_batch_of_gradients_can_be_differentiated_again() -> None:
    def second(fn: Callable[..., Any]) -> Any:
        x = point()
        (rows,) = torch.autograd.grad(fn(x), x, EYE, is_grads_batched=True, create_graph=True)
        return torch.autograd.grad((rows**2).sum(), x)

    close(second(gradwire.torch.remote(wave)), second(wave))


def test_local_operations_around_a_remote_function_are_in_the_batch_too() -> None:
    def rows(fn: Callable[..., Any]) -> Any:
        x, scale = point(), torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        y = torch.exp(fn(scale * x**2))
        return torch.autograd.grad(y, (x, scale), EYE, is_grads_batched=True)

    close(rows(gradwire.torch.remote(wave)), rows(wave))


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
def test_torchs_own_vectorized_derivatives_work_on_a_remote_function(strategy: str) -> None:
    total = gradwire.torch.remote(lambda x: wave(x).sum())
    x = point().detach()
    jacobian = torch.autograd.functional.jacobian
    close(
        jacobian(gradwire.torch.remote(wave), x, vectorize=True, strategy=strategy),
        torch.autograd.functional.jacobian(wave, x),
    )
    hessian = torch.autograd.functional.hessian(total, x, vectorize=True, outer_jacobian_strategy=strategy)
    close(hessian, torch.autograd.functional.hessian(lambda x: wave(x).sum(), x))


def test_a_batch_of_gradients_within_another_is_refused() -> None:
    f, x = gradwire.torch.remote(wave), point()
    y = f(x)

    def inner(_: torch.Tensor) -> None:
        with torch.enable_grad():
            torch.autograd.grad(f(x), x, EYE, is_grads_batched=True)

    y.register_hook(inner)
    with pytest.raises(RuntimeError, match="a batch of gradients within another"):
        torch.autograd.grad(y, x, EYE, is_grads_batched=True)


def test_an_onnx_model_is_a_differentiable_operation(client: gw.Client) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    layer (double[N] x, int64[M] places) => (double[M] y, int64[M] next) {
        s = Sin(x)
        y = Gather(s, places)
        one = Constant<value_int = 1>()
        next = Add(places, one)
    }"""
    layer = gradwire.torch.remote(client.function(text))
    x, places = point(), torch.tensor([2, 0])
    y, following = layer(x, places)
    assert not following.requires_grad and following.tolist() == [3, 1]
    (y**2).sum().backward()
    expected = torch.tensor([1.0, 0.0, 1.0]) * torch.sin(2 * x.detach())
    close(x.grad, expected)
    assert torch.autograd.gradcheck(lambda x: layer(x, places)[0], (x,))
    assert torch.autograd.gradgradcheck(lambda x: layer(x, places)[0], (x,))


def test_a_numpy_function_takes_narrower_tensors_and_gives_their_gradients_back(client: gw.Client) -> None:
    cube = gradwire.torch.remote(client.function(lambda x: x**3, gw.spec(2)))
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = cube(x)
    y.sum().backward()
    assert (y.dtype, x.grad.dtype) == (torch.float64, torch.float32)
    np.testing.assert_allclose(x.grad, [3, 12])


def test_tensors_that_do_not_fit_a_function_on_the_service_are_refused(client: gw.Client) -> None:
    pick = gradwire.torch.remote(client.function(lambda i: i + 1, gw.spec(2, np.int64)))
    with pytest.raises(gw.InvalidArgumentError, match=r"i: int64\[2\] cannot be given as torch.float32"):
        pick(torch.ones(2))
    with pytest.raises(gw.InvalidArgumentError, match=r"takes 1 tensors \(i: int64\[2\]\), not 2"):
        pick(torch.ones(2), torch.ones(2))
