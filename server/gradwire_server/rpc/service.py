"""The gRPC face: each method checks, hands on, and answers; errors become statuses in one place."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

import gradwire_wire as wire
from gradwire_engine.errors import InvalidInput
from gradwire_engine.values import ArrayType
from gradwire_server.compute.scheduler import Scheduler
from gradwire_server.compute.shared import Box, Registered
from gradwire_server.compute.single_flight import Once
from gradwire_server.compute.store import Budget, Store, StoredTensor
from gradwire_server.errors import Overloaded
from gradwire_server.rpc import translate
from gradwire_server.rpc.accumulate import Accumulation
from gradwire_server.rpc.differentiate import Differentiation, check_size
from gradwire_server.rpc.evaluate import Evaluator
from gradwire_server.rpc.evaluate_stream import EvaluateStream
from gradwire_server.rpc.status import abort
from gradwire_server.settings import Settings
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


def _answering(method: Method) -> Method:
    """A method whose errors end the call with their status."""

    async def answer(self: Any, request: Any, context: Context) -> Any:
        try:
            return await method(self, request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            # A write fails so when the client went away under it; nobody reads an answer.
            if context.done() or isinstance(error, grpc.aio.InternalError):
                raise asyncio.CancelledError from None
            problem = error
        return await abort(context, problem)

    return answer


class GradientService:
    """gradwire.v1.GradientService."""

    def __init__(self, settings: Settings, store: Store, evaluator: Evaluator, scheduler: Scheduler) -> None:
        """Over the server's parts."""
        self._settings = settings
        self._store = store
        self._evaluator = evaluator
        self._scheduler = scheduler
        self._sums = Budget("the sums of accumulations", "accumulation_bytes", settings.accumulation_bytes)
        self._registering: Once[tuple[str, bool], Registered] = Once()

    def handler(self) -> grpc.GenericRpcHandler:
        """The methods, with serializers that let ready-made bytes pass."""
        methods: dict[str, tuple[Any, Any, Any]] = {
            "RegisterGraph": (
                grpc.stream_unary_rpc_method_handler,
                self.register,
                graph_pb2.RegisterGraphRequest,
            ),
            "GetGraph": (grpc.unary_unary_rpc_method_handler, self.get_graph, graph_pb2.GetGraphRequest),
            "PutTensor": (grpc.stream_unary_rpc_method_handler, self.put_tensor, tensor_pb2.PutTensorRequest),
            "Plan": (grpc.unary_unary_rpc_method_handler, self.plan, derivative_pb2.PlanRequest),
            "Evaluate": (grpc.unary_unary_rpc_method_handler, self.evaluate, function_pb2.EvaluateRequest),
            "EvaluateStream": (
                grpc.stream_stream_rpc_method_handler,
                self.evaluate_stream,
                function_pb2.EvaluateStreamRequest,
            ),
            "Differentiate": (
                grpc.unary_stream_rpc_method_handler,
                self.differentiate,
                derivative_pb2.DifferentiateRequest,
            ),
            "Accumulate": (
                grpc.stream_stream_rpc_method_handler,
                self.accumulate,
                accumulate_pb2.AccumulateRequest,
            ),
        }
        handlers = {
            name: make(method, request_deserializer=request.FromString, response_serializer=framing.serialize)
            for name, (make, method, request) in methods.items()
        }
        return grpc.method_handlers_generic_handler(NAME, handlers)

    @_answering
    async def register(
        self, requests: AsyncIterator[graph_pb2.RegisterGraphRequest], context: Context
    ) -> Message:
        """RegisterGraph."""
        kinds: set[str] = set()
        with self._store.upload("graph_bytes", self._settings.graph_bytes) as upload:
            async for request in requests:
                kind = request.WhichOneof("part")
                if kind is None:
                    continue
                kinds.add(kind)
                if len(kinds) > 1:
                    raise InvalidInput("parts of one registration are all of kind model, or all text", "part")
                upload.add(request.model if kind == "model" else request.text.encode())
            if not upload.size:
                raise InvalidInput("the registration has no bytes: send model or text", "part")
            data = upload.joined()
            digest = await asyncio.to_thread(hashlib.sha256, data)
            graph_id = digest.hexdigest()
            if not self._store.has_graph(graph_id):
                text = "text" in kinds
                await self._registering.run((graph_id, text), lambda: self._register(data, text))
        info = self._store.graph(graph_id).info
        return graph_pb2.RegisterGraphResponse(graph=translate.graph_message(info))

    async def _register(self, data: bytes, text: bool) -> Registered:
        box = Box("registration", data, nbytes=len(data))
        (info, model, weights), _ = await self._scheduler.call(
            "register", box, text, seconds=self._settings.compile_seconds
        )
        graph = Registered(info, model, weights)
        self._store.add_graph(graph)
        return graph

    @_answering
    async def get_graph(self, request: graph_pb2.GetGraphRequest, context: Context) -> Message:
        """GetGraph."""
        info = self._store.graph(request.graph_id).info
        return graph_pb2.GetGraphResponse(graph=translate.graph_message(info))

    @_answering
    async def put_tensor(
        self, requests: AsyncIterator[tensor_pb2.PutTensorRequest], context: Context
    ) -> Message:
        """PutTensor."""
        first: tensor_pb2.PutTensorRequest | None = None
        with self._store.upload("tensor_bytes", self._settings.tensor_bytes) as upload:
            async for request in requests:
                if first is None:
                    first = tensor_pb2.PutTensorRequest(dtype=request.dtype, shape=request.shape)
                    digest = wire.tensor_digest(first.dtype, first.shape)
                    declared = _declared(first, self._settings.tensor_bytes)
                upload.add(request.data)
                if upload.size > declared.nbytes:
                    break
                digest.update(request.data)
            if first is None:
                raise InvalidInput("the upload is empty: its first message carries dtype and shape", "dtype")
            if upload.size != declared.nbytes:
                raise InvalidInput(
                    f"the array is declared as {declared}, which has {declared.nbytes} bytes, "
                    f"but {'more' if upload.size > declared.nbytes else upload.size} were sent",
                    "data",
                )
            array = wire.array_from_bytes(upload.joined(), first.dtype, first.shape)
        tensor_id = digest.hexdigest()
        box = Box(tensor_id, array, nbytes=array.nbytes, lasting=True)
        self._store.add_tensor(tensor_id, StoredTensor(declared, box))
        reference = tensor_pb2.TensorRef(tensor_id=tensor_id, dtype=first.dtype, shape=first.shape)
        return tensor_pb2.PutTensorResponse(tensor=reference)

    @_answering
    async def plan(self, request: derivative_pb2.PlanRequest, context: Context) -> Message:
        """Plan."""
        arguments = translate.argument_types(request.inputs)
        graph = self._store.graph(request.function.graph_id)
        problem = translate.problem_from(request, arguments, self._settings.block_memory_bytes)
        plan = await self._evaluator.plan(graph, problem)
        check_size(plan, self._settings)
        return derivative_pb2.PlanResponse(plan=translate.plan_message(plan))

    @_answering
    async def evaluate(self, request: function_pb2.EvaluateRequest, context: Context) -> Message:
        """Evaluate."""
        answer = self._evaluator.immediate(request) or await self._evaluator.evaluate(request)
        limit = self._settings.message_bytes
        if answer.nbytes > limit:
            raise Overloaded(
                f"the outputs have {answer.nbytes} bytes; a unary answer holds {limit}: use EvaluateStream",
                "message_bytes",
                limit,
                answer.nbytes,
            )
        return answer.message()[0]

    @_answering
    async def evaluate_stream(self, requests: object, context: Context) -> None:
        """EvaluateStream; requests are read through the context."""
        await EvaluateStream(self._evaluator, context, self._settings.calls_per_stream).serve()

    @_answering
    async def accumulate(self, requests: object, context: Context) -> None:
        """Accumulate; requests are read through the context."""
        await Accumulation(
            self._settings, self._store, self._evaluator, self._scheduler, self._sums, context
        ).serve()

    @_answering
    async def differentiate(self, request: derivative_pb2.DifferentiateRequest, context: Context) -> None:
        """Differentiate."""
        differentiation = Differentiation(self._settings, self._store, self._evaluator, self._scheduler)
        messages = differentiation.stream(request)
        try:
            async for message in messages:
                await context.write(message)
        finally:
            await messages.aclose()  # type: ignore[attr-defined]


def _declared(message: tensor_pb2.PutTensorRequest, limit: int) -> ArrayType:
    try:
        declared = ArrayType(wire.numpy_dtype(message.dtype).name, tuple(message.shape))
    except wire.WireError as error:
        raise InvalidInput(str(error), "dtype") from None
    if any(extent < 0 for extent in declared.shape):
        raise InvalidInput(f"the shape {list(declared.shape)} has a negative extent", "shape")
    if declared.nbytes > limit:
        raise Overloaded(
            f"the array has {declared.nbytes} bytes; the limit is {limit}",
            "tensor_bytes",
            limit,
            declared.nbytes,
        )
    return declared
