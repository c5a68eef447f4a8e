"""Accumulate over the wire: numbers and the order of messages."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from scipy.special import expit

import gradwire_wire as wire
from gradwire_wire.v1 import accumulate_pb2, function_pb2
from tests.server import calls
from tests.server.accumulations import (
    GROWTH,
    LEAST_SQUARES,
    LOGISTIC,
    MEAN,
    READ,
    ZERO,
    Request,
    Stream,
    accumulate,
    announced,
    batch,
    batches,
    chunk,
    chunked,
    logistic,
    logistic_of,
    rows,
    start,
    with_function,
)

Array = np.ndarray[Any, Any]

LINEAR = """g (float[d] w, float[n,d] X) => (float loss) {
  z = MatMul(X, w)
  loss = ReduceSum <keepdims = 0> (z)
}"""


@pytest.fixture(scope="module")
def graph_id(channel: grpc.Channel) -> str:
    """Logistic regression, summed over rows."""
    return calls.register(channel, LOGISTIC).graph_id


class TestNumbers:
    def test_the_sum_over_batches_is_the_gradient_over_all_rows(
        self, channel: grpc.Channel, graph_id: str
    ) -> None:
        w, X, y = rows(1037, 6)
        found = accumulate(channel, [start(graph_id, {"w": w}), *batches(X, y, 100)])
        loss, gradient = logistic(w, X, y)
        assert list(found.arrays) == ["loss", "w.gradient"]
        assert found.arrays["loss"].shape == ()
        np.testing.assert_allclose(found.arrays["loss"], loss, rtol=1e-13)
        np.testing.assert_allclose(found.arrays["w.gradient"], gradient, rtol=1e-12)
        message = found.message
        assert (message.batches, message.rows, message.batches_rerun) == (11, 1037, 0)
        assert sum(message.batches_by_worker.values()) == 11
        assert message.compute.ToNanoseconds() > 0

    def test_a_mean_counts_each_batch_by_its_rows(self, channel: grpc.Channel) -> None:
        graph = calls.register(channel, LEAST_SQUARES).graph_id
        w, X, y = rows(70, 3, seed=1)
        b = np.asarray(0.3)
        found = accumulate(
            channel, [start(graph, {"w": w, "b": b}, of="loss", reduction=MEAN), *batches(X, y, 32)]
        )
        residual = X @ w + b - y
        assert list(found.arrays) == ["loss", "w.gradient", "b.gradient"]
        assert found.arrays["loss"].shape == (1,)
        np.testing.assert_allclose(found.arrays["loss"], [np.mean(residual**2)], rtol=1e-13)
        np.testing.assert_allclose(found.arrays["w.gradient"], 2 * X.T @ residual / 70, rtol=1e-12)
        np.testing.assert_allclose(found.arrays["b.gradient"], 2 * residual.mean(), rtol=1e-12)

    def test_rows_that_a_batch_declares_are_its_weight(self, channel: grpc.Channel) -> None:
        graph = calls.register(channel, LEAST_SQUARES).graph_id
        w, X, y = rows(8, 2, seed=2)
        point = {"w": w, "b": np.asarray(0.0)}
        sent = [batch(3, X=X[:4], y=y[:4]), batch(1, X=X[4:], y=y[4:])]
        found = accumulate(channel, [start(graph, point, of="loss", wrt=["b"], reduction=MEAN), *sent])
        residual = X @ w - y
        expected = 2 * (3 * residual[:4].mean() + residual[4:].mean()) / 4
        assert list(found.arrays) == ["loss", "b.gradient"]
        np.testing.assert_allclose(found.arrays["b.gradient"], expected, rtol=1e-13)
        assert found.message.rows == 4

    def test_gradients_of_float32_are_added_in_float64(self, channel: grpc.Channel) -> None:
        graph = calls.register(channel, LINEAR).graph_id
        X = np.random.default_rng(3).standard_normal((300, 4)).astype(np.float32)
        sent = [batch(X=row[None]) for row in X]
        found = accumulate(channel, [start(graph, {"w": np.ones(4, np.float32)}), *sent])
        exact = X.astype(np.float64).sum(axis=0).astype(np.float32)
        assert found.arrays["w.gradient"].dtype == np.float32
        np.testing.assert_array_equal(found.arrays["w.gradient"], exact)

    def test_a_graph_without_reverse_mode_is_differentiated_forwards(self, channel: grpc.Channel) -> None:
        graph = calls.register(channel, GROWTH).graph_id
        sent = [batch(1, x=np.asarray(x)) for x in (1.0, 10.0, 50.0)]
        found = accumulate(channel, [start(graph, {"w": np.asarray(3.0)}), *sent])
        # 1 * 3^5, 10 * 3^3 and 50 * 3.
        np.testing.assert_allclose(found.arrays["y"], 243 + 270 + 150, rtol=1e-14)
        np.testing.assert_allclose(found.arrays["w.gradient"], 5 * 81 + 10 * 3 * 9 + 50, rtol=1e-14)

    def test_transforms_compose_a_hessian_vector_product_over_batches(
        self, channel: grpc.Channel, graph_id: str
    ) -> None:
        w, X, y = rows(90, 4, seed=4)
        v = np.random.default_rng(5).standard_normal(4)
        pushed = function_pb2.Transform(jvp=function_pb2.JvpTransform(wrt=["w"]))
        found = accumulate(
            channel,
            [start(graph_id, {"w": w, "w.tangent": v}, pushed, wrt=["w"]), *batches(X, y, 40)],
        )
        margin = y * (X @ w)
        hessian = X.T @ (expit(margin) * expit(-margin) * X.T).T
        assert list(found.arrays) == ["loss.tangent", "w.gradient"]
        np.testing.assert_allclose(found.arrays["w.gradient"], hessian @ v, rtol=1e-12)
        np.testing.assert_allclose(found.arrays["loss.tangent"], logistic(w, X, y)[1] @ v, rtol=1e-12)

    def test_no_batches_sum_to_zeros_shaped_like_the_loss_and_the_inputs(self, channel: grpc.Channel) -> None:
        graph = calls.register(channel, LEAST_SQUARES).graph_id
        point = {"w": np.ones(5), "b": np.asarray(1.0)}
        for reduction in (0, MEAN):
            found = accumulate(channel, [start(graph, point, of="loss", reduction=reduction)])
            expected = {"loss": [0.0], "w.gradient": [0.0] * 5, "b.gradient": 0.0}
            assert {name: array.tolist() for name, array in found.arrays.items()} == expected
            assert (found.message.batches, found.message.rows) == (0, 0)

    def test_an_empty_batch_of_a_mean_adds_nothing(self, channel: grpc.Channel) -> None:
        graph = calls.register(channel, LEAST_SQUARES).graph_id
        w, X, y = rows(10, 2, seed=6)
        begin = start(graph, {"w": w, "b": np.asarray(0.0)}, of="loss", reduction=MEAN)
        found = accumulate(channel, [begin, batch(X=X[:0], y=y[:0]), batch(X=X, y=y)])
        np.testing.assert_allclose(found.arrays["loss"], [np.mean((X @ w - y) ** 2)], rtol=1e-13)
        assert (found.message.batches, found.message.rows) == (2, 10)


class TestProtocol:
    def test_reads_see_the_batches_sent_before_them_and_change_nothing_after(
        self, channel: grpc.Channel, graph_id: str
    ) -> None:
        w, X, y = rows(530, 5, seed=7)
        begin, sent = start(graph_id, {"w": w}), batches(X, y, 20)
        counts = [0, 1, 1, 7, 20, 27]
        stream = Stream(channel)
        stream.send(begin)
        done = 0
        for count in counts:  # all sent at once: later batches overtake earlier ones
            stream.send(*sent[done:count], READ)
            done = count
        stream.end()
        read = [stream.answer() for _ in counts]
        last = stream.answer()
        assert next(stream.call, None) is None
        assert [found.message.batches for found in read] == counts
        for count, found in zip(counts, read, strict=True):
            assert found.bits == accumulate(channel, [begin, *sent[:count]]).bits
        assert last.bits == read[-1].bits

    def test_zero_keeps_the_point_and_forgets_the_batches(self, channel: grpc.Channel, graph_id: str) -> None:
        w, X, y = rows(100, 3, seed=8)
        sent = batches(X, y, 25)
        stream = Stream(channel)
        stream.send(start(graph_id, {"w": w}), *sent)
        whole = stream.read()
        stream.send(ZERO)
        assert stream.read().arrays["w.gradient"].tolist() == [0.0] * 3
        stream.send(*sent[:2], ZERO, *sent)  # the first two are forgotten, finished or not
        again = stream.read()
        stream.end()
        assert again.bits == whole.bits
        assert (again.message.batches, again.message.rows) == (4, 100)

    def test_a_read_before_zero_is_answered_with_what_was_there(
        self, channel: grpc.Channel, graph_id: str
    ) -> None:
        w, X, y = rows(100, 3, seed=8)
        sent = batches(X, y, 25)
        stream = Stream(channel)
        stream.send(start(graph_id, {"w": w}), *sent, READ, ZERO, *sent[:1])
        stream.end()
        assert (stream.answer().message.batches, stream.answer().message.batches) == (4, 1)

    def test_start_again_moves_to_another_point(self, channel: grpc.Channel, graph_id: str) -> None:
        w, X, y = rows(60, 3, seed=9)
        sent = batches(X, y, 25)
        requests = [start(graph_id, {"w": w}), *sent, start(graph_id, {"w": 2 * w}), *sent]
        found = accumulate(channel, requests)
        np.testing.assert_allclose(found.arrays["w.gradient"], logistic(2 * w, X, y)[1], rtol=1e-12)
        assert found.message.batches == 3

    def test_zero_forgets_a_batch_that_is_incomplete(self, channel: grpc.Channel, graph_id: str) -> None:
        w, X, y = rows(10, 3)
        requests = [start(graph_id, {"w": w}), announced(X=X, y=y), chunk("X", 0, b"abc"), ZERO]
        found = accumulate(channel, [*requests, batch(X=X, y=y)])
        np.testing.assert_allclose(found.arrays["loss"], logistic(w, X, y)[0], rtol=1e-13)

    @pytest.mark.parametrize("size", [100, 1 << 20])
    def test_batches_in_chunks_have_the_same_bits(
        self, channel: grpc.Channel, graph_id: str, size: int
    ) -> None:
        w, X, y = rows(60, 4, seed=10)
        begin = start(graph_id, {"w": w})
        parts = [part for at in (0, 40) for part in chunked(size, X=X[at : at + 40], y=y[at : at + 40])]
        assert (
            accumulate(channel, [begin, *parts]).bits == accumulate(channel, [begin, *batches(X, y, 40)]).bits
        )

    def test_large_batches_and_large_gradients_travel_in_chunks(
        self, channel: grpc.Channel, graph_id: str
    ) -> None:
        w, X, y = rows(12, 200_000, seed=11)
        w /= 500
        parts = [part for at in (0, 5, 10) for part in chunked(1 << 20, X=X[at : at + 5], y=y[at : at + 5])]
        by_id = {"w": wire.tensor_by_id(calls.put(channel, w).tensor_id, w.dtype, w.shape)}
        found = accumulate(channel, [start(graph_id, {}, by_id=by_id), *parts])
        np.testing.assert_allclose(found.arrays["w.gradient"], logistic(w, X, y)[1], rtol=1e-12, atol=1e-12)
        assert found.message.outputs[0].tensor.HasField("data")
        assert not found.message.outputs[1].tensor.HasField("data")

    def test_batches_by_id_have_the_same_bits(self, channel: grpc.Channel, graph_id: str) -> None:
        w, X, y = rows(60, 4, seed=12)
        begin = start(graph_id, {"w": w})

        def by_id(at: int) -> Request:
            part = X[at : at + 40]
            held = wire.tensor_by_id(calls.put(channel, part).tensor_id, part.dtype, part.shape)
            inputs = {"X": held, "y": wire.to_tensor(y[at : at + 40])}
            return Request(batch=accumulate_pb2.Batch(inputs=inputs))

        found = accumulate(channel, [begin, by_id(0), by_id(40)])
        assert found.bits == accumulate(channel, [begin, *batches(X, y, 40)]).bits

    def test_a_batch_may_bring_a_function_of_its_own_shapes(
        self, channel: grpc.Channel, graph_id: str
    ) -> None:
        w, X, y = rows(70, 4, seed=14)
        thirty, ten = (calls.register(channel, logistic_of(count)).graph_id for count in (30, 10))
        sent = batches(X, y, 30)
        sent[2] = with_function(sent[2], ten)
        found = accumulate(channel, [start(thirty, {"w": w}), *sent])
        open_shapes = accumulate(channel, [start(graph_id, {"w": w}), *batches(X, y, 30)])
        np.testing.assert_allclose(found.arrays["w.gradient"], open_shapes.arrays["w.gradient"], rtol=1e-13)
        np.testing.assert_allclose(found.arrays["w.gradient"], logistic(w, X, y)[1], rtol=1e-12)

    def test_a_function_that_a_batch_brings_carries_its_own_transforms(self, channel: grpc.Channel) -> None:
        w, X, y = rows(40, 4, seed=15)
        v = np.array([1.0, -1.0, 0.5, 2.0])
        thirty, ten = (calls.register(channel, logistic_of(count)).graph_id for count in (30, 10))
        pushed = function_pb2.Transform(jvp=function_pb2.JvpTransform(wrt=["w"]))
        begin = start(thirty, {"w": w, "w.tangent": v}, pushed, wrt=["w"])
        first, last = batches(X, y, 30)
        found = accumulate(channel, [begin, first, with_function(last, ten, pushed)])
        margin = y * (X @ w)
        hessian = X.T @ (expit(margin) * expit(-margin) * X.T).T
        np.testing.assert_allclose(found.arrays["w.gradient"], hessian @ v, rtol=1e-12)

    def test_batches_are_computed_by_all_workers_and_tiny_ones_at_once(
        self, channel: grpc.Channel, graph_id: str
    ) -> None:
        w, X, y = rows(120_000, 3, seed=13)
        found = accumulate(channel, [start(graph_id, {"w": w}), *batches(X[:400], y[:400], 1)])
        np.testing.assert_allclose(found.arrays["w.gradient"], logistic(w, X[:400], y[:400])[1], rtol=1e-12)
        assert dict(found.message.batches_by_worker) == {"server": 400}
        found = accumulate(channel, [start(graph_id, {"w": w}), *batches(X, y, 20_000)])
        np.testing.assert_allclose(found.arrays["w.gradient"], logistic(w, X, y)[1], rtol=1e-12)
        assert len(found.message.batches_by_worker) == 2
        assert "server" not in found.message.batches_by_worker
