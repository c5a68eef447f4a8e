"""Parts of models through the whole service: constants, inputs, outputs, straight-through rounding."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import gradwire as gw
import gradwire_wire as wire
from gradwire_wire.v1 import graph_pb2
from tests.server import calls

RANDOM = np.random.default_rng(8)
X, W, B = RANDOM.normal(size=(2, 3)), RANDOM.normal(size=(3, 4)), RANDOM.normal(size=4)
HEADER = '<ir_version: 8, opset_import: ["" : 18]>\n'

RATES = (
    HEADER
    + """main (double[n] x, int64 sr) => (double y) {
  high = Constant <value = int64 {16000}> () c = Equal (sr, high)
  y = If (c) <
    then_branch = wide () => (double a) {
      w = Constant <value = double[4] {1.0, 2.0, 3.0, 4.0}> ()
      p = Mul (x, w) a = ReduceSum <keepdims = 0> (p) },
    else_branch = narrow () => (double b) {
      v = Constant <value = double[3] {1.0, 2.0, 3.0}> ()
      q = Mul (x, v) b = ReduceSum <keepdims = 0> (q) }
  >
}"""
)

ROUNDED = HEADER + "main (double[3] x) => (double[3] y) { r = Round (x) y = Mul (r, r) }"


def layers() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("ReduceSumSquare", ["t"], ["y"], keepdims=0),
    ]
    double = onnx.TensorProto.DOUBLE
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", double, ["n", 3])],
        [helper.make_tensor_value_info("y", double, [])],
        [numpy_helper.from_array(W, "w"), numpy_helper.from_array(B, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected:
        yield connected


def test_an_input_that_chooses_a_branch_is_fixed(client: gw.Client) -> None:
    f = client.function(RATES, fixed={"sr": 16000})
    assert str(f.signature) == "(x: float64[n]) -> (y: float64[])"
    np.testing.assert_array_equal(f.grad(np.ones(4)), [1, 2, 3, 4])
    other = client.function(RATES, fixed={"sr": 8000})
    assert other.graph_id != f.graph_id
    np.testing.assert_array_equal(other.grad(np.ones(3)), [1, 2, 3])
    with pytest.raises(gw.GradwireError, match=r"input 'sr'.*fixed="):
        client.function(RATES)(np.ones(4), 16000)


def test_weights_are_inputs_and_inner_values_outputs(client: gw.Client) -> None:
    f = client.function(layers(), inputs=["x", "w"], outputs=["t", "y"])
    assert str(f.signature) == "(x: float64[n, 3], w: float64[3, 4]) -> (t: float64[n, 4], y: float64[])"
    t = np.tanh(X @ W + B)
    values = f(X, W)
    np.testing.assert_allclose(values[0], t, rtol=1e-13)
    gradient = f.grad(X, W, wrt="w", of="y")
    np.testing.assert_allclose(gradient, X.T @ (2 * t * (1 - t**2)), rtol=1e-12)


def test_a_graph_is_cut_at_an_inner_value(client: gw.Client) -> None:
    features = client.function(layers(), outputs=["t"])
    head = client.function(layers(), inputs=["t"])
    t = features(X)
    np.testing.assert_allclose(head.grad(t), 2 * t, rtol=1e-13)
    assert head.describe().graph_id == head.graph_id


def test_rounding_may_pass_derivatives_straight_through(client: gw.Client) -> None:
    x = np.array([0.2, 1.7, -2.4])
    with pytest.warns(gw.GraphWarning, match=r"every derivative of 'y' is exactly 0.*Round"):
        assert not client.function(ROUNDED).jacobian(x).any()
    straight = client.function(ROUNDED, rounding="straight_through")
    np.testing.assert_array_equal(straight.jacobian(x), np.diag(2 * np.round(x)))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"fixed": {"z": 1}}, "there is no input 'z'"),
        ({"fixed": {}}, "name at least one value"),
        ({"fixed": {"x": np.ones((2, 3), complex)}}, "complex128"),
        ({"inputs": "x"}, "in a list"),
        ({"inputs": ["x", "v"]}, "no value 'v'"),
        ({"outputs": ["tt"]}, "did you mean 't'"),
        ({"rounding": "up"}, "rounding='up' is not 'straight_through'"),
    ],
)
def test_choices_that_do_not_fit_are_refused_before_anything_is_sent(
    client: gw.Client, choices: dict[str, Any], message: str
) -> None:
    with pytest.raises(gw.InvalidArgumentError, match=message):
        client.function(layers(), **choices)


def test_a_python_function_has_its_own_inputs_and_outputs(client: gw.Client) -> None:
    with pytest.raises(gw.InvalidArgumentError, match="fixed= is for models"):
        client.function(lambda x: x, gw.spec(3), fixed={"x": 1.0})
    straight = client.function(lambda x: np.round(x) * x, gw.spec(2), rounding="straight_through")
    np.testing.assert_array_equal(straight.jacobian(np.array([1.2, 2.6])), np.diag([2.2, 5.6]))


def test_the_command_line_fixes_inputs(server: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnxtxt").write_text(RATES)
    command = [str(Path(sys.executable).with_name("gradwire")), "jacobian", "model.onnxtxt"]
    command += ["--input", "x=[1.0,1.0,1.0,1.0]", "--fix", "sr=16000", "-o", "out.npy"]
    done = subprocess.run(
        [*command, "--address", server.address], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), [1, 2, 3, 4])


def test_other_languages_name_a_chosen_graph_by_the_documented_text(channel: grpc.Channel) -> None:
    text, rate = RATES.encode(), np.array(16000)
    first = graph_pb2.RegisterGraphRequest(fixed={"sr": wire.to_tensor(rate)}, outputs=["y"])
    parts = [first, graph_pb2.RegisterGraphRequest(text=RATES)]
    graph = calls.stub(channel).RegisterGraph(iter(parts), timeout=60).graph
    tensor = hashlib.sha256(b"5::" + rate.tobytes()).hexdigest()
    lines = f"graph {hashlib.sha256(text).hexdigest()}\nfixed 2:sr={tensor}\noutput 1:y\n"
    assert graph.graph_id == hashlib.sha256(lines.encode()).hexdigest()
    assert [value.name for value in graph.inputs] == ["x"]
    value = calls.evaluate(channel, graph.graph_id, {"x": np.ones(4)})["y"]
    assert value == 10


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([{"text": RATES}, {"outputs": ["y"]}], "first message"),
        ([{"text": RATES, "fixed": {"sr": {"dtype": 5, "tensor_id": "ab"}}}], "inline"),
        ([{"text": RATES, "fixed": {"sr": {"dtype": 5, "data": b"12"}}}], "bytes"),
        ([{"text": RATES, "fixed": {"sr": {"dtype": 1, "data": b"12345678"}}}], "should be int64"),
        ([{"text": RATES, "inputs": ["x"]}], "also need 'sr'"),
        ([{"text": RATES, "rounding": 7}], "rounding 7 is not known"),
    ],
)
def test_registrations_with_choices_that_do_not_fit_are_invalid_arguments(
    channel: grpc.Channel, parts: list[dict[str, Any]], message: str
) -> None:
    requests = iter([graph_pb2.RegisterGraphRequest(**part) for part in parts])
    with pytest.raises(grpc.RpcError, match=message) as refusal:
        calls.stub(channel).RegisterGraph(requests, timeout=60)
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
