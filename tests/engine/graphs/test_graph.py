"""Graphs from bytes: what is read, what is taken out, what is warned of."""

from __future__ import annotations

import hashlib
import itertools
import pickle
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradwire_engine.graphs.graph import parse
from gradwire_engine.planning.registration import register
from gradwire_engine.values import TensorType
from tests.engine.small_graphs import (
    SINE,
    doubles,
    graph_of,
    model_of,
    model_text,
    proto_bytes,
    value_of,
    weighted,
)

# Identity and signature


def test_a_graph_is_named_by_the_sha256_of_its_bytes() -> None:
    data = proto_bytes()
    assert parse(data).info.graph_id == hashlib.sha256(data).hexdigest()


def test_signature_keeps_fixed_symbolic_and_unknown_extents() -> None:
    signature = parse(
        model_text("(double[n, 3] x, float z, int64[?, n] k) => (double[n, 3] y) { y = Sin(x) }"), text=True
    ).info.signature
    assert signature.inputs == (
        ("x", TensorType("float64", ("n", 3))),
        ("z", TensorType("float32", ())),
        ("k", TensorType("int64", (None, "n"))),
    )
    assert signature.outputs == (("y", TensorType("float64", ("n", 3))),)


def test_an_initializer_listed_as_an_input_is_a_constant_not_an_input() -> None:
    model = model_of(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [doubles("x", 100), doubles("w", 100)],
        [doubles("y", 100)],
        initializer=[weighted(100)],
    )
    graph = register(model.SerializeToString())
    assert [name for name, _ in graph.info.signature.inputs] == ["x"]
    assert list(graph.weights) == ["w"]
    np.testing.assert_array_equal(value_of(graph, {"x": np.ones(100)})["y"], np.arange(100) / 8)


def test_a_graph_survives_pickling() -> None:
    graph = graph_of(SINE)
    copy = pickle.loads(pickle.dumps(graph))
    assert copy.info == graph.info
    np.testing.assert_array_equal(value_of(copy, {"x": np.ones(3)})["y"], np.sin(np.ones(3)))


# Warnings


@pytest.mark.parametrize("value", [0.1, 0.044715, 0.7978845608028654, 1 / 3, -2.7])
def test_a_double_that_was_a_float32_is_warned_of(value: float) -> None:
    rounded = float(np.float32(value))
    warnings = graph_of(
        f"(double x) => (double y) {{ c = Constant<value = double {{{rounded!r}}}>() y = Mul(x, c) }}"
    ).info.warnings
    assert len(warnings) == 1
    assert repr(rounded) in warnings[0]
    assert str(np.float32(value)) in warnings[0]


@pytest.mark.parametrize(
    "value", [0.1, 0.5, 3.0, 1e300, 0.15625, 2.0**-30, 16777217.0, float(np.finfo(np.float32).max)]
)
def test_a_double_that_lost_nothing_is_not_warned_of(value: float) -> None:
    body = f"(double x) => (double y) {{ c = Constant<value = double {{{value!r}}}>() y = Mul(x, c) }}"
    assert graph_of(body).info.warnings == ()


# Opsets


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21, 23])
def test_old_and_new_opsets_mean_what_they_meant(opset: int) -> None:
    """Softmax flattened to two dimensions before opset 13 and works along one axis since."""
    model = model_of(
        [helper.make_node("Softmax", ["x"], ["y"], axis=1)],
        [doubles("x", 2, 3, 2)],
        [doubles("y", 2, 3, 2)],
        opset=opset,
    )
    x = np.arange(12.0).reshape(2, 3, 2) ** 2 / 10
    weights = np.exp(x)
    expected = weights / weights.sum(axis=(1, 2) if opset < 13 else 1, keepdims=True)
    result = value_of(register(model.SerializeToString()), {"x": x})["y"]
    np.testing.assert_allclose(result, expected, rtol=1e-13)


@pytest.mark.parametrize("opset", [7, 9, 11, 13])
def test_operators_whose_attributes_became_inputs_are_read_at_their_own_opset(opset: int) -> None:
    if opset < 13:
        squeeze = [helper.make_node("Squeeze", ["x"], ["s"], axes=[0])]
        parts: dict[str, Any] = {}
    else:
        squeeze = [helper.make_node("Squeeze", ["x", "axes"], ["s"])]
        parts = {"initializer": [numpy_helper.from_array(np.array([0]), "axes")]}
    slicing = {"starts": [1], "ends": [2**63 - 1]}
    if opset < 10:
        nodes = [*squeeze, helper.make_node("Slice", ["s"], ["y"], **slicing)]
    else:
        nodes = [*squeeze, helper.make_node("Slice", ["s", "starts", "ends"], ["y"])]
        parts.setdefault("initializer", []).extend(
            numpy_helper.from_array(np.array(item), name) for name, item in slicing.items()
        )
    model = model_of(nodes, [doubles("x", 1, 4)], [doubles("y", 3)], opset=opset, **parts)
    x = np.arange(4.0).reshape(1, 4)
    np.testing.assert_array_equal(value_of(register(model.SerializeToString()), {"x": x})["y"], x[0, 1:])


# Weights


def test_large_constants_become_weights_and_small_ones_stay() -> None:
    model = model_of(
        [
            helper.make_node("Constant", [], ["c"], value=weighted(65, "c")),
            helper.make_node("Mul", ["x", "w"], ["a"]),
            helper.make_node("Add", ["a", "c"], ["b"]),
            helper.make_node("Mul", ["b", "small"], ["y"]),
        ],
        [doubles("x", 65)],
        [doubles("y", 65)],
        initializer=[weighted(65), weighted(1, "small")],
    )
    graph = register(model.SerializeToString())
    assert sorted(graph.weights) == ["c", "w"]
    assert graph.info.weight_bytes == 2 * 65 * 8
    assert len(graph.model) < 1000
    x, w = np.ones(65), np.arange(65) / 8
    np.testing.assert_array_equal(value_of(graph, {"x": x})["y"], (x * w + w) * 0)


def branches(first: str, second: str, count: int = 100) -> onnx.ModelProto:
    """An If whose branches add constants of their own."""
    graphs = []
    for number, name in enumerate((first, second)):
        tensor = numpy_helper.from_array(np.full(count, number + 1.0), name)
        node = helper.make_node("Add", ["x", name], [f"z{number}"])
        graphs.append(
            helper.make_graph([node], f"b{number}", [], [doubles(f"z{number}", count)], initializer=[tensor])
        )
    node = helper.make_node("If", ["c"], ["y"], then_branch=graphs[0], else_branch=graphs[1])
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    return model_of([node], [doubles("x", count), condition], [doubles("y", count)])


@pytest.mark.parametrize(("names", "taken"), [(("v", "w"), ["v", "w"]), (("w", "w"), [])])
def test_branches_keep_their_own_constants_whatever_their_names(
    names: tuple[str, str], taken: list[str]
) -> None:
    graph = register(branches(*names).SerializeToString())
    assert sorted(graph.weights) == taken
    for condition, expected in ((True, 1.0), (False, 2.0)):
        result = value_of(graph, {"x": np.zeros(100), "c": np.array(condition)})["y"]
        np.testing.assert_array_equal(result, np.full(100, expected))


def test_constants_of_branches_within_functions_are_found() -> None:
    model = branches("v", "w")
    function = helper.make_function(
        "own", "F", ["x", "c"], ["y"], list(model.graph.node), [helper.make_opsetid("", 21)]
    )
    call = helper.make_node("F", ["x", "c"], ["y"], domain="own")
    graph = helper.make_graph([call], "main", list(model.graph.input), list(model.graph.output))
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    outer = helper.make_model(graph, functions=[function], opset_imports=imports, ir_version=10)
    registered = register(outer.SerializeToString())
    result = value_of(registered, {"x": np.zeros(100), "c": np.array(False)})["y"]
    np.testing.assert_array_equal(result, np.full(100, 2.0))


def test_weights_of_every_dtype_are_read_exactly() -> None:
    for dtype, code in itertools.product((np.float16, np.float32, np.int32), (True, False)):
        values = (np.arange(20_000) % 100).astype(dtype)
        tensor = numpy_helper.from_array(values, "w")
        if not code and dtype != np.float16:
            tensor = helper.make_tensor("w", tensor.data_type, values.shape, values.tolist())
        nodes = [helper.make_node("Cast", ["w"], ["d"], to=11), helper.make_node("Add", ["x", "d"], ["y"])]
        model = model_of(nodes, [doubles("x", 20_000)], [doubles("y", 20_000)], initializer=[tensor])
        graph = register(model.SerializeToString())
        assert graph.weights["w"].dtype == dtype
        np.testing.assert_array_equal(value_of(graph, {"x": np.zeros(20_000)})["y"], values)
