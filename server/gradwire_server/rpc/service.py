"""The gRPC service: each method hands over to its module; errors become statuses here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from gradwire_server.access.admission import Admission, holder_of
from gradwire_server.access.callers import Access, Caller
from gradwire_server.observe.events import BytesSent, CallBegun, CallEnded, request_of, serve
from gradwire_server.rpc.accumulate import AccumulateCall
from gradwire_server.rpc.backend import Backend
from gradwire_server.rpc.differentiate import differentiate
from gradwire_server.rpc.evaluate import Evaluator
from gradwire_server.rpc.evaluate_stream import EvaluateStreamCall
from gradwire_server.rpc.incoming.bounds import Bounds
from gradwire_server.rpc.incoming.reader import Reader
from gradwire_server.rpc.incoming.stalls import write
from gradwire_server.rpc.plan import plan
from gradwire_server.rpc.server_info import server_info
from gradwire_server.rpc.status import code_of, end, status_of
from gradwire_server.rpc.stored.deleting import delete_graph, delete_tensor, forget_graph, forget_tensor
from gradwire_server.rpc.stored.graphs import GraphRegistry
from gradwire_server.rpc.stored.put_tensor import put_tensor
from gradwire_wire import framing
from gradwire_wire.v1 import (
    accumulate_pb2,
    derivative_pb2,
    function_pb2,
    gradient_service_pb2,
    graph_pb2,
    server_info_pb2,
    tensor_pb2,
)

_EXPIRY_SECONDS = 60.0
NAME = gradient_service_pb2.DESCRIPTOR.services_by_name["GradientService"].full_name
Context = grpc.aio.ServicerContext[Any, Any]
Answering = Callable[[Any, Any, Context], Awaitable[Any]]
Method = Callable[[Any, Any, Context, Caller], Awaitable[Any]]
M = TypeVar("M", bound=Message)


def _answering(method: Method) -> Answering:
    """Find out who calls a method, make its errors end the call with their status, and tell of both."""
    name = method.__name__.title().replace("_", "")

    async def answer(self: GradientService, message: Any, context: Context) -> Any:
        begun, code, admitted = time.monotonic(), "OK", False
        metadata = tuple(context.invocation_metadata() or ())
        request = request_of(name, metadata, context.peer())
        serve(request)
        try:
            caller = self.access.caller(metadata, context.auth_context())
            holder = holder_of(caller, context.peer())
            serve(replace(request, tenant=caller.tenant, holder=holder))
            with self.admission.admit(holder, caller.calls):
                self.events(CallBegun())
                admitted = True
                return await method(self, message, context, caller)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            code = "CANCELLED"
            raise
        except Exception as error:
            # A write fails so when the client has gone meanwhile; nobody reads an answer.
            if context.done() or isinstance(error, grpc.aio.InternalError):
                code = "CANCELLED"
                raise asyncio.CancelledError from None
            status = status_of(error)
            code = code_of(status).name
        finally:
            self.events(CallEnded(name, code, time.monotonic() - begun, admitted))
        return await end(context, status)

    return answer


@dataclass(frozen=True)
class TenantParts:
    """What serves one tenant: none of it knows what another holds."""

    backend: Backend
    evaluator: Evaluator
    graphs: GraphRegistry


class GradientService:
    """gradwire.v1.GradientService."""

    def __init__(self, backend: Backend, access: Access) -> None:
        """Serve those whom `access` lets in, with the parts of a server."""
        self.access = access
        self.events = backend.events
        self._bounds = Bounds.of(backend.settings)
        self._backend = backend
        self._settings = backend.settings
        self.admission = Admission(self._settings.concurrent_rpcs, self._settings.share)
        self._streams: set[EvaluateStreamCall] = set()
        self._tenants: dict[str, TenantParts] = {}

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the methods: they take bytes, and return messages or bytes."""
        methods: dict[str, tuple[Any, Any]] = {
            "GetServerInfo": (grpc.unary_unary_rpc_method_handler, self.get_server_info),
            "RegisterGraph": (grpc.stream_unary_rpc_method_handler, self.register_graph),
            "GetGraph": (grpc.unary_unary_rpc_method_handler, self.get_graph),
            "DeleteGraph": (grpc.unary_unary_rpc_method_handler, self.delete_graph),
            "DeleteTensor": (grpc.unary_unary_rpc_method_handler, self.delete_tensor),
            "PutTensor": (grpc.stream_unary_rpc_method_handler, self.put_tensor),
            "Plan": (grpc.unary_unary_rpc_method_handler, self.plan),
            "Evaluate": (grpc.unary_unary_rpc_method_handler, self.evaluate),
            "EvaluateStream": (grpc.stream_stream_rpc_method_handler, self.evaluate_stream),
            "Differentiate": (grpc.unary_stream_rpc_method_handler, self.differentiate),
            "Accumulate": (grpc.stream_stream_rpc_method_handler, self.accumulate),
        }
        handlers = {
            name: make(method, request_deserializer=None, response_serializer=framing.serialize)
            for name, (make, method) in methods.items()
        }
        return grpc.method_handlers_generic_handler(NAME, handlers)

    async def drain(self) -> None:
        """End streams that do nothing, others when they have answered; return when no call is open."""
        for stream in list(self._streams):
            stream.end_when_idle()
        await self.admission.ended()

    def _of(self, caller: Caller) -> TenantParts:
        """Return what serves a caller's tenant."""
        self._backend.stores.bound(caller.tenant, caller.held_bytes)
        if caller.tenant not in self._tenants:
            backend = self._backend.of(caller.tenant)
            self._tenants[caller.tenant] = TenantParts(backend, Evaluator(backend), GraphRegistry(backend))
        return self._tenants[caller.tenant]

    def _reader(self, kind: type[M]) -> Reader[M]:
        return Reader(kind, self._bounds)

    @_answering
    async def get_server_info(self, request: bytes, context: Context, caller: Caller) -> Message:
        """GetServerInfo."""
        self._reader(server_info_pb2.GetServerInfoRequest).message(request)
        return server_info(self._backend, caller.tenant)

    @_answering
    async def register_graph(
        self, requests: AsyncIterator[bytes], context: Context, caller: Caller
    ) -> Message:
        """RegisterGraph."""
        reader = self._reader(graph_pb2.RegisterGraphRequest)
        return await self._of(caller).graphs.register(
            reader.messages(requests, self._settings.stalled_seconds)
        )

    @_answering
    async def get_graph(self, request: bytes, context: Context, caller: Caller) -> Message:
        """GetGraph."""
        return self._of(caller).graphs.get(self._reader(graph_pb2.GetGraphRequest).message(request))

    @_answering
    async def delete_graph(self, request: bytes, context: Context, caller: Caller) -> Message:
        """DeleteGraph."""
        parts, read = self._of(caller), self._reader(graph_pb2.DeleteGraphRequest).message(request)
        return await delete_graph(parts.backend, parts.evaluator, read)

    @_answering
    async def delete_tensor(self, request: bytes, context: Context, caller: Caller) -> Message:
        """DeleteTensor."""
        read = self._reader(tensor_pb2.DeleteTensorRequest).message(request)
        return await delete_tensor(self._of(caller).backend, read)

    async def forget_unused(self, seconds: float) -> None:
        """Drop the graphs and arrays that were not used for so long, again and again."""
        while True:
            await asyncio.sleep(min(seconds / 4, _EXPIRY_SECONDS))
            for parts in list(self._tenants.values()):
                graphs, tensors = parts.backend.store.expire(seconds)
                for graph_id in graphs:
                    await forget_graph(parts.backend, parts.evaluator, graph_id)
                for tensor_id in tensors:
                    forget_tensor(parts.backend, tensor_id)

    @_answering
    async def put_tensor(self, requests: AsyncIterator[bytes], context: Context, caller: Caller) -> Message:
        """PutTensor."""
        reader = self._reader(tensor_pb2.PutTensorRequest)
        messages = reader.messages(requests, self._settings.stalled_seconds)
        return await put_tensor(self._of(caller).backend, messages)

    @_answering
    async def plan(self, request: bytes, context: Context, caller: Caller) -> Message:
        """Plan."""
        read = self._reader(derivative_pb2.PlanRequest).message(request)
        return await plan(self._of(caller).backend, read)

    @_answering
    async def evaluate(self, request: bytes, context: Context, caller: Caller) -> Message:
        """Evaluate."""
        read = self._reader(function_pb2.EvaluateRequest).message(request)
        answer = await self._of(caller).evaluator.unary(read)
        self.events(BytesSent(answer.ByteSize()))
        return answer

    @_answering
    async def evaluate_stream(self, requests: object, context: Context, caller: Caller) -> None:
        """EvaluateStream; requests are read through the context."""
        reader = self._reader(function_pb2.EvaluateStreamRequest)
        stream = EvaluateStreamCall(self._of(caller).evaluator, context, reader, self._settings)
        self._streams.add(stream)
        try:
            await stream.serve()
        finally:
            self._streams.discard(stream)

    @_answering
    async def accumulate(self, requests: object, context: Context, caller: Caller) -> None:
        """Accumulate; requests are read through the context."""
        reader = self._reader(accumulate_pb2.AccumulateRequest)
        await AccumulateCall(self._of(caller).backend, self._backend.account.sums, context, reader).serve()

    @_answering
    async def differentiate(self, request: bytes, context: Context, caller: Caller) -> None:
        """Differentiate."""
        read, parts = self._reader(derivative_pb2.DifferentiateRequest).message(request), self._of(caller)
        messages = differentiate(parts.backend, parts.evaluator, read)
        try:
            async for message in messages:
                await write(context, message, self._settings.unread_seconds)
                self.events(BytesSent(len(message)))
        finally:
            await messages.aclose()
