"""Models whose every path goes through a step: a warning that names it, and straight-through rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gradwire_engine.graphs.graph import Graph
from gradwire_engine.planning.registration import register
from gradwire_engine.values import Choices
from tests.engine.small_graphs import graph_of, matrices, model_text, value_of

STRAIGHT = Choices(rounding="straight_through")

FLAT = {
    "Round": "(double[3] x) => (double[3] y) { r = Round (x) y = Mul (r, r) }",
    "Sign": "(double[3] x) => (double[3] y) { s = Sign (x) y = Neg (s) }",
    "Cast": "(double[3] x) => (double[3] y) { i = Cast <to = 7> (x) y = Cast <to = 11> (i) }",
    "Greater": """(double[3] x) => (double[3] y) {
        z = Constant <value = double {0.0}> () g = Greater (x, z) y = Cast <to = 11> (g) }""",
    "Where": """(double[3] x) => (double[3] y) {
        z = Constant <value = double {0.0}> () o = Constant <value = double {1.0}> ()
        g = Less (x, z) y = Where (g, z, o) }""",
    "QuantizeLinear": """(float[3] x) => (float[3] y) {
        s = Constant <value = float {0.5}> () q = QuantizeLinear (x, s) y = DequantizeLinear (q, s) }""",
    "symbolic": "(double[n, 3] x) => (double[n, 3] y) { r = Ceil (x) y = Exp (r) }",
}

OTHERS = (
    "(double[3] x) => (double[3] y) { r = Round (x) y = Add (r, x) }",
    "(double[3] x) => (int64[3] y) { y = Cast <to = 7> (x) }",
    "(double[3] x) => (double[3] y) { y = Constant <value = double[3] {1.0, 2.0, 3.0}> () }",
    """(double[3] x) => (double[3] y) {
        z = Constant <value = double {0.0}> () g = Less (x, z) y = Where (g, z, x) }""",
    "(double[3] x) => (double[3] y) { y = own.f (x) }",
)

OWN = """<domain: "own", opset_import: ["": 21]> f (a) => (b) { r = Floor (a) b = Add (r, a) }"""
FLAT_OWN = """<domain: "own", opset_import: ["": 21]> f (a) => (b) { r = Floor (a) b = Exp (r) }"""


def warned(graph: Graph) -> list[str]:
    return [text for text in graph.info.warnings if "is exactly 0" in text]


@pytest.mark.parametrize("name", FLAT)
def test_an_output_that_only_steps_lead_to_is_warned_of_with_the_step(name: str) -> None:
    graph = graph_of(FLAT[name])
    (text,) = warned(graph)
    assert "'y'" in text
    assert (f"({name})" in text) or name in ("Where", "symbolic")
    assert ("straight_through" in text) == (name in ("Round", "QuantizeLinear", "symbolic"))
    if name != "symbolic":
        dtype = np.float32 if name == "QuantizeLinear" else np.float64
        assert not matrices(graph, {"x": np.array([0.3, -1.2, 2.4], dtype)})[0].any()


@pytest.mark.parametrize("body", OTHERS)
def test_outputs_that_derivatives_reach_and_integers_are_not_warned_of(body: str) -> None:
    assert not warned(graph_of(body, OWN if "own.f" in body else ""))


def test_steps_inside_functions_count() -> None:
    assert warned(graph_of(OTHERS[-1], FLAT_OWN))


def straight(body: str) -> Graph:
    graph = register(model_text(body), text=True, choices=STRAIGHT)
    assert not warned(graph)
    return graph


@pytest.mark.parametrize("op", ["Round", "Floor", "Ceil"])
def test_rounding_passes_derivatives_straight_through(op: str) -> None:
    graph = straight(f"(double[4] x) => (double[4] y) {{ s = Mul (x, x) r = {op} (s) y = Mul (r, x) }}")
    x = np.array([0.3, -1.2, 2.4, np.inf])
    rounded = {"Round": np.rint, "Floor": np.floor, "Ceil": np.ceil}[op](x * x)
    np.testing.assert_array_equal(value_of(graph, {"x": x})["y"], rounded * x)
    finite = slice(0, 3)
    expected = rounded + x * 2 * x
    jacobian = matrices(graph, {"x": x})[0]
    np.testing.assert_allclose(np.diag(jacobian)[finite], expected[finite], rtol=1e-13)


MOVES = {
    "at once": "m = Identity (q)",
    "reshaped": """k = Constant <value = int64[2] {2, 4}> () r = Reshape (q, k)
        f = Constant <value = int64[1] {8}> () m = Reshape (r, f)""",
    "joined": "a, b = Split <num_outputs = 2> (q) m = Concat <axis = 0> (a, b)",
}


@pytest.mark.parametrize("moved", MOVES)
@pytest.mark.parametrize("zero", [0, 3])
def test_quantized_pairs_have_the_derivative_of_torch_fake_quantize(moved: str, zero: int) -> None:
    body = f"""(float[8] x) => (float[8] y) {{
        s = Constant <value = float {{0.03125}}> () z = Constant <value = int8 {{{zero}}}> ()
        e = Mul (x, x) q = QuantizeLinear (e, s, z) {MOVES[moved]}
        d = DequantizeLinear (m, s, z) y = Mul (d, x) }}"""
    graph = straight(body)
    x = np.array([-3.0, -1.5, -0.6, -0.01, 0.02, 0.7, 1.9, 2.3], np.float32)
    point = torch.tensor(x, requires_grad=True)
    faked = torch.fake_quantize_per_tensor_affine(point * point, 0.03125, zero, -128, 127)
    expected = torch.autograd.grad((faked * point).sum(), point)[0].numpy()
    np.testing.assert_allclose(value_of(graph, {"x": x})["y"], (faked * point).detach(), rtol=1e-6)
    np.testing.assert_allclose(np.diag(matrices(graph, {"x": x})[0]), expected, rtol=1e-5)


def test_both_modes_agree_on_a_quantized_network() -> None:
    graph = straight(
        """(float[2, 3] x, float[3, 2] w) => (float[2, 2] y) {
        s = Constant <value = float {0.05}> () z = Constant <value = uint8 {128}> ()
        xq = QuantizeLinear (x, s, z) xd = DequantizeLinear (xq, s, z)
        wq = QuantizeLinear (w, s, z) wd = DequantizeLinear (wq, s, z)
        h = MatMul (xd, wd) hq = QuantizeLinear (h, s, z) y = DequantizeLinear (hq, s, z) }"""
    )
    random = np.random.default_rng(1)
    point = {
        "x": random.normal(size=(2, 3)).astype(np.float32),
        "w": random.normal(size=(3, 2)).astype(np.float32),
    }
    forward, reverse = (matrices(graph, point, mode=mode) for mode in ("forward", "reverse"))
    for one, other in zip(forward, reverse, strict=True):
        assert one.any()
        np.testing.assert_allclose(one, other, rtol=1e-6)
