"""A function's own outputs within the stream of its derivative, on the fast path and from workers."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

import gradwire_wire as wire
from gradwire_wire.v1 import derivative_pb2, function_pb2
from tests.server import calls

rng = np.random.default_rng(11)
TALL = """g (double[n] x) => (double[m, n] y, double s) {
  shape = Constant <value = int64[2] {400, 1}> ()
  column = Constant <value = int64[1] {400}> ()
  one = Constant <value = double {1.0}> ()
  ones = Expand(one, shape)
  wave = Sin(x)
  y = Mul(ones, wave)
  s = ReduceSum <keepdims = 0> (wave)
}"""


def received(channel: grpc.Channel, request: derivative_pb2.DifferentiateRequest) -> Any:
    """The derivative and the outputs that a stream brought, and where the outputs came."""
    found = calls.Collected()
    own: list[function_pb2.EvaluateResponse] = []
    data: dict[int, bytes] = {}
    for event in calls.stub(channel).Differentiate(request, timeout=120):
        found.take(event)
        if event.WhichOneof("event") == "values":
            own.append(event.values)
        elif event.WhichOneof("event") == "value_chunk":
            part = event.value_chunk
            assert part.offset == len(data.get(part.output, b""))
            data[part.output] = data.get(part.output, b"") + part.data
    (response,) = own
    for index, output in enumerate(response.outputs):
        assert output.tensor.HasField("data") != (index in data)
        if index in data:
            output.tensor.data = data[index]
    return found, calls.outputs(response), response.statistics.worker


def test_small_values_come_once_and_are_computed_here(channel: grpc.Channel) -> None:
    graph = calls.register(channel, calls.SIN_OF_PRODUCT).graph_id
    point = {"a": rng.standard_normal((3, 4)), "x": rng.standard_normal(4)}
    request = calls.derivative(graph, point, wrt=["x"], values=True)
    found, own, worker = received(channel, request)
    assert own["y"].tobytes() == calls.evaluate(channel, graph, point)["y"].tobytes()
    product = point["a"] @ point["x"]
    np.testing.assert_allclose(own["y"], np.sin(product), rtol=1e-14)
    np.testing.assert_allclose(found.matrices[0], np.cos(product)[:, None] * point["a"], rtol=1e-13)
    assert worker == "server"
    assert found.order[0] == "header" and found.order[-1] == "summary"


def test_without_the_wish_no_values_come(channel: grpc.Channel) -> None:
    graph = calls.register(channel, calls.SIN_OF_PRODUCT).graph_id
    point = {"a": rng.standard_normal((3, 4)), "x": rng.standard_normal(4)}
    assert "values" not in calls.differentiate(channel, calls.derivative(graph, point, wrt=["x"])).order


def test_a_hessian_brings_the_value_too(channel: grpc.Channel) -> None:
    graph = calls.register(
        channel, "g (double[n] x) => (double s) { e = Exp(x)\n s = ReduceSum <keepdims = 0> (e) }"
    ).graph_id
    x = rng.standard_normal(5)
    request = calls.derivative(graph, {"x": x}, kind=calls.HESSIAN, values=True)
    found, own, _ = received(channel, request)
    np.testing.assert_allclose(own["s"], np.exp(x).sum(), rtol=1e-14)
    np.testing.assert_allclose(found.matrices[0], np.diag(np.exp(x)), rtol=1e-13)


def test_a_transformed_function_brings_all_that_it_gives(channel: grpc.Channel) -> None:
    graph = calls.register(
        channel, "g (double[n] x) => (double s) { e = Exp(x)\n s = ReduceSum <keepdims = 0> (e) }"
    ).graph_id
    x = rng.standard_normal(5)
    gradient = function_pb2.GradientTransform(wrt=["x"], of="s", keep_values=True)
    transform = function_pb2.Transform(gradient=gradient)
    request = calls.derivative(graph, {"x": x}, transform, of=["x.gradient"], values=True)
    found, own, _ = received(channel, request)
    np.testing.assert_allclose(own["s"], np.exp(x).sum(), rtol=1e-14)
    np.testing.assert_allclose(own["x.gradient"], np.exp(x), rtol=1e-14)
    np.testing.assert_allclose(found.matrices[0], np.diag(np.exp(x)), rtol=1e-13)


def test_large_values_come_in_chunks_beside_small_ones(channel: grpc.Channel) -> None:
    graph = calls.register(channel, TALL).graph_id
    x = rng.standard_normal(700)
    request = calls.derivative(graph, {"x": x}, of=["s"], values=True)
    found, own, _ = received(channel, request)
    np.testing.assert_allclose(own["y"], np.tile(np.sin(x), (400, 1)), rtol=1e-14)
    np.testing.assert_allclose(own["s"], np.sin(x).sum(), rtol=1e-12)
    np.testing.assert_allclose(found.matrices[0], np.cos(x)[None], rtol=1e-13)
    chunks = [at for at, kind in enumerate(found.order) if kind == "value_chunk"]
    first = found.order.index("values")
    assert len(chunks) == -(-own["y"].nbytes // wire.CHUNK_BYTES) > 1
    assert chunks == list(range(first + 1, first + 1 + len(chunks)))


def test_values_of_work_on_workers_are_evaluated_by_one(channel: grpc.Channel) -> None:
    graph = calls.register(channel, calls.SIN_OF_PRODUCT).graph_id
    size = 2300
    a, x = rng.standard_normal((size, size)) / size, rng.standard_normal(size)
    request = calls.derivative(graph, {"x": x}, wrt=["x"], values=True)
    held = calls.put(channel, a)
    request.inputs["a"].CopyFrom(wire.tensor_by_id(held.tensor_id, a.dtype, a.shape))
    found, own, worker = received(channel, request)
    np.testing.assert_allclose(own["y"], np.sin(a @ x), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found.matrices[0], np.cos(a @ x)[:, None] * a, rtol=1e-9, atol=1e-15)
    assert worker.startswith("worker-")


def test_values_alone_are_sent_to_a_client_that_holds_every_block(channel: grpc.Channel) -> None:
    graph = calls.register(channel, calls.SIN_OF_PRODUCT).graph_id
    point = {"a": rng.standard_normal((3, 4)), "x": rng.standard_normal(4)}
    whole = calls.differentiate(channel, calls.derivative(graph, point, wrt=["x"]))
    request = calls.derivative(
        graph, point, wrt=["x"], values=True, skip=range(whole.plan.blocks), resume_id=whole.resume_id
    )
    found, own, _ = received(channel, request)
    assert found.order == ["header", "values", "summary"]
    np.testing.assert_allclose(own["y"], np.sin(point["a"] @ point["x"]), rtol=1e-14)


def test_an_input_of_the_wrong_shape_is_refused_as_without_values(channel: grpc.Channel) -> None:
    graph = calls.register(channel, calls.SIN_OF_PRODUCT).graph_id
    point = {"a": rng.standard_normal((3, 4)), "x": rng.standard_normal(5)}
    with pytest.raises(grpc.RpcError) as caught:
        calls.differentiate(channel, calls.derivative(graph, point, wrt=["x"], values=True))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
