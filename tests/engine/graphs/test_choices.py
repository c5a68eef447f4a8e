"""Constants, inputs and outputs chosen at registration: derivatives by weights and at inner values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradwire_engine.errors import InvalidInput, ValueNeeded
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.planning.registration import register
from gradwire_engine.values import Choices
from tests.engine.small_graphs import doubles, matrices, model_of, model_text, value_of

RANDOM = np.random.default_rng(2)
X = RANDOM.normal(size=(2, 3))
W, B = RANDOM.normal(size=(3, 4)), RANDOM.normal(size=4)


def layers(listed: bool = False) -> onnx.ModelProto:
    """Returns y = sum(tanh(x w + b)^2), with the inner values h and t."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("ReduceSumSquare", ["t"], ["y"], keepdims=0),
    ]
    weights = [numpy_helper.from_array(W, "w"), numpy_helper.from_array(B, "b")]
    inputs = [doubles("x", "n", 3)] + ([doubles("w", 3, 4), doubles("b", 4)] if listed else [])
    return model_of(nodes, inputs, [doubles("y")], initializer=weights)


def chosen(model: onnx.ModelProto, **choices: Any) -> Graph:
    return register(model.SerializeToString(), choices=Choices(**choices))


def names(graph: Graph) -> tuple[list[str], list[str]]:
    signature = graph.info.signature
    return [name for name, _ in signature.inputs], [name for name, _ in signature.outputs]


def gradients() -> dict[str, np.ndarray]:
    t = np.tanh(X @ W + B)
    inner = 2 * t * (1 - t**2)
    return {"x": inner @ W.T, "w": X.T @ inner, "b": inner.sum(0), "h": inner, "t": 2 * t}


@pytest.mark.parametrize("listed", [False, True])
def test_weights_become_inputs_and_have_derivatives(listed: bool) -> None:
    graph = chosen(layers(listed), inputs=("x", "w", "b"))
    assert names(graph) == (["x", "w", "b"], ["y"])
    point = {"x": X, "w": W, "b": B}
    for got, name in zip(matrices(graph, point), point, strict=True):
        np.testing.assert_allclose(got, gradients()[name], rtol=1e-12)
    other = value_of(graph, {**point, "w": 2 * W})["y"]
    np.testing.assert_allclose(other, (np.tanh(2 * X @ W + B) ** 2).sum(), rtol=1e-13)


@pytest.mark.parametrize("name", ["h", "t"])
def test_a_graph_cut_at_an_inner_value_has_its_derivative_there(name: str) -> None:
    h = X @ W + B
    point = {name: {"h": h, "t": np.tanh(h)}[name]}
    graph = chosen(layers(), inputs=(name,))
    assert names(graph) == ([name], ["y"])
    np.testing.assert_allclose(matrices(graph, point)[0], gradients()[name], rtol=1e-12)


def test_inner_values_are_outputs_beside_those_of_the_model() -> None:
    graph = chosen(layers(), outputs=("t", "y"))
    assert names(graph) == (["x"], ["t", "y"])
    values = value_of(graph, {"x": X})
    np.testing.assert_allclose(values["t"], np.tanh(X @ W + B), rtol=1e-13)
    np.testing.assert_allclose(values["y"], (values["t"] ** 2).sum(), rtol=1e-13)


def test_outputs_bring_only_the_inputs_that_they_need() -> None:
    model = model_of(
        [helper.make_node("Sin", ["a"], ["s"]), helper.make_node("Add", ["s", "b"], ["y"])],
        [doubles("a", 2), doubles("b", 2)],
        [doubles("y", 2)],
    )
    assert names(chosen(model, outputs=("s",))) == (["a"], ["s"])


def test_token_ids_are_replaced_by_the_embedded_tokens() -> None:
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])
    model = model_of(
        [
            helper.make_node("Gather", ["table", "ids"], ["embedded"]),
            helper.make_node("Split", ["embedded"], ["left", "right"], axis=1, num_outputs=2),
            helper.make_node("Mul", ["left", "right"], ["y"]),
        ],
        [ids],
        [doubles("y", "n", 2)],
        initializer=[numpy_helper.from_array(RANDOM.normal(size=(6, 4)), "table")],
    )
    graph = chosen(model, inputs=("embedded",))
    embedded = RANDOM.normal(size=(3, 4))
    np.testing.assert_allclose(
        value_of(graph, {"embedded": embedded})["y"], embedded[:, :2] * embedded[:, 2:], rtol=1e-13
    )
    half = chosen(model, inputs=("left", "ids"))
    value = value_of(half, {"left": embedded[:, :2], "ids": np.array([0, 1, 5])})["y"]
    table = numpy_helper.to_array(model.graph.initializer[0])
    np.testing.assert_allclose(value, embedded[:, :2] * table[[0, 1, 5], 2:], rtol=1e-13)


FIXED = {
    "Reshape": ("(double[4] x, int64[2] k) => (double[2,2] y) { y = Reshape (x, k) }", [2, 2]),
    "Range": (
        """(double[4] x, int64 k) => (double[4] y) {
        a = Constant <value = int64 {0}> () s = Constant <value = int64 {1}> ()
        r = Range (a, k, s) f = Cast <to = 11> (r) y = Mul (x, f) }""",
        4,
    ),
    "Slice": (
        """(double[4] x, int64[1] k) => (double[n] y) {
        s = Constant <value = int64[1] {0}> () y = Slice (x, s, k) }""",
        [3],
    ),
    "TopK": ("(double[4] x, int64[1] k) => (double[n] y) { y, i = TopK (x, k) }", [2]),
    "Dropout": (
        """(double[4] x, bool k) => (double[4] y) {
        r = Constant <value = float {0.5}> () y = Dropout (x, r, k) }""",
        False,
    ),
}


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_input_decides_shapes_and_branches(name: str) -> None:
    body, value = FIXED[name]
    fixed = np.array(value)
    graph = register(model_text(body), text=True, choices=Choices(fixed={"k": fixed}))
    assert names(graph)[0] == ["x"]
    x = np.array([0.5, -1.0, 2.0, 1.5])
    expected = {
        "Reshape": x.reshape(2, 2),
        "Range": x * np.arange(4),
        "Slice": x[:3],
        "TopK": np.array([2.0, 1.5]),
        "Dropout": x,
    }
    np.testing.assert_allclose(value_of(graph, {"x": x})["y"], expected[name])
    assert np.isfinite(matrices(graph, {"x": x})[0]).all()


# Two sample rates, of which each has a filter of its own length: the branch not taken does not fit the other.
RATES = """(double[n] x, int64 sr) => (double y) {
  high = Constant <value = int64 {16000}> ()
  c = Equal (sr, high)
  y = If (c) <
    then_branch = wide () => (double a) {
      w = Constant <value = double[4] {1.0, 2.0, 3.0, 4.0}> ()
      p = Mul (x, w) a = ReduceSum <keepdims = 0> (p) },
    else_branch = narrow () => (double b) {
      v = Constant <value = double[3] {1.0, 2.0, 3.0}> ()
      q = Mul (x, v) b = ReduceSum <keepdims = 0> (q) }
  >
}"""


@pytest.mark.parametrize("extent", ["double[n]", "double[4]"])
def test_an_input_that_chooses_the_branch_that_fits_is_fixed(extent: str) -> None:
    graph = register(model_text(RATES), text=True)
    with pytest.raises(ValueNeeded, match=r"\(If\): the condition depends on.*input 'sr'.*fixed="):
        value_of(graph, {"x": np.ones(4), "sr": np.array(16000)})
    choices = Choices(fixed={"sr": np.array(16000)})
    # With four elements ONNX's shape inference refuses the branch not taken.
    body = RATES.replace("double[n]", extent)
    graph = register(model_text(body), text=True, choices=choices)
    np.testing.assert_array_equal(matrices(graph, {"x": np.ones(4)})[0], [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"fixed": {"z": np.ones(2)}}, "there is no input 'z'"),
        ({"fixed": {"w": W}}, "there is no input 'w'"),
        ({"fixed": {"x": np.ones((2, 4))}}, r"'x' should be float64\[\?, 3\], not float64\[2, 4\]"),
        ({"fixed": {"x": np.ones((2, 3), np.float32)}}, "not float32"),
        ({"fixed": {"x": X}, "inputs": ("x",)}, "fixed and an input at once"),
        ({"inputs": ("x", "ww")}, "the graph has no value 'ww'; did you mean 'w'"),
        ({"inputs": ("x", "x")}, "'x' is given twice"),
        ({"inputs": ("w",)}, "the outputs also need 'x'"),
        ({"inputs": ("x", "t")}, "no output depends on 'x'"),
        ({"outputs": ("z",)}, "outputs: the graph has no value 'z'"),
        ({"outputs": ("y", "y")}, "'y' is given twice"),
        ({"rounding": "up"}, "rounding is 'up'"),
        ({"rounding": "straight_through"}, "has no effect"),
    ],
)
def test_choices_that_do_not_fit_are_refused_by_name(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        chosen(layers(), **choices)


def test_every_choice_makes_another_graph() -> None:
    model = layers()
    graphs = [
        register(model.SerializeToString()),
        chosen(model, fixed={"x": X}),
        chosen(model, fixed={"x": X + 1}),
        chosen(model, inputs=("x", "w")),
        chosen(model, inputs=("w", "x")),
        chosen(model, outputs=("t",)),
    ]
    assert len({graph.info.graph_id for graph in graphs}) == len(graphs)
    assert chosen(model).info.graph_id == graphs[0].info.graph_id
