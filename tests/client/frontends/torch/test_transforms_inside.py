"""Functions that transform other functions or write to parts of tensors have PyTorch's derivatives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.utils.checkpoint
from torch import func
from torch.autograd import functional

import gradwire as gw
import gradwire.torch as remote

pytestmark = pytest.mark.usefixtures("client")

f64 = torch.float64
local: Any = functional  # its functions have no types
dual: Any = forward_ad  # nor have these
X = 0.3 + torch.rand((3, 2), dtype=f64, generator=torch.Generator().manual_seed(0))
C = 0.3 + torch.rand((3, 2), dtype=f64, generator=torch.Generator().manual_seed(1))


def stopped_in_a_batch(a: torch.Tensor) -> torch.Tensor:
    def one(row: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            scale = row.sin()
        return scale * row * row.detach()

    return func.vmap(one)(a)


def dual_numbers(a: torch.Tensor) -> torch.Tensor:
    with dual.dual_level():
        tangent: torch.Tensor = dual.unpack_dual(torch.sin(dual.make_dual(C, a))).tangent
        return tangent


TRANSFORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "vmap": lambda a: func.vmap(lambda row: row.prod())(a),
    "vmap of vmap": lambda a: func.vmap(func.vmap(lambda x: x * x.sin()))(a),
    "vmap over what is closed over": lambda a: func.vmap(lambda row: (row * a[0]).sum())(C),
    "vmap of what is stopped": stopped_in_a_batch,
    "vmap of grad": lambda a: func.vmap(func.grad(lambda row: (row**3).prod()))(a),
    "gradients by sample": lambda a: func.vmap(func.grad(lambda w, z: (w * z).tanh().sum()), (None, 0))(
        a[0], a
    ),
    "grad of a product with what is closed over": lambda a: func.grad(lambda r: (r**2 * (a * 2)).sum())(a),
    "grad at a constant": lambda a: func.grad(lambda r: (r**2 * a.sin()).sum())(C),
    "jacrev": lambda a: func.jacrev(lambda r: r.sin() * r.sum())(a),
    "jacfwd": lambda a: func.jacfwd(lambda r: r.sin() * r.sum())(a),
    "hessian": lambda a: func.hessian(lambda r: r.prod())(a),
    "jvp": lambda a: func.jvp(torch.sin, (a,), (a * a,))[1],
    "jvp at a constant": lambda a: func.jvp(torch.sin, (C,), (a,))[1],
    "dual numbers": dual_numbers,
    "functional.jacobian at once": lambda a: local.jacobian(torch.sin, a, True, vectorize=True).sum((0, 1)),
}


def through_a_diagonal(a: torch.Tensor) -> torch.Tensor:
    z = torch.zeros_like(a)
    z.diagonal().copy_(a.sum(0))
    z.diagonal(-1).mul_(3.0).add_(1.0)
    return z * a


def through_a_mask(a: torch.Tensor) -> torch.Tensor:
    kept = torch.ones(3, 2, dtype=torch.bool)
    kept.diagonal().fill_(False)
    return torch.where(kept, a * a, a)


def through_a_flat_view(a: torch.Tensor) -> torch.Tensor:
    z = torch.zeros_like(a)
    z.view(-1)[2:4] = a[0]
    z.T[0].add_(a[:, 1])
    return z * a


def without_gradients(a: torch.Tensor) -> torch.Tensor:
    z, y = torch.zeros(3, 2, dtype=f64), torch.zeros(3, 2, dtype=f64)
    with torch.no_grad():
        z.copy_(a * 2)
        y[0] = a[0]
        y[1:] += a[1:]
    return z * a + y * a


def detached_in_place(a: torch.Tensor) -> torch.Tensor:
    z = a * 2
    z.detach_()
    z[0] = a[0]
    return z * a


WRITES = {
    fn.__name__.replace("_", " "): fn
    for fn in (through_a_diagonal, through_a_mask, through_a_flat_view, without_gradients, detached_in_place)
}


@pytest.mark.parametrize("case", [*TRANSFORMS, *WRITES])
def test_value_jacobian_and_second_derivative_are_those_of_pytorch(case: str) -> None:
    fn = {**TRANSFORMS, **WRITES}[case]

    def total(a: torch.Tensor) -> torch.Tensor:
        return fn(a).square().sum()

    for actual, expected in (
        (remote.remote(fn)(X), fn(X)),
        (remote.jacobian(fn, X), local.jacobian(fn, X)),
        (remote.hvp(total, X, C)[1], local.hvp(total, X, C)[1]),
    ):
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        torch.testing.assert_close(actual.detach(), expected.detach(), rtol=1e-11, atol=1e-12)


class Rounded(torch.autograd.Function):
    """Rounds, and passes gradients as if it did not."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


def hooked(a: torch.Tensor) -> torch.Tensor:
    b: Any = a * 2
    b.register_hook(lambda gradient: gradient.clamp(max=0.1))
    doubled: torch.Tensor = b
    return doubled


def test_a_backward_rule_that_a_graph_cannot_carry_is_named_in_a_warning() -> None:
    rounded: Any = Rounded
    followed = X.clone().requires_grad_()
    with pytest.warns(gw.GraphWarning, match=r"Rounded in <lambda> has a backward rule of its own"):
        assert torch.equal(remote.remote(lambda a: rounded.apply(a) + a)(followed), X.round() + X)
    with pytest.warns(gw.GraphWarning, match="register_hook in hooked has a backward rule of its own"):
        remote.remote(hooked)(followed)


def test_what_the_warning_advises_has_the_slope_and_is_silent_as_checkpoints_are() -> None:
    def straight(a: torch.Tensor) -> torch.Tensor:
        a = torch.utils.checkpoint.checkpoint(torch.sin, a, use_reentrant=False)
        return a + (a.round() - a).detach()

    with warnings.catch_warnings(action="error"):
        found = remote.jacobian(straight, X)
    torch.testing.assert_close(found, local.jacobian(torch.sin, X))
