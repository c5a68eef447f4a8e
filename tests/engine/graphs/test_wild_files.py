"""Files as exporters leave them, which every runtime takes: redundant, untidy, or with parts of no number."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.graphs.graph import Graph, parse
from gradwire_engine.planning.registration import register
from tests.engine.small_graphs import doubles, matrices, model_of, value_of

X = np.array([0.5, -1.0, 2.0])


def registered(model: onnx.ModelProto) -> Graph:
    return register(model.SerializeToString())


def twice_sine(order: tuple[int, int] = (0, 1), **parts: Any) -> onnx.ModelProto:
    nodes = [helper.make_node("Sin", ["x"], ["h"]), helper.make_node("Add", ["h", "h"], ["y"])]
    nodes = [nodes[index] for index in order]
    return model_of(nodes, [doubles("x", 3)], [doubles("y", 3)], **parts)


def gives_twice_the_sine(graph: Graph) -> None:
    np.testing.assert_allclose(value_of(graph, {"x": X})["y"], 2 * np.sin(X))
    np.testing.assert_allclose(matrices(graph, {"x": X})[0], np.diag(2 * np.cos(X)))


def test_nodes_may_come_in_any_order() -> None:
    gives_twice_the_sine(registered(twice_sine((1, 0))))


def test_nodes_of_subgraphs_and_functions_may_come_in_any_order() -> None:
    inner = [helper.make_node("Neg", ["a"], ["b"]), helper.make_node("Add", ["h", "x"], ["a"])]
    branches = {
        name: helper.make_graph(inner, name, [], [doubles("b", 3)]) for name in ("then_branch", "else_branch")
    }
    body = [helper.make_node("Exp", ["t"], ["e"]), helper.make_node("Sin", ["z"], ["t"])]
    function = helper.make_function("own", "F", ["z"], ["e"], body, [helper.make_opsetid("", 21)])
    model = model_of(
        [
            helper.make_node("F", ["i"], ["y"], domain="own"),
            helper.make_node("If", ["c"], ["i"], **branches),
            helper.make_node("Sin", ["x"], ["h"]),
        ],
        [doubles("x", 3), helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [doubles("y", 3)],
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    value = value_of(registered(model), {"x": X, "c": np.array(True)})["y"]
    np.testing.assert_allclose(value, np.exp(np.sin(-np.sin(X) - X)))


def test_a_circle_of_nodes_is_refused() -> None:
    nodes = [helper.make_node("Sin", ["b"], ["a"]), helper.make_node("Cos", ["a"], ["b"])]
    with pytest.raises(InvalidGraph, match=r"checker"):
        registered(model_of(nodes, [doubles("x", 3)], [doubles("a", 3)]))


@pytest.mark.parametrize("where", ["input", "output", "value_info"])
def test_an_extent_of_minus_one_is_an_unknown_one(where: str) -> None:
    model = twice_sine(value_info=[doubles("h", 3)])
    getattr(model.graph, where)[0].type.tensor_type.shape.dim[0].dim_value = -1
    gives_twice_the_sine(registered(model))
    if where == "input":
        assert parse(model.SerializeToString()).info.signature.inputs[0][1].shape == (None,)


@pytest.mark.parametrize("shape", [[4], [3, 1], [], None])
def test_wrong_shapes_of_inner_values_are_not_believed(shape: list[int] | None) -> None:
    info = helper.make_tensor_value_info("h", TensorProto.DOUBLE, shape)
    gives_twice_the_sine(registered(twice_sine(value_info=[info])))


@pytest.mark.parametrize("shape", [[4], [3, 1], [], [-2], None])
def test_wrong_or_missing_shapes_of_outputs_are_not_believed(shape: list[int] | None) -> None:
    model = twice_sine()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.DOUBLE, shape))
    graph = registered(model)
    gives_twice_the_sine(graph)
    assert graph.info.signature.outputs[0][1].shape == (3,)


def test_an_output_needs_no_type() -> None:
    model = twice_sine()
    model.graph.output[0].ClearField("type")
    graph = registered(model)
    gives_twice_the_sine(graph)
    assert graph.info.signature.outputs[0][1].dtype == "float64"


def test_the_domain_of_onnx_may_be_written_out() -> None:
    model = twice_sine()
    model.opset_import[0].domain = "ai.onnx"
    for node in model.graph.node:
        node.domain = "ai.onnx"
    gives_twice_the_sine(registered(model))


def test_one_symbol_may_stand_for_extents_that_broadcast() -> None:
    model = model_of(
        [helper.make_node("Mul", ["a", "b"], ["y"])],
        [doubles("a", "n", 2), doubles("b", "n", 2)],
        [doubles("y", "n", 2)],
    )
    a, b = np.ones((3, 2)), np.full((1, 2), 2.0)
    for one, other in ((a, b), (b, a)):
        np.testing.assert_array_equal(value_of(registered(model), {"a": one, "b": other})["y"], a * b)


def test_sparse_initializers_are_weights() -> None:
    values = numpy_helper.from_array(np.array([2.0, 5.0]), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 2]), "i"), [3])
    model = model_of([helper.make_node("Mul", ["x", "w"], ["y"])], [doubles("x", 3)], [doubles("y", 3)])
    model.graph.sparse_initializer.append(sparse)
    graph = registered(model)
    np.testing.assert_array_equal(matrices(graph, {"x": X})[0], np.diag([0, 2.0, 5.0]))


def _classifier(double: bool = False) -> onnx.ModelProto:
    """A stump of ai.onnx.ml 1 as onnxmltools writes it: labels of text, and a ZipMap."""
    tree = helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[0, 0, 0],
        class_treeids=[0, 0],
        class_nodeids=[1, 2],
        class_ids=[0, 0],
        class_weights=[0.25, 0.75],
        classlabels_strings=["no", "yes"],
        post_transform="NONE",
    )
    zipped = helper.make_node(
        "ZipMap", ["probabilities"], ["zipped"], domain="ai.onnx.ml", classlabels_strings=["no", "yes"]
    )
    text = helper.make_tensor_value_info("label", TensorProto.STRING, [None])
    dictionary = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    pairs = helper.make_value_info("zipped", helper.make_sequence_type_proto(dictionary))
    model = model_of(
        [tree, zipped],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [text, pairs],
        opset=15,
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    return model


def test_a_zipmap_gives_the_array_of_probabilities_and_labels_of_text_are_left_out() -> None:
    graph = registered(_classifier())
    assert [name for name, _ in graph.info.signature.outputs] == ["zipped"]
    assert any("'label' is left out" in text for text in graph.info.warnings)
    x = np.array([[0.0, 1.0], [1.0, 1.0]], np.float32)
    zipped = value_of(graph, {"x": x})["zipped"]
    assert zipped.shape == (2, 2)
    assert zipped.dtype == np.float32


def test_a_text_input_that_only_an_output_of_text_needs_is_left_out_with_it() -> None:
    text = helper.make_tensor_value_info("t", TensorProto.STRING, [3])
    model = model_of(
        [helper.make_node("Identity", ["t"], ["u"]), helper.make_node("Sin", ["x"], ["y"])],
        [doubles("x", 3), text],
        [doubles("y", 3), helper.make_tensor_value_info("u", TensorProto.STRING, [3])],
    )
    graph = registered(model)
    assert [name for name, _ in graph.info.signature.inputs] == ["x"]
    np.testing.assert_allclose(value_of(graph, {"x": X})["y"], np.sin(X))


def test_a_model_whose_only_output_is_a_sequence_says_so() -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.DOUBLE, None))
    node = helper.make_node("SequenceConstruct", ["x"], ["s"])
    model = model_of([node], [doubles("x", 3)], [helper.make_value_info("s", kind)])
    with pytest.raises(InvalidGraph, match=r"'s' is a sequence.*outputs="):
        registered(model)


@pytest.mark.parametrize("op", ["NonZero", "Compress", "NonMaxSuppression"])
def test_shapes_that_depend_on_data_are_refused_with_advice(op: str) -> None:
    boxes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4]) for name in ("x", "z")]
    inputs = {
        "NonZero": (["x"], [doubles("x", 3)]),
        "Compress": (
            ["x", "c"],
            [doubles("x", 3), helper.make_tensor_value_info("c", TensorProto.BOOL, [3])],
        ),
        "NonMaxSuppression": (
            ["x", "z", "most"],
            [
                boxes[0],
                helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 1, 2]),
                helper.make_tensor_value_info("most", TensorProto.INT64, [1]),
            ],
        ),
    }[op]
    kind = TensorProto.DOUBLE if op == "Compress" else TensorProto.INT64
    output = helper.make_tensor_value_info("y", kind, None)
    with pytest.raises(InvalidGraph, match=r"mask.*outputs="):
        registered(model_of([helper.make_node(op, inputs[0], ["y"])], inputs[1], [output]))
