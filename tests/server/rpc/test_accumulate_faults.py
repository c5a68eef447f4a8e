"""Accumulate however many workers there are, and whatever happens to workers, clients and the server."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import psutil
import pytest

import gradwire_wire as wire
from gradwire_wire.v1 import accumulate_pb2
from tests.conftest import wait_until_serving
from tests.server import calls, processes
from tests.server.accumulations import (
    LOGISTIC,
    READ,
    ZERO,
    Gradient,
    Request,
    Stream,
    accumulate,
    announced,
    batch,
    chunk,
    chunked,
    refused,
    rows,
    start,
)

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer

MIB = 1 << 20
# A fraction of a second for each batch: products with a square matrix, one after another.
HEAVY = """g (double[300] w, double[300] x, double[k] ballast) => (double loss) {
  shape = Constant <value = int64[2] {300, 300}> ()
  size = Constant <value = int64 {90000}> ()
  zero = Constant <value = int64 {0}> ()
  one = Constant <value = int64 {1}> ()
  whole = Range(zero, size, one)
  real = Cast <to = 11> (whole)
  wave = Sin(real)
  a = Reshape(wave, shape)
  first = Mul(w, x)
  trips = Constant <value = int64 {5000}> ()
  go = Constant <value = bool {1}> ()
  last = Loop (trips, go, first) <body = body (int64 i, bool c, double[300] s) => (bool d, double[300] t) {
    d = Identity(c)
    p = MatMul(a, s)
    t = Tanh(p)
  }>
  sum = ReduceSum <keepdims = 0> (last)
  rest = ReduceSum <keepdims = 0> (ballast)
  loss = Add(sum, rest)
}"""
WIDE = """g (double[n] w, double[n] x) => (double loss) {
  p = Mul(w, x)
  loss = ReduceSum <keepdims = 0> (p)
}"""


def heavy(channel: grpc.Channel, count: int) -> list[Request]:
    """A start and batches that take a while."""
    graph_id = calls.register(channel, HEAVY).graph_id
    rng = np.random.default_rng(1)
    begin = start(graph_id, {"w": rng.standard_normal(300)})
    return [begin, *(batch(1, x=rng.standard_normal(300), ballast=np.zeros(1)) for _ in range(count))]


@pytest.fixture
def whole(server: EmbeddedServer) -> EmbeddedServer:
    """The server, both workers there and idle."""
    deadline = time.monotonic() + 60
    while len(processes.workers(server.process_id)) < 2 or processes.computing(server.process_id, 0.2):
        assert time.monotonic() < deadline, "a lost worker was not replaced"
        time.sleep(0.2)
    return server


def uneven(channel: grpc.Channel) -> Gradient:
    """Many batches of uneven sizes, tiny ones that leave no server among them, read in the middle."""
    w, X, y = rows(300_000, 7, seed=3)
    graph_id = calls.register(channel, LOGISTIC).graph_id
    sizes = np.random.default_rng(4).choice([17, 300, 20_000], 150)
    cuts = [int(cut) for cut in np.cumsum(sizes) if cut < len(X)]
    bounds = list(zip([0, *cuts], [*cuts, len(X)], strict=True))
    stream = Stream(channel)
    stream.send(start(graph_id, {"w": w}))
    for index, (first, stop) in enumerate(bounds):
        stream.send(batch(X=X[first:stop], y=y[first:stop]))
        if index == len(bounds) // 2:
            stream.send(READ)
    stream.end()
    stream.answer()
    return stream.answer()


class TestWorkers:
    def test_a_worker_killed_in_the_middle_changes_no_bit(
        self, whole: EmbeddedServer, channel: grpc.Channel
    ) -> None:
        requests = heavy(channel, 30)
        undisturbed = accumulate(channel, requests)
        assert undisturbed.message.batches_rerun == 0
        stream = Stream(channel)
        stream.send(*requests)
        stream.end()
        processes.computing(whole.process_id)[0].kill()
        found = stream.answer()
        assert found.bits == undisturbed.bits
        assert found.message.batches == 30
        assert found.message.batches_rerun >= 1

    @pytest.mark.parametrize("workers", [1, 4])
    def test_the_bits_are_those_of_two_workers(
        self, channel: grpc.Channel, tmp_path: Any, workers: int
    ) -> None:
        from gradwire_server.process import embedded

        expected = uneven(channel)
        assert len(expected.message.batches_by_worker) == 3 and "server" in expected.message.batches_by_worker
        alone = {"fast_path_flops": 0} if workers == 1 else {}
        handle = embedded.start(workers=workers, cache_dir=tmp_path, log_level="error", **alone)
        try:
            with grpc.insecure_channel(handle.address) as own:
                wait_until_serving(handle.address)
                deadline = time.monotonic() + 60
                while len(processes.workers(handle.process_id)) < workers:
                    assert time.monotonic() < deadline, "not all workers started"
                    time.sleep(0.2)
                uneven(own)
                found = uneven(own)
        finally:
            handle.stop()
        assert found.bits == expected.bits
        # The tiny ones as well go to the one worker, which makes no difference either.
        assert len(found.message.batches_by_worker) == workers + ("server" in found.message.batches_by_worker)
        assert ("server" in found.message.batches_by_worker) == (workers != 1)


class TestClients:
    def test_a_client_that_goes_away_stops_the_work_within_a_second(
        self, whole: EmbeddedServer, channel: grpc.Channel
    ) -> None:
        stream = Stream(channel)
        stream.send(*heavy(channel, 100))
        assert processes.computing(whole.process_id, 2.0)
        stream.call.cancel()
        stream.end()
        time.sleep(1)
        assert not processes.computing(whole.process_id)

    def test_a_deadline_stops_the_work(self, whole: EmbeddedServer, channel: grpc.Channel) -> None:
        requests = heavy(channel, 100)
        with pytest.raises(grpc.RpcError) as caught:
            accumulate(channel, requests, timeout=2)
        assert calls.refusal(caught.value).code == grpc.StatusCode.DEADLINE_EXCEEDED
        time.sleep(1)
        assert not processes.computing(whole.process_id)

    def test_zero_stops_the_work_and_the_stream_goes_on(
        self, whole: EmbeddedServer, channel: grpc.Channel
    ) -> None:
        requests = heavy(channel, 3)
        alone = accumulate(channel, requests[:2])
        stream = Stream(channel)
        stream.send(*requests, ZERO, requests[1])
        stream.end()
        found = stream.answer()
        assert found.bits == alone.bits
        assert found.message.batches == 1

    def test_a_client_faster_than_the_workers_is_slowed_down(
        self, whole: EmbeddedServer, channel: grpc.Channel
    ) -> None:
        graph_id = calls.register(channel, HEAVY).graph_id
        message = batch(1, x=np.ones(300), ballast=np.zeros(1 << 16))
        sent = 0

        def endless() -> Iterator[Request]:
            nonlocal sent
            yield start(graph_id, {"w": np.ones(300)})
            while True:
                sent += 1
                yield message

        with grpc.insecure_channel(whole.address) as own:
            call = calls.stub(own).Accumulate(endless(), timeout=120)
            time.sleep(4)
            call.cancel()
        # Unhindered, a thousand and more would have been sent; the workers compute a few dozen.
        print(f"{sent} batches were sent")
        assert 6 < sent < 150

    def test_memory_stays_flat_while_a_client_reads_no_answer(
        self, whole: EmbeddedServer, channel: grpc.Channel
    ) -> None:
        graph_id = calls.register(channel, WIDE).graph_id
        w = np.ones(1 << 20)
        large = wire.tensor_by_id(calls.put(channel, w).tensor_id, w.dtype, w.shape)
        message = Request(batch=accumulate_pb2.Batch(inputs={"x": large}))
        with grpc.insecure_channel(whole.address) as own:
            stream = Stream(own)
            stream.send(start(graph_id, {}, by_id={"w": large}))
            for _ in range(500):  # answers of 8 MiB each
                stream.send(message, READ)
            time.sleep(3)
            settled = processes.resident_bytes(whole.process_id)
            time.sleep(2)
            assert processes.resident_bytes(whole.process_id) - settled < 32 * MIB
            assert not processes.computing(whole.process_id)
            first, second = stream.answer(), stream.answer()
            assert (first.message.batches, second.message.batches) == (1, 2)
            np.testing.assert_array_equal(second.arrays["w.gradient"], 2 * w)
            stream.call.cancel()
            stream.end()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of one worker whose limits are soon reached; the last test ends it."""
    from gradwire_server.process import embedded

    handle = embedded.start(
        workers=1,
        cache_dir=tmp_path_factory.mktemp("kernels"),
        log_level="error",
        drain_seconds=30.0,
        accumulation_bytes=100_000,
        tensor_bytes=50_000,
        upload_bytes=60_000,
    )
    try:
        yield handle
    finally:
        handle.stop()


class TestOwnServer:
    """What needs limits that are soon reached, and a server that ends."""

    def test_the_sums_of_all_accumulations_are_bounded_and_given_back(self, own: EmbeddedServer) -> None:
        with grpc.insecure_channel(own.address) as channel:
            graph_id = calls.register(channel, WIDE).graph_id
            over = refused(channel, start(graph_id, {"w": np.ones(20_000)}))
            assert over.code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert over.limit["limit"] == "accumulation_bytes"
            assert "the sums of accumulations would hold 320016 bytes; the limit is 100000" in over.message
            begin, x = start(graph_id, {"w": np.ones(3000)}), np.ones(3000)
            one = Stream(channel)
            one.send(begin, batch(x=x))
            assert one.read().message.batches == 1  # holds three times 24 KB
            assert refused(channel, begin).limit["limit"] == "accumulation_bytes"
            one.end()
            assert one.answer().message.batches == 1
            found = accumulate(channel, [begin, batch(x=x)])
            np.testing.assert_array_equal(found.arrays["w.gradient"], x)

    def test_tensors_and_uploads_are_bounded_and_given_back(self, own: EmbeddedServer) -> None:
        with grpc.insecure_channel(own.address) as channel:
            w, X, y = rows(600, 10)
            begin = start(calls.register(channel, LOGISTIC).graph_id, {"w": w})
            large = refused(channel, begin, announced(X=np.ones((700, 10)), y=np.ones(700)))
            assert large.limit == {"limit": "tensor_bytes", "allowed": "50000", "requested": "56000"}
            assert "batch 0: input 'X' has 56000 bytes" in large.message
            part = chunk("X", 0, bytes(40_000))
            one = Stream(channel)
            one.send(begin, announced(X=X, y=y), part)
            time.sleep(0.5)  # until they are there
            assert refused(channel, begin, announced(X=X, y=y), part).limit["limit"] == "upload_bytes"
            one.send(chunk("X", 40_000, bytes(8000)), chunk("y", 0, bytes(4800)))
            assert one.read().message.batches == 1
            assert accumulate(channel, [begin, *chunked(40_000, X=X, y=y)]).message.batches == 1
            one.end()

    def test_an_accumulation_under_way_finishes_when_the_server_is_told_to_end(
        self, own: EmbeddedServer
    ) -> None:
        wait_until_serving(own.address)
        everything = processes.tree(own.process_id)
        with grpc.insecure_channel(own.address) as channel:
            requests = heavy(channel, 8)
            stream = Stream(channel)
            stream.send(*requests[:5])
            assert stream.read().message.batches == 4
            psutil.Process(own.process_id).send_signal(signal.SIGTERM)
            time.sleep(0.5)
            stream.send(*requests[5:])
            stream.end()
            assert stream.answer().message.batches == 8
        own.stop()
        _, alive = psutil.wait_procs(everything, timeout=5)
        assert not alive
