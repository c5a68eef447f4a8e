"""A connection to a server: calls that upload what the server lacks and retry when it is unavailable."""

import asyncio
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
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
from gradwire.graphs.models import Model
from gradwire.graphs.signature import signature_of
from gradwire.progress import UploadReporter
from gradwire.tables import html_table
from gradwire.transport.channel import Stub, open_channel
from gradwire.transport.retry import Backoff, Deadline, Retry
from gradwire.transport.security import Security
from gradwire.transport.server_info import ServerInfo, server_info_from
from gradwire.transport.sightings import Sightings
from gradwire.transport.status import finish_upload, translated
from gradwire_wire import framing
from gradwire_wire.v1 import graph_pb2, server_info_pb2, tensor_pb2

T = TypeVar("T")

# Arrays over this many bytes are referred to by id and uploaded when the server lacks them; models of this
# size are looked up before they are sent.
LARGE_BYTES = 256 << 10

_HEALTH_SECONDS = 0.1

_LOGGED_UPLOADS = 1024


@dataclass(frozen=True, slots=True)
class GraphInfo:
    """What the server reports about a registered graph.

    `verified` says what was compared with the function that the graph was traced from; it is empty for a
    model.
    """

    graph_id: str
    forward_only: bool
    forward_only_reason: str
    warnings: tuple[str, ...]
    node_count: int
    weight_bytes: int
    opset: int
    verified: str = ""

    def _repr_html_(self) -> str:
        facts = [
            ("nodes", f"{self.node_count:,}"),
            ("bytes of weights", f"{self.weight_bytes:,}"),
            ("opset", str(self.opset)),
            ("derivatives", "forward mode only" if self.forward_only else "both modes"),
        ]
        reasons = [text for text in (self.forward_only_reason, self.verified) if text]
        return html_table(f"graph {self.graph_id[:12]}", ("", ""), facts, [*reasons, *self.warnings])


class Connection:
    """The calls of one client over one channel. All methods run on the event loop that made it."""

    def __init__(self, address: str, retry: Retry, security: Security | None = None) -> None:
        self.address = address
        self.retry = retry
        self.security = security or Security()
        self._channel = open_channel(address, self.security)
        self.stub = Stub(self._channel, self.security.metadata())
        self._graphs: dict[str, GraphInfo] = {}
        self._registering: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.uploads = UploadLog()
        self.sightings = Sightings()

    async def close(self) -> None:
        """Cancel running calls and close the connection."""
        await self._channel.close()

    async def call(
        self,
        model: Model,
        uploads: Mapping[str, wire.Array],
        deadline: Deadline,
        send: Callable[[float | None], Awaitable[T]],
    ) -> T:
        """Send a request, again after the server lacked something or was unavailable.

        Args:
            model: the graph that the request refers to; it is registered first.
            uploads: the other arrays that the request refers to, by id.
            deadline: when the call must be over.
            send: makes one attempt, given the seconds that are left.

        Returns:
            What `send` returns.

        Raises:
            ServerError: of the kind that fits, when retries are used up or do not help.
        """
        if model.graph_id not in self._graphs:
            await self.register(model, deadline)
        recovery: Recovery | None = None
        while True:
            tick = self.uploads.tick
            try:
                return await self._send(send, deadline)
            except (NotFoundError, UnavailableError) as error:
                recovery = recovery or Recovery(self, model, uploads, deadline)
                await recovery.handle(error, tick)

    async def _send(self, send: Callable[[float | None], Awaitable[T]], deadline: Deadline) -> T:
        with translated(self.address, deadline.timeout):
            return await send(deadline.remaining())

    async def register(
        self, model: Model, deadline: Deadline, again: bool = False, uploads: UploadReporter | None = None
    ) -> GraphInfo:
        """Register a graph with the server, once for each connection or, with `again`, in any case."""
        if not again and model.graph_id in self._graphs:
            return self._graphs[model.graph_id]
        async with self._registering[model.graph_id]:
            if not again and model.graph_id in self._graphs:  # registered by another call meanwhile
                return self._graphs[model.graph_id]
            graph = await self._retried(lambda: self._find_or_send(model, deadline, uploads), deadline)
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

    async def held(self, graph_id: str, deadline: Deadline) -> Model:
        """Return a graph that the server holds; raise `NotFoundError` if it does not."""
        graph = await self._retried(lambda: self._found(graph_id, deadline), deadline)
        return Model(b"", graph.graph_id, signature_of(graph))

    async def server_info(self, deadline: Deadline) -> ServerInfo:
        """Ask the server for its versions, limits and workers."""
        answer = await self._retried(lambda: self._send(self.stub.get_server_info, deadline), deadline)
        return server_info_from(server_info_pb2.GetServerInfoResponse.FromString(answer))

    async def wait_ready(self, deadline: Deadline) -> None:
        """Poll the server's health until it serves; raise `DeadlineError` at the deadline."""
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

    async def _find_or_send(
        self, model: Model, deadline: Deadline, uploads: UploadReporter | None
    ) -> graph_pb2.Graph:
        if not model.data:
            return await self._found(model.graph_id, deadline)
        if len(model.data) > LARGE_BYTES:
            try:
                return await self._found(model.graph_id, deadline)
            except NotFoundError:
                pass  # nobody has registered it yet
        if uploads is not None:
            uploads.expect(len(model.data))
        parts = _reported(_model_parts(model), uploads, [] if uploads is None else [uploads])
        with nullcontext() if uploads is None else uploads.raising():
            answer = await finish_upload(self.stub.register_graph(parts, deadline.remaining()))
        return graph_pb2.RegisterGraphResponse.FromString(answer).graph

    async def _found(self, graph_id: str, deadline: Deadline) -> graph_pb2.Graph:
        request = graph_pb2.GetGraphRequest(graph_id=graph_id).SerializeToString()
        with translated(self.address, deadline.timeout):
            found = await self.stub.get_graph(request, deadline.remaining())
        return graph_pb2.GetGraphResponse.FromString(found).graph

    async def delete_graph(self, graph_id: str, deadline: Deadline) -> bool:
        """Delete a graph from the server; return whether it was held."""
        request = graph_pb2.DeleteGraphRequest(graph_id=graph_id).SerializeToString()
        answer = await self._retried(lambda: self.stub.delete_graph(request, deadline.remaining()), deadline)
        return graph_pb2.DeleteGraphResponse.FromString(answer).held

    async def delete_tensor(self, tensor_id: str, deadline: Deadline) -> bool:
        """Delete an array from the server; return whether it was held."""
        request = tensor_pb2.DeleteTensorRequest(tensor_id=tensor_id).SerializeToString()
        answer = await self._retried(lambda: self.stub.delete_tensor(request, deadline.remaining()), deadline)
        return tensor_pb2.DeleteTensorResponse.FromString(answer).held

    async def upload(self, tensor_id: str, array: wire.Array, deadline: Deadline) -> None:
        """Upload an array, whether or not the server has it."""
        async with self.uploads.lock(tensor_id):
            await self._upload(tensor_id, array, deadline)

    async def upload_lacking(
        self,
        tensor_id: str,
        array: wire.Array,
        deadline: Deadline,
        tick: int,
        uploads: UploadReporter | None = None,
    ) -> bool:
        """Upload an array that the server lacked at a tick, unless another call has uploaded it since.

        Args:
            tensor_id: the array's id.
            array: the array.
            deadline: when the call must be over.
            tick: the log's tick when the call began that found it missing.
            uploads: is told how much was sent.

        Returns:
            Whether it was uploaded here.
        """
        with self.uploads.watched(tensor_id, array.nbytes, uploads):
            async with self.uploads.lock(tensor_id):
                if self.uploads.uploaded_since(tensor_id, tick):
                    return False
                await self._upload(tensor_id, array, deadline, uploads)
                return True

    async def _upload(
        self, tensor_id: str, array: wire.Array, deadline: Deadline, uploads: UploadReporter | None = None
    ) -> None:
        def send() -> Awaitable[bytes]:
            parts = _reported(_tensor_parts(array), uploads, self.uploads.watchers.get(tensor_id, []))
            return finish_upload(self.stub.put_tensor(parts, deadline.remaining()))

        answer = await self._retried(send, deadline)
        received = tensor_pb2.PutTensorResponse.FromString(answer).tensor.tensor_id
        if received != tensor_id:
            raise ServerError(
                "an input array changed while it was sent; do not write to it before the call is over",
                code="DATA_LOSS",
            )
        self.uploads.record(tensor_id)
        self.sightings.first(array)  # from now on it is referred to


class UploadLog:
    """Records when arrays were uploaded over a connection, so that concurrent calls send each of them once.

    Attributes:
        tick: a logical clock, the number of uploads that are complete.
        watchers: by array, the calls that wait for its upload and report it.
    """

    def __init__(self) -> None:
        self.tick = 0
        self.watchers: defaultdict[str, list[UploadReporter]] = defaultdict(list)
        self._done: OrderedDict[str, int] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, tensor_id: str) -> asyncio.Lock:
        """Return the lock that serializes the uploads of one array."""
        return self._locks.setdefault(tensor_id, asyncio.Lock())

    @contextmanager
    def watched(self, tensor_id: str, size: int, reporter: UploadReporter | None) -> Iterator[None]:
        """Tell a reporter of the upload of an array, whichever call makes it."""
        if reporter is None:
            yield
            return
        reporter.expect(size)
        self.watchers[tensor_id].append(reporter)
        try:
            with reporter.raising():
                yield
        finally:
            self.watchers[tensor_id].remove(reporter)
            if not self.watchers[tensor_id]:
                del self.watchers[tensor_id]

    def uploaded_since(self, tensor_id: str, tick: int) -> bool:
        """Tell whether an array was uploaded after a tick."""
        return self._done.get(tensor_id, 0) > tick

    def record(self, tensor_id: str) -> None:
        """Record that an array was uploaded."""
        self.tick += 1
        self._done[tensor_id] = self.tick
        while len(self._done) > _LOGGED_UPLOADS:
            self._done.popitem(last=False)


class Recovery:
    """Prepares the retries of one call: uploads what the server lacks, waits while it is unavailable.

    Args:
        connection: the connection of the call.
        model: the graph that the call refers to, with its constants.
        uploads: the other arrays that it refers to, by id.
        deadline: when the call must be over.
        reporter: is told how much was sent.
    """

    def __init__(
        self,
        connection: Connection,
        model: Model,
        uploads: Mapping[str, wire.Array],
        deadline: Deadline,
        reporter: UploadReporter | None = None,
    ) -> None:
        self._reporter = reporter
        self._connection, self._model = connection, model
        self._constants = {constant.tensor_id: name for name, constant in model.bound.items()}
        self._uploads = {**uploads, **{one.tensor_id: one.array for one in model.bound.values()}}
        self._deadline = deadline
        self._backoff = Backoff(connection.retry, deadline)
        self._eviction_backoff = Backoff(connection.retry, deadline)
        self._sent: set[str] = set()

    async def handle(self, error: NotFoundError | UnavailableError, tick: int, done: int = 0) -> None:
        """Upload what the server lacked, or wait until it may be reachable again.

        Args:
            error: what the attempt failed with.
            tick: the upload log's tick when the attempt began.
            done: how much of the answer has arrived; attempts are counted anew when it has grown.

        Raises:
            NotFoundError: the server lacks what was sent to it, or what is not known here.
            UnavailableError: retries are used up.
        """
        if isinstance(error, UnavailableError):
            self._sent.clear()  # the server may have restarted and lost everything
            await self._backoff.pause(error, done)
            return
        named = self._named(error)
        missing = (named or {self._model.graph_id, *self._uploads}) - self._sent
        if not missing:
            await self._wait_for_room(error, named)
            missing = named
        if self._model.graph_id in missing:
            self._sent.add(self._model.graph_id)
            await self._connection.register(self._model, self._deadline, True, self._reporter)
        for tensor_id in missing & self._uploads.keys():
            await self._send(tensor_id, tick)

    async def _wait_for_room(self, error: NotFoundError, named: set[str]) -> None:
        """Wait for the calls whose arrays have evicted one that was sent for this call."""
        if not named or self._model.graph_id in named:
            raise error
        try:
            await self._eviction_backoff.pause(error)
        except NotFoundError:
            error.message += (
                "; it was sent, and forgotten before it was used, again and again: the arrays in use are "
                "more than the server keeps (its setting tensor_cache_bytes)"
            )
            raise

    async def _send(self, tensor_id: str, tick: int) -> None:
        array = self._uploads[tensor_id]
        try:
            if await self._connection.upload_lacking(tensor_id, array, self._deadline, tick, self._reporter):
                self._sent.add(tensor_id)
        except LimitError as error:
            kind = f"{array.dtype.name}{list(array.shape)}"
            name = self._constants.get(tensor_id)
            what = f"{name}, a {kind} that the function closes over" if name else f"an input of {kind}"
            error.message = f"{what}: {error.message}"
            raise

    def _named(self, error: NotFoundError) -> set[str]:
        """Return the ids that the server says it lacks, of those that are known here."""
        mine = {self._model.graph_id, *self._uploads}
        return {one for one in mine if one == error.metadata.get("resource_name") or one in error.message}


async def _reported(
    parts: AsyncIterator[bytes], uploads: UploadReporter | None, watchers: Iterable[UploadReporter]
) -> AsyncIterator[bytes]:
    """Yield the parts of an upload, and report each that was taken."""
    for one in tuple(watchers):
        one.sent(0)
    async for part in parts:
        yield part
        for one in tuple(watchers):
            one.sent(len(part))
        if uploads is not None:
            uploads.check()


async def _model_parts(model: Model) -> AsyncIterator[bytes]:
    if model.choices:
        yield model.choices.message().SerializeToString()
    for chunk in wire.chunks(memoryview(model.data)):
        yield framing.bytes_field(1, chunk)


async def _tensor_parts(array: wire.Array) -> AsyncIterator[bytes]:
    yield tensor_pb2.PutTensorRequest(
        dtype=wire.data_type(array.dtype), shape=array.shape
    ).SerializeToString()
    for chunk in wire.chunks(wire.byte_view(array)):
        yield framing.bytes_field(3, chunk)
