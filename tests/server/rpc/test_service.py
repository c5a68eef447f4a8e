"""The service over a real connection: what each method answers, checked against NumPy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import gradwire_wire as wire
from gradwire_wire.v1 import derivative_pb2, function_pb2, graph_pb2, tensor_pb2
from tests.server import calls

rng = np.random.default_rng(5)


@pytest.fixture(scope="module")
def graph(channel: grpc.Channel) -> str:
    return calls.register(channel, calls.SIN_OF_PRODUCT).graph_id


@pytest.fixture
def point() -> dict[str, Any]:
    return {"a": rng.standard_normal((3, 4)), "x": rng.standard_normal(4)}


def jacobian(point: dict[str, Any]) -> Any:
    return np.cos(point["a"] @ point["x"])[:, None] * point["a"]


def test_a_registered_graph_is_named_by_its_hash_and_tells_its_signature(channel: grpc.Channel) -> None:
    found = calls.register(channel, calls.SIN_OF_PRODUCT)
    assert found.graph_id == hashlib.sha256((calls.HEADER + calls.SIN_OF_PRODUCT).encode()).hexdigest()
    assert [value.name for value in found.inputs] == ["a", "x"]
    assert [dimension.symbol for dimension in found.inputs[0].shape] == ["m", "n"]
    assert found.node_count == 2
    again = calls.stub(channel).GetGraph(graph_pb2.GetGraphRequest(graph_id=found.graph_id)).graph
    assert again == found


def test_a_graph_may_arrive_in_pieces_that_split_it_anywhere(channel: grpc.Channel) -> None:
    import onnx

    text = calls.HEADER + "pieces (double[2] x) => (double[2] y) { y = Exp(x) }"
    data = onnx.parser.parse_model(text).SerializeToString()
    parts = [graph_pb2.RegisterGraphRequest(model=data[i : i + 7]) for i in range(0, len(data), 7)]
    found = calls.stub(channel).RegisterGraph(iter(parts), timeout=60).graph
    assert found.graph_id == hashlib.sha256(data).hexdigest()
    x = rng.standard_normal(2)
    np.testing.assert_allclose(calls.evaluate(channel, found.graph_id, {"x": x})["y"], np.exp(x), rtol=1e-15)


def test_evaluate_gives_values_and_pullbacks(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    value = calls.evaluate(channel, graph, point)
    np.testing.assert_allclose(value["y"], np.sin(point["a"] @ point["x"]), rtol=1e-14)
    w = rng.standard_normal(3)
    pulled = calls.evaluate(channel, graph, {**point, "y.cotangent": w}, calls.vjp("x"))
    np.testing.assert_allclose(pulled["x.cotangent"], w @ jacobian(point), rtol=1e-13)


def test_a_batch_axis_evaluates_every_index(channel: grpc.Channel, graph: str, point: dict[str, Any]) -> None:
    xs = rng.standard_normal((6, 4))
    value = calls.evaluate(channel, graph, {"a": point["a"], "x": xs}, batched=["x"])
    np.testing.assert_allclose(value["y"], np.sin(xs @ point["a"].T), rtol=1e-13)


def test_a_small_evaluation_is_done_by_the_serving_process(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    response = calls.stub(channel).Evaluate(calls.evaluation(graph, point), timeout=60)
    assert response.statistics.worker == "server"


def test_a_large_evaluation_is_done_by_a_worker(channel: grpc.Channel) -> None:
    found = calls.register(
        channel, "big (double[n,n] a) => (double s) { b = MatMul(a, a)\n s = ReduceSum <keepdims = 0> (b) }"
    )
    a = rng.standard_normal((600, 600))
    reference = calls.put(channel, a)
    request = calls.evaluation(found.graph_id, {})
    request.inputs["a"].CopyFrom(wire.tensor_by_id(reference.tensor_id, a.dtype, a.shape))
    response = calls.stub(channel).Evaluate(request, timeout=60)
    assert response.statistics.worker.startswith("worker-")
    np.testing.assert_allclose(calls.outputs(response)["s"], (a @ a).sum(), rtol=1e-9)


def test_an_uploaded_tensor_has_the_documented_id(channel: grpc.Channel) -> None:
    array = rng.standard_normal((2, 3))
    reference = calls.put(channel, array, size=5)
    assert reference.tensor_id == hashlib.sha256(b"1:2,3:" + array.tobytes()).hexdigest()


@pytest.mark.parametrize("mode", [derivative_pb2.MODE_FORWARD, derivative_pb2.MODE_REVERSE])
@pytest.mark.parametrize("width", [0, 1, 2, 3])
def test_a_jacobian_is_right_in_both_modes_for_any_block_width(
    channel: grpc.Channel, graph: str, point: dict[str, Any], mode: Any, width: int
) -> None:
    options = derivative_pb2.PlanOptions(mode=mode, block_width=width)
    found = calls.differentiate(channel, calls.derivative(graph, point, wrt=["x"], options=options))
    np.testing.assert_allclose(found.matrices[0], jacobian(point), rtol=1e-13)
    assert found.plan.mode == mode


def test_a_stream_has_a_header_then_blocks_and_a_summary(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    options = derivative_pb2.PlanOptions(mode=derivative_pb2.MODE_FORWARD, block_width=1)
    found = calls.differentiate(channel, calls.derivative(graph, point, wrt=["x"], options=options))
    blocks = [event for event in found.order if event != "progress"]
    assert blocks == ["header", *["block_start", "chunk"] * 4, "summary"]
    assert sorted(found.blocks) == list(range(found.plan.blocks)) == [0, 1, 2, 3]
    assert found.plan.result_bytes == 96
    assert found.summary is not None
    assert found.summary.blocks == sum(found.summary.blocks_by_worker.values()) == 4


@pytest.mark.parametrize(("size", "here"), [(64, True), (2300, False)])
def test_cheap_blocks_are_computed_here_unless_their_inputs_are_large(
    channel: grpc.Channel, size: int, here: bool
) -> None:
    a, x = rng.standard_normal((size, size)) / size, rng.standard_normal(size)
    graph_id = calls.register(channel, calls.SIN_OF_PRODUCT).graph_id
    request = calls.derivative(graph_id, {"x": x}, wrt=["x"])
    request.inputs["a"].CopyFrom(
        tensor_pb2.Tensor(
            dtype=wire.data_type(a.dtype), shape=a.shape, tensor_id=calls.put(channel, a).tensor_id
        )
    )
    found = calls.differentiate(channel, request)
    np.testing.assert_allclose(found.matrices[0], np.cos(a @ x)[:, None] * a, rtol=1e-9, atol=1e-15)
    assert found.summary is not None
    assert (set(found.summary.blocks_by_worker) == {"server"}) is here


def test_a_hessian_is_symmetric_and_right(channel: grpc.Channel) -> None:
    text = "h (double[5] x) => (double s) { q = Sqrt(x)\n s = ReduceSum <keepdims = 0> (q) }"
    x = rng.uniform(1, 2, 5)
    request = calls.derivative(calls.register(channel, text).graph_id, {"x": x}, kind=calls.HESSIAN)
    found = calls.differentiate(channel, request)
    np.testing.assert_allclose(found.matrices[0], np.diag(-0.25 * x**-1.5), rtol=1e-12, atol=1e-15)


def test_blocks_held_already_are_not_sent_again(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    options = derivative_pb2.PlanOptions(mode=derivative_pb2.MODE_FORWARD, block_width=1)
    whole = calls.differentiate(channel, calls.derivative(graph, point, wrt=["x"], options=options))
    rest = calls.differentiate(
        channel,
        calls.derivative(graph, point, wrt=["x"], options=options, skip=[0, 2], resume_id=whole.resume_id),
    )
    assert sorted(rest.blocks) == [1, 3]
    np.testing.assert_array_equal(rest.matrices[0][:, [1, 3]], whole.matrices[0][:, [1, 3]])
    assert np.isnan(rest.matrices[0][:, [0, 2]]).all()


def test_a_plan_is_what_the_derivative_then_follows(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    function = function_pb2.Function(graph_id=graph)
    request = derivative_pb2.PlanRequest(
        function=function, inputs=calls.tensors(point), kind=calls.JACOBIAN, wrt=["x"]
    )
    plan = calls.stub(channel).Plan(request, timeout=60).plan
    found = calls.differentiate(channel, calls.derivative(graph, point, wrt=["x"]))
    assert found.plan == plan
    assert [(entry.row, entry.column) for entry in plan.entries] == [("y", "x")]


@pytest.mark.parametrize("field", ["rows", "columns", "reduction"])
def test_what_is_not_built_yet_is_refused_by_name(
    channel: grpc.Channel, graph: str, point: dict[str, Any], field: str
) -> None:
    request = calls.derivative(graph, point, wrt=["x"])
    if field == "reduction":
        request.reduction.trace.SetInParent()
    else:
        getattr(request, field)["x"].CopyFrom(wire.to_tensor(np.arange(2)))
    with pytest.raises(grpc.RpcError) as caught:
        calls.differentiate(channel, request)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert f"({field})" in caught.value.details()


def test_only_the_blocks_that_are_asked_for_are_computed(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    request = calls.derivative(graph, point, wrt=["x"])
    request.options.block_width = 1
    request.options.mode = derivative_pb2.MODE_FORWARD
    whole = calls.differentiate(channel, request)
    request.blocks[:], request.plan_id = [1, 3], whole.plan.plan_id
    part = calls.differentiate(channel, request)
    assert sorted(part.blocks) == [1, 3]
    np.testing.assert_array_equal(part.matrices[0][:, [1, 3]], whole.matrices[0][:, [1, 3]])
    request.blocks[:] = [99]
    with pytest.raises(grpc.RpcError, match="blocks names block 99"):
        calls.differentiate(channel, request)


def test_a_pattern_is_checked_with_the_blocks_that_the_client_holds_too(channel: grpc.Channel) -> None:
    text = "squares (double[4] x) => (double[4] y) { y = Mul(x, x) }"
    graph = calls.register(channel, text).graph_id
    request = calls.derivative(graph, {"x": np.arange(1.0, 5)}, wrt=["x"])
    request.options.sparsity = derivative_pb2.SPARSITY_SPARSE
    request.options.pattern.rows.CopyFrom(wire.to_tensor(np.array([0, 1, 2, 3])))
    request.options.pattern.columns.CopyFrom(wire.to_tensor(np.array([0, 1, 2, 0])))
    request.options.block_width = 1
    header = next(calls.stub(channel).Differentiate(request, timeout=60)).header
    request.skip[:], request.resume_id = [0], header.resume_id
    with pytest.raises(grpc.RpcError, match="the pattern given lacks entries"):
        list(calls.stub(channel).Differentiate(request, timeout=60))


def test_calls_on_a_stream_are_answered_by_id(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    xs = rng.standard_normal((50, 4))

    def requests() -> Iterator[function_pb2.EvaluateStreamRequest]:
        for index, x in enumerate(xs):
            request = calls.evaluation(graph, {"a": point["a"], "x": x})
            yield function_pb2.EvaluateStreamRequest(call_id=index + 1, evaluate=request)

    answers = {}
    for answer in calls.stub(channel).EvaluateStream(requests(), timeout=60):
        assert answer.last
        answers[answer.call_id - 1] = calls.outputs(answer.response)["y"]
    found = np.stack([answers[index] for index in range(len(xs))])
    np.testing.assert_allclose(found, np.sin(xs @ point["a"].T), rtol=1e-13)


def test_a_large_output_follows_its_response_in_chunks(channel: grpc.Channel) -> None:
    text = """outer (double[n] x) => (double[n,n] y, double[n] z) {
      shape = Constant <value = int64[2] {-1, 1}> ()
      column = Reshape(x, shape)
      y = Mul(column, x)
      z = Neg(x)
    }"""
    graph_id = calls.register(channel, text).graph_id
    x = rng.standard_normal(700)
    request = function_pb2.EvaluateStreamRequest(call_id=9, evaluate=calls.evaluation(graph_id, {"x": x}))
    answers = list(calls.stub(channel).EvaluateStream(iter([request]), timeout=60))
    assert [answer.last for answer in answers] == [False] * (len(answers) - 1) + [True]
    first, *rest = answers
    large, small = (item.tensor for item in first.response.outputs)
    assert not large.HasField("data")
    np.testing.assert_array_equal(wire.from_tensor(small), -x)
    data = bytearray(700 * 700 * 8)
    for answer in rest:
        chunk = answer.chunk
        assert chunk.output == 0 and answer.call_id == 9
        data[chunk.offset : chunk.offset + len(chunk.data)] = chunk.data
    np.testing.assert_array_equal(wire.array_from_bytes(data, large.dtype, large.shape), np.outer(x, x))


def test_a_failed_call_leaves_its_stream_and_the_other_calls_alone(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    good, bad = calls.evaluation(graph, point), calls.evaluation("0" * 64, point)
    requests = [
        function_pb2.EvaluateStreamRequest(call_id=1, evaluate=bad),
        function_pb2.EvaluateStreamRequest(call_id=2, evaluate=good),
        function_pb2.EvaluateStreamRequest(call_id=0, evaluate=good),
    ]
    answers = {a.call_id: a for a in calls.stub(channel).EvaluateStream(iter(requests), timeout=60)}
    assert answers[1].error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert "0" * 64 in answers[1].error.message
    assert answers[2].HasField("response")
    assert answers[0].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_a_cancelled_call_is_answered_as_cancelled(channel: grpc.Channel) -> None:
    graph_id = calls.register(channel, calls.ENDLESS).graph_id
    call = calls.evaluation(graph_id, {"x": np.ones(2)})

    def requests() -> Iterator[function_pb2.EvaluateStreamRequest]:
        yield function_pb2.EvaluateStreamRequest(call_id=4, evaluate=call)
        yield function_pb2.EvaluateStreamRequest(call_id=4, cancel=True)

    (answer,) = calls.stub(channel).EvaluateStream(requests(), timeout=60)
    assert answer.error.code == grpc.StatusCode.CANCELLED.value[0]


def test_a_call_that_is_cancelled_at_any_moment_is_answered_once(
    channel: grpc.Channel, graph: str, point: dict[str, Any]
) -> None:
    """Before it is begun, while it runs, while its answer is written and after that."""
    good = calls.evaluation(graph, {**point, "y.cotangent": np.ones(3)}, calls.vjp("x"))
    bad = calls.evaluation("0" * 64, point)
    count = 60

    def requests() -> Iterator[function_pb2.EvaluateStreamRequest]:
        for index in range(1, count + 1):
            request = (good, bad)[index % 2]
            yield function_pb2.EvaluateStreamRequest(call_id=index, evaluate=request)
            yield function_pb2.EvaluateStreamRequest(call_id=max(1, index - index % 3), cancel=True)

    for _ in range(3):
        answers = list(calls.stub(channel).EvaluateStream(requests(), timeout=30))
        assert sorted(answer.call_id for answer in answers) == list(range(1, count + 1))
        codes = {answer.error.code for answer in answers if answer.HasField("error")}
        assert codes <= {grpc.StatusCode.CANCELLED.value[0], grpc.StatusCode.NOT_FOUND.value[0]}


def test_health_names_the_service(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "gradwire.v1.GradientService"):
        status = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5).status
        assert status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_service(channel: grpc.Channel) -> None:
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    assert "gradwire.v1.GradientService" in set(ProtoReflectionDescriptorDatabase(channel).get_services())
