"""The gRPC service: each method hands over to its module; errors become statuses here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from gradwire_server.compute.store import Budget
from gradwire_server.rpc.accumulate import AccumulateCall
from gradwire_server.rpc.backend import Backend
from gradwire_server.rpc.differentiate import differentiate
from gradwire_server.rpc.evaluate import Evaluator
from gradwire_server.rpc.evaluate_stream import EvaluateStreamCall
from gradwire_server.rpc.graphs import GraphRegistry
from gradwire_server.rpc.incoming.bounds import Bounds
from gradwire_server.rpc.incoming.reader import Reader
from gradwire_server.rpc.plan import plan
from gradwire_server.rpc.put_tensor import put_tensor
from gradwire_server.rpc.status import abort
from gradwire_wire import framing
from gradwire_wire.v1 import (
    accumulate_pb2,
    derivative_pb2,
    function_pb2,
    gradient_service_pb2,
    graph_pb2,
    tensor_pb2,
)

NAME = gradient_service_pb2.DESCRIPTOR.services_by_name["GradientService"].full_name
Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Any, Context], Awaitable[Any]]
M = TypeVar("M", bound=Message)


def _answering(method: Method) -> Method:
    """Make errors of a method end the call with their status."""

    async def answer(self: Any, request: Any, context: Context) -> Any:
        try:
            return await method(self, request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            # A write fails so when the client has gone meanwhile; nobody reads an answer.
            if context.done() or isinstance(error, grpc.aio.InternalError):
                raise asyncio.CancelledError from None
            problem = error
        return await abort(context, problem)

    return answer


class GradientService:
    """gradwire.v1.GradientService."""

    def __init__(self, backend: Backend) -> None:
        """Serve with the parts of a server."""
        self._bounds = Bounds.of(backend.settings)
        self._backend = backend
        self._evaluator = Evaluator(backend)
        self._graphs = GraphRegistry(backend)
        self._sums = Budget(
            "the sums of accumulations", "accumulation_bytes", backend.settings.accumulation_bytes
        )

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the methods: they take bytes, and return messages or bytes."""
        methods: dict[str, tuple[Any, Any]] = {
            "RegisterGraph": (grpc.stream_unary_rpc_method_handler, self.register_graph),
            "GetGraph": (grpc.unary_unary_rpc_method_handler, self.get_graph),
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

    def _reader(self, kind: type[M]) -> Reader[M]:
        return Reader(kind, self._bounds)

    @_answering
    async def register_graph(self, requests: AsyncIterator[bytes], context: Context) -> Message:
        """RegisterGraph."""
        return await self._graphs.register(self._reader(graph_pb2.RegisterGraphRequest).messages(requests))

    @_answering
    async def get_graph(self, request: bytes, context: Context) -> Message:
        """GetGraph."""
        return self._graphs.get(self._reader(graph_pb2.GetGraphRequest).message(request))

    @_answering
    async def put_tensor(self, requests: AsyncIterator[bytes], context: Context) -> Message:
        """PutTensor."""
        return await put_tensor(self._backend, self._reader(tensor_pb2.PutTensorRequest).messages(requests))

    @_answering
    async def plan(self, request: bytes, context: Context) -> Message:
        """Plan."""
        return await plan(self._backend, self._reader(derivative_pb2.PlanRequest).message(request))

    @_answering
    async def evaluate(self, request: bytes, context: Context) -> Message:
        """Evaluate."""
        return await self._evaluator.unary(self._reader(function_pb2.EvaluateRequest).message(request))

    @_answering
    async def evaluate_stream(self, requests: object, context: Context) -> None:
        """EvaluateStream; requests are read through the context."""
        reader = self._reader(function_pb2.EvaluateStreamRequest)
        calls = self._backend.settings.calls_per_stream
        await EvaluateStreamCall(self._evaluator, context, reader, calls).serve()

    @_answering
    async def accumulate(self, requests: object, context: Context) -> None:
        """Accumulate; requests are read through the context."""
        reader = self._reader(accumulate_pb2.AccumulateRequest)
        await AccumulateCall(self._backend, self._sums, context, reader).serve()

    @_answering
    async def differentiate(self, request: bytes, context: Context) -> None:
        """Differentiate."""
        read = self._reader(derivative_pb2.DifferentiateRequest).message(request)
        messages = differentiate(self._backend, self._evaluator, read)
        try:
            async for message in messages:
                await context.write(message)
        finally:
            await messages.aclose()
