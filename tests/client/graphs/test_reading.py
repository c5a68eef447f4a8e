"""Models in every form that exporters and onnx.save leave them in."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import TensorProto, helper

import gradwire as gw
from gradwire.frontends.sources import load
from gradwire.graphs.models import Model

TEXT = """<ir_version: 8, opset_import: ["" : 18]>
main (double[n, 3] x) => (double[n, 3] y) { h = Sin (x) y = Add (h, h) }"""
MODEL = onnx.parser.parse_model(TEXT)


def described(source: Any, **options: Any) -> str:
    return str(load(source, (), **options).signature)


@pytest.mark.parametrize("suffix", [".onnx", ".pb", ".json", ".onnxjson", ".textproto", ".pbtxt", ".onnxtxt"])
def test_files_are_read_in_every_format_of_onnx_save(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    onnx.save(MODEL, path, format="protobuf" if suffix == ".pb" else None)
    assert load(path, ()).graph_id == load(MODEL, ()).graph_id


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", "{"), ("a.json", '{"graph": 3}'), ("b.textproto", "graph }"), ("c.json", "{}")],
)
def test_files_of_a_format_that_they_are_not_of_are_refused_by_name(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(gw.InvalidArgumentError, match=f"{name}: not an ONNX model"):
        load(tmp_path / name, ())


def test_models_of_onnx_ir_are_taken_as_they_are() -> None:
    assert described(onnx_ir.from_proto(MODEL)) == described(MODEL)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of PyTorch's exporter, in its own code
def test_programs_of_torch_onnx_export_are_taken_as_they_are() -> None:
    program = torch.onnx.export(torch.nn.Tanh().eval(), (torch.zeros(2, 3),), dynamo=True, verbose=False)
    model = load(program, ())
    assert model.again is None
    assert [value.type_name for value in model.signature.outputs] == ["float32[2, 3]"]


def changed(**parts: Any) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    for name, values in parts.items():
        del getattr(model.graph, name)[:]
        getattr(model.graph, name).extend(values)
    return model


@pytest.mark.parametrize("shape", [None, [4], ["n", 5], [1, 3, 2]])
def test_outputs_have_the_shapes_that_follow_where_others_are_declared(shape: list[Any] | None) -> None:
    output = helper.make_tensor_value_info("y", TensorProto.DOUBLE, shape)
    assert described(changed(output=[output])) == described(MODEL)


def test_an_output_without_a_type_has_the_one_that_follows() -> None:
    assert described(changed(output=[helper.make_empty_tensor_value_info("y")])) == described(MODEL)


def test_an_extent_of_minus_one_is_open() -> None:
    model = changed(input=[helper.make_tensor_value_info("x", TensorProto.DOUBLE, [-1, 3])])
    assert load(model, ()).signature.inputs[0].shape == (None, 3)


def test_text_inputs_go_with_the_outputs_that_alone_need_them() -> None:
    text = helper.make_tensor_value_info("t", TensorProto.STRING, [2])
    model = changed(
        input=[*MODEL.graph.input, text],
        node=[*reversed(MODEL.graph.node), helper.make_node("Identity", ["t"], ["u"])],
        output=[*MODEL.graph.output, helper.make_tensor_value_info("u", TensorProto.STRING, [2])],
    )
    with pytest.warns(gw.GraphWarning, match="'u' is left out"):
        loaded = load(model, ())
    assert [value.name for value in loaded.signature.inputs] == ["x"]
    assert len(onnx.load_model_from_string(loaded.data).graph.node) == 2


def test_a_model_of_sequences_alone_says_so() -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.DOUBLE, None))
    model = changed(
        node=[helper.make_node("SequenceConstruct", ["x"], ["s"])], output=[helper.make_value_info("s", kind)]
    )
    with pytest.raises(gw.InvalidArgumentError, match=r"'s' is a sequence; .*outputs="):
        load(model, ())
    assert isinstance(load(model, (), whole=True), Model)


def test_the_probabilities_of_a_zipmap_are_floats_whatever_can_be_inferred() -> None:
    dictionary = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    nodes = [
        helper.make_node("Unknown", ["x"], ["p"], domain="own"),
        helper.make_node("ZipMap", ["p"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]
    output = helper.make_value_info("z", helper.make_sequence_type_proto(dictionary))
    (value,) = load(changed(node=nodes, output=[output]), ()).signature.outputs
    assert (value.name, value.dtype) == ("z", np.float32)
