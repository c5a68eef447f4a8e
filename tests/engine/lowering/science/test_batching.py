"""Vmap: a graph over a batch, against JAX's vmap of the same function, and refusals by name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from gradwire_engine.errors import InvalidGraph, LimitExceeded, NotDifferentiable
from gradwire_engine.graphs.checks import nodes_in
from gradwire_engine.graphs.graph import parse
from gradwire_engine.limits import Limits
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_flat
from tests.engine.small_graphs import graph_of, matrices, value_of

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(4, 3)), RNG.normal(size=(2, 4))


def model(text: str) -> onnx.ModelProto:
    header = '<ir_version: 10, opset_import: ["": 21, "gradwire.sci": 1]>\n'
    return onnx.parser.parse_model(header + text)


PRODUCTS = """g (double[4, 3] a, double[2, 4] b) => (double[3, 4] y, double[4, 2] z) {
    y, z = gradwire.sci.Vmap (a, b) <in_axes = [0, 1], out_axes = [1, 0],
        body = one (double[3] u, double[2] v) => (double[3] s, double[2] t) {
            q = Sin (u)  total = ReduceSum <keepdims = 0> (v)  s = Mul (q, total)  t = Mul (v, v)
        }>
}"""


def products(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(lambda u, v: (jnp.sin(u) * v.sum(), v * v), in_axes=(0, 1), out_axes=(1, 0))(a, b)


def test_inputs_are_sliced_and_outputs_stacked_along_the_axes_asked_for() -> None:
    found = jax.jit(lambda a, b: evaluate(model(PRODUCTS), {"a": a, "b": b}))(A, B)
    for actual, expected in zip(found, products(A, B), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-14)


def test_a_vmap_has_the_derivatives_of_its_body_of_any_order() -> None:
    def flat(vector: jax.Array) -> jax.Array:
        a, b = vector[:12].reshape(4, 3), vector[12:].reshape(2, 4)
        return jnp.concatenate([value.ravel() for value in evaluate(model(PRODUCTS), {"a": a, "b": b})])

    check_flat(flat, np.concatenate([A.ravel(), B.ravel()]), order=2)


def test_inputs_that_are_not_sliced_and_values_from_around_the_body_are_whole() -> None:
    text = """g (double[4, 3] a, double[3] w) => (y) {
        c = Exp (w)
        y = gradwire.sci.Vmap (a, w) <in_axes = [0, -1], body = one (double[3] u, double[3] v) => (double t) {
            p = Mul (u, v)  q = Mul (p, c)  t = ReduceSum <keepdims = 0> (q)
        }>
    }"""
    w = A[0] + 1
    actual = jax.jit(lambda a, w: evaluate(model(text), {"a": a, "w": w})[0])(A, w)
    np.testing.assert_allclose(actual, A @ (w * np.exp(w)), rtol=1e-14)


def test_vmaps_nest() -> None:
    text = """g (double[4, 3] a, double[3] w) => (y) {
        y = gradwire.sci.Vmap (a) <body = rows (double[3] u) => (double[3] r) {
            m = ReduceSum <keepdims = 0> (u)
            r = gradwire.sci.Vmap (u, w) <body = entries (double s, double k) => (double e) {
                p = Mul (s, k)  e = Sub (p, m)
            }>
        }>
    }"""
    w = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(
        evaluate(model(text), {"a": jnp.asarray(A), "w": jnp.asarray(w)})[0],
        A * w - A.sum(1, keepdims=True),
        rtol=1e-14,
    )


def test_a_batch_of_none_gives_outputs_of_none() -> None:
    text = """g (double[0, 3] a) => (y) {
        y = gradwire.sci.Vmap (a) <out_axes = [1], body = one (double[3] u) => (double[3] t) { t = Sin (u) }>
    }"""
    assert evaluate(model(text), {"a": jnp.zeros((0, 3))})[0].shape == (3, 0)


def test_an_output_that_no_slice_enters_is_repeated() -> None:
    text = """g (double[4, 3] a, double[3] w) => (y) {
        y = gradwire.sci.Vmap (a) <body = one (double[3] u) => (double[3] t) { t = Identity (w) }>
    }"""
    actual = evaluate(model(text), {"a": jnp.asarray(A), "w": jnp.asarray(A[0])})[0]
    np.testing.assert_array_equal(actual, np.tile(A[0], (4, 1)))


WHILE = """(double[3] x) => (double[3] y) {
    y = gradwire.sci.Vmap (x) <body = one (double s) => (double r) {
        bound = Constant <value = double {100}> ()
        go = Less (s, bound)
        r = Loop (, go, s) <body = b (int64 i, bool c, double q) => (bool k, double t) {
            t = Mul (q, q)  k = Less (t, bound)
        }>
    }>
}"""


def test_a_loop_of_unknown_length_in_a_body_is_forward_only_by_name() -> None:
    graph = graph_of(WHILE)
    assert graph.info.forward_only
    assert "node #0/#2: its number of trips depends on the data" in graph.info.forward_only_reason
    x = np.array([2.0, 3.0, 11.0])
    np.testing.assert_allclose(value_of(graph, {"x": x})["y"], [256.0, 6561.0, 121.0])
    jacobian = matrices(graph, {"x": x}, mode="forward")[0]
    np.testing.assert_allclose(jacobian, np.diag([8 * 2.0**7, 8 * 3.0**7, 22.0]))
    with pytest.raises(NotDifferentiable, match=r"node #0/#2"):
        matrices(graph, {"x": x}, mode="reverse")


def test_the_nodes_of_a_body_count_and_its_constants_are_found() -> None:
    data = model(PRODUCTS).SerializeToString()
    assert parse(data).info.node_count == 5
    assert {node.op_type for node in nodes_in(parse(data).proto().graph)} >= {"Vmap", "Sin", "ReduceSum"}
    with pytest.raises(LimitExceeded, match="5 nodes"):
        parse(data, limits=Limits(nodes=4))


def test_large_constants_of_a_body_become_weights() -> None:
    m = model("""g (double[4, 100] a) => (double[4, 100] y) {
        y = gradwire.sci.Vmap (a) <body = one (double[100] u) => (double[100] t) { t = Mul (u, w) }>
    }""")
    w = np.arange(100.0)
    m.graph.node[0].attribute[0].g.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    graph = parse(m.SerializeToString())
    assert list(graph.weights) == ["w"]
    x = RNG.normal(size=(4, 100))
    np.testing.assert_array_equal(value_of(graph, {"a": x})["y"], x * w)


def test_an_output_over_the_limit_is_refused_before_it_is_made() -> None:
    text = """(double[1000000] x) => (double[n, m] y) {
        n = Constant <value_ints = [1000000]> ()
        y = gradwire.sci.Vmap (x) <body = one (double s) => (double[1000000] t) { t = Expand (s, n) }>
    }"""
    with pytest.raises(LimitExceeded, match=r"Vmap.*8000000000000 bytes"):
        graph_of(text)


BODY = "body = one (double[3] u) => (double[3] t) { t = Sin (u) }"
REFUSALS = {
    "no body": ("y = gradwire.sci.Vmap (a)", r"Vmap.*attribute body \(a graph\) is missing"),
    "a body that is no graph": ("y = gradwire.sci.Vmap (a) <body = 3>", r"Vmap"),
    "an input too many": (
        f"y = gradwire.sci.Vmap (a, a) <{BODY}>",
        r"Vmap.*its body has 1 inputs and the node has 2",
    ),
    "an output too few": (
        f"y, z = gradwire.sci.Vmap (a) <{BODY}>",
        r"Vmap.*its body has 1 outputs and the node has 2",
    ),
    "axes for other inputs": (
        f"y = gradwire.sci.Vmap (a) <in_axes = [0, 0], {BODY}>",
        r"Vmap.*in_axes has 2 entries; it needs 1",
    ),
    "axes for other outputs": (
        f"y = gradwire.sci.Vmap (a) <out_axes = [0, 0], {BODY}>",
        r"Vmap.*out_axes has 2 entries; it needs 1",
    ),
    "an axis too many": (f"y = gradwire.sci.Vmap (a) <in_axes = [2], {BODY}>", r"axis 2, and it has 2 axes"),
    "an axis below -1": (f"y = gradwire.sci.Vmap (a) <in_axes = [-2], {BODY}>", r"axes count from 0"),
    "an output axis too many": (
        f"y = gradwire.sci.Vmap (a) <out_axes = [2], {BODY}>",
        r"out_axes puts output 0 on axis 2 of 2",
    ),
    "an output axis below 0": (f"y = gradwire.sci.Vmap (a) <out_axes = [-1], {BODY}>", r"axes count from 0"),
    "nothing sliced": (f"y = gradwire.sci.Vmap (a) <in_axes = [-1], {BODY}>", r"slices no input"),
    "different extents": (
        "y = gradwire.sci.Vmap (a, w) <body = one (double[3] u, double v) => (double[3] t) "
        "{ t = Mul (u, v) }>",
        r"different extents: 4 of input 0, 3 of input 1",
    ),
    "a sequence": (
        "y = gradwire.sci.Vmap (a) <body = one (double[3] u) => (t) { t = SequenceConstruct (u, u) }>",
        r"output 0 of its body is no tensor",
    ),
    "a sequence to slice": (
        f"s = SequenceConstruct (a, a)  y = gradwire.sci.Vmap (s) <{BODY}>",
        r"input 0 is no tensor",
    ),
    "an unknown operator in the body": (
        "y = gradwire.sci.Vmap (a) "
        "<body = one (double[3] u) => (double[3] t) { t = gradwire.sci.Frobnicate (u) }>",
        r"Frobnicate",
    ),
    "a value that nobody makes": (
        "y = gradwire.sci.Vmap (a) <body = one (double[3] u) => (double[3] t) { t = Add (u, nowhere) }>",
        r"nowhere",
    ),
    "shapes that do not fit inside": (
        "y = gradwire.sci.Vmap (a) <body = one (double[3] u) => (double[3] t) { t = MatMul (u, b) }>",
        r"MatMul",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_vmap_is_refused_by_name(name: str) -> None:
    nodes, reason = REFUSALS[name]
    with pytest.raises(InvalidGraph, match=reason):
        graph_of(f"(double[4, 3] a, double[2, 4] b, double[3] w) => (double[n, m] y) {{ {nodes} }}")


def test_the_plan_of_a_vmap_is_that_of_any_function() -> None:
    graph = graph_of(PRODUCTS.removeprefix("g "))
    found = matrices(graph, {"a": A, "b": B})
    expected = jax.jacobian(products, (0, 1))(A, B)
    leaves = jax.tree.leaves(expected)
    assert len(found) == len(leaves)
    for actual, want in zip(found, leaves, strict=True):
        np.testing.assert_allclose(np.ravel(actual), np.ravel(want), rtol=1e-13, atol=1e-15)
