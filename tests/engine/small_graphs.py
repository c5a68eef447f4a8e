"""Graphs in a line, and what the engine makes of them at a point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gradwire_engine.graphs.graph import Graph
from gradwire_engine.limits import Limits
from gradwire_engine.planning.kernels import EvaluateSpec, Kernel, compile_kernel
from gradwire_engine.planning.plan import Plan, PlanOptions, Problem, make_plan
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.transforms import FunctionSpec, Transform
from tests.engine import in_process

Arrays = Mapping[str, Any]


def model_text(body: str, functions: str = "", opset: int = 21) -> bytes:
    """A model in ONNX's textual form from `(inputs) => (outputs) { nodes }`."""
    imports = f'"": {opset}, "gradwire.sci": 1, "own": 1'
    return f"<ir_version: 10, opset_import: [{imports}]> main {body} {functions}".encode()


def graph_of(body: str, functions: str = "", opset: int = 21, limits: Limits | None = None) -> Graph:
    """A registered graph."""
    return register(model_text(body, functions, opset), text=True, limits=limits)


def value_of(graph: Graph, inputs: Arrays, *transforms: Transform) -> dict[str, Any]:
    """Outputs by name of the transformed graph at a point."""
    return in_process.evaluate(graph, FunctionSpec(graph.info.graph_id, transforms), inputs)


def kernel_of(graph: Graph, inputs: Arrays, *transforms: Transform, **spec: Any) -> Kernel:
    """The kernel that evaluates the transformed graph on arrays like these."""
    function = FunctionSpec(graph.info.graph_id, transforms)
    return compile_kernel(graph, EvaluateSpec(function, in_process.argument_types(inputs), **spec))


def plan_of(
    graph: Graph,
    inputs: Arrays,
    kind: str = "jacobian",
    *transforms: Transform,
    wrt: tuple[str, ...] = (),
    of: tuple[str, ...] = (),
    limits: Limits | None = None,
    **options: Any,
) -> Plan:
    """A plan; `options` are those of PlanOptions."""
    function = FunctionSpec(graph.info.graph_id, transforms)
    problem = Problem(function, in_process.argument_types(inputs), kind, wrt, of, PlanOptions(**options))
    return make_plan(graph, problem, limits)


def matrices(
    graph: Graph, inputs: Arrays, kind: str = "jacobian", *transforms: Transform, **options: Any
) -> list[np.ndarray[Any, Any]]:
    """The whole derivative, one array an entry."""
    return in_process.assemble(graph, plan_of(graph, inputs, kind, *transforms, **options), inputs)


SINE = "(double[3] x) => (double[3] y) { y = Sin(x) }"


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    opset: int = 21,
    **parts: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "main", inputs, outputs, **parts)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def doubles(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.DOUBLE, list(shape))


def weighted(count: int, name: str = "w", dtype: type = np.float64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.arange(count, dtype=dtype) / 8, name)


def proto_bytes(body: str = SINE) -> bytes:
    return onnx.parser.parse_model(model_text(body).decode()).SerializeToString()
