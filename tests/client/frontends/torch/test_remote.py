"""Remote functions and modules inside a local autograd graph behave as local ones do."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gradwire as gw
import gradwire.torch as remote

pytestmark = pytest.mark.usefixtures("client")

f64 = torch.float64


def uniform(*shape: int, seed: int = 0, dtype: torch.dtype = f64) -> torch.Tensor:
    return 0.2 + torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def close(actual: torch.Tensor, expected: torch.Tensor, rtol: float = 1e-12) -> None:
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    torch.testing.assert_close(actual.detach(), expected.detach(), rtol=rtol, atol=rtol)


# The cases of a tutorial on gradients.


def test_backward_of_a_sum_gives_ones_and_accumulates_until_it_is_zeroed() -> None:
    w = uniform(2, 2).requires_grad_()
    total = remote.remote(lambda w: w.sum())
    for times in (1, 2, 3, 4):
        total(w).backward()
        assert w.grad is not None
        torch.testing.assert_close(w.grad, torch.full_like(w, times))
    assert w.grad is not None
    w.grad.zero_()
    total(w).backward()
    torch.testing.assert_close(w.grad, torch.ones_like(w))


def test_autograd_grad_does_not_touch_the_grad_attribute() -> None:
    w = uniform(2, 2).requires_grad_()
    total = remote.remote(lambda w: w.sum())
    (first,) = torch.autograd.grad(total(w), w)
    (second,) = torch.autograd.grad(total(w), w)
    torch.testing.assert_close(first, torch.ones_like(w))
    torch.testing.assert_close(second, torch.ones_like(w))
    assert w.grad is None


def test_one_hot_grad_outputs_assemble_the_jacobian_and_ones_sum_its_rows() -> None:
    w1, x = uniform(3, 2), uniform(2, seed=1).requires_grad_()
    y = remote.remote(lambda x: w1 @ x)(x)
    rows = [
        torch.autograd.grad(y, x, grad_outputs=one, retain_graph=True)[0] for one in torch.eye(3, dtype=f64)
    ]
    close(torch.stack(rows), w1)
    (summed,) = torch.autograd.grad(y, x, grad_outputs=torch.ones(3, dtype=f64))
    close(summed, w1.sum(0))


def test_a_graph_is_freed_unless_it_is_retained() -> None:
    x = uniform(3).requires_grad_()
    y = remote.remote(lambda x: x.exp().sum())(x)
    y.backward(retain_graph=True)
    y.backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_create_graph_gives_the_second_and_third_derivative() -> None:
    x = uniform(3).requires_grad_()
    y = remote.remote(lambda x: x.pow(4).sum())(x)
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), x)
    close(first, 4 * x**3)
    close(second, 12 * x**2)
    close(third, 24 * x)


# Checks by finite differences.


def several(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.linalg.solve(a, b).sin(), (a * a).sum() * b[0]


def test_gradcheck_and_gradgradcheck_pass_in_both_modes() -> None:
    a = (uniform(3, 3) + 2 * torch.eye(3, dtype=f64)).requires_grad_()
    b = uniform(3, seed=1).requires_grad_()
    fn = remote.remote(several)
    assert torch.autograd.gradcheck(fn, (a, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(fn, (a, b))


# torch.func.


def wave(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x.sin() * y).sum()


FUNC: dict[str, Callable[[Any], Any]] = {
    "grad": lambda f: torch.func.grad(f)(uniform(3), uniform(3, seed=1)),
    "grad of the second": lambda f: torch.func.grad(f, 1)(uniform(3), uniform(3, seed=1)),
    "jacrev": lambda f: torch.func.jacrev(lambda x: x * f(x, x))(uniform(3)),
    "jacfwd": lambda f: torch.func.jacfwd(lambda x: x * f(x, x))(uniform(3)),
    "hessian": lambda f: torch.func.hessian(f)(uniform(3), uniform(3, seed=1)),
    "jacrev of jacrev": lambda f: torch.func.jacrev(torch.func.jacrev(f))(uniform(3), uniform(3, seed=1)),
    "vmap": lambda f: torch.func.vmap(f)(uniform(4, 3), uniform(4, 3, seed=1)),
    "vmap over one": lambda f: torch.func.vmap(f, in_dims=(1, None))(uniform(3, 4), uniform(3, seed=1)),
    "vmap of vmap": lambda f: torch.func.vmap(torch.func.vmap(f, (0, None)), (None, 0))(
        uniform(4, 3), uniform(2, 3, seed=1)
    ),
    "vmap of grad": lambda f: torch.func.vmap(torch.func.grad(f), (0, None))(uniform(4, 3), uniform(3)),
    "grad through vmap": lambda f: torch.func.grad(
        lambda y: torch.func.vmap(f, (0, None))(uniform(4, 3), y).prod()
    )(uniform(3, seed=1)),
    "jvp through vmap": lambda f: torch.func.jvp(
        lambda y: torch.func.vmap(f, (0, None))(uniform(4, 3), y), (uniform(3),), (uniform(3, seed=1),)
    )[1],
    "jvp of vjp": lambda f: torch.func.jvp(
        lambda x: torch.func.vjp(lambda y: f(y, y), x)[1](torch.ones((), dtype=f64))[0],
        (uniform(3),),
        (uniform(3, seed=1),),
    )[1],
}


@pytest.mark.parametrize("case", FUNC)
def test_torch_func_transforms_a_remote_function_as_a_local_one(case: str) -> None:
    close(FUNC[case](remote.remote(wave)), FUNC[case](wave))


# Arguments and results.


def test_arguments_and_results_may_be_nested_and_named() -> None:
    def fn(pair: Any, *, scale: float, extra: dict[str, torch.Tensor]) -> dict[str, Any]:
        a, b = pair
        return {"y": scale * a + extra["c"], "both": [a * b, (b > 0.5).sum()]}

    args = ((uniform(2), uniform(2, seed=1)),)
    named: dict[str, Any] = {"scale": 0.1, "extra": {"c": uniform(2, seed=2)}}
    actual, expected = remote.remote(fn)(*args, **named), fn(*args, **named)
    assert actual.keys() == expected.keys()
    close(actual["y"], expected["y"])
    close(actual["both"][0], expected["both"][0])
    close(actual["both"][1], expected["both"][1])
    named["scale"] = 0.2
    close(remote.remote(fn)(*args, **named)["y"], fn(*args, **named)["y"])


def test_non_contiguous_and_0d_tensors_and_integers_travel() -> None:
    x = uniform(4, 6).T[::2].requires_grad_()
    scale, index = uniform().requires_grad_(), torch.tensor([2, 0])

    def fn(x: torch.Tensor, scale: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return x[index] * scale

    def gradients(f: Any) -> Any:
        return torch.autograd.grad(f(x, scale, index).pow(2).sum(), (x, scale))

    for actual, expected in zip(gradients(remote.remote(fn)), gradients(fn), strict=True):
        close(actual, expected)


def test_an_argument_without_influence_gets_no_gradient() -> None:
    a, b = uniform(2).requires_grad_(), uniform(2, seed=1).requires_grad_()
    y = remote.remote(lambda a, b: a.exp() + b.detach())(a, b)
    assert torch.autograd.grad(y.sum(), (a, b), allow_unused=True)[1] is None


def test_results_that_pytorch_would_not_differentiate_require_no_grad() -> None:
    a = uniform(3).requires_grad_()

    def fn(a: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            frozen = a.exp()
        return a * frozen, frozen, a.argmax(), a.detach()

    actual, expected = remote.remote(fn)(a), fn(a)
    assert [y.requires_grad for y in actual] == [y.requires_grad for y in expected]
    close(torch.autograd.grad(actual[0].sum(), a)[0], torch.autograd.grad(expected[0].sum(), a)[0])


def test_derivatives_taken_inside_the_function_are_part_of_it() -> None:
    def force(x: torch.Tensor) -> torch.Tensor:
        x = x if x.requires_grad else x.requires_grad_()
        return -torch.autograd.grad(x.pow(4).sum(), x, create_graph=True)[0]

    x = uniform(3).requires_grad_()
    y = remote.remote(force)(x)
    close(y, -4 * x**3)
    close(torch.autograd.grad(y.sum(), x)[0], -12 * x**2)


# What a function closes over.


def test_gradients_reach_tensors_that_the_function_closes_over() -> None:
    w, x = uniform(3, 3).requires_grad_(), uniform(3, seed=1)
    remote.remote(lambda x: (w @ x).tanh().sum())(x).backward()
    expected = torch.autograd.grad((w @ x).tanh().sum(), w)[0]
    assert w.grad is not None
    close(w.grad, expected)


def test_changes_of_what_the_function_reads_are_seen() -> None:
    w, factor = uniform(2), 2.0
    held = {"shift": 1.0}

    def fn(x: torch.Tensor) -> torch.Tensor:
        return x * w * factor + held["shift"]

    f, x = remote.remote(fn), uniform(2, seed=1)
    close(f(x), fn(x))
    w += 1
    close(f(x), fn(x))
    factor = 3.0
    close(f(x), fn(x))
    held["shift"] = -1.0
    close(f(x), fn(x))
    w = uniform(2, seed=4)
    close(f(x), fn(x))


def test_functions_that_differ_by_their_tensors_alone_share_a_graph_that_keeps_none_of_them() -> None:
    def scaled(w: torch.Tensor) -> Callable[..., Any]:
        return lambda x: (w * x).sum()

    x, gone = uniform(2), []
    for seed in range(3):
        w = uniform(2, seed=seed).requires_grad_()
        remote.remote(scaled(w))(x).backward()
        assert w.grad is not None
        close(w.grad, x)
        gone.append(weakref.ref(w))
    del w
    gc.collect()
    assert [one() for one in gone] == [None] * 3


def test_an_unchanged_function_is_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradwire.frontends.torch import cache

    calls = 0

    def fn(x: torch.Tensor) -> torch.Tensor:
        return x.exp() * 1.25

    original = cache.export

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(cache, "export", counted)
    f = remote.remote(fn)
    for seed in range(3):
        f(uniform(2, seed=seed))
        remote.jacobian(fn, uniform(2, seed=seed))
    assert calls == 2  # once for each front
    f(uniform(3))
    f(uniform(2, dtype=torch.float32))
    assert calls == 4


# Modules.


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))
        self.scale = nn.Parameter(torch.tensor(0.3))
        self.shift = 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x) * self.scale + self.shift
        return result


def test_a_module_trains_as_it_does_here() -> None:
    torch.manual_seed(0)
    here = Model().double()
    there = remote.remote(copy.deepcopy(here))
    x, target = uniform(8, 3), uniform(8, 2, seed=1)
    results = []
    for module in (here, there):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.5)
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = (module(x) - target).pow(2).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        results.append(losses)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-11)
    for actual, expected in zip(there.module.state_dict().values(), here.state_dict().values(), strict=True):
        close(actual, expected, 1e-10)
    here.eval()
    there.eval()
    close(there(x), here(x), 1e-10)


def test_a_module_takes_its_attributes_as_they_are_now() -> None:
    module = Model().double().eval()
    there, x = remote.remote(module), uniform(2, 3)
    close(there(x), module(x))
    module.shift = 2.5
    close(there(x), module(x))


def test_frozen_parameters_get_no_gradient() -> None:
    module = nn.Linear(3, 2).double()
    module.bias.requires_grad_(False)
    remote.remote(module)(uniform(3)).sum().backward()
    assert module.bias.grad is None
    assert module.weight.grad is not None


def test_functional_call_differentiates_by_parameters() -> None:
    module = nn.Linear(3, 2).double()
    there, x = remote.remote(module), uniform(3)
    parameters = dict(there.named_parameters())

    def output(parameters: Any) -> Any:
        return torch.func.functional_call(there, parameters, (x,))

    jacobian = torch.func.jacrev(output)(parameters)
    weight = torch.einsum("ij,k->ijk", torch.eye(2, dtype=f64), x)
    close(jacobian["module.weight"], weight)
    close(jacobian["module.bias"], torch.eye(2, dtype=f64))


def test_tied_parameters_share_their_gradient() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.second = nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.second(self.first(x).tanh())
            return result

    module = Tied().double()
    x = uniform(3)
    expected = torch.autograd.grad(module(x).sum(), module.first.weight)[0]
    remote.remote(module)(x).sum().backward()
    assert module.first.weight.grad is not None
    close(module.first.weight.grad, expected)


# Precision, and graphs for other uses.


def test_python_numbers_stay_exact_in_a_hundred_euler_steps() -> None:
    def euler(x: torch.Tensor) -> torch.Tensor:
        for _ in range(100):
            x = x + 0.01 * (torch.sin(3.7 * x) - 0.3 * x)
        return x

    x = uniform(3)
    expected = euler(x)
    close(remote.remote(euler)(x), expected, 1e-14)
    close(remote.jacobian(euler, x), torch.autograd.functional.jacobian(euler, x), 1e-13)


def test_a_module_or_function_of_tensors_becomes_a_function_of_the_client(client: gw.Client) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Softplus()).double()
    x = uniform(3)
    f = client.function(module, gw.spec(3))
    np.testing.assert_allclose(f(x.numpy()), module(x).detach().numpy(), rtol=1e-12)
    g = client.function(remote.model(lambda x, y: torch.lgamma(x) @ y, gw.spec(3), gw.spec(3)))
    assert [value.name for value in g.signature.inputs] == ["x", "y"]
    np.testing.assert_allclose(
        g.jacobian(x.numpy(), x.numpy(), wrt="x"), (torch.digamma(x) * x).numpy(), rtol=1e-12
    )


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # PyTorch's, of tensor @ array
def test_the_client_knows_a_plain_function_of_tensors_by_the_complaint_of_pytorch(client: gw.Client) -> None:
    w, x = uniform(2, 3), uniform(3, seed=1)
    for fn in (lambda x: torch.tanh(x).sum(), lambda x: w @ x, lambda x: torch.stack([x, x])):
        f = client.function(fn, gw.spec(3))
        np.testing.assert_allclose(f(x.numpy()), fn(x).numpy(), rtol=1e-12)


# Refusals.

MODULES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "LSTM": (nn.LSTM(3, 2, batch_first=True), (2, 4, 3)),
    "GRU": (nn.GRU(3, 2), (4, 2, 3)),
    "convolutions": (
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)),
        (2, 1, 6, 6),
    ),
    "transformer layer": (nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), (2, 3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("case", MODULES)
def test_layers_agree_with_their_gradients(case: str) -> None:
    module, shape = MODULES[case]
    module = copy.deepcopy(module).double()
    x = uniform(*shape).requires_grad_()

    def gradients(f: Any) -> Any:
        y = f(x)
        y = y[0] if isinstance(y, tuple) else y
        return torch.autograd.grad(y.sin().sum(), (x, *module.parameters()))

    for actual, expected in zip(gradients(remote.remote(module)), gradients(module), strict=True):
        close(actual, expected, 1e-11)


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "a branch on a value": (lambda x: x if x.sum() > 0 else -x, "torch.where"),
    "float()": (lambda x: x * float(x[0]), "values of a tensor"),
    "a boolean mask": (lambda x: x[x > 0], "torch.where"),
    "NumPy": (lambda x: torch.from_numpy(np.sin(x.detach().numpy())), "numpy needs the values.*PyTorch"),
    "random numbers": (lambda x: x + torch.rand(3), "random"),
    "dropout in training": (lambda x: torch.nn.functional.dropout(x, 0.5), "random"),
    "eigenvalues": (lambda x: torch.linalg.eigvals(torch.diag(x)).abs(), "eigh"),
    "an operator without a rule": (lambda x: torch.special.bessel_j0(x), "bessel_j0"),
    "one of several results": (lambda x: torch.linalg.lstsq(x[:, None], x[:, None]).residuals, "residuals"),
    "a random generator": (lambda x: x + torch.rand(3, generator=torch.Generator()), "random"),
    "a list with a number": (lambda x: [x, 1.0], "float"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_in_a_graph_is_refused_by_name_with_advice(case: str) -> None:
    fn, message = REFUSED[case]
    with pytest.raises(gw.TraceError, match=message):
        remote.remote(fn)(uniform(3))


class Doubled(torch.autograd.Function):
    """A rule that is not the derivative of what runs forward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return 2 * gradients[0]


@pytest.mark.filterwarnings("ignore:.*backward rule of its own:gradwire.errors.GraphWarning")
def test_a_derivative_that_is_not_autograds_is_refused_unless_it_is_meant(client: gw.Client) -> None:
    def doubled(x: torch.Tensor) -> torch.Tensor:
        return Doubled.apply(x).sum()  # type: ignore[no-any-return, no-untyped-call]

    x = uniform(3)
    f = remote.function(doubled, gw.spec(3), client=client)
    with pytest.raises(gw.TraceMismatchError, match="the product of cotangents by x"):
        f.grad(x.numpy())
    close(remote.jacobian(doubled, x, client=client), torch.ones_like(x))


def test_a_function_on_a_server_has_its_client_and_is_compared_as_it_was_told(client: gw.Client) -> None:
    f = client.function(lambda x: x + 1, gw.spec(2))
    with pytest.raises(gw.InvalidArgumentError, match="leave out client= and verify="):
        remote.remote(f, verify="never")
