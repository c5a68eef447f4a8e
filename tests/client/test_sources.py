"""Whatever means the same graph becomes the same bytes, without traces of where it came from."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from client.wire_server import MIX, SQUARE

import gradwire as gw
from gradwire.sources import converters, from_proto, load

TEXT = onnx.printer.to_text(SQUARE)


def test_object_bytes_file_and_text_are_one_graph(tmp_path: Path) -> None:
    path = tmp_path / "square.onnx"
    onnx.save(SQUARE, path)
    sources = [SQUARE, SQUARE.SerializeToString(), path, str(path), TEXT]
    ids = {load(source, ()).graph_id for source in sources}
    assert len(ids) == 1
    data = load(SQUARE, ()).data
    assert ids == {hashlib.sha256(data).hexdigest()}


def test_paths_and_doc_strings_do_not_leave_the_machine() -> None:
    marked = onnx.ModelProto()
    marked.CopyFrom(SQUARE)
    inner = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["z"])], "inner", [], [])
    for message in (marked, marked.graph, marked.graph.input[0], marked.graph.node[0], inner, inner.node[0]):
        message.doc_string = "/home/me/secret.py"
        message.metadata_props.add(key="source", value="/home/me/secret.py")
    marked.graph.node[0].attribute.append(onnx.helper.make_attribute("body", inner, doc_string="/home/me"))
    before = marked.SerializeToString()
    model = from_proto(marked)
    assert b"/home/me" not in model.data
    assert marked.SerializeToString() == before, "the caller's model is left alone"


def test_the_signature_lists_inputs_without_initializers() -> None:
    weighted = onnx.ModelProto()
    weighted.CopyFrom(MIX)
    weighted.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((2, 2)), "b"))
    signature = from_proto(weighted).signature
    assert str(signature) == "(a: float64[A]) -> (p: float64[A], q: float64[B, C])"


def test_weights_beside_the_file_come_along(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(50, 50))
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["w", "x"], ["y"])],
        "dense",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.DOUBLE, [50])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, [50])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "dense.onnx"
    onnx.save(
        onnx.helper.make_model(graph),
        path,
        save_as_external_data=True,
        location="dense.bin",
        size_threshold=0,
    )
    (tensor,) = onnx.load_from_string(load(path, ()).data).graph.initializer
    assert tensor.data_location == onnx.TensorProto.DEFAULT
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), weights)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (b"\xff\xff\xff", "the protobuf cannot be read"),
        (b"", "has no graph"),
        ("<ir_version: 10>\nnonsense", "ONNX text cannot be read"),
        (3.5, "cannot make a function of float"),
    ],
)
def test_what_is_no_model_is_refused(source: object, words: str) -> None:
    with pytest.raises(gw.InvalidArgumentError, match=words):
        load(source, ())  # type: ignore[arg-type]


def test_a_missing_file_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx"):
        load("nowhere.onnx", ())


def test_a_python_function_needs_specs_and_a_model_takes_none() -> None:
    with pytest.raises(gw.InvalidArgumentError, match=r"gw\.spec"):
        load(np.sin, ())
    with pytest.raises(gw.InvalidArgumentError, match="leave out the specs"):
        load(SQUARE, (gw.spec(2),))


def test_a_traced_function_has_the_names_it_was_given() -> None:
    model = load(lambda u, v: u * v, (gw.spec(3), np.ones(3)), ["left", "right"])
    assert [value.name for value in model.signature.inputs] == ["left", "right"]


def test_a_framework_brings_its_own_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        __module__ = "framework.nn"

        def __call__(self) -> None:
            raise AssertionError("converted, not called")

    monkeypatch.setitem(converters, "framework", lambda source, specs, names: SQUARE)
    assert load(Module(), ()).graph_id == load(SQUARE, ()).graph_id
