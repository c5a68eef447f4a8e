"""Small messages that ask for much: each is refused by name, over a real connection, before it costs much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message

import gradwire_wire as wire
from gradwire_server.rpc.incoming.bounds import Bounds
from gradwire_server.rpc.incoming.reader import Reader
from gradwire_server.settings import Settings
from gradwire_wire import framing
from gradwire_wire.v1 import accumulate_pb2, derivative_pb2, function_pb2, graph_pb2, tensor_pb2
from tests.server import calls

FLOAT64 = tensor_pb2.DATA_TYPE_FLOAT64
METHODS = {
    "RegisterGraph": "stream_unary",
    "GetGraph": "unary_unary",
    "PutTensor": "stream_unary",
    "Plan": "unary_unary",
    "Evaluate": "unary_unary",
    "EvaluateStream": "stream_stream",
    "Differentiate": "unary_stream",
    "Accumulate": "stream_stream",
}
X = np.array([0.5, -1.0])
JVP_OF_X = function_pb2.Transform(jvp=function_pb2.JvpTransform(wrt=["x"]))


@pytest.fixture(scope="module")
def graph(channel: grpc.Channel) -> str:
    return calls.register(channel, calls.SIN_OF_PRODUCT).graph_id


@pytest.fixture(autouse=True)
def answers_the_next_request(channel: grpc.Channel, graph: str) -> Iterator[None]:
    yield
    found = calls.evaluate(channel, graph, {"a": np.eye(2), "x": X}, timeout=10)
    np.testing.assert_allclose(found["y"], np.sin(X), rtol=1e-15)


def send(channel: grpc.Channel, method: str, data: bytes) -> Any:
    """Send bytes as they are; the first answer."""
    kind = METHODS[method]
    call = getattr(channel, kind)(f"/gradwire.v1.GradientService/{method}")
    answer = call(iter([data]) if kind.startswith("stream") else data, timeout=30)
    return list(answer) if kind.endswith("stream") else answer


def refused(channel: grpc.Channel, method: str, message: Message | bytes) -> calls.Refusal:
    data = message if isinstance(message, bytes) else message.SerializeToString()
    with pytest.raises(grpc.RpcError) as caught:
        send(channel, method, data)
    return calls.refusal(caught.value)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("data", [b"\xff" * 20, b"\x0a\xff"], ids=["bits", "cut"])
def test_bytes_that_are_no_message_are_an_invalid_argument(
    channel: grpc.Channel, method: str, data: bytes
) -> None:
    found = refused(channel, method, data)
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"{len(data)} bytes sent are no message gradwire.v1." in found.message


def test_a_name_that_is_no_text_is_an_invalid_argument(channel: grpc.Channel) -> None:
    found = refused(channel, "GetGraph", framing.bytes_field(1, b"\xff\xfe"))
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT and "UTF-8" in found.message


@pytest.mark.parametrize("method", ["EvaluateStream", "Accumulate"])
def test_bytes_that_are_no_message_end_a_stream_on_which_answers_are_under_way(
    channel: grpc.Channel, graph: str, method: str
) -> None:
    """A status that met a message on its way got lost, and the client waited until its deadline."""
    point = {"a": np.eye(2), "x": X}
    tangent = calls.evaluation(graph, {**point, "x.tangent": X}, JVP_OF_X, outputs=["y.tangent"])
    loss = calls.register(channel, "g (double[2] w, double d) => (double l) { l = ReduceSum(w) }").graph_id
    start = accumulate_pb2.AccumulateStart(
        function=function_pb2.Function(graph_id=loss), inputs=calls.tensors({"w": X})
    )
    batch = accumulate_pb2.Batch(inputs=calls.tensors({"d": np.array(1.0)}), rows=1)
    begun: dict[str, list[Message]] = {
        "EvaluateStream": [
            function_pb2.EvaluateStreamRequest(call_id=index + 1, evaluate=tangent) for index in range(20)
        ],
        "Accumulate": [
            accumulate_pb2.AccumulateRequest(start=start),
            *[accumulate_pb2.AccumulateRequest(batch=batch)] * 20,
            accumulate_pb2.AccumulateRequest(read=accumulate_pb2.ReadGradient()),
        ],
    }
    data = [message.SerializeToString() for message in begun[method]]
    for _ in range(5):
        call = channel.stream_stream(f"/gradwire.v1.GradientService/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([*data, b"\xff"]), timeout=30))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


IMPOSSIBLE = {
    "100,000 axes": [2**62] * 100_000,
    "a product beyond every array": [2**62, 2**62],
    "a product beyond every array, and no elements": [2**62, 2**62, 0],
    "65 axes": [1] * 65,
    "300 axes": [1] * 300,
    "a negative extent": [2, -1],
}


def tensor(shape: list[int], **content: Any) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(dtype=FLOAT64, shape=shape, **content)


def with_shape(graph: str, shape: list[int]) -> dict[str, tuple[str, Message, str]]:
    """A message of every kind that holds a shape: its call and the field that is at fault."""
    x = {"x": tensor(shape)}
    function = function_pb2.Function(graph_id=graph)
    evaluate = function_pb2.EvaluateRequest(function=function, inputs=x)
    held = {"x": tensor(shape, tensor_id="ab" * 32)}
    options = derivative_pb2.PlanOptions(pattern=derivative_pb2.Pattern(rows=x["x"]))
    start = accumulate_pb2.AccumulateStart(function=function, inputs=x)
    batch = accumulate_pb2.Batch(inputs=x)
    return {
        "evaluate": ("Evaluate", evaluate, 'inputs["x"]'),
        "evaluate by id": (
            "Evaluate",
            function_pb2.EvaluateRequest(function=function, inputs=held),
            'inputs["x"]',
        ),
        "plan": ("Plan", derivative_pb2.PlanRequest(function=function, inputs=x, kind=1), 'inputs["x"]'),
        "differentiate": (
            "Differentiate",
            derivative_pb2.DifferentiateRequest(function=function, inputs=x, kind=1),
            'inputs["x"]',
        ),
        "pattern": (
            "Differentiate",
            derivative_pb2.DifferentiateRequest(function=function, kind=1, options=options),
            "options.pattern.rows",
        ),
        "upload": ("PutTensor", tensor_pb2.PutTensorRequest(dtype=FLOAT64, shape=shape), "shape"),
        "fixed": ("RegisterGraph", graph_pb2.RegisterGraphRequest(fixed=x), 'fixed["x"]'),
        "start": ("Accumulate", accumulate_pb2.AccumulateRequest(start=start), 'start.inputs["x"]'),
        "batch": ("Accumulate", accumulate_pb2.AccumulateRequest(batch=batch), 'batch.inputs["x"]'),
    }


@pytest.mark.parametrize("shape", IMPOSSIBLE)
@pytest.mark.parametrize("case", with_shape("", []))
def test_a_shape_that_no_array_can_have_is_an_invalid_argument(
    channel: grpc.Channel, graph: str, case: str, shape: str
) -> None:
    method, message, field = with_shape(graph, IMPOSSIBLE[shape])[case]
    found = refused(channel, method, message)
    assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


@pytest.mark.parametrize("case", with_shape("", []))
def test_an_array_over_the_limit_is_refused_with_the_figure(
    channel: grpc.Channel, graph: str, case: str
) -> None:
    method, message, _ = with_shape(graph, [2**20, 0, 2**20])[case]
    found = refused(channel, method, message)
    assert found.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (found.limit["limit"], found.limit["requested"]) == ("array_bytes", str(2**43))


def test_a_shape_of_a_call_on_a_stream_fails_that_call_alone(channel: grpc.Channel, graph: str) -> None:
    bad = function_pb2.EvaluateStreamRequest(call_id=1)
    bad.evaluate.inputs["x"].CopyFrom(tensor([1] * 65))
    good = function_pb2.EvaluateStreamRequest(
        call_id=2, evaluate=calls.evaluation(graph, {"a": np.eye(2), "x": X})
    )
    answers = {one.call_id: one for one in calls.stub(channel).EvaluateStream(iter([bad, good]), timeout=60)}
    assert answers[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "65 axes" in answers[1].error.message
    assert answers[2].HasField("response")


def test_arrays_of_64_axes_are_taken(channel: grpc.Channel) -> None:
    graph_id = calls.register(channel, "deep (double x) => (double y) { y = Sin(x) }").graph_id
    array = np.ones([1] * 64)
    assert calls.put(channel, array).tensor_id == wire.tensor_id(array)
    found = refused(channel, "Evaluate", calls.evaluation(graph_id, {"x": array}))
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT and "float64[]" in found.message


GRADIENT = function_pb2.Transform(gradient=function_pb2.GradientTransform())
JVP = function_pb2.Transform(jvp=function_pb2.JvpTransform())


def many(graph: str) -> dict[str, tuple[str, Message, str]]:
    """Messages that list too much: their call, and the limit that they are over."""
    function = function_pb2.Function(graph_id=graph)
    names = [f"n{index}" for index in range(5000)]
    inputs = {name: tensor([]) for name in names}
    deep = function_pb2.Function(graph_id=graph, transforms=[JVP] * 60)
    wide = function_pb2.Function(graph_id=graph, transforms=[GRADIENT] * 10_000)
    named = function_pb2.Transform(jvp=function_pb2.JvpTransform(wrt=names))
    evaluate = function_pb2.EvaluateRequest
    derivative = derivative_pb2.DifferentiateRequest
    start = accumulate_pb2.AccumulateStart
    return {
        "60 empty jvp": ("Evaluate", evaluate(function=deep), "transforms"),
        "60 empty jvp to differentiate": ("Differentiate", derivative(function=deep, kind=1), "transforms"),
        "60 empty jvp to plan": ("Plan", derivative_pb2.PlanRequest(function=deep, kind=1), "transforms"),
        "60 empty jvp of a loss": (
            "Accumulate",
            accumulate_pb2.AccumulateRequest(start=start(function=deep)),
            "transforms",
        ),
        "10,000 gradients": ("Evaluate", evaluate(function=wide), "transforms"),
        "outputs": ("Evaluate", evaluate(function=function, outputs=["y"] * 5000), "names"),
        "inputs": ("Evaluate", evaluate(function=function, inputs=inputs), "names"),
        "batched": ("Evaluate", evaluate(function=function, batched=names), "names"),
        "wrt of a transform": (
            "Evaluate",
            evaluate(function=function_pb2.Function(graph_id=graph, transforms=[named])),
            "names",
        ),
        "wrt": ("Differentiate", derivative(function=function, kind=1, wrt=names), "names"),
        "of": ("Differentiate", derivative(function=function, kind=1, of=names), "names"),
        "rows": ("Differentiate", derivative(function=function, kind=1, rows=inputs), "names"),
        "skip": ("Differentiate", derivative(function=function, kind=1, skip=[0] * 300_000), "plan_blocks"),
        "outputs of a graph": ("RegisterGraph", graph_pb2.RegisterGraphRequest(outputs=names), "names"),
        "fixed": ("RegisterGraph", graph_pb2.RegisterGraphRequest(fixed=inputs), "names"),
        "inputs of a batch": (
            "Accumulate",
            accumulate_pb2.AccumulateRequest(batch=accumulate_pb2.Batch(inputs=inputs)),
            "names",
        ),
        "a long name": ("Evaluate", evaluate(function=function, outputs=["y" * 5000]), "name_bytes"),
        "a long id": ("GetGraph", graph_pb2.GetGraphRequest(graph_id="ab" * 4000), "name_bytes"),
    }


@pytest.mark.parametrize("case", many(""))
def test_what_lists_too_much_is_refused_with_the_limit(channel: grpc.Channel, graph: str, case: str) -> None:
    method, message, limit = many(graph)[case]
    found = refused(channel, method, message)
    assert (found.code, found.limit["limit"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, limit)
    assert int(found.limit["requested"]) > int(found.limit["allowed"])


FIELDS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "empty gradients": (
        "Evaluate",
        lambda size: framing.bytes_field(1, framing.bytes_field(2, b"\x0a\x00") * (size // 4 - 4)),
    ),
    "empty inputs": ("Evaluate", lambda size: framing.bytes_field(2, b"") * (size // 2 - 4)),
    "empty names": ("Plan", lambda size: framing.bytes_field(4, b"") * (size // 2 - 4)),
    "long lists of numbers": (
        "Evaluate",
        lambda size: framing.bytes_field(
            2, framing.bytes_field(2, framing.bytes_field(2, b"\x02" * (size - 30)))
        ),
    ),
    "unknown fields": ("GetGraph", lambda size: b"\x78\x01" * (size // 2 - 4)),
    "an open end after a long list": (
        "Evaluate",
        lambda size: framing.bytes_field(1, b"\x12\x00" * (size // 2 - 20)) + b"\x0a\xff",
    ),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_message_of_millions_of_fields_is_refused_before_it_is_parsed(
    channel: grpc.Channel, graph: str, case: str
) -> None:
    method, make = FIELDS[case]
    found = refused(channel, method, make(4 << 20))
    assert (found.code, found.limit["limit"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "message_fields")


def test_fields_are_counted_as_protobuf_counts_them() -> None:
    """Messages of exactly as many fields as the limit are read, one more is too many."""
    rng = np.random.default_rng(0)
    request = derivative_pb2.DifferentiateRequest(kind=1, skip=range(5), wrt=["a", "b"], values=True)
    for index in range(7):
        request.inputs[f"x{index}"].CopyFrom(wire.to_tensor(rng.standard_normal((2000, index))))
    request.function.transforms.extend([JVP, GRADIENT])
    data = request.SerializeToString()
    fields = sum(fields_of(request))
    bounds = {extra: Bounds(fields + extra, 4096, 4096, 16, 1 << 33, 1 << 20) for extra in (0, -1)}
    assert Reader(derivative_pb2.DifferentiateRequest, bounds[0]).message(data) == request
    with pytest.raises(Exception, match=r"over \d+ fields"):
        Reader(derivative_pb2.DifferentiateRequest, bounds[-1]).message(data)


def fields_of(message: Any) -> Iterator[int]:
    """The number of fields of a message as it is serialized, by reflection; small messages count as one."""
    for field, value in message.ListFields():
        if field.message_type is None:
            yield 1 if not field.is_repeated or field.is_packed else len(value)
        elif field.message_type.GetOptions().map_entry:
            for item in value.values():
                yield 1
                if item.ByteSize() > 128:
                    yield 2  # its key and its value
                    yield from fields_of(item)
        else:
            for item in value if field.is_repeated else [value]:
                yield 1
                yield from fields_of(item) if item.ByteSize() > 128 else ()


def test_bounds_do_not_multiply_what_they_refuse() -> None:
    """Products of 64 extents are the largest that are formed."""
    assert wire.check_shape([3, 0, 5], FLOAT64) == 8 * prod([3, 5])
    with pytest.raises(wire.WireError, match="100000 axes"):
        wire.check_shape([2**62] * 100_000, FLOAT64)


def test_an_output_named_twice_is_refused(channel: grpc.Channel, graph: str) -> None:
    request = calls.evaluation(graph, {"a": np.eye(2), "x": X}, outputs=["y", "y"])
    found = refused(channel, "Evaluate", request)
    assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["outputs"])
    assert "'y' twice" in found.message


def test_transforms_that_multiply_are_refused_while_few(channel: grpc.Channel) -> None:
    """Each jvp doubles the inputs and triples the program at least: of a dozen inputs, soon too much."""
    names = [f"x{index}" for index in range(12)]
    inputs = ", ".join(f"double[2] {name}" for name in names)
    text = f"g ({inputs}) => (double[2] y) {{ y = Sum({', '.join(names)}) }}"
    graph_id = calls.register(channel, text).graph_id
    request = calls.evaluation(graph_id, dict.fromkeys(names, X), *[JVP] * 16)
    start = accumulate_pb2.AccumulateStart(function=request.function)
    for found, limit in (
        (refused(channel, "Evaluate", request), "equations"),
        (refused(channel, "Accumulate", accumulate_pb2.AccumulateRequest(start=start)), "names"),
    ):
        assert (found.code, found.limit["limit"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, limit)


def test_a_name_that_costs_more_bytes_than_characters_still_gets_its_answer(
    channel: grpc.Channel, graph: str
) -> None:
    for name in ("\N{SNOWMAN}" * 1300, "\n" * 4000, "%" * 4000):
        request = calls.evaluation(graph, {"a": np.eye(2), name: X})
        found = refused(channel, "Evaluate", request)
        assert found.code == grpc.StatusCode.INVALID_ARGUMENT and found.fields[0].startswith('inputs["')


def test_later_parts_of_an_upload_declare_the_same_array_or_none(channel: grpc.Channel) -> None:
    part = tensor_pb2.PutTensorRequest(dtype=FLOAT64, shape=[2], data=bytes(8))
    reference = calls.stub(channel).PutTensor(iter([part, part]), timeout=30).tensor
    assert reference.tensor_id == wire.tensor_id(np.zeros(2))
    other = tensor_pb2.PutTensorRequest(dtype=FLOAT64, shape=[3], data=bytes(8))
    with pytest.raises(grpc.RpcError) as caught:
        calls.stub(channel).PutTensor(iter([part, other]), timeout=30)
    assert calls.refusal(caught.value).fields == ["shape"]


def test_every_call_has_its_bounds() -> None:
    """A message of a kind that no check knows would be an error of the server's own."""
    bounds = Bounds.of(Settings())
    for kind in (
        graph_pb2.RegisterGraphRequest,
        graph_pb2.GetGraphRequest,
        tensor_pb2.PutTensorRequest,
        derivative_pb2.PlanRequest,
        derivative_pb2.DifferentiateRequest,
        function_pb2.EvaluateRequest,
        function_pb2.EvaluateStreamRequest,
        accumulate_pb2.AccumulateRequest,
    ):
        bounds.check(kind())
