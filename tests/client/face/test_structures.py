"""Nested arguments and results: what goes in and comes out is nested as the function's own, as JAX has it."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradwire as gw
import gradwire.jax
from gradwire_server.process.embedded import EmbeddedServer

jax.config.update("jax_enable_x64", True)

Line = namedtuple("Line", "w b")


@dataclasses.dataclass
class Body:
    mass: Any
    place: Any


W, B, X = np.arange(6.0).reshape(2, 3) / 5, np.array([0.5, -1.0]), np.array([0.3, 1.0, -2.0])
P: dict[str, Any] = {"w": W, "b": B}
SPECS = ({"w": gw.spec((2, 3)), "b": gw.spec(2)}, gw.spec(3))


def model(p: Any, x: Any) -> Any:
    h = p["w"] @ x + p["b"]
    return {"loss": (h * h * h).sum(), "parts": [h, (x * x, p["b"] * 2.0)]}


@pytest.fixture(scope="module")
def client(server: EmbeddedServer) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected:
        yield connected


@pytest.fixture(scope="module")
def f(client: gw.Client) -> gw.Function:
    return client.function(model, *SPECS)


def same(got: Any, want: Any) -> None:
    """Hold one tree to another: containers and numbers."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for left, right in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-14)


def test_the_value_is_nested_as_the_function_returns_it(f: gw.Function) -> None:
    same(f(P, X), model(P, X))
    same(f(p=P, x=X), model(P, X))
    same(f({"b": B, "w": W}, X), model(P, X))
    same(f({"p.w": W, "p.b": B, "x": X}), model(P, X))


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_the_jacobian_is_the_tree_of_trees_that_jax_gives(f: gw.Function, mode: Any) -> None:
    same(f.jacobian(P, X, mode=mode), jax.jacrev(model, (0, 1))(P, X))
    same(f.jacobian(P, X, wrt="p", mode=mode), jax.jacrev(model)(P, X))
    same(f.jacobian(P, X, wrt=1, of="parts", mode=mode), jax.jacrev(model, 1)(P, X)["parts"])
    same(f.jacobian(P, X, wrt=["x", "p"], mode=mode), jax.jacrev(model, (1, 0))(P, X))
    same(f.jacobian(P, X, wrt="p.w", of="parts.0", mode=mode), jax.jacrev(model)(P, X)["parts"][0]["w"])


def test_gradients_products_and_hessians_are_nested_too(f: gw.Function) -> None:
    def loss(p: Any, x: Any) -> Any:
        return model(p, x)["loss"]

    same(f.grad(P, X, of="loss"), jax.grad(loss, (0, 1))(P, X))
    same(f.value_and_grad(P, X, wrt="p", of="loss"), (model(P, X), jax.grad(loss)(P, X)))
    same(f.hessian(P, X, wrt="p", of="loss"), jax.hessian(loss)(P, X))
    tangent = ({"w": W + 1, "b": B * 2}, X - 1)
    same(f.jvp(P, X, tangent), jax.jvp(model, (P, X), tangent)[1])
    cotangent = jax.tree.map(lambda leaf: np.cos(leaf), model(P, X))
    same(f.vjp(P, X, cotangent), jax.vjp(model, P, X)[1](cotangent))
    product = jax.jvp(jax.grad(loss), (P, X), ({"w": W, "b": B}, X * 0))[1]
    same(f.hvp(P, X, {"w": W, "b": B}, wrt="p", of="loss"), product)
    same(f.value_and_jacobian(P, X, of="loss", wrt="x"), (model(P, X), jax.grad(loss, 1)(P, X)))
    assert f.plan(P, X, of="loss").seeds == 1


def test_named_tuples_and_dataclasses_come_back_as_they_are(client: gw.Client) -> None:
    def line(p: Any) -> Any:
        return Line(p.w * 2.0, p.b.sum())

    found = client.jacobian(line, Line(B, B))
    assert isinstance(found, Line)
    assert isinstance(found.w, Line)
    same(found, jax.jacrev(line)(Line(B, B)))
    moved = client.grad(lambda body: body.mass * (body.place**2).sum(), Body(2.0, X))
    assert isinstance(moved, Body)
    np.testing.assert_allclose(moved.place, 4 * X)
    np.testing.assert_allclose(moved.mass, (X**2).sum())
    back = client.function(lambda x: Body(x.sum(), {"twice": 2 * x}), gw.spec(3))(X)
    assert isinstance(back, Body)
    np.testing.assert_allclose(back.place["twice"], 2 * X)


def test_flat_dicts_and_lists_come_back_as_they_are(client: gw.Client) -> None:
    same(client.function(lambda x: {"a": x, "b": 2 * x}, gw.spec(3))(X), {"a": X, "b": 2 * X})
    same(client.function(lambda x: [x, 2 * x], gw.spec(3))(X), [X, 2 * X])
    jacobian = client.function(lambda x: {"a": x, "b": 2 * x}, gw.spec(3)).jacobian(X)
    same(jacobian, {"a": np.eye(3), "b": 2 * np.eye(3)})


def test_whole_numbers_have_none_for_a_derivative(client: gw.Client) -> None:
    found = client.grad(lambda p: (p["x"] * p["n"]).sum(), {"x": X, "n": np.array(3)})
    np.testing.assert_array_equal(found["x"], np.full(3, 3.0))
    assert found["n"] is None


def test_what_is_nested_otherwise_is_refused_by_name(f: gw.Function) -> None:
    with pytest.raises(gw.InvalidArgumentError, match="p should be dict of w, b, not float"):
        f(3.0, 2.0)
    with pytest.raises(gw.InvalidArgumentError, match="p should be dict of w, b, not dict of w"):
        f({"w": W}, X)
    with pytest.raises(gw.InvalidArgumentError, match="3 arguments given, but the function has 2"):
        f(W, B, X)
    with pytest.raises(gw.InvalidArgumentError, match="of names 'lost'; there are: loss, parts"):
        f.jacobian(P, X, of="lost")
    with pytest.raises(gw.InvalidArgumentError, match="names several outputs"):
        f.grad(P, X, of="parts")


def test_functions_of_jax_keep_their_trees_and_never_swap_leaves(client: gw.Client) -> None:
    def fn(p: Any) -> Any:
        return p["w"] * 10 + p["b"]

    f = gradwire.jax.function(fn, {"w": gw.spec(()), "b": gw.spec(())}, client=client)
    assert f({"w": 3.0, "b": 2.0}) == 32.0
    same(f.grad({"w": 3.0, "b": 2.0}), {"w": 10.0, "b": 1.0})
    with pytest.raises(gw.InvalidArgumentError, match="2 arguments given, but the function has 1: p: dict"):
        f(3.0, 2.0)
    remote = gradwire.jax.remote(lambda p, x: {"y": p["w"] @ x, "z": [p["b"]]}, client=client)
    with jax.enable_x64(True), gradwire.jax.use(client):
        arguments = jax.tree.map(jnp.asarray, (P, X))
        same(remote(*arguments), {"y": W @ X, "z": [B]})


def test_callbacks_take_inputs_by_name(client: gw.Client) -> None:
    c = client.function(lambda x, a, b: a * (x**2).sum() + b, gw.spec(3), gw.spec(()), gw.spec(())).callbacks(
        "x"
    )
    assert c.value(X, b=1.0, a=2.0) == c.value(X, 2.0, b=1.0) == 2 * (X**2).sum() + 1
    np.testing.assert_allclose(c.grad(X, a=2.0, b=1.0), 4 * X)
    np.testing.assert_allclose(c.hvp(X, B[[0, 1, 0]], a=2.0, b=1.0), 4 * B[[0, 1, 0]])
    with pytest.raises(gw.InvalidArgumentError, match="missing input: b"):
        c.value(X, a=2.0)
    with pytest.raises(gw.InvalidArgumentError, match="given twice"):
        c.value(X, 2.0, 1.0, a=2.0)


def test_callbacks_of_nested_functions_take_leaves_in_order(f: gw.Function) -> None:
    c = f.callbacks("x", of="loss")
    h = W @ X + B
    np.testing.assert_allclose(c.value(W, B, X), (h**3).sum())
    np.testing.assert_allclose(c.grad(W, B, X), 3 * h**2 @ W)


def test_functions_of_torch_keep_their_structures(client: gw.Client) -> None:
    import torch

    def fn(p: Any, x: Any) -> Any:
        return {"y": torch.tanh(p["w"] @ x), "norms": [(p["b"] ** 2).sum()]}

    f = client.function(fn, *SPECS)
    same(f(P, X), {"y": np.tanh(W @ X), "norms": [(B**2).sum()]})
    same(f.grad(P, X, wrt="p", of="norms.0"), {"w": 0 * W, "b": 2 * B})


def test_nested_parameters_are_accumulated_by_their_leaves(client: gw.Client) -> None:
    def loss(p: Any, x: Any, y: Any) -> Any:
        return ((x @ p["w"].T + p["b"] - y) ** 2).sum()

    x, y = np.arange(12.0).reshape(4, 3) / 6, np.ones((4, 2))
    want = jax.grad(loss)(P, x, y)
    for fn in (loss, gradwire.jax.wrap(lambda p, x, y: loss(p, x, y))):
        f = client.function(fn, SPECS[0], gw.spec((2, 3)), gw.spec((2, 2)))
        with f.accumulator(**{"p.w": W, "p.b": B}, wrt=["p.w", "p.b"]) as accumulated:
            accumulated.add(x[:3], y[:3])
            accumulated.add(x[3:], y[3:])
            w, b = accumulated.grad
        np.testing.assert_allclose(w, want["w"], rtol=1e-12)
        np.testing.assert_allclose(b, want["b"], rtol=1e-12)
