"""Graphs from untrusted bytes: what is read, what is refused and why, what is taken out."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine.small_graphs import graph_of, model_text, value_of
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gradwire_engine.errors import EngineError, InvalidGraph, LimitExceeded
from gradwire_engine.graph import parse
from gradwire_engine.limits import Limits
from gradwire_engine.registration import register
from gradwire_engine.values import TensorType

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


# Not a model


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"not a model", b"\xff" * 100, proto_bytes()[:-7], proto_bytes()[:20], b"\x08\x0a"],
    ids=["empty", "zero", "prose", "ones", "truncated", "beginning", "no-graph"],
)
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidGraph):
        register(data)


@pytest.mark.parametrize(
    "text",
    [b"", b"hello", b"\xff\xfe", model_text("(double x) => (double y) { y = "), model_text("(double x)")],
)
def test_text_that_is_no_model_is_refused_in_one_line(text: bytes) -> None:
    with pytest.raises(InvalidGraph, match="the text is not an ONNX model") as refusal:
        register(text, text=True)
    assert "\n" not in str(refusal.value)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_model_gives_a_graph_or_a_refusal(data: st.DataObject) -> None:
    damaged = bytearray(
        proto_bytes("(double[2] x) => (double[2] y) { c = Constant<value_float=2.0>() y = Sin(x) }")
    )
    for position in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        graph = register(bytes(damaged[:cut] if data.draw(st.booleans()) else damaged))
    except EngineError as error:
        assert str(error)
    else:
        assert graph.info.node_count >= 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("(double[3] x, double[4] z) => (double[3] y) { y = Add(x, z) }", "checker"),
        ("(double[3] x, float[3] z) => (double[3] y) { y = Add(x, z) }", "checker"),
        ("(double[3] x) => (double[2] y) { y = Sin(x) }", "checker"),
        ("(double[3] x) => (double[3] y) { y = Sin(missing) }", "missing"),
        ("(double[3] x) => (double[3] y) { y = Sin(x, x) }", "Sin"),
        ("(double[3] x) => (double[3] y) { y = Frobnicate(x) }", "Frobnicate"),
        ("(double[3] x) => (double[3] y) { y = elsewhere.Sin(x) }", "elsewhere"),
        ("(double[3] x) => (double[3] y) { y = own.Sin(x) }", "operator Sin of domain 'own'"),
        ("(double[3] x) => (double[3] y) { y = gradwire.sci.Frobnicate(x) }", "Frobnicate"),
    ],
)
def test_a_model_that_cannot_be_is_refused_with_what_is_wrong(body: str, words: str) -> None:
    with pytest.raises(InvalidGraph, match=words) as refusal:
        register(model_text(body), text=True)
    assert "\n" not in str(refusal.value)


# External data


def external(name: str = "secret") -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.DOUBLE, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return tensor


def with_external_data(place: str) -> onnx.ModelProto:
    y = [doubles("y", 3)]
    indices = numpy_helper.from_array(np.array([0, 1, 2]), "indices")
    sparse = onnx.SparseTensorProto(values=external(), indices=indices, dims=[3])
    constant = helper.make_node("Constant", [], ["c"], value=external())
    add = helper.make_node("Add", ["x", "c"], ["y"])
    x = [doubles("x", 3)]
    if place == "initializer":
        return model_of([helper.make_node("Add", ["x", "secret"], ["y"])], x, y, initializer=[external()])
    if place == "sparse initializer":
        nodes = [helper.make_node("Add", ["x", "secret"], ["y"])]
        return model_of(nodes, x, y, sparse_initializer=[sparse])
    if place == "attribute":
        return model_of([constant, add], x, y)
    if place == "sparse attribute":
        return model_of([helper.make_node("Constant", [], ["c"], sparse_value=sparse), add], x, y)
    if place == "subgraph":
        branch = helper.make_graph([constant, add], "branch", [], y)
        node = helper.make_node("If", ["b"], ["y"], then_branch=branch, else_branch=branch)
        condition = helper.make_tensor_value_info("b", TensorProto.BOOL, [])
        return model_of([node], [*x, condition], y)
    imports = [helper.make_opsetid("", 21)]
    if place == "function":
        function = helper.make_function("own", "F", ["x"], ["y"], [constant, add], imports)
    else:
        reference = onnx.AttributeProto(name="value", ref_attr_name="given", type=onnx.AttributeProto.TENSOR)
        constant = onnx.NodeProto(op_type="Constant", output=["c"], attribute=[reference])
        function = helper.make_function("own", "F", ["x"], ["y"], [constant, add], imports)
        function.attribute_proto.append(helper.make_attribute("given", external()))
    graph = helper.make_graph([helper.make_node("F", ["x"], ["y"], domain="own")], "main", x, y)
    imports.append(helper.make_opsetid("own", 1))
    return helper.make_model(graph, functions=[function], opset_imports=imports, ir_version=10)


PLACES = (
    "initializer",
    "sparse initializer",
    "attribute",
    "sparse attribute",
    "subgraph",
    "function",
    "function's default",
)


@pytest.mark.parametrize("place", PLACES)
def test_data_outside_the_model_is_refused_before_any_file_is_read(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = with_external_data(place).SerializeToString()

    def read(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("builtins.open", read)
    monkeypatch.setattr(onnx.checker, "check_model", read)
    with pytest.raises(InvalidGraph, match="'secret' keeps its data in another file"):
        parse(data)


# Limits


def test_bytes_and_nodes_are_limited() -> None:
    data = model_text("(double[3] x) => (double[3] y) { a = Sin(x) b = Sin(a) y = Sin(b) }")
    with pytest.raises(LimitExceeded) as refusal:
        parse(data, text=True, limits=Limits(graph_bytes=len(data) - 1))
    assert (refusal.value.limit, refusal.value.allowed, refusal.value.requested) == (
        "graph_bytes",
        len(data) - 1,
        len(data),
    )
    with pytest.raises(LimitExceeded) as refusal:
        parse(data, text=True, limits=Limits(nodes=2))
    assert (refusal.value.limit, refusal.value.allowed, refusal.value.requested) == ("nodes", 2, 3)
    assert parse(data, text=True, limits=Limits(nodes=3)).info.node_count == 3


def doubling(levels: int) -> bytes:
    """Functions that call the next one twice: 2 ** levels nodes from a few hundred bytes."""
    bodies = [
        f'<opset_import: ["": 21, "own": 1], domain: "own"> f{level} (x) => (y) '
        f"{{ a = own.f{level + 1}(x) y = own.f{level + 1}(a) }}"
        for level in range(levels)
    ]
    bodies.append(f'<opset_import: ["": 21], domain: "own"> f{levels} (x) => (y) {{ y = Sin(x) }}')
    return model_text("(double[3] x) => (double[3] y) { y = own.f0(x) }", "\n".join(bodies))


def test_functions_that_multiply_are_counted_before_they_are_expanded() -> None:
    started = time.monotonic()
    with pytest.raises(LimitExceeded) as refusal:
        register(doubling(60), text=True)
    assert refusal.value.limit == "nodes"
    assert refusal.value.requested > 2**60
    assert time.monotonic() - started < 5


def test_functions_within_the_limit_are_expanded() -> None:
    x = np.linspace(-1, 1, 3)
    expected = x
    for _ in range(2**3):
        expected = np.sin(expected)
    graph = register(doubling(3), text=True)
    np.testing.assert_allclose(value_of(graph, {"x": x})["y"], expected, rtol=1e-14)


@pytest.mark.parametrize("cycle", [1, 2, 5])
def test_functions_that_call_themselves_are_refused(cycle: int) -> None:
    bodies = "\n".join(
        f'<opset_import: ["": 21, "own": 1], domain: "own"> f{k} (x) => (y) '
        f"{{ y = own.f{(k + 1) % cycle}(x) }}"
        for k in range(cycle)
    )
    with pytest.raises(InvalidGraph, match="calls itself"):
        register(model_text("(double[3] x) => (double[3] y) { y = own.f0(x) }", bodies), text=True)


def test_a_function_that_calls_itself_from_a_branch_is_refused() -> None:
    function = (
        '<opset_import: ["": 21, "own": 1], domain: "own"> f (x, c) => (y) { y = If(c) '
        "<then_branch = t () => (double[3] z) { z = own.f(x, c) }, "
        "else_branch = e () => (double[3] z) { z = Sin(x) }> }"
    )
    with pytest.raises(InvalidGraph, match="calls itself"):
        register(
            model_text("(double[3] x, bool c) => (double[3] y) { y = own.f(x, c) }", function), text=True
        )


def test_calls_a_hundred_levels_deep_are_refused() -> None:
    levels = 5000
    bodies = "\n".join(
        f'<opset_import: ["": 21, "own": 1], domain: "own"> f{k} (x) => (y) {{ y = own.f{k + 1}(x) }}'
        for k in range(levels)
    )
    last = f'<opset_import: ["": 21], domain: "own"> f{levels} (x) => (y) {{ y = Sin(x) }}'
    with pytest.raises(InvalidGraph, match="levels deep"):
        register(model_text("(double[3] x) => (double[3] y) { y = own.f0(x) }", bodies + last), text=True)


HOSTILE_TEXTS = {
    "subgraphs": "(bool c) => (double y) { y = If(c) " + "<t = h () => (double z) { z = If(c) " * 100_000,
    "types": "(" + "seq(" * 100_000,
    "behind a string": '(bool c) => (double y) { s = Constant<value_string="}}}"> () '
    + "y = If(c) <t = h () => (double z) { " * 100_000,
    "behind comments": "(bool c) => (double y) {" + "y = If(c) <t = h () => (double z) { # }\n" * 100_000,
}


@pytest.mark.parametrize("kind", HOSTILE_TEXTS)
def test_text_nested_without_end_is_refused_and_does_not_kill_the_process(kind: str, tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_bytes(model_text(HOSTILE_TEXTS[kind]))
    program = (
        "import sys\n"
        "from gradwire_engine.errors import InvalidGraph\n"
        "from gradwire_engine.graph import parse\n"
        "try:\n"
        "    parse(open(sys.argv[1], 'rb').read(), text=True)\n"
        "except InvalidGraph as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model.txt")], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-500:]
    assert "deep" in result.stdout


def test_brackets_in_strings_and_comments_are_not_nesting() -> None:
    many = "(" * 200
    constant = f'Constant<value_string = "{many}\\"{many}">()'
    body = f"(double[3] x) => (double[3] y) {{ # {many}\n s = {constant} y = Sin(x) }}"
    assert parse(model_text(body), text=True).info.node_count == 2


def test_subgraphs_deeper_than_a_message_may_nest_are_refused() -> None:
    body = "y = Sin(x)"
    for level in range(40):
        inner = body.replace("y =", f"z{level} =", 1)
        body = (
            f"y = If(c) <then_branch = t{level} () => (double z{level}) {{ {inner} }}, "
            f"else_branch = e{level} () => (double z{level}) {{ z{level} = Cos(x) }}>"
        )
    with pytest.raises(InvalidGraph, match="too deep"):
        register(model_text(f"(double x, bool c) => (double y) {{ {body} }}"), text=True)


EIGHT_TERABYTES = {
    "Expand": "(double x) => (double[n, m] y) { s = Constant<value_ints=[1000000, 1000000]>() "
    "y = Expand(x, s) }",
    "ConstantOfShape": "(double x) => (double[n, m] y) { s = Constant<value_ints=[1000000, 1000000]>() "
    "z = ConstantOfShape<value = double[1] {1}>(s) y = Add(x, z) }",
    "Range": "(int64 x) => (int64[n] y) { a = Constant<value_int=0>() "
    "b = Constant<value_int=1000000000000>() c = Constant<value_int=1>() r = Range(a, b, c) y = Add(x, r) }",
    "Tile": "(double[1] x) => (double[n] y) { r = Constant<value_ints=[1000000000000]>() y = Tile(x, r) }",
    "Pad": "(double[1] x) => (double[n] y) { p = Constant<value_ints=[0, 1000000000000]>() y = Pad(x, p) }",
    "HannWindow": "(double x) => (double[n] y) { n = Constant<value_int=1000000000000>() "
    "w = HannWindow<output_datatype = 11>(n) y = Add(x, w) }",
    "Mul": "(double[1000000] x) => (double y) { i = Constant<value_ints=[0]>() "
    "j = Constant<value_ints=[1]>() a = Unsqueeze(x, i) b = Unsqueeze(x, j) c = Mul(a, b) "
    "y = ReduceSum<keepdims=0>(c) }",
}


@pytest.mark.parametrize("op", EIGHT_TERABYTES)
def test_a_graph_that_asks_for_terabytes_is_refused_with_the_figures_and_allocates_nothing(op: str) -> None:
    data = model_text(EIGHT_TERABYTES[op])
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceeded, match=op) as refusal:
            register(data, text=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refusal.value.limit == "array_bytes"
    assert refusal.value.allowed == Limits().array_bytes
    assert refusal.value.requested >= 8 * 10**12
    assert str(refusal.value.requested) in str(refusal.value)
    assert peak < 50 << 20


@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_a_sparse_tensor_is_not_made_dense_beyond_the_limit(place: str) -> None:
    sparse = onnx.SparseTensorProto(
        values=numpy_helper.from_array(np.ones(1), "w"),
        indices=numpy_helper.from_array(np.array([5]), "i"),
        dims=[10**6, 10**6],
    )
    nodes = [helper.make_node("Sin", ["x"], ["y"])]
    parts = {"sparse_initializer": [sparse]}
    if place == "attribute":
        nodes.append(helper.make_node("Constant", [], ["w"], sparse_value=sparse))
        parts = {}
    model = model_of(nodes, [doubles("x")], [doubles("y")], **parts)
    with pytest.raises(LimitExceeded, match="'w'") as refusal:
        register(model.SerializeToString())
    assert refusal.value.requested == 8 * 10**12


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
