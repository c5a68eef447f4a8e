"""Callers who hold much, do nothing or stop half way: over real connections, beside others who work."""

from __future__ import annotations

import queue
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from gradwire_server.access.admission import Shares, holder_of
from gradwire_server.access.callers import Caller
from gradwire_server.access.tokens import TokenSet, new_token, write_tokens
from gradwire_server.process import embedded
from gradwire_wire.v1 import accumulate_pb2, function_pb2, graph_pb2, tensor_pb2
from tests.server.calls import channel_with, derivative, evaluation, refusal, register, stub

CALLS, IDLE, STALLED, UNREAD = 12, 6.0, 1.0, 2.0
FLOAT64 = tensor_pb2.DATA_TYPE_FLOAT64
LOSS = "g (double[n] x, double w) => (double y) { p = Mul(x, w)\n y = ReduceSum <keepdims = 0> (p) }"
LARGE = "g (double[n,1] x, double[1,n] z) => (double[n,n] y) { y = Mul(x, z) }"


@dataclass(frozen=True)
class Served:
    """A server that asks for tokens."""

    address: str
    process_id: int
    tokens: dict[str, str]

    def channel(self, name: str) -> grpc.Channel:
        """A connection whose calls show a token."""
        return channel_with(self.address, self.tokens[name])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("shares")
    made = {name: new_token(name, calls=2 if name == "carol" else None) for name in ("alice", "bob", "carol")}
    write_tokens(folder / "tokens.json", TokenSet(tuple(token for token, _ in made.values())))
    server = embedded.start(
        workers=1,
        cache_dir=None,
        log_level="error",
        token_file=folder / "tokens.json",
        concurrent_rpcs=CALLS,
        idle_seconds=IDLE,
        stalled_seconds=STALLED,
        unread_seconds=UNREAD,
    )
    try:
        yield Served(server.address, server.process_id, {name: text for name, (_, text) in made.items()})
    finally:
        server.stop()


@dataclass
class Stream:
    """An EvaluateStream that sends what it is told to."""

    channel: grpc.Channel
    requests: queue.Queue[Message | None] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self.call = stub(self.channel).EvaluateStream(iter(self.requests.get, None))

    def ask(self) -> None:
        """Have a call answered: an error, as the graph is unknown."""
        self.requests.put(unknown_call())
        assert next(self.call).error.code == grpc.StatusCode.NOT_FOUND.value[0]

    def close(self) -> None:
        self.call.cancel()
        self.requests.put(None)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unknown_call() -> function_pb2.EvaluateStreamRequest:
    """A call of a function that no server has."""
    evaluate = function_pb2.EvaluateRequest(function=function_pb2.Function(graph_id="0" * 64))
    return function_pb2.EvaluateStreamRequest(call_id=1, evaluate=evaluate)


def is_answered(channel: grpc.Channel) -> bool:
    """Whether a short call is let in."""
    with pytest.raises(grpc.RpcError) as caught:
        stub(channel).GetGraph(graph_pb2.GetGraphRequest(graph_id="0" * 64), timeout=30)
    return caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_one_tenant_gets_half_two_a_third_each_and_health_is_never_refused(served: Served) -> None:
    with ExitStack() as opened:
        alice, bob = (opened.enter_context(served.channel(name)) for name in ("alice", "bob"))
        for _ in range(CALLS // 2):
            opened.enter_context(Stream(alice)).ask()
        with pytest.raises(grpc.RpcError) as caught:
            opened.enter_context(Stream(alice)).ask()
        refused = refusal(caught.value)
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.limit == {"limit": "concurrent_rpcs", "allowed": "6", "requested": "7"}
        assert refused.detail(error_details_pb2.RetryInfo).retry_delay.ToNanoseconds() > 0
        for _ in range(3):
            assert is_answered(bob)
            opened.enter_context(Stream(bob)).ask()
        with pytest.raises(grpc.RpcError, match="try again later"):
            opened.enter_context(Stream(bob)).ask()
        with grpc.insecure_channel(served.address) as probe:
            for _ in range(2 * CALLS):
                health_pb2_grpc.HealthStub(probe).Check(health_pb2.HealthCheckRequest(), timeout=10)
        carol = opened.enter_context(served.channel("carol"))
        assert is_answered(carol)


def test_a_token_may_have_a_limit_of_its_own(served: Served) -> None:
    with ExitStack() as opened:
        carol = opened.enter_context(served.channel("carol"))
        for _ in range(2):
            opened.enter_context(Stream(carol)).ask()
        with pytest.raises(grpc.RpcError) as caught:
            opened.enter_context(Stream(carol)).ask()
        assert refusal(caught.value).limit == {"limit": "calls", "allowed": "2", "requested": "3"}


def test_a_stream_that_does_nothing_is_ended_and_one_that_works_is_not(served: Served) -> None:
    with served.channel("alice") as channel, Stream(channel) as idle, Stream(channel) as working:
        idle.ask()
        begun = time.monotonic()
        while time.monotonic() < begun + IDLE + 1:
            working.ask()
            time.sleep(IDLE / 6)
        with pytest.raises(grpc.RpcError) as caught:
            next(idle.call)
        working.ask()
    refused = refusal(caught.value)
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    assert "idle_seconds" in refused.message
    assert refused.detail(error_details_pb2.ErrorInfo).reason == "STALLED"


@pytest.mark.parametrize("kind", ["PutTensor", "RegisterGraph", "Accumulate"])
def test_an_upload_that_stops_is_ended(served: Served, kind: str) -> None:
    requests: queue.Queue[Message | None] = queue.Queue()
    with served.channel("alice") as channel:
        if kind == "PutTensor":
            requests.put(tensor_pb2.PutTensorRequest(dtype=FLOAT64, shape=[9], data=b"12345678"))
        elif kind == "RegisterGraph":
            requests.put(graph_pb2.RegisterGraphRequest(text="<ir_version: 8"))
        else:
            loss = register(channel, LOSS)
            start = accumulate_pb2.AccumulateStart(
                function=function_pb2.Function(graph_id=loss.graph_id), inputs={"w": scalar()}, wrt=["w"]
            )
            requests.put(accumulate_pb2.AccumulateRequest(start=start))
            announced = tensor_pb2.Tensor(dtype=FLOAT64, shape=[9])
            requests.put(
                accumulate_pb2.AccumulateRequest(batch=accumulate_pb2.Batch(inputs={"x": announced}))
            )
        begun = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            call = getattr(stub(channel), kind)(iter(requests.get, None), timeout=60)
            next(call)
        requests.put(None)
    refused = refusal(caught.value)
    assert (refused.code, "stalled_seconds" in refused.message) == (grpc.StatusCode.UNAVAILABLE, True)
    assert time.monotonic() - begun >= STALLED


def scalar() -> tensor_pb2.Tensor:
    """1 as a tensor."""
    return tensor_pb2.Tensor(dtype=FLOAT64, data=np.float64(1).tobytes())


@pytest.mark.parametrize("kind", ["Differentiate", "EvaluateStream"])
def test_a_client_that_does_not_read_is_ended(served: Served, kind: str) -> None:
    with served.channel("alice") as channel:
        graph = register(channel, "g (double[n] x) => (double[n] y) { y = Mul(x, x) }").graph_id
        if kind == "Differentiate":
            call = stub(channel).Differentiate(derivative(graph, {"x": np.arange(3000.0)}), timeout=60)
        else:
            request = function_pb2.EvaluateStreamRequest(
                call_id=1, evaluate=evaluate_large(register(channel, LARGE).graph_id)
            )
            call = stub(channel).EvaluateStream(iter([request]), timeout=60)
        next(call)
        time.sleep(UNREAD + 2)
        with pytest.raises(grpc.RpcError) as caught:
            for _ in call:
                pass
    refused = refusal(caught.value)
    assert (refused.code, "unread_seconds" in refused.message) == (grpc.StatusCode.UNAVAILABLE, True)


def evaluate_large(graph_id: str) -> function_pb2.EvaluateRequest:
    """An evaluation with 72 MB of outputs."""
    return evaluation(graph_id, {"x": np.ones((3000, 1)), "z": np.ones((1, 3000))})


def test_what_has_no_work_does_not_hold_the_end_of_a_server(tmp_path: Path) -> None:
    server = embedded.start(workers=1, cache_dir=None, log_level="error", drain_seconds=60.0)
    process = psutil.Process(server.process_id)
    try:
        with grpc.insecure_channel(server.address) as channel, Stream(channel) as idle:
            idle.ask()
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            next(watch)
            asked: queue.Queue[Any] = queue.Queue()
            asked.put(reflection_pb2.ServerReflectionRequest(list_services=""))
            shown = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter(asked.get, None)
            )
            next(shown)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.RpcError) as caught:
                next(idle.call)
            process.wait(50)
            asked.put(None)
        assert time.monotonic() - begun < 40
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "draining" in (caught.value.details() or "")
    finally:
        server.stop()


def test_whoever_comes_next_finds_room_however_many_came_before() -> None:
    shares = Shares(1024, 0.5)
    for number in range(9):
        holder = f"tenant {number}"
        while shares.fits(holder, 1):
            shares.add(holder, 1)
        assert shares.of(holder) == (1024 >> (number + 1))
    shares.add("tenant 0", -512)
    assert shares.total == 510 and shares.fits("tenant 9", 100)


@pytest.mark.parametrize(
    ("peer", "holder"),
    [
        ("ipv4:10.1.2.3:4567", "address 10.1.2.3"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:4567", "address 2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:9:9:9:9%5D:4567", "address 2001:db8:1:2::/64"),
        ("ipv6:[::ffff:10.1.2.3]:80", "address 10.1.2.3"),
        ("ipv6:[fe80::1%25eth0]:80", "address fe80::/64"),
        ("unix:", "address unix"),
        ("unix:/run/gradwire.sock", "address unix"),
    ],
)
def test_calls_of_one_address_share_whatever_ports_they_come_from(peer: str, holder: str) -> None:
    assert holder_of(Caller(), peer) == holder
    assert holder_of(Caller("alice"), peer) == "tenant alice"
