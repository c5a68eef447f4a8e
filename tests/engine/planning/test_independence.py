"""What is computed for one output or input does not depend on what else is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwire_engine.graphs.graph import Graph
from gradwire_engine.planning.transforms import Gradient, Hvp, Jvp, Vjp
from tests.engine.small_graphs import graph_of, matrices, value_of

X, Z = np.array([0.0, 1.0]), np.array([3.0, 0.0])
POINT = {"x": X, "z": Z}

STEEP = """(double[2] x, double[2] z) => (double steep, double plain, double[2] both) {
    r = Sqrt(x)
    q = Sqrt(z)
    s = Sum(r, q)
    steep = ReduceSum<keepdims = 0>(s)
    t = Mul(x, z)
    plain = ReduceSum<keepdims = 0>(t)
    both = Mul(z, z)
}"""
"""The slope of `steep` is infinite in an element of either input; those of the others are finite."""

LOOPED = """(double[2] x, double[2] z) => (double steep, double plain) {
    n = Constant<value = int64 {3}>()
    c = Constant<value = bool {1}>()
    a, b = Loop<body = step
        (int64 i, bool go, double[2] u, double[2] v) => (bool more, double[2] w, double[2] k) {
        more = Identity(go)
        w = Sqrt(u)
        k = Mul(v, v)
    }>(n, c, x, z)
    steep = ReduceSum<keepdims = 0>(a)
    plain = ReduceSum<keepdims = 0>(b)
}"""
"""One loop carries what is steep and what is not."""


@pytest.fixture(scope="module")
def steep() -> Graph:
    return graph_of(STEEP)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_the_jacobian_of_one_output_is_the_same_beside_others(steep: Graph, mode: str) -> None:
    alone = matrices(steep, POINT, of=("plain", "both"), mode=mode)
    together = matrices(steep, POINT, of=("steep", "plain", "both"), mode=mode)
    for one, other in zip(alone, together[2:], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(np.stack(together[2:4]), [Z, X])
    assert np.isinf(together[0][0]) and together[0][1] == 0.5


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_the_jacobian_in_one_input_is_the_same_beside_others(steep: Graph, mode: str) -> None:
    together = matrices(steep, POINT, mode=mode)
    for column, name in enumerate(("x", "z")):
        alone = matrices(steep, POINT, wrt=(name,), mode=mode)
        for one, other in zip(alone, together[column::2], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_outputs_of_one_loop_are_apart_in_derivatives(mode: str) -> None:
    graph = graph_of(LOOPED)
    point = {"x": X, "z": np.array([1.5, 2.0])}
    alone = matrices(graph, point, of=("plain",), mode=mode)
    together = matrices(graph, point, mode=mode)
    assert np.isfinite(np.concatenate(alone)).all()
    for one, other in zip(alone, together[2:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_zero_cotangent_keeps_infinite_slopes_out(steep: Graph) -> None:
    given: dict[str, Any] = {
        "steep.cotangent": np.array(0.0),
        "plain.cotangent": np.array(2.0),
        "both.cotangent": np.zeros(2),
    }
    found = value_of(steep, {**POINT, **given}, Vjp())
    np.testing.assert_array_equal(found["x.cotangent"], 2 * Z)
    np.testing.assert_array_equal(found["z.cotangent"], 2 * X)
    given["steep.cotangent"] = np.array(1.0)
    assert np.isinf(value_of(steep, {**POINT, **given}, Vjp())["x.cotangent"][0])


def test_a_zero_tangent_keeps_infinite_slopes_out(steep: Graph) -> None:
    directions = {"x.tangent": np.zeros(2), "z.tangent": np.array([0.5, 0.0])}
    point = {"x": X, "z": np.array([3.0, 2.0])}
    found = value_of(steep, {**point, **directions}, Jvp())
    np.testing.assert_allclose(found["steep.tangent"], 0.25 / np.sqrt(3))
    np.testing.assert_array_equal(found["plain.tangent"], 0.0)


def test_a_gradient_and_its_products_are_of_one_output_alone(steep: Graph) -> None:
    gradient = value_of(steep, POINT, Gradient(of="plain"))
    np.testing.assert_array_equal(gradient["x.gradient"], Z)
    kept = value_of(steep, POINT, Gradient(of="plain", keep_values=True))
    np.testing.assert_array_equal(kept["x.gradient"], Z)
    tangents = {"x.tangent": np.array([1.0, 0.0]), "z.tangent": np.array([0.0, 1.0])}
    found = value_of(steep, {**POINT, **tangents}, Hvp(of="plain"))
    np.testing.assert_array_equal(found["x.hvp"], [0.0, 1.0])
    np.testing.assert_array_equal(found["z.hvp"], [1.0, 0.0])


def test_derivatives_with_respect_to_a_zero_cotangent_are_not_lost(steep: Graph) -> None:
    point = {"x": np.array([4.0, 1.0]), "z": np.array([1.0, 9.0])}
    given = {"steep.cotangent": np.array(0.0), "plain.cotangent": np.array(2.0), "both.cotangent": np.ones(2)}
    (found,) = matrices(
        steep, {**point, **given}, "jacobian", Vjp(), wrt=("steep.cotangent",), of=("x.cotangent",)
    )
    np.testing.assert_allclose(np.ravel(found), [0.25, 0.5])
