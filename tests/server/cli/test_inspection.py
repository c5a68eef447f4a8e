"""What `gradwire inspect` finds in a model, without a server."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from gradwire.frontends.sources import signature_of
from gradwire_server.cli.inspection import contents, without_derivative

HEADER = '<ir_version: 8, opset_import: ["" : 18, "ai.onnx.ml" : 3, "local" : 1]>'
NESTED = f"""{HEADER}
g (double[3] x, bool c) => (double[3] y) {{
  y = If (c) <
    then_branch = a () => (double[3] p) {{ q = Tanh(x) p = local.twice(q) }},
    else_branch = b () => (double[3] r) {{ r = Neg(x) }}
  >
}}
<domain: "local", opset_import: ["" : 18]>
twice (x) => (y) {{ y = Add(x, x) }}
"""


def parsed(graph: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(graph if graph.startswith("<") else f"{HEADER}\ng {graph}")


def found(graph: str) -> str:
    model = parsed(graph)
    return without_derivative(model, signature_of(model))


def changes(graph: str) -> bool:
    """Whether a small change of all floating-point inputs changes a floating-point output, by onnx itself."""
    model = parsed(graph)
    at: dict[str, Any] = {"x": np.array([0.3, -1.2, 2.3]), "s": 0.1, "z": 3, "i": [1, 2, 3], "c": True}
    near = {**at, "x": at["x"] + 1e-6, "s": 0.1 + 1e-9}
    evaluator = ReferenceEvaluator(model)
    outputs = []
    for point in (at, near):
        given = {one.name: np.asarray(point[one.name], one.dtype) for one in signature_of(model).inputs}
        outputs.append(evaluator.run(None, given))
    return any(one.dtype.kind == "f" and (one != other).any() for one, other in zip(*outputs, strict=True))


def test_nodes_of_subgraphs_and_functions_are_counted() -> None:
    nodes, operators = contents(onnx.parser.parse_model(NESTED))
    assert nodes == "nodes: 1 in the graph, 3 in 2 subgraphs, 1 in 1 function"
    assert operators == "operators: Add x 1, If x 1, Neg x 1, Tanh x 1, local.twice x 1"


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        ("(int64[3] x) => (float[3] y) { y = Cast<to: int = 1>(x) }", "no input is floating-point"),
        ("(float[3] x) => (int64[3] y) { y = Cast<to: int = 7>(x) }", "no output is floating-point"),
        ("(float[3] x) => (float[3] y) { h = Tanh(x) y = Round(h) }", "steps (Round)"),
        (
            "(float[3] x) => (float[3] y) { i = Cast<to: int = 7>(x) h = Cast<to: int = 1>(i) y = Tanh(h) }",
            "steps (Cast)",
        ),
        (
            "(float[3] x, float s, int8 z) => (float[3] y) "
            "{ q = QuantizeLinear(x, s, z) y = Cast<to: int = 1>(q) }",
            "steps (QuantizeLinear)",
        ),
        ("(float[3] x, int64[3] i) => (float[3] y) { y = Cast<to: int = 1>(i) }", "no output depends"),
    ],
)
def test_a_model_without_a_derivative_is_told(graph: str, reason: str) -> None:
    assert reason in found(graph)
    assert not changes(graph)


@pytest.mark.parametrize(
    "graph",
    [
        "(float[3] x) => (float[3] y) { r = Round(x) y = Add(r, x) }",
        "(float[3] x) => (float[3] y, float[3] z) { y = Round(x) z = Neg(x) }",
        "(float[3] x) => (double[3] y) { y = Cast<to: int = 11>(x) }",
        NESTED,
    ],
)
def test_a_model_that_may_have_a_derivative_is_not(graph: str) -> None:
    assert found(graph) == ""
    assert changes(graph)
