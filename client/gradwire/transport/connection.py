"""A connection: calls that register what the server lacks and try again when it cannot be reached."""

import asyncio
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakValueDictionary

import gradwire_wire as wire
from gradwire.errors import (
    DeadlineError,
    GraphWarning,
    LimitError,
    NotFoundError,
    ServerError,
    UnavailableError,
)
from gradwire.frontends.sources import Model
from gradwire.tables import html_table
from gradwire.transport.channel import Stub, open_channel
from gradwire.transport.retry import Backoff, Deadline, Retry
from gradwire.transport.status import translated, uploaded
from gradwire_wire import framing
from gradwire_wire.v1 import graph_pb2, tensor_pb2

T = TypeVar("T")

#: Arrays over this many bytes are referred to by id and uploaded when the server lacks them; models of this
#: size are looked up before they are sent.
LARGE_BYTES = 256 << 10

_HEALTH_SECONDS = 0.1

_NOTED = 1024


@dataclass(frozen=True, slots=True)
class GraphInfo:
    """What the server says about a registered graph."""

    graph_id: str
    forward_only: bool
    forward_only_reason: str
    warnings: tuple[str, ...]
    node_count: int
    weight_bytes: int
    opset: int

    def _repr_html_(self) -> str:
        facts = [
            ("nodes", f"{self.node_count:,}"),
            ("bytes of weights", f"{self.weight_bytes:,}"),
            ("opset", str(self.opset)),
            ("derivatives", "forward mode only" if self.forward_only else "both modes"),
        ]
        reasons = [self.forward_only_reason] if self.forward_only_reason else []
        return html_table(f"graph {self.graph_id[:12]}", ("", ""), facts, [*reasons, *self.warnings])


class Connection:
    """The calls of one client over one channel. All methods run on the event loop that made it."""

    def __init__(self, address: str, retry: Retry) -> None:
        self.address = address
        self.retry = retry
        self._channel = open_channel(address)
        self.stub = Stub(self._channel)
        self._graphs: dict[str, GraphInfo] = {}
        self._registering: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.uploads = Uploads()

    async def close(self) -> None:
        """Cancel what is running and give the connection up."""
        await self._channel.close()

    async def call(
        self,
        model: Model,
        uploads: Mapping[str, wire.Array],
        deadline: Deadline,
        send: Callable[[float | None], Awaitable[T]],
    ) -> T:
        """The answer of `send(seconds left)`, which needs a model and other uploaded arrays (by id)."""
        if model.graph_id not in self._graphs:
            await self.register(model, deadline)
        recovery: Recovery | None = None
        while True:
            moment = self.uploads.moment
            try:
                return await self._send(send, deadline)
            except (NotFoundError, UnavailableError) as error:
                recovery = recovery or Recovery(self, model, uploads, deadline)
                await recovery.after(error, moment)

    async def _send(self, send: Callable[[float | None], Awaitable[T]], deadline: Deadline) -> T:
        with translated(self.address, deadline.timeout):
            return await send(deadline.remaining())

    async def register(self, model: Model, deadline: Deadline, again: bool = False) -> GraphInfo:
        """Make sure that the server has a graph: once for each connection, or `again`."""
        if not again and model.graph_id in self._graphs:
            return self._graphs[model.graph_id]
        async with self._registering[model.graph_id]:
            if not again and model.graph_id in self._graphs:  # by another call, meanwhile
                return self._graphs[model.graph_id]
            graph = await self._retried(lambda: self._find_or_send(model, deadline), deadline)
        if graph.graph_id != model.graph_id:
            raise ServerError(
                f"the server calls the graph {graph.graph_id}, not {model.graph_id}; "
                "its version may not fit this client"
            )
        info = GraphInfo(
            graph.graph_id,
            graph.forward_only,
            graph.forward_only_reason,
            tuple(graph.warnings),
            graph.node_count,
            graph.weight_bytes,
            graph.opset,
        )
        if model.graph_id not in self._graphs:
            for text in info.warnings:
                warnings.warn(text, GraphWarning, stacklevel=2)
        self._graphs[model.graph_id] = info
        return info

    async def wait_ready(self, deadline: Deadline) -> None:
        """Ask for the server's health until it serves; raises `DeadlineError` at the deadline."""
        serving = False
        while not serving:
            with suppress(UnavailableError):
                serving = await self._send(self.stub.serving, deadline)
            remaining = deadline.remaining()
            if not serving:
                if remaining is not None and remaining <= _HEALTH_SECONDS:
                    raise DeadlineError(
                        f"the workers of {self.address} were not ready after {deadline.timeout:g} seconds",
                        code="DEADLINE_EXCEEDED",
                    )
                await asyncio.sleep(_HEALTH_SECONDS)

    async def _retried(self, send: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        backoff = Backoff(self.retry, deadline)
        while True:
            try:
                with translated(self.address, deadline.timeout):
                    return await send()
            except UnavailableError as error:
                await backoff.pause(error)

    async def _find_or_send(self, model: Model, deadline: Deadline) -> graph_pb2.Graph:
        if len(model.data) > LARGE_BYTES:
            request = graph_pb2.GetGraphRequest(graph_id=model.graph_id).SerializeToString()
            try:
                with translated(self.address, deadline.timeout):
                    found = await self.stub.get_graph(request, deadline.remaining())
                return graph_pb2.GetGraphResponse.FromString(found).graph
            except NotFoundError:
                pass  # the first to bring it
        answer = await uploaded(self.stub.register_graph(_model_parts(model.data), deadline.remaining()))
        return graph_pb2.RegisterGraphResponse.FromString(answer).graph

    async def upload(self, tensor_id: str, array: wire.Array, deadline: Deadline) -> None:
        """Send an array that the server lacks."""
        async with self.uploads.of(tensor_id):
            await self._upload(tensor_id, array, deadline)

    async def upload_lacking(
        self, tensor_id: str, array: wire.Array, deadline: Deadline, moment: int
    ) -> bool:
        """Send an array that the server lacked at a moment, unless another call has sent it since."""
        async with self.uploads.of(tensor_id):
            if self.uploads.since(tensor_id, moment):
                return False
            await self._upload(tensor_id, array, deadline)
            return True

    async def _upload(self, tensor_id: str, array: wire.Array, deadline: Deadline) -> None:
        answer = await self._retried(
            lambda: uploaded(self.stub.put_tensor(_tensor_parts(array), deadline.remaining())), deadline
        )
        received = tensor_pb2.PutTensorResponse.FromString(answer).tensor.tensor_id
        if received != tensor_id:
            raise ServerError(
                "an input array changed while it was sent; do not write to it before the call is over",
                code="DATA_LOSS",
            )
        self.uploads.done(tensor_id)


class Uploads:
    """When arrays were uploaded over a connection, so that calls that need the same one send it once."""

    def __init__(self) -> None:
        self.moment = 0
        """How many uploads are over."""
        self._done: OrderedDict[str, int] = OrderedDict()
        self._under_way: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, tensor_id: str) -> asyncio.Lock:
        """What uploads of one array hold, one after another."""
        return self._under_way.setdefault(tensor_id, asyncio.Lock())

    def since(self, tensor_id: str, moment: int) -> bool:
        """Whether an array was uploaded after a moment."""
        return self._done.get(tensor_id, 0) > moment

    def done(self, tensor_id: str) -> None:
        """Note that an array was uploaded."""
        self.moment += 1
        self._done[tensor_id] = self.moment
        while len(self._done) > _NOTED:
            self._done.popitem(last=False)


class Recovery:
    """What a call does about an error before it tries again; raises the error when nothing helps.

    It sends the model, its constants and `uploads`, other arrays by id.
    """

    def __init__(
        self, connection: Connection, model: Model, uploads: Mapping[str, wire.Array], deadline: Deadline
    ) -> None:
        self._connection, self._model = connection, model
        self._constants = {constant.tensor_id: name for name, constant in model.bound.items()}
        self._uploads = {**uploads, **{one.tensor_id: one.array for one in model.bound.values()}}
        self._deadline = deadline
        self._backoff = Backoff(connection.retry, deadline)
        self._crowded = Backoff(connection.retry, deadline)
        self._sent: set[str] = set()

    async def after(self, error: NotFoundError | UnavailableError, moment: int, done: int = 0) -> None:
        """Send what the server lacked at the moment of the call, or wait until it may be back."""
        if isinstance(error, UnavailableError):
            self._sent.clear()  # whoever answers next may have lost everything
            await self._backoff.pause(error, done)
            return
        named = self._named(error)
        missing = (named or {self._model.graph_id, *self._uploads}) - self._sent
        if not missing:
            await self._make_room(error, named)
            missing = named
        if self._model.graph_id in missing:
            self._sent.add(self._model.graph_id)
            await self._connection.register(self._model, self._deadline, again=True)
        for tensor_id in missing & self._uploads.keys():
            await self._send(tensor_id, moment)

    async def _make_room(self, error: NotFoundError, named: set[str]) -> None:
        """Let the calls be over whose arrays have taken the place of one that was sent."""
        if not named or self._model.graph_id in named:
            raise error
        try:
            await self._crowded.pause(error)
        except NotFoundError:
            error.message += (
                "; it was sent, and forgotten before it was used, again and again: the arrays in use are "
                "more than the server keeps (its setting tensor_cache_bytes)"
            )
            raise

    async def _send(self, tensor_id: str, moment: int) -> None:
        array = self._uploads[tensor_id]
        try:
            if await self._connection.upload_lacking(tensor_id, array, self._deadline, moment):
                self._sent.add(tensor_id)
        except LimitError as error:
            kind = f"{array.dtype.name}{list(array.shape)}"
            name = self._constants.get(tensor_id)
            what = f"{name}, a {kind} that the function closes over" if name else f"an input of {kind}"
            error.message = f"{what}: {error.message}"
            raise

    def _named(self, error: NotFoundError) -> set[str]:
        """What the server says it lacks, as far as it can be had here."""
        mine = {self._model.graph_id, *self._uploads}
        return {one for one in mine if one == error.metadata.get("resource_name") or one in error.message}


async def _model_parts(data: bytes) -> AsyncIterator[bytes]:
    for chunk in wire.chunks(memoryview(data)):
        yield framing.bytes_field(1, chunk)


async def _tensor_parts(array: wire.Array) -> AsyncIterator[bytes]:
    yield tensor_pb2.PutTensorRequest(
        dtype=wire.data_type(array.dtype), shape=array.shape
    ).SerializeToString()
    for chunk in wire.chunks(wire.byte_view(array)):
        yield framing.bytes_field(3, chunk)
