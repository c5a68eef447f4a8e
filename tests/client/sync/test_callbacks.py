"""Callbacks remember one point, hand out what may be written to, and share trips between threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import gradwire as gw
from tests.client.wire_server import BILINEAR, ENERGY, MATRIX, MIX, SQUARE, WireServer, status

X = np.array([1.0, -2.0, 3.0])


def trips(server: WireServer) -> list[str]:
    """What was asked of the server, once it knew the graph."""
    return [call for call in server.calls if call != "RegisterGraph"]


def test_value_and_gradient_of_a_point_are_one_trip(client: gw.Client, wire_server: WireServer) -> None:
    c = client.function(ENERGY).callbacks()
    assert c.value(X) == c(X) == (X**3).sum()
    assert isinstance(c.value(X), float)
    np.testing.assert_array_equal(c.grad(X), 3 * X**2)
    assert trips(wire_server) == ["Evaluate"]
    np.testing.assert_array_equal(c.grad(2 * X), 12 * X**2)
    assert c.value(2 * X) == 8 * (X**3).sum()
    assert trips(wire_server) == ["Evaluate"] * 2


def test_value_and_jacobian_of_a_point_are_one_trip(client: gw.Client, wire_server: WireServer) -> None:
    c = client.function(SQUARE).callbacks()
    np.testing.assert_array_equal(c.value(X), X**2)
    np.testing.assert_array_equal(c.jacobian(X), np.diag(2 * X))
    np.testing.assert_array_equal(c.jacobian(-X), np.diag(-2 * X))
    np.testing.assert_array_equal(c.value(-X), X**2)
    assert trips(wire_server) == ["Differentiate"] * 2


def test_value_gradient_and_hessian_are_one_trip_where_that_is_wished(
    client: gw.Client, wire_server: WireServer
) -> None:
    c = client.function(ENERGY).callbacks(along="hessian")
    assert c.value(X) == (X**3).sum()
    np.testing.assert_array_equal(c.grad(X), 3 * X**2)
    np.testing.assert_array_equal(c.hessian(X), np.diag(6 * X))
    assert trips(wire_server) == ["Differentiate"]


def test_what_does_not_come_along_is_fetched_once_it_is_asked_for(
    client: gw.Client, wire_server: WireServer
) -> None:
    c = client.function(ENERGY).callbacks()
    c.value(X)
    for _ in range(2):
        np.testing.assert_array_equal(c.hessian(X), np.diag(6 * X))
    np.testing.assert_array_equal(c.grad(X), 3 * X**2)
    assert trips(wire_server) == ["Evaluate", "Differentiate"]
    wire_server.calls.clear()
    alone = client.function(SQUARE).callbacks(along="nothing")
    alone.value(X)
    np.testing.assert_array_equal(alone.jacobian(X), np.diag(2 * X))
    assert trips(wire_server) == ["Evaluate", "Differentiate"]
    assert not any(request.values for request in wire_server.requests if hasattr(request, "values"))


def test_points_are_told_apart_by_their_bits(client: gw.Client, wire_server: WireServer) -> None:
    c = client.function(ENERGY).callbacks()
    x = X.copy()
    c.value(x)
    x[0] = np.nextafter(x[0], 2)  # solvers go on with the array that they gave
    c.value(x)
    x[0] = 1.0
    c.value(x)
    c.value(x.astype(np.float32))
    assert len(trips(wire_server)) == 4


def test_only_the_last_point_is_remembered(client: gw.Client, wire_server: WireServer) -> None:
    c = client.function(ENERGY).callbacks()
    for x in (X, -X, X):
        c.value(x)
    assert len(trips(wire_server)) == 3


def test_results_may_be_written_to(client: gw.Client) -> None:
    c = client.function(SQUARE).callbacks()
    for part, expected in ((c.value, X**2), (c.jacobian, np.diag(2 * X))):
        first: Any = part(X)
        first *= -1
        np.testing.assert_array_equal(part(X), expected)


def test_other_inputs_are_arguments_and_part_of_the_point(client: gw.Client, wire_server: WireServer) -> None:
    c = client.function(BILINEAR).callbacks(wrt="b")
    a, b, p = X, np.ones(3), np.array([0.0, 1.0, 0.0])
    assert c.value(a, b) == 2
    np.testing.assert_array_equal(c.grad(a, b), a)
    np.testing.assert_array_equal(c.grad(-a, b), -a)
    assert trips(wire_server) == ["Evaluate"] * 2
    assert not c.hvp(a, b, p).any()
    first = client.function(BILINEAR).callbacks()
    np.testing.assert_array_equal(first.grad(a, b), b)
    assert not first.hvp(a, p, b).any()


def test_one_of_several_outputs_is_chosen(client: gw.Client) -> None:
    a, b = np.array([1.0, 2.0]), np.arange(6.0).reshape(2, 3)
    c = client.function(MIX).callbacks(wrt="b", of="q")
    np.testing.assert_array_equal(c.value(a, b), b.ravel() ** 2)
    np.testing.assert_array_equal(c.jacobian(a, b), np.diag(2 * b.ravel()))
    np.testing.assert_array_equal(client.function(MIX).callbacks().value(a, b), a * b.sum())


def test_matrices_become_vectors(client: gw.Client) -> None:
    x = np.arange(6.0).reshape(2, 3)
    c = client.function(MATRIX).callbacks()
    np.testing.assert_array_equal(c.value(x), np.sin(x).ravel())
    np.testing.assert_array_equal(c.jacobian(x), np.diag(np.cos(x).ravel()))


def test_an_error_is_not_remembered(client: gw.Client, wire_server: WireServer) -> None:
    c = client.function(ENERGY).callbacks()
    c.value(X)
    wire_server.faults.error = status(8, "too much")
    with pytest.raises(gw.LimitError, match="too much"):
        c.value(-X)
    wire_server.faults.error = None
    assert c.value(-X) == -(X**3).sum()


def test_threads_that_ask_for_one_point_share_a_trip(client: gw.Client, wire_server: WireServer) -> None:
    c = client.function(ENERGY).callbacks()
    c.value(X)
    wire_server.faults.delay = 0.2
    gate = threading.Barrier(6)

    def ask(part: Any) -> Any:
        gate.wait()
        return part(2 * X)

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(ask, [c.value, c.grad] * 3))
    for value, gradient in zip(results[::2], results[1::2], strict=True):
        assert value == 8 * (X**3).sum()
        np.testing.assert_array_equal(gradient, 12 * X**2)
    assert trips(wire_server) == ["Evaluate"] * 2


def test_threads_with_points_of_their_own_get_their_own_results(client: gw.Client) -> None:
    c = client.function(ENERGY).callbacks()

    def ask(scale: float) -> bool:
        x = scale * X
        return c.value(x) == (x**3).sum() and np.array_equal(c.grad(x), 3 * x**2)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, np.arange(200.0) % 7))


def test_what_cannot_be_meant_is_refused(client: gw.Client) -> None:
    f = client.function(ENERGY)
    assert repr(f.callbacks()).startswith("<Callbacks of e by x: value + grad, <Function ")
    with pytest.raises(gw.InvalidArgumentError, match="along is 'auto' or one of"):
        f.callbacks(along="everything")  # type: ignore[arg-type]
    with pytest.raises(gw.InvalidArgumentError, match="no input 'z'"):
        f.callbacks(wrt="z")
    c = f.callbacks()
    with pytest.raises(gw.InvalidArgumentError, match=r"input x: float64\[N\] is missing"):
        c.value()
    with pytest.raises(gw.InvalidArgumentError, match="a vector is missing: pass it after input 'x'"):
        c.hvp(X)
    with pytest.raises(gw.InvalidArgumentError, match="more than one element"):
        client.function(np.sin, gw.spec(3)).callbacks(along="grad")


def test_a_progress_callback_that_asks_is_told_so(client: gw.Client) -> None:
    f = client.function(SQUARE)
    c = f.callbacks()
    with pytest.raises(RuntimeError, match="wait for itself"):
        f.jacobian(X, progress=lambda report: c.value(X))
