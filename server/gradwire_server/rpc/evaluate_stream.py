"""EvaluateStream: calls tagged by id on one stream, answered in any order."""

from __future__ import annotations

import asyncio
import contextlib

import grpc.aio
from google.protobuf.message import Message

from gradwire_engine.errors import InvalidInput
from gradwire_server.rpc.evaluate import Answer, Evaluator
from gradwire_server.rpc.incoming.reader import Reader
from gradwire_server.rpc.status import status_of
from gradwire_wire import framing
from gradwire_wire.outputs import INLINE_BYTES
from gradwire_wire.v1 import function_pb2

Request = function_pb2.EvaluateStreamRequest
Response = function_pb2.EvaluateStreamResponse
Context = grpc.aio.ServicerContext[Request, "Message | bytes"]


class EvaluateStreamCall:
    """One stream, and the calls in flight on it."""

    def __init__(self, evaluator: Evaluator, context: Context, reader: Reader[Request], calls: int) -> None:
        """Serve a stream with at most `calls` in flight; no more are read meanwhile."""
        self._reader = reader
        self._evaluator = evaluator
        self._context = context
        self._limit = calls
        self._calls: dict[int, asyncio.Task[Answer]] = {}
        """The evaluations of calls that are not answered yet."""
        self._answering: set[asyncio.Task[None]] = set()
        """Nothing cancels these: a message that is cut off while it is written blocks all that follow."""
        self._writing = asyncio.Lock()
        self._ended = False

    async def serve(self) -> None:
        """Answer calls until the client closes its side; cancel all when it goes away."""
        try:
            while (request := await self._reader.next(self._context)) is not None:
                await self._handle(request)
            while self._answering:
                await asyncio.wait(self._answering)
        finally:
            self._ended = True
            for evaluation in self._calls.values():
                evaluation.cancel()
            # A status must not overtake a message: it is lost then, and the client waits for ever.
            if self._answering:
                await asyncio.wait(self._answering)

    async def _handle(self, request: Request) -> None:
        call_id = request.call_id
        if request.WhichOneof("action") == "cancel":
            evaluation = self._calls.get(call_id)
            if evaluation is not None:
                evaluation.cancel()
            return
        try:
            self._check(request)
            # Tried first: it takes neither a task nor a queue.
            answer = self._evaluator.immediate(request.evaluate)
        except Exception as error:
            await self._fail(call_id, error)
            return
        if answer is not None and answer.nbytes <= INLINE_BYTES:
            await self._send(call_id, answer)
            return
        if len(self._answering) >= self._limit:
            await asyncio.wait(self._answering, return_when=asyncio.FIRST_COMPLETED)
        evaluation = self._calls[call_id] = asyncio.ensure_future(self._evaluate(request))
        answering = asyncio.ensure_future(self._answer(call_id, evaluation))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)

    def _check(self, request: Request) -> None:
        if not request.call_id:
            raise InvalidInput("call_id must not be zero", "call_id")
        if request.call_id in self._calls:
            raise InvalidInput(f"call {request.call_id} is in flight already on this stream", "call_id")
        if not request.HasField("evaluate"):
            raise InvalidInput("a call needs an action: evaluate or cancel", "action")
        self._reader.check(request)

    async def _evaluate(self, request: Request) -> Answer:
        seconds = request.timeout.ToNanoseconds() * 1e-9 if request.HasField("timeout") else None
        async with asyncio.timeout(seconds):
            return await self._evaluator.evaluate(request.evaluate)

    async def _answer(self, call_id: int, evaluation: asyncio.Task[Answer]) -> None:
        """Send the result of an evaluation, or its error; the call is over then."""
        try:
            await asyncio.wait((evaluation,))
            if evaluation.cancelled():
                await self._fail(call_id, asyncio.CancelledError())
            elif (error := evaluation.exception()) is not None:
                await self._fail(call_id, error)
            else:
                await self._send(call_id, evaluation.result())
        finally:
            del self._calls[call_id]

    async def _send(self, call_id: int, answer: Answer) -> None:
        response, chunked = answer.message(whole=False)
        await self._write(Response(call_id=call_id, response=response, last=not chunked))
        for index in chunked:
            last = index == chunked[-1]
            for message in framing.output_chunks(call_id, index, answer.arrays[index], last):
                await self._write(message)

    async def _fail(self, call_id: int, error: BaseException) -> None:
        status = status_of(error)
        failure = function_pb2.CallError(code=status.code, message=status.message, details=status.details)
        await self._write(Response(call_id=call_id, error=failure, last=True))

    async def _write(self, message: Message | bytes) -> None:
        async with self._writing:
            if self._ended:
                return
            # A write fails so when the client has gone; the next read says so too.
            with contextlib.suppress(grpc.aio.InternalError):
                await self._context.write(message)
