"""Blocks of Jacobians and Hessians in every mode, against JAX's own of functions written by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradwire_engine.errors import InvalidInput
from gradwire_engine.planning.derivatives import Derivative, block
from gradwire_engine.planning.transforms import Function
from gradwire_engine.values import Signature, TensorType
from tests.engine.small_graphs import graph_of, matrices, value_of

Array = Any

NETWORK = """(double[n] x, double[m, n] a, double[k, m] b) => (double[k] y, double s) {
    h = MatMul(a, x)
    t = Tanh(h)
    y = MatMul(b, t)
    q = Mul(y, y)
    s = ReduceSum<keepdims = 0>(q)
}"""

RANDOM = np.random.default_rng(11)
POINT = {
    "x": RANDOM.normal(size=4),
    "a": RANDOM.normal(size=(5, 4)),
    "b": RANDOM.normal(size=(3, 5)),
}


def network(x: Array, a: Array, b: Array) -> Array:
    return b @ jnp.tanh(a @ x)


def loss(x: Array, a: Array, b: Array) -> Array:
    return jnp.sum(network(x, a, b) ** 2)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_the_jacobian_in_several_inputs_of_several_outputs(mode: str) -> None:
    found = matrices(graph_of(NETWORK), POINT, mode=mode)
    expected = [
        jax.jacfwd(function, argument)(*POINT.values())
        for function in (network, loss)
        for argument in range(3)
    ]
    assert [item.shape for item in found] == [item.shape for item in expected]
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-12, atol=1e-13)


def test_both_modes_give_the_same_jacobian_of_a_network() -> None:
    graph = graph_of(NETWORK)
    forward, reverse = (matrices(graph, POINT, mode=mode) for mode in ("forward", "reverse"))
    for one, other in zip(forward, reverse, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mode", ["forward_over_reverse", "forward_over_forward"])
def test_the_hessian_in_several_inputs(mode: str) -> None:
    found = matrices(graph_of(NETWORK), POINT, "hessian", of=("s",), mode=mode)
    blocks = jax.hessian(loss, (0, 1, 2))(*POINT.values())
    expected = [blocks[row][column] for row in range(3) for column in range(3)]
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-11, atol=1e-12)


def test_the_hessian_is_symmetric_across_inputs() -> None:
    found = matrices(graph_of(NETWORK), POINT, "hessian", of=("s",), wrt=("x", "b"))
    xx, xb, bx, bb = (item.reshape(rows, -1) for item, rows in zip(found, (4, 4, 15, 15), strict=True))
    np.testing.assert_allclose(xx, xx.T, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(bb, bb.T, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(xb, bx.T, rtol=1e-12, atol=1e-13)


def test_the_jacobian_agrees_with_central_differences() -> None:
    graph = graph_of(NETWORK)
    (jacobian,) = matrices(graph, POINT, wrt=("x",), of=("y",))
    step = 1e-5
    for column in range(4):
        shift = np.eye(4)[column] * step
        above = value_of(graph, {**POINT, "x": POINT["x"] + shift})["y"]
        below = value_of(graph, {**POINT, "x": POINT["x"] - shift})["y"]
        np.testing.assert_allclose(jacobian[:, column], (above - below) / (2 * step), rtol=1e-7, atol=1e-9)


def test_an_output_that_does_not_depend_on_an_input_has_a_zero_jacobian() -> None:
    graph = graph_of("(double[2] x, double[3] z) => (double[2] y, double[3] w) { y = Sin(x) w = Cos(z) }")
    point = {"x": np.ones(2), "z": np.ones(3)}
    for mode in ("forward", "reverse"):
        found = matrices(graph, point, mode=mode)
        np.testing.assert_array_equal(found[1], np.zeros((2, 3)))
        np.testing.assert_array_equal(found[2], np.zeros((3, 2)))


def test_a_rounded_output_has_a_zero_jacobian() -> None:
    graph = graph_of("(double[2] x) => (double[2] y) { k = Cast<to = 7>(x) y = Cast<to = 11>(k) }")
    for mode in ("forward", "reverse"):
        np.testing.assert_array_equal(matrices(graph, {"x": np.ones(2)}, mode=mode)[0], np.zeros((2, 2)))


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_scalars_and_matrices_keep_their_shapes(mode: str) -> None:
    graph = graph_of("(double t, double[2, 3] x) => (double[3, 2] y) { a = Mul(t, x) y = Transpose(a) }")
    t, x = np.array(2.0), np.arange(6.0).reshape(2, 3)
    by_t, by_x = matrices(graph, {"t": t, "x": x}, mode=mode)
    np.testing.assert_array_equal(by_t, x.T)
    expected = np.einsum("ip,jq->ijqp", np.eye(3), np.eye(2)) * 2.0
    np.testing.assert_array_equal(by_x, expected)


@pytest.mark.parametrize(
    ("kind", "modes"),
    [("jacobian", ("forward", "reverse")), ("hessian", ("forward_over_reverse", "forward_over_forward"))],
)
def test_entries_of_mixed_precision_have_the_wider_dtype_in_every_mode(
    kind: str, modes: tuple[str, str]
) -> None:
    graph = graph_of(
        "(double[2] x, float[2] f) => (double s) "
        "{ d = Cast<to = 11>(f) p = Mul(x, d) q = Mul(p, d) s = ReduceSum<keepdims = 0>(q) }"
    )
    x, f = np.array([1.5, -2.0]), np.array([0.5, 3.0], np.float32)
    d = f.astype(np.float64)
    zero, cross = np.zeros((2, 2)), np.diag(2 * d)
    expected = [d * d, 2 * x * d] if kind == "jacobian" else [zero, cross, cross, np.diag(2 * x)]
    dtypes = ["float64"] * 2 if kind == "jacobian" else ["float64"] * 3 + ["float32"]
    for mode in modes:
        found = matrices(graph, {"x": x, "f": f}, kind, mode=mode)
        assert [item.dtype.name for item in found] == dtypes
        for actual, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=1e-6)


# Blocks themselves


def handmade(size: int = 10) -> tuple[Function, dict[str, Array], Array]:
    """x -> sin(A x), its input and its Jacobian."""
    matrix = RANDOM.normal(size=(7, size))
    types = Signature((("x", TensorType("float64", (size,))),), (("y", TensorType("float64", (7,))),))
    x = RANDOM.normal(size=size)
    function = Function(types, lambda inputs: {"y": jnp.sin(matrix @ inputs["x"])})
    return function, {"x": x}, np.cos(matrix @ x)[:, None] * matrix


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize(("width", "batch"), [(7, 7), (6, 2), (7, 3), (7, 1), (5, 4), (1, 1)])
@pytest.mark.parametrize("start", [0, 1])
def test_a_block_is_a_slice_of_the_jacobian_however_it_is_batched(
    mode: str, width: int, batch: int, start: int
) -> None:
    function, inputs, jacobian = handmade()
    start = min(start, (10 if mode == "forward" else 7) - width)
    derivative = Derivative(mode, ("x",), ("y",), 0)
    (found,) = jax.jit(lambda first: block(function, derivative, inputs, first, width, batch))(start)
    cut = slice(start, start + width)
    wanted = jacobian[:, cut] if mode == "forward" else jacobian[cut]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_hessian_of_an_output_of_several_elements_is_refused() -> None:
    function, inputs, _ = handmade()
    derivative = Derivative("forward_over_reverse", ("x",), ("y",), 0)
    with pytest.raises(InvalidInput, match=r"output 'y' has shape \[7\]"):
        block(function, derivative, inputs, 0, 1, 1)
