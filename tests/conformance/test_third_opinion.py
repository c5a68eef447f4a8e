"""Compares values with onnxruntime, in float32, on nodes whose attributes are drawn by seed.

The engine's rules are held to ONNX's text and to onnx.reference elsewhere. The reference departs from the
text in places; what most people run graphs with is the third opinion.
"""

from __future__ import annotations

import zlib
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from gradwire_engine.lowering import evaluate
from tests.conformance.drawn_nodes import FAMILIES, DrawnNode

jax.config.update("jax_enable_x64", True)

SAMPLE = 14
"""Nodes of each family."""

Array = np.ndarray[Any, Any]


def drawn(family: str, number: int) -> DrawnNode:
    return FAMILIES[family](np.random.default_rng([zlib.crc32(family.encode()), number]))


def model_of(node: DrawnNode) -> onnx.ModelProto:
    names = [f"x{index}" if array is not None else "" for index, array in enumerate(node.inputs)]
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, node.inputs, strict=True)
        if array is not None
    ]
    outputs = [helper.make_empty_tensor_value_info(f"y{index}") for index in range(node.outputs)]
    made = helper.make_node(node.op, names, [item.name for item in outputs], **node.attributes)
    graph = helper.make_graph([made], "drawn", inputs, outputs)
    untyped = helper.make_model(graph, opset_imports=[helper.make_opsetid("", node.opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(untyped)


def theirs(model: onnx.ModelProto, inputs: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    results: list[Array] = session.run(None, inputs)
    return results


def ours(node: DrawnNode, model: onnx.ModelProto, inputs: dict[str, Array]) -> list[Array]:
    static = {name: array for name, array in inputs.items() if int(name[1:]) in node.static}
    traced = {name: array for name, array in inputs.items() if name not in static}
    return [np.asarray(one) for one in jax.jit(lambda given: evaluate(model, {**static, **given}))(traced)]


@pytest.mark.parametrize("number", range(SAMPLE))
@pytest.mark.parametrize("family", FAMILIES)
def test_onnxruntime_computes_the_same_values(family: str, number: int) -> None:
    node = drawn(family, number)
    model = model_of(node)
    inputs = {f"x{index}": array for index, array in enumerate(node.inputs) if array is not None}
    expected, actual = theirs(model, inputs), ours(node, model, inputs)
    for want, got in zip(expected, actual, strict=True):
        assert got.dtype == want.dtype
        scale = max(1.0, float(np.abs(want).max(initial=0)))
        np.testing.assert_allclose(got, want, rtol=0, atol=node.tolerance * scale, err_msg=str(node))
