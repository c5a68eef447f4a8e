"""Graphs from untrusted bytes: what is refused and why, before anything can happen."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gradwire_engine.errors import EngineError, InvalidGraph, LimitExceeded
from gradwire_engine.graphs.graph import parse
from gradwire_engine.limits import Limits
from gradwire_engine.planning.registration import register
from tests.engine.small_graphs import doubles, model_of, model_text, proto_bytes, value_of

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
        ("(double[3] x) => (float[3] y) { y = Sin(x) }", "declared float, and is double"),
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
        "from gradwire_engine.graphs.graph import parse\n"
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


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("(double[3,-2] x) => (double[3] y) { y = Sin(x) }", "'x' has a negative extent"),
        (
            "(float[2] x, float[2] w) => (float[2] y) { y = LayerNormalization<axis = 2147483648> (x, w) }",
            "attribute axis is 2147483648",
        ),
    ],
)
def test_shapes_and_axes_that_shape_inference_does_not_survive_are_refused_before(model, words) -> None:
    # In a process of its own: ONNX's checker would end this one.
    code = (
        "import sys; from gradwire_engine.graphs.graph import parse; "
        "parse(sys.stdin.buffer.read(), text=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=model_text(model), capture_output=True, check=False
    )
    assert done.returncode == 1
    assert words in done.stderr.decode()
