"""Models that ONNX's checker does not survive: refused by name before it sees them."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.graphs.graph import parse

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def _model(op: str, inputs: list[tuple[int, list[int]]], outputs: int = 1, **attributes: object) -> bytes:
    names = [f"x{index}" for index in range(len(inputs))]
    results = [f"y{index}" for index in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, names, results, name="culprit", **attributes)],
        "g",
        [helper.make_tensor_value_info(name, *kind) for name, kind in zip(names, inputs, strict=True)],
        [helper.make_tensor_value_info(name, FLOAT, ["n"]) for name in results],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_model("GatherND", [(FLOAT, [2, 2]), (INT64, [2, 1])], batch_dims=-(2**31)), "batch_dims"),
        (_model("Split", [(FLOAT, [2, 8])], outputs=3, num_outputs=2), "num_outputs"),
        (_model("Einsum", [(FLOAT, [2, 2])], equation=b"i\xa3j->ij"), "equation"),
        (_model("Expand", [(FLOAT, [1]), (INT64, [2**62])]), "axes"),
        (_model("Reshape", [(FLOAT, [1]), (INT64, [2**62])]), "axes"),
    ],
    ids=["GatherND", "Split", "Einsum", "Expand", "Reshape"],
)
def test_what_ends_the_checker_is_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidGraph, match=rf"culprit.*{reason}"):
        parse(data)


def test_a_name_that_is_not_utf_8_is_refused() -> None:
    data = _model("Identity", [(FLOAT, [2])]).replace(b"culprit", b"cul\xffrit")
    with pytest.raises(InvalidGraph, match="UTF-8"):
        parse(data)


def test_a_negative_extent_is_refused_by_the_inputs_name() -> None:
    with pytest.raises(InvalidGraph, match="x0"):
        parse(_model("Identity", [(FLOAT, [-3])]))


@pytest.mark.parametrize("number", ["1e", "9" * 25])
def test_a_number_that_the_parser_cannot_read_is_refused(number: str) -> None:
    graph = f"(float[2] x) => (float[2] y) {{ y = Elu <alpha = {number}> (x) }}"
    text = f'<ir_version: 10, opset_import: ["" : 21]> g {graph}'
    with pytest.raises(InvalidGraph, match="text is not an ONNX model"):
        parse(text.encode(), text=True)


@pytest.mark.parametrize(
    "text",
    [
        "(float[2, 3, 1, 2] x) => (float[2, 3, 1, 2] y) { y = MeanVarianceNormalization (x) }",
        """(float[1, 16] x, int64 s, float[8] w) => (float[1, 5, 5, 2] y) {
            y = STFT (x, s, w) }""",
    ],
    ids=["MeanVarianceNormalization", "STFT"],
)
def test_models_that_the_checker_refuses_by_a_defect_of_its_own_are_accepted(text: str) -> None:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {text}')
    parse(model.SerializeToString())
