"""What clients make a server hold, from outside: stalled readers, unread results, uploads, tenants."""

from __future__ import annotations

import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2

from gradwire_server.access.tokens import TokenSet, new_token, write_tokens
from gradwire_server.process import embedded
from gradwire_wire.v1 import derivative_pb2, function_pb2, tensor_pb2
from tests.conftest import wait_until_serving
from tests.server.calls import (
    Collected,
    channel_with,
    derivative,
    differentiate,
    evaluation,
    put,
    refusal,
    register,
    stub,
)
from tests.server.processes import serving

MIB = 1 << 20
MEMORY = 256 * MIB
RESULTS = UPLOADS = int(0.2 * MEMORY)
READERS, SIZE, WIDTH = 24, 1000, 200
OPTIONS = derivative_pb2.PlanOptions(block_width=WIDTH)
SQUARE = "g (double[n] x) => (double[n] y) { y = Mul(x, x) }"
OUTER = "g (double[n,1] x, double[1,n] z) => (double[n,n] y) { y = Mul(x, z) }"


@dataclass(frozen=True)
class Served:
    """A server with little memory that asks for tokens."""

    address: str
    process_id: int
    metrics: int
    tokens: dict[str, str]

    def channel(self, name: str) -> grpc.Channel:
        """A connection whose calls show a token."""
        return channel_with(self.address, self.tokens[name])

    def held(self, purpose: str) -> int:
        """Bytes that the server says it holds."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        (found,) = re.findall(rf'^gradwire_held_bytes{{purpose="{purpose}"}} (\S+)$', text, re.MULTILINE)
        return int(float(found))

    def resident(self) -> int:
        """Memory of the serving process, but for what it shares with the object store."""
        info = serving(self.process_id).memory_info()
        return int(info.rss - info.shared)


@pytest.fixture(scope="module", params=["on workers", "here"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("memory") / "tokens.json"
    made = {
        name: new_token(name, held_bytes=MIB if name == "carol" else None)
        for name in ("alice", "bob", "carol")
    }
    write_tokens(file, TokenSet(tuple(token for token, _ in made.values())))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flops = {"fast_path_flops": 0} if request.param == "on workers" else {}
    server = embedded.start(
        workers=1,
        cache_dir=None,
        log_level="error",
        token_file=file,
        metrics_port=port,
        memory_bytes=MEMORY,
        **flops,
    )
    try:
        wait_until_serving(server.address)
        texts = {name: text for name, (_, text) in made.items()}
        yield Served(server.address, server.process_id, port, texts)
    finally:
        server.stop()


def settled(read: Callable[[], int]) -> int:
    """A number once it has not changed for a second."""
    last, since = read(), time.monotonic()
    while time.monotonic() < since + 1:
        time.sleep(0.1)
        if (now := read()) != last:
            last, since = now, time.monotonic()
    return last


def test_stalled_readers_stay_within_the_share_of_their_tenant_and_get_all_when_they_read(
    served: Served,
) -> None:
    x = np.arange(float(SIZE))
    with ExitStack() as opened:
        alice, bob = (opened.enter_context(served.channel(name)) for name in ("alice", "bob"))
        graph = register(alice, SQUARE).graph_id
        request = derivative(graph, {"x": x}, options=OPTIONS)
        differentiate(alice, request)
        before = served.resident()
        readers = [stub(alice).Differentiate(request, timeout=120) for _ in range(READERS)]
        headers = [next(reader) for reader in readers[:3]]
        assert 8 * SIZE * WIDTH < settled(lambda: served.held("results")) <= RESULTS // 2
        # What is on its way in the transport is not counted: for each reader a message of 1 MiB, copies of
        # it, and what the allocator keeps beside them.
        assert served.resident() - before < RESULTS // 2 + READERS * 6 * MIB
        found = differentiate(bob, derivative(register(bob, SQUARE).graph_id, {"x": x}, options=OPTIONS))
        np.testing.assert_array_equal(found.matrices[0], np.diag(2 * x))
        read = [Collected() for _ in readers]
        for collected, header in zip(read, headers, strict=False):
            collected.take(header)

        def finish(index: int) -> None:
            for event in readers[index]:
                read[index].take(event)

        threads = [threading.Thread(target=finish, args=(index,)) for index in range(READERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        for collected in read:
            np.testing.assert_array_equal(collected.matrices[0], np.diag(2 * x))
    assert settled(lambda: served.held("results")) == 0


def test_unread_results_of_a_stream_wait_to_be_computed_and_come_all(served: Served) -> None:
    with served.channel("alice") as alice:
        graph = register(alice, OUTER).graph_id
        n, calls = 512, 40
        ones = np.ones((1, n))
        requests = [
            function_pb2.EvaluateStreamRequest(
                call_id=number, evaluate=evaluation(graph, {"x": number * ones.T, "z": ones})
            )
            for number in range(1, calls + 1)
        ]
        call = stub(alice).EvaluateStream(iter(requests), timeout=120)
        next(call)
        assert 0 < settled(lambda: served.held("results")) <= RESULTS // 2
        answered = {message.call_id for message in call if message.last}
        assert answered == set(range(1, calls + 1))
    assert settled(lambda: served.held("results")) == 0


def test_an_upload_over_the_share_is_refused_and_another_tenant_has_room(served: Served) -> None:
    size = 20 * MIB

    def begun(channel: grpc.Channel, done: threading.Event) -> Any:
        def parts() -> Iterator[tensor_pb2.PutTensorRequest]:
            yield tensor_pb2.PutTensorRequest(dtype=tensor_pb2.DATA_TYPE_UINT8, shape=[size])
            for _ in range(size // MIB - 1):
                yield tensor_pb2.PutTensorRequest(data=bytes(MIB))
            done.wait()
            yield tensor_pb2.PutTensorRequest(data=bytes(MIB))

        return stub(channel).PutTensor.future(parts(), timeout=60)

    with served.channel("alice") as alice, served.channel("bob") as bob:
        done = threading.Event()
        first = begun(alice, done)
        while served.held("uploads") < size - MIB:
            time.sleep(0.05)
        second = begun(alice, done)
        refused = refusal(second.exception())
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.limit["limit"] == "upload_bytes"
        assert refused.detail(error_details_pb2.RetryInfo).retry_delay.ToNanoseconds() > 0
        put(bob, np.ones(MIB))
        done.set()
        first.result()
        with pytest.raises(grpc.RpcError) as caught:
            put(alice, np.ones(UPLOADS // 8))
        never = refusal(caught.value)
        assert never.limit["limit"] == "upload_bytes"
        assert not [item for item in never.details if isinstance(item, error_details_pb2.RetryInfo)]
    assert settled(lambda: served.held("uploads")) == 0


def test_a_token_bounds_what_its_tenant_has_held(served: Served) -> None:
    with served.channel("carol") as carol:
        with pytest.raises(grpc.RpcError) as caught:
            put(carol, np.ones(MIB // 8 + 1))
        assert refusal(caught.value).limit["limit"] == "held_bytes"
        references = [put(carol, np.full(50_000, float(number))) for number in range(4)]
        graph = register(carol, "g (double[n] x) => (double[n] y) { y = Neg(x) }").graph_id
        codes = []
        for reference in references:
            x = tensor_pb2.Tensor(dtype=reference.dtype, shape=reference.shape, tensor_id=reference.tensor_id)
            request = evaluation(graph, {}, outputs=["y"])
            request.inputs["x"].CopyFrom(x)
            try:
                stub(carol).Evaluate(request, timeout=60)
                codes.append("held")
            except grpc.RpcError as error:
                codes.append(error.code().name)
    assert codes == ["NOT_FOUND", "NOT_FOUND", "held", "held"]


def test_freed_memory_goes_back_to_the_system(served: Served) -> None:
    with served.channel("alice") as alice:
        for number in range(9):
            put(alice, np.full(2 * MIB, float(number)))
    peak = served.resident()
    deadline = time.monotonic() + 40
    while served.resident() > peak - 8 * MIB and time.monotonic() < deadline:
        time.sleep(0.5)
    assert served.resident() <= peak - 8 * MIB
