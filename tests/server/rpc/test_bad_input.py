"""Every row of the error table over a real connection; after each the server answers the next request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import onnx
import pytest
from google.rpc import error_details_pb2

import gradwire_wire as wire
from gradwire_wire.v1 import derivative_pb2, function_pb2, graph_pb2, tensor_pb2
from tests.server import calls
from tests.server.processes import computing

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer

X = np.array([0.5, -1.0])


@pytest.fixture(scope="module")
def graph(channel: grpc.Channel) -> str:
    return calls.register(channel, calls.SIN_OF_PRODUCT).graph_id


@pytest.fixture
def point() -> dict[str, Any]:
    return {"a": np.eye(2), "x": X}


@pytest.fixture(autouse=True)
def answers_the_next_request(channel: grpc.Channel, graph: str) -> Iterator[None]:
    yield
    found = calls.evaluate(channel, graph, {"a": np.eye(2), "x": X}, timeout=10)
    np.testing.assert_allclose(found["y"], np.sin(X), rtol=1e-15)


def refused(call: Any, *arguments: Any, **named: Any) -> calls.Refusal:
    with pytest.raises(grpc.RpcError) as caught:
        result = call(*arguments, **named)
        if hasattr(result, "__next__"):
            list(result)
    return calls.refusal(caught.value)


def register_bytes(channel: grpc.Channel, data: bytes) -> Any:
    return calls.stub(channel).RegisterGraph(iter([graph_pb2.RegisterGraphRequest(model=data)]), timeout=60)


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(calls.HEADER + text)


def test_a_truncated_model_is_an_invalid_argument(channel: grpc.Channel) -> None:
    data = model(calls.SIN_OF_PRODUCT).SerializeToString()
    found = refused(register_bytes, channel, data[: len(data) - 9])
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "truncated" in found.message
    assert found.fields == ["model"]


def test_text_that_is_no_graph_is_an_invalid_argument(channel: grpc.Channel) -> None:
    found = refused(calls.register, channel, "this is not a graph")
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "not an ONNX model" in found.message


def test_an_empty_registration_is_an_invalid_argument(channel: grpc.Channel) -> None:
    assert refused(register_bytes, channel, b"").code == grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_operator_is_named(channel: grpc.Channel) -> None:
    found = refused(calls.register, channel, "g (double[2] x) => (double[2] y) { y = Frobnicate(x) }")
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "Frobnicate" in found.message


def test_external_data_is_refused_before_a_file_is_opened(channel: grpc.Channel) -> None:
    proto = model("g (double[2] x) => (double[2] y) <double[2] w = {1.0, 2.0}> { y = Mul(x, w) }")
    weight = proto.graph.initializer[0]
    weight.ClearField("double_data")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    found = refused(register_bytes, channel, proto.SerializeToString())
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "external" in found.message.lower()


@pytest.mark.parametrize(
    ("inputs", "named", "says"),
    [
        pytest.param({"a": np.eye(2), "x": np.zeros(3)}, "x", "n", id="wrong shape"),
        pytest.param({"a": np.eye(2), "x": np.zeros((1, 2))}, "x", "double", id="wrong rank"),
        pytest.param({"a": np.eye(2), "x": X.astype(np.float32)}, "x", "float64", id="wrong dtype"),
        pytest.param({"a": np.eye(2)}, "x", "missing", id="missing input"),
        pytest.param({"a": np.eye(2), "x": X, "z": X}, "z", "no input", id="unknown input"),
    ],
)
def test_an_input_that_does_not_fit_is_named(
    channel: grpc.Channel, graph: str, inputs: dict[str, Any], named: str, says: str
) -> None:
    request = calls.evaluation(graph, inputs)
    for found in (
        refused(calls.stub(channel).Evaluate, request, timeout=60),
        refused(calls.stub(channel).Differentiate, calls.derivative(graph, inputs), timeout=60),
    ):
        assert found.code == grpc.StatusCode.INVALID_ARGUMENT
        assert found.fields == [f'inputs["{named}"]']
        assert repr(named) in found.message


def test_bytes_that_are_not_the_declared_array_are_refused(channel: grpc.Channel, graph: str) -> None:
    request = calls.evaluation(graph, {"a": np.eye(2), "x": X})
    request.inputs["x"].data = b"\0" * 15
    found = refused(calls.stub(channel).Evaluate, request, timeout=60)
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "15" in found.message and found.fields == ['inputs["x"]']


def test_bytes_that_are_not_the_declared_array_are_refused_when_the_kernel_is_at_hand_too(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    calls.evaluate(channel, graph, point)
    test_bytes_that_are_not_the_declared_array_are_refused(channel, graph)


def test_a_negative_extent_is_refused(channel: grpc.Channel, graph: str) -> None:
    request = calls.evaluation(graph, {"a": np.eye(2), "x": X})
    request.inputs["x"].shape[0] = -2
    assert refused(calls.stub(channel).Evaluate, request, timeout=60).fields == ['inputs["x"]']


def test_an_empty_transform_is_refused_by_its_index(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    request = calls.evaluation(graph, point, function_pb2.Transform())
    found = refused(calls.stub(channel).Evaluate, request, timeout=60)
    assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["function.transforms[0]"])


def test_an_unspecified_kind_is_refused(channel: grpc.Channel, graph: str, point: dict[str, Any]) -> None:
    found = refused(calls.stub(channel).Differentiate, calls.derivative(graph, point, kind=0), timeout=60)
    assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["kind"])


def test_a_mode_of_the_other_kind_is_refused(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    options = derivative_pb2.PlanOptions(mode=derivative_pb2.MODE_FORWARD_OVER_REVERSE)
    found = refused(
        calls.stub(channel).Differentiate, calls.derivative(graph, point, options=options), timeout=60
    )
    assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["options.mode"])


def test_an_unknown_graph_is_not_found(channel: grpc.Channel, point: dict[str, Any]) -> None:
    missing = "ab" * 32
    for found in (
        refused(calls.stub(channel).Evaluate, calls.evaluation(missing, point), timeout=60),
        refused(calls.stub(channel).Differentiate, calls.derivative(missing, point), timeout=60),
        refused(calls.stub(channel).GetGraph, graph_pb2.GetGraphRequest(graph_id=missing), timeout=60),
    ):
        assert found.code == grpc.StatusCode.NOT_FOUND
        resource = found.detail(error_details_pb2.ResourceInfo)
        assert (resource.resource_type, resource.resource_name) == ("gradwire.v1.Graph", missing)


def test_an_unknown_tensor_is_not_found(channel: grpc.Channel, graph: str) -> None:
    request = calls.evaluation(graph, {"a": np.eye(2)})
    request.inputs["x"].CopyFrom(wire.tensor_by_id("cd" * 32, np.float64, (2,)))
    found = refused(calls.stub(channel).Evaluate, request, timeout=60)
    assert found.code == grpc.StatusCode.NOT_FOUND
    assert found.detail(error_details_pb2.ResourceInfo).resource_type == "gradwire.v1.Tensor"


def test_a_tensor_declared_as_another_type_is_refused(channel: grpc.Channel, graph: str) -> None:
    reference = calls.put(channel, np.zeros(4, np.float32))
    request = calls.evaluation(graph, {"a": np.eye(2)})
    request.inputs["x"].CopyFrom(wire.tensor_by_id(reference.tensor_id, np.float64, (2,)))
    assert refused(calls.stub(channel).Evaluate, request, timeout=60).fields == ['inputs["x"]']


@pytest.mark.parametrize("count", [1, 3])
def test_an_upload_of_another_size_than_declared_is_refused(channel: grpc.Channel, count: int) -> None:
    parts = [
        tensor_pb2.PutTensorRequest(dtype=tensor_pb2.DATA_TYPE_FLOAT64, shape=[2]),
        *[tensor_pb2.PutTensorRequest(data=bytes(8))] * count,
    ]
    found = refused(calls.stub(channel).PutTensor, iter(parts), timeout=60)
    assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["data"])


def test_reverse_mode_through_a_data_dependent_loop_is_a_failed_precondition(channel: grpc.Channel) -> None:
    graph_id = calls.register(channel, calls.ENDLESS).graph_id
    request = calls.evaluation(graph_id, {"x": X, "y.cotangent": X}, calls.vjp())
    found = refused(calls.stub(channel).Evaluate, request, timeout=60)
    assert found.code == grpc.StatusCode.FAILED_PRECONDITION
    assert "forward" in found.message


def test_resuming_another_plan_is_a_failed_precondition(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    for named in ({"skip": [0], "resume_id": "another.point"}, {"blocks": [0], "plan_id": "another"}):
        request = calls.derivative(graph, point, **named)
        found = refused(calls.stub(channel).Differentiate, request, timeout=60)
        assert found.code == grpc.StatusCode.FAILED_PRECONDITION
        assert found.detail(error_details_pb2.ErrorInfo).reason == "PLAN_CHANGED"


@pytest.mark.parametrize(("field", "needed"), [("skip", "resume_id"), ("blocks", "plan_id")])
def test_numbers_of_blocks_need_what_they_are_numbers_of(
    channel: grpc.Channel, graph: str, point: dict[str, Any], field: str, needed: str
) -> None:
    request = calls.derivative(graph, point, **{field: [0]})
    found = refused(calls.stub(channel).Differentiate, request, timeout=60)
    assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [needed])


@pytest.mark.parametrize("field", ["skip", "blocks"])
def test_a_block_that_is_not_there_is_refused(
    channel: grpc.Channel, graph: str, point: dict[str, Any], field: str
) -> None:
    begun = calls.differentiate(channel, calls.derivative(graph, point))
    known = {"resume_id": begun.resume_id, "plan_id": begun.plan.plan_id}
    request = calls.derivative(graph, point, **known, **{field: [10_000]})
    assert refused(calls.stub(channel).Differentiate, request, timeout=60).fields == [field]


def test_resuming_at_another_point_is_refused(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    begun = calls.differentiate(channel, calls.derivative(graph, point))
    request = calls.derivative(graph, {**point, "x": X + 1}, skip=[0], resume_id=begun.resume_id)
    found = refused(calls.stub(channel).Differentiate, request, timeout=60)
    assert (found.code, found.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["resume_id"])


def test_a_point_is_the_same_whether_its_arrays_are_sent_or_named_by_id(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    begun = calls.differentiate(channel, calls.derivative(graph, point))
    request = calls.derivative(graph, point)
    x = calls.put(channel, X)
    request.inputs["x"].CopyFrom(wire.tensor_by_id(x.tensor_id, X.dtype, X.shape))
    assert calls.differentiate(channel, request).resume_id == begun.resume_id
    request.skip[:], request.resume_id = range(begun.plan.blocks), begun.resume_id
    assert calls.differentiate(channel, request).blocks == {}


def test_a_graph_that_asks_for_8_terabytes_is_refused_with_the_figure(channel: grpc.Channel) -> None:
    text = """g (double[1] x) => (double[n, m] y) {
      shape = Constant <value = int64[2] {1000000, 1000000}> ()
      y = Expand(x, shape)
    }"""
    found = refused(calls.register, channel, text)
    assert found.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert found.limit["limit"] == "array_bytes"
    assert int(found.limit["requested"]) == 8 * 10**12 > int(found.limit["allowed"])


def test_a_result_too_large_for_a_unary_answer_says_to_use_the_stream(channel: grpc.Channel) -> None:
    text = """g (double[n] x) => (double[m] y) {
      shape = Constant <value = int64[2] {500000, 1}> ()
      rows = Expand(x, shape)
      y = ReduceSum <keepdims = 0> (rows, axes)
    }"""
    text = text.replace("y = Reduce", "axes = Constant <value = int64[1] {1}> ()\n y = Reduce")
    graph_id = calls.register(channel, text).graph_id
    found = refused(calls.stub(channel).Evaluate, calls.evaluation(graph_id, {"x": X}), timeout=60)
    assert found.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert found.limit["limit"] == "message_bytes"
    assert found.limit["requested"] == "4000000"
    assert "EvaluateStream" in found.message


def test_an_endless_loop_ends_with_its_deadline_and_frees_its_worker_within_a_second(
    server: EmbeddedServer, channel: grpc.Channel
) -> None:
    graph_id = calls.register(channel, calls.ENDLESS).graph_id
    request = calls.evaluation(graph_id, {"x": np.ones(2)})
    call = calls.stub(channel).Evaluate.future(request, timeout=6)
    time.sleep(4)  # compiled by now
    (worker,) = computing(server.process_id)
    found = calls.refusal(call.exception())
    ended = time.monotonic()
    assert found.code == grpc.StatusCode.DEADLINE_EXCEEDED
    while worker.is_running() and time.monotonic() < ended + 1:
        time.sleep(0.02)
    assert not worker.is_running()


def test_an_endless_loop_on_a_stream_ends_with_the_timeout_of_its_call(channel: grpc.Channel) -> None:
    graph_id = calls.register(channel, calls.ENDLESS).graph_id
    request = function_pb2.EvaluateStreamRequest(
        call_id=1, evaluate=calls.evaluation(graph_id, {"x": np.ones(2)})
    )
    request.timeout.FromMilliseconds(1500)
    started = time.monotonic()
    (answer,) = calls.stub(channel).EvaluateStream(iter([request]), timeout=30)
    assert answer.error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert time.monotonic() - started < 3
