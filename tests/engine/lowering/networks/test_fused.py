"""Operators that onnxruntime's optimizer writes: its own values in float32, derivatives in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.planning.registration import register
from tests.engine.lowering.derivative_checks import check_op, one_node, run
from tests.engine.small_graphs import value_of

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(2, 3, 4))
ROW = RANDOM.normal(size=4)
STACKS = RANDOM.normal(size=(2, 3, 4)), RANDOM.normal(size=(2, 4, 5))

CASES: dict[str, tuple[str, list[Any], dict[str, Any], int]] = {
    "FusedMatMul": ("FusedMatMul", [*STACKS], {"alpha": 0.5}, 1),
    "FusedMatMul, transposed": (
        "FusedMatMul",
        [STACKS[0].swapaxes(1, 2), STACKS[1].swapaxes(1, 2)],
        {"transA": 1, "transB": 1, "alpha": -2.0},
        1,
    ),
    "FusedMatMul, batches inside": (
        "FusedMatMul",
        [np.moveaxis(STACKS[0], 1, 0).copy(), STACKS[1].transpose(2, 0, 1).copy()],
        {"transBatchA": 1, "transBatchB": 1, "transB": 1},
        1,
    ),
    "Gelu": ("Gelu", [X], {}, 1),
    "BiasGelu": ("BiasGelu", [X, ROW], {}, 1),
    "FastGelu": ("FastGelu", [X], {}, 1),
    "FastGelu, bias": ("FastGelu", [X, ROW], {}, 1),
    "QuickGelu": ("QuickGelu", [X], {"alpha": 1.25}, 1),
    "SkipLayerNormalization": (
        "SkipLayerNormalization",
        [X, X[::-1].copy(), ROW, ROW[::-1].copy(), ROW**2],
        {"epsilon": 1e-3},
        4,
    ),
    "SkipLayerNormalization, no shift": ("SkipLayerNormalization", [X, np.sin(X), ROW], {}, 1),
}


def _theirs(op: str, inputs: list[np.ndarray], attributes: dict[str, Any], outputs: int) -> list[np.ndarray]:
    model = one_node(op, *inputs, outputs=outputs, opset=17, domain="com.microsoft", **attributes)
    model.ir_version = 8
    for value in (*model.graph.input, *model.graph.output):
        value.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in session.get_outputs()]
    # Its CPU kernel leaves the statistics out.
    names = [name for name in names if outputs < 4 or name in ("y0", "y3")]
    return session.run(names, {f"x{index}": array for index, array in enumerate(inputs)})


@pytest.mark.parametrize("name", CASES)
def test_fused_operators_give_what_onnxruntime_gives(name: str) -> None:
    op, inputs, attributes, outputs = CASES[name]
    singles = [array.astype(np.float32) for array in inputs]
    ours = run(op, *singles, outputs=outputs, domain="com.microsoft", **attributes)
    ours = [ours] if outputs == 1 else [ours[0], ours[3]]
    for got, want in zip(ours, _theirs(op, singles, attributes, outputs), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_fused_operators_have_both_derivatives(name: str) -> None:
    op, inputs, attributes, _ = CASES[name]
    check_op(op, *inputs, domain="com.microsoft", **attributes)


def test_other_fused_operators_are_refused_with_what_to_do() -> None:
    node = helper.make_node("FusedConv", ["x", "w"], ["y"], domain="com.microsoft", name="c")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 3]) for name in "xw"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(InvalidGraph, match=r"node c: operator FusedConv.*export without the optimizer"):
        register(model.SerializeToString())


def test_a_registered_graph_may_mix_fused_operators_with_onnx_own() -> None:
    body = """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
    main (double[2, n] x) => (double[2, n] y) { h = com.microsoft.Gelu (x) y = Mul (h, h) }"""
    graph = register(onnx.parser.parse_model(body).SerializeToString())
    x = X[:, :, 0]
    expected = run("Gelu", x) ** 2
    np.testing.assert_allclose(value_of(graph, {"x": x})["y"], expected, rtol=1e-13)
