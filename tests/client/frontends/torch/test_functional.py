"""`gradwire.torch` beside `torch.autograd.functional`: the same results, types and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.autograd import functional

import gradwire as gw
import gradwire.torch as remote

local: Any = functional  # its functions have no types
pytestmark = pytest.mark.usefixtures("client")

f64 = torch.float64


def same(actual: Any, expected: Any, rtol: float = 1e-12) -> None:
    """Same structure, shapes, dtypes and values."""
    if isinstance(expected, list):  # in forward mode PyTorch gives lists where it documents tuples
        expected = tuple(tuple(row) for row in expected)
    assert type(actual) is type(expected)
    if isinstance(expected, tuple):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            same(a, e, rtol)
    else:
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
        torch.testing.assert_close(actual.detach(), expected.detach(), rtol=rtol, atol=rtol)


def uniform(*shape: int, seed: int = 0, dtype: torch.dtype = f64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.2 + torch.rand(shape, dtype=dtype, generator=generator)


def mixed(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (a @ b).tanh(), (a * 3).sum()


MATRIX = uniform(3, 2, seed=1)

# name: function, inputs
VECTOR: dict[str, tuple[Callable[..., Any], Any]] = {
    "log on 2x2": (torch.log, uniform(2, 2)),
    "matrix by vector": (lambda x: MATRIX @ x, uniform(2)),
    "0-d in, 0-d out": (torch.sin, uniform()),
    "0-d in, vector out": (lambda x: torch.stack([x, x * x]), uniform()),
    "vector in, 0-d out": (lambda x: x.prod(), uniform(3)),
    "one-element tuple in": (torch.exp, (uniform(3),)),
    "one-element tuple out": (lambda x: (x.exp(),), uniform(3)),
    "two in, two out": (mixed, (uniform(2, 3), uniform(3, seed=1))),
    "two in, one out": (lambda a, b: a.exp() * b, (uniform(2, 3), uniform(3, seed=1))),
    "an input without influence": (lambda a, b: a.exp(), (uniform(2), uniform(3, seed=1))),
    "an output without influence": (lambda a: (a.exp(), torch.ones(2, dtype=f64)), uniform(2)),
    "detached": (lambda a: a * a.detach(), uniform(2)),
    "not contiguous": (lambda a: a.sin() * a, uniform(4, 3).T[:, ::2]),
    "the input itself": (lambda a: a, uniform(3)),
    "in place on a copy": (lambda a: a.clone().mul_(a).add_(1), uniform(3)),
}
SCALAR: dict[str, tuple[Callable[..., Any], Any]] = {
    "sum of roots on 2x2": (lambda x: x.sqrt().sum(), uniform(2, 2)),
    "one element, not 0-d": (lambda x: x.pow(3).sum().reshape(1, 1), uniform(3)),
    "0-d": (lambda x: x.sin(), uniform()),
    "two inputs": (lambda a, b: (a.exp() @ b).sin(), (uniform(3), uniform(3, seed=1))),
    "one-element tuple": (lambda a: a.pow(3).sum(), (uniform(3),)),
    "linear": (lambda a: a.sum(), uniform(3)),
    "linear in one of two": (lambda a, b: a.pow(2).sum() + b.sum(), (uniform(3), uniform(2, seed=1))),
    "an input without influence": (lambda a, b: a.pow(2).sum(), (uniform(3), uniform(2, seed=1))),
    "not contiguous": (lambda a: (a @ a.T).det().log(), uniform(6, 3).T[:, ::2] + torch.eye(3, dtype=f64)),
}


@pytest.mark.parametrize("case", VECTOR)
def test_jacobian_is_that_of_pytorch(case: str) -> None:
    fn, inputs = VECTOR[case]
    same(remote.jacobian(fn, inputs), local.jacobian(fn, inputs))


@pytest.mark.parametrize("case", ["log on 2x2", "two in, two out", "0-d in, vector out"])
def test_jacobian_in_forward_mode_is_that_of_pytorch(case: str) -> None:
    fn, inputs = VECTOR[case]
    options: dict[str, Any] = {"strategy": "forward-mode", "vectorize": True}
    same(remote.jacobian(fn, inputs, **options), local.jacobian(fn, inputs, **options))


@pytest.mark.parametrize("case", SCALAR)
def test_hessian_is_that_of_pytorch(case: str) -> None:
    fn, inputs = SCALAR[case]
    same(remote.hessian(fn, inputs), local.hessian(fn, inputs))


def vectors_like(items: Any, seed: int) -> Any:
    if isinstance(items, tuple):
        return tuple(vectors_like(item, seed + i) for i, item in enumerate(items))
    return uniform(*items.shape, seed=seed, dtype=items.dtype)


@pytest.mark.parametrize("case", VECTOR)
def test_vjp_is_that_of_pytorch(case: str) -> None:
    fn, inputs = VECTOR[case]
    v = vectors_like(fn(*inputs) if isinstance(inputs, tuple) else fn(inputs), 5)
    same(remote.vjp(fn, inputs, v), local.vjp(fn, inputs, v))


@pytest.mark.parametrize("case", VECTOR)
def test_jvp_is_that_of_pytorch(case: str) -> None:
    fn, inputs = VECTOR[case]
    v = vectors_like(inputs, 5)
    same(remote.jvp(fn, inputs, v), local.jvp(fn, inputs, v))


@pytest.mark.parametrize("product", ["hvp", "vhp"])
@pytest.mark.parametrize("case", SCALAR)
def test_hessian_products_are_those_of_pytorch(case: str, product: str) -> None:
    fn, inputs = SCALAR[case]
    v = vectors_like(inputs, 5)
    same(getattr(remote, product)(fn, inputs, v), getattr(local, product)(fn, inputs, v))


@pytest.mark.parametrize("name", ["vjp", "jvp", "hvp", "vhp"])
def test_the_vector_may_be_left_out_where_one_element_is_meant(name: str) -> None:
    x = uniform(1)
    same(getattr(remote, name)(lambda x: x.pow(3), x), getattr(local, name)(lambda x: x.pow(3), x))


def test_float32_stays_float32() -> None:
    x = uniform(2, 2, dtype=torch.float32)
    same(remote.jacobian(torch.log, x), local.jacobian(torch.log, x), 1e-6)
    f = SCALAR["sum of roots on 2x2"][0]
    same(remote.hessian(f, x), local.hessian(f, x), 1e-5)
    same(remote.vjp(torch.exp, x, x), local.vjp(torch.exp, x, x), 1e-6)


@pytest.mark.parametrize("name", ["jacobian", "hessian"])
def test_a_derivative_with_a_graph_can_be_differentiated_again(name: str) -> None:
    fn = mixed if name == "jacobian" else (lambda a, b: (a.exp() @ b.sin()).sum())

    def third(module: Any) -> tuple[torch.Tensor, ...]:
        inputs = (uniform(2, 3).requires_grad_(), uniform(3, seed=1).requires_grad_())
        derivative = getattr(module, name)(fn, inputs, create_graph=True)
        total = sum((block * block).sum() for row in derivative for block in row)
        return torch.autograd.grad(total, inputs)

    same(third(remote), third(local), 1e-11)


@pytest.mark.parametrize("name", ["vjp", "jvp", "hvp", "vhp"])
def test_a_product_with_a_graph_can_be_differentiated_by_point_and_vector(name: str) -> None:
    def gradients(module: Any) -> tuple[torch.Tensor, ...]:
        x, v = uniform(3).requires_grad_(), uniform(3, seed=1).requires_grad_()
        fn = torch.sin if name in ("vjp", "jvp") else (lambda x: x.pow(4).sum())
        value, product = getattr(module, name)(fn, x, v, create_graph=True)
        return torch.autograd.grad(product.pow(2).sum() + value.sum(), (x, v))

    same(gradients(remote), gradients(local))


def test_without_a_graph_nothing_is_attached() -> None:
    x = uniform(3).requires_grad_()
    for result in (remote.jacobian(torch.sin, x), *remote.vjp(torch.sin, x, x), *remote.jvp(torch.sin, x, x)):
        assert not result.requires_grad


def test_a_graph_reaches_inputs_that_did_not_ask_for_it() -> None:
    for module in (remote, local):
        assert module.jacobian(torch.sin, uniform(3), create_graph=True).requires_grad


MISUSE: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "inputs are no tensor": ("jacobian", (torch.sin, 1.0), {}),
    "inputs are a list": ("jacobian", (torch.sin, [uniform(2)]), {}),
    "a tuple holds no tensor": ("hessian", (lambda a, b: a.sum(), (uniform(2), 2.0)), {}),
    "the function returns a number": ("jacobian", (lambda x: 2.0, uniform(2)), {}),
    "the function returns a list": ("vjp", (lambda x: [x], uniform(2), uniform(2)), {}),
    "integer inputs": ("jacobian", (lambda x: x * 1.0, torch.arange(3)), {}),
    "a Hessian of a vector": ("hessian", (torch.sin, uniform(2)), {}),
    "a Hessian of a tuple": ("hessian", (lambda x: (x.sum(), x.sum()), uniform(2)), {}),
    "hvp of a vector": ("hvp", (torch.sin, uniform(2), uniform(2)), {}),
    "vhp of a tuple": ("vhp", (lambda x: (x.sum(),), uniform(2), uniform(2)), {}),
    "vjp without v": ("vjp", (torch.sin, uniform(2)), {}),
    "jvp without v": ("jvp", (torch.sum, uniform(2)), {}),
    "hvp without v": ("hvp", (torch.sum, uniform(2)), {}),
    "v of the wrong shape": ("vjp", (torch.sin, uniform(2), uniform(3)), {}),
    "v of the wrong shape forward": ("jvp", (torch.sin, uniform(2), uniform(2, 1)), {}),
    "too many in v": ("jvp", (torch.sin, uniform(2), (uniform(2), uniform(2))), {}),
    "too few in v": ("hvp", (lambda a, b: (a * b).sum(), (uniform(2), uniform(2)), uniform(2)), {}),
    "v is no tensor": ("vjp", (torch.sin, uniform(2), [1.0, 1.0]), {}),
    "strict Jacobian of a constant": ("jacobian", (lambda x: torch.ones(2), uniform(2)), {"strict": True}),
    "strict Jacobian, one input idle": (
        "jacobian", (lambda a, b: a * 2, (uniform(2), uniform(2))), {"strict": True}
    ),
    "strict Hessian of a linear function": ("hessian", (torch.sum, uniform(2)), {"strict": True}),
    "strict vjp, one input idle": (
        "vjp", (lambda a, b: a * 2, (uniform(2), uniform(2)), uniform(2)), {"strict": True}
    ),
    "strict jvp of a detached output": (
        "jvp", (lambda a: (a * 2, a.detach()), uniform(2), uniform(2)), {"strict": True}
    ),
    "strict hvp of a linear function": ("hvp", (torch.sum, uniform(2), uniform(2)), {"strict": True}),
    "strict and vectorize": ("jacobian", (torch.sin, uniform(2)), {"strict": True, "vectorize": True}),
    "an unknown strategy": ("jacobian", (torch.sin, uniform(2)), {"strategy": "sideways"}),
    "forward mode with a graph": (
        "jacobian", (torch.sin, uniform(2)),
        {"strategy": "forward-mode", "vectorize": True, "create_graph": True},
    ),
    "forward mode without vectorize": ("jacobian", (torch.sin, uniform(2)), {"strategy": "forward-mode"}),
}  # fmt: skip


@pytest.mark.parametrize("case", MISUSE)
def test_misuse_raises_the_error_that_pytorch_raises(case: str) -> None:
    name, args, options = MISUSE[case]
    with pytest.raises(Exception) as expected:
        getattr(local, name)(*args, **options)
    with pytest.raises(expected.type):
        getattr(remote, name)(*args, **options)


@pytest.mark.parametrize("name", ["jacobian", "vjp", "jvp"])
def test_strict_lets_dependent_functions_through(name: str) -> None:
    x = uniform(3)
    args = (torch.sin, x) if name == "jacobian" else (torch.sin, x, x)
    same(getattr(remote, name)(*args, strict=True), getattr(local, name)(*args, strict=True))


def test_the_client_may_be_named_for_one_call(client: gw.Client) -> None:
    x = uniform(3)
    with remote.use(None):
        with pytest.raises(gw.GradwireError, match="which server"):
            remote.jacobian(torch.sin, x)
        same(remote.jacobian(torch.sin, x, client=client), local.jacobian(torch.sin, x))


def test_a_jacobian_larger_than_a_message_arrives_whole() -> None:
    a, x = uniform(700, 300, seed=3), uniform(300)

    def fn(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(a @ x)

    expected = torch.cos(a @ x)[:, None] * a
    same(remote.jacobian(fn, x), expected)
