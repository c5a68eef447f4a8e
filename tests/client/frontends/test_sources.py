"""Whatever means the same graph becomes the same bytes, without traces of where it came from."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

import gradwire as gw
from gradwire.frontends.sources import converters, from_proto, load
from tests.client.wire_server import MIX, SQUARE

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


def _weighted(folder: Path) -> Path:
    """A model whose weights are in a file beside it."""
    path = folder / "dense.onnx"
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, [40]) for name in "xy"]
    weights = onnx.numpy_helper.from_array(np.eye(40), "w")
    node = onnx.helper.make_node("MatMul", ["w", "x"], ["y"])
    graph = onnx.helper.make_graph([node], "dense", values[:1], values[1:], [weights])
    onnx.save(
        onnx.helper.make_model(graph), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    return path


def test_contents_without_the_weights_beside_them_are_refused(tmp_path: Path) -> None:
    path = _weighted(tmp_path)
    for source in (path.read_bytes(), onnx.load(path, load_external_data=False)):
        with pytest.raises(
            gw.InvalidArgumentError, match=r"'w' are in another file \(w.bin\): pass the path"
        ):
            load(source, ())


def test_weights_that_are_gone_cut_or_elsewhere_are_refused(tmp_path: Path) -> None:
    path = _weighted(tmp_path)
    (tmp_path / "w.bin").write_bytes(b"123")
    with pytest.raises(gw.InvalidArgumentError, match=r"dense\.onnx: its weights cannot be loaded.*3 bytes"):
        load(path, ())
    (tmp_path / "w.bin").unlink()
    with pytest.raises(gw.InvalidArgumentError, match=r"its weights cannot be loaded.*w\.bin"):
        load(path, ())
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../../etc/passwd"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(gw.InvalidArgumentError, match="outside"):
        load(path, ())


def test_text_may_be_in_a_file_of_any_name(tmp_path: Path) -> None:
    for name in ("square.onnx", "square.txt", "square.onnxtxt"):
        (tmp_path / name).write_text(TEXT, encoding="utf-8")
        assert load(tmp_path / name, ()).graph_id == load(SQUARE, ()).graph_id


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (SQUARE.SerializeToString()[:60], "cut.onnx", "cut.onnx: not an ONNX model.*cut short"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer.onnx", "git lfs pull"),
        (b"\xff\xfe", "text.txt", "text.txt: the ONNX text is not UTF-8"),
        (b"<ir_version: 10>\nnonsense", "text.onnx", "text.onnx cannot be read"),
    ],
)
def test_a_file_that_is_no_model_is_named(tmp_path: Path, data: bytes, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(gw.InvalidArgumentError, match=words):
        load(tmp_path / name, ())


CLASSIFIER = onnx.parser.parse_model(
    """<ir_version: 10, opset_import: ["" : 21, "ai.onnx.ml" : 3]>
    classifier (float[N, 2] x) => (string[N] label, float[N, 2] probabilities)
    <string[2] names = {"no", "yes"}> {
        probabilities = Softmax <axis = 1> (x)
        best = ArgMax <axis = 1, keepdims = 0> (probabilities)
        label = Gather (names, best)
    }"""
)


def test_outputs_of_text_are_left_out_with_a_warning() -> None:
    with pytest.warns(gw.GraphWarning, match="'label' is left out"):
        model = load(CLASSIFIER, ())
    assert str(model.signature) == "(x: float32[N, 2]) -> (probabilities: float32[N, 2])"
    assert [node.op_type for node in onnx.load_from_string(model.data).graph.node] == ["Softmax"]
    assert len(CLASSIFIER.graph.output) == 2, "the caller's model is left alone"


def test_dictionaries_of_probabilities_become_the_probabilities() -> None:
    zipped = onnx.ModelProto()
    zipped.CopyFrom(CLASSIFIER)
    zipped.graph.node.append(
        onnx.helper.make_node(
            "ZipMap", ["probabilities"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
        )
    )
    value = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    kind = onnx.helper.make_sequence_type_proto(
        onnx.helper.make_map_type_proto(onnx.TensorProto.INT64, value)
    )
    del zipped.graph.output[:]
    zipped.graph.output.append(onnx.helper.make_value_info("maps", kind))
    model = load(zipped, ())
    assert str(model.signature) == "(x: float32[N, 2]) -> (maps: float32[N, 2])"
    onnx.checker.check_model(onnx.load_from_string(model.data), full_check=True)


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
