"""The channel to a server, and the service's calls as raw bytes.

`open_channel` is the one place that decides how a connection is made: channel options and transport security.
"""

import sys
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Protocol

import grpc
import grpc.aio

import gradwire_wire as wire
from gradwire.transport.address import host_of, target
from gradwire.transport.security import Security

SERVICE = "gradwire.v1.GradientService"

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_receive_message_length", 4 << 20),
    # Two clients in one process each get a connection, and with it a flow-control window, of their own.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


def open_channel(address: str, security: Security) -> grpc.aio.Channel:
    """Return a channel to a server. It connects with the first call.

    Raises:
        InvalidArgumentError: a certificate cannot be read.
    """
    wire.keep_freed_memory()
    credentials, where = security.credentials(), target(address)
    if credentials is None:
        return grpc.aio.insecure_channel(where, options=_OPTIONS)
    # Several addresses were looked up: their certificate names a host all the same.
    named = [] if where == address else [("grpc.ssl_target_name_override", host_of(address))]
    return grpc.aio.secure_channel(where, credentials, options=[*_OPTIONS, *named])


class StreamCall(Protocol):
    """A call that is answered by a stream of serialized messages."""

    async def read(self) -> Any:
        """Return the next message as bytes, or `grpc.aio.EOF` after the last.

        Raises:
            grpc.aio.AioRpcError: the call has failed.
        """

    def cancel(self) -> bool:
        """End the call; False if it has ended already."""


class RequestsCall(Protocol):
    """A call whose requests are a stream, and its final status."""

    async def code(self) -> grpc.StatusCode:
        """Return the code of the final status, once there is one."""

    async def details(self) -> str:
        """Return the message of the final status, once there is one."""

    async def trailing_metadata(self) -> Any:
        """Return the pairs of keys and values after the last message: errors have their details there."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have `callback` called with this call whenever a status is set; at once if one is set already."""


class UploadCall(RequestsCall, Protocol):
    """A call whose requests are a stream and that is answered by one message."""

    def __await__(self) -> Generator[Any, Any, bytes]: ...


class DuplexCall(StreamCall, RequestsCall, Protocol):
    """A call with streams in both directions."""

    async def write(self, request: bytes) -> None:
        """Send a serialized message; wait while flow control leaves no room for it.

        Raises:
            grpc.aio.AioRpcError: the server has ended the call.
        """

    async def done_writing(self) -> None:
        """Tell the server that no more messages follow; the answers can still be read."""


class Stub:
    """The service's calls, with requests and answers as serialized messages.

    Callers parse the answers themselves, so that they can read large ones without copying.
    """

    def __init__(
        self,
        channel: Any,  # a grpc.aio.Channel, whose type stubs want (de)serializers
        metadata: tuple[tuple[str, str], ...] | None = None,
    ) -> None:
        self._metadata = metadata
        path = f"/{SERVICE}/"
        self._evaluate = channel.unary_unary(path + "Evaluate")
        self._plan = channel.unary_unary(path + "Plan")
        self._get_graph = channel.unary_unary(path + "GetGraph")
        self._get_server_info = channel.unary_unary(path + "GetServerInfo")
        self._register_graph = channel.stream_unary(path + "RegisterGraph")
        self._delete_graph = channel.unary_unary(path + "DeleteGraph")
        self._delete_tensor = channel.unary_unary(path + "DeleteTensor")
        self._put_tensor = channel.stream_unary(path + "PutTensor")
        self._differentiate = channel.unary_stream(path + "Differentiate")
        self._evaluate_stream = channel.stream_stream(path + "EvaluateStream")
        self._accumulate = channel.stream_stream(path + "Accumulate")
        self._health = channel.unary_unary("/grpc.health.v1.Health/Check")

    def _now(self) -> tuple[tuple[str, str], ...] | None:
        """Return the metadata of a call, with the trace that the caller is in."""
        # A program that traces has imported it; for all others it would be no use.
        if "opentelemetry" not in sys.modules:
            return self._metadata
        from opentelemetry import propagate

        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return (*(self._metadata or ()), *carrier.items())

    async def evaluate(self, request: bytes, timeout: float | None) -> bytes:
        """Evaluate: an `EvaluateRequest` to an `EvaluateResponse`."""
        answer: bytes = await self._evaluate(request, timeout=timeout, metadata=self._now())
        return answer

    async def plan(self, request: bytes, timeout: float | None) -> bytes:
        """Plan: a `PlanRequest` to a `PlanResponse`."""
        answer: bytes = await self._plan(request, timeout=timeout, metadata=self._now())
        return answer

    async def get_graph(self, request: bytes, timeout: float | None) -> bytes:
        """GetGraph: a `GetGraphRequest` to a `GetGraphResponse`."""
        answer: bytes = await self._get_graph(request, timeout=timeout, metadata=self._now())
        return answer

    async def get_server_info(self, timeout: float | None) -> bytes:
        """GetServerInfo: an empty request to a `GetServerInfoResponse`."""
        answer: bytes = await self._get_server_info(b"", timeout=timeout, metadata=self._now())
        return answer

    def register_graph(self, requests: AsyncIterator[bytes], timeout: float | None) -> UploadCall:
        """RegisterGraph: `RegisterGraphRequest`s to a `RegisterGraphResponse`."""
        call: UploadCall = self._register_graph(requests, timeout=timeout, metadata=self._now())
        return call

    async def delete_graph(self, request: bytes, timeout: float | None) -> bytes:
        """DeleteGraph: a `DeleteGraphRequest` to a `DeleteGraphResponse`."""
        answer: bytes = await self._delete_graph(request, timeout=timeout, metadata=self._now())
        return answer

    async def delete_tensor(self, request: bytes, timeout: float | None) -> bytes:
        """DeleteTensor: a `DeleteTensorRequest` to a `DeleteTensorResponse`."""
        answer: bytes = await self._delete_tensor(request, timeout=timeout, metadata=self._now())
        return answer

    def put_tensor(self, requests: AsyncIterator[bytes], timeout: float | None) -> UploadCall:
        """PutTensor: `PutTensorRequest`s to a `PutTensorResponse`."""
        call: UploadCall = self._put_tensor(requests, timeout=timeout, metadata=self._now())
        return call

    async def serving(self, timeout: float | None) -> bool:
        """Tell whether grpc.health.v1 reports that the server and its workers serve."""
        # The messages are one field each: an empty request asks for the server as a whole, and field 1 of
        # the answer is 1 for SERVING. A package for that would be larger than they are.
        answer: bytes = await self._health(b"", timeout=timeout, metadata=self._now())
        return answer == b"\x08\x01"

    def differentiate(self, request: bytes, timeout: float | None) -> StreamCall:
        """Differentiate: a `DifferentiateRequest` to a stream of `DifferentiateResponse`s."""
        call: StreamCall = self._differentiate(request, timeout=timeout, metadata=self._now())
        return call

    def evaluate_stream(self) -> DuplexCall:
        """EvaluateStream: `EvaluateStreamRequest`s one way, `EvaluateStreamResponse`s the other."""
        call: DuplexCall = self._evaluate_stream(metadata=self._now())
        return call

    def accumulate(self) -> DuplexCall:
        """Accumulate: `AccumulateRequest`s one way, `AccumulateResponse`s the other."""
        call: DuplexCall = self._accumulate(metadata=self._now())
        return call
