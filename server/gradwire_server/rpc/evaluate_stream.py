"""EvaluateStream: calls tagged by id on one stream, answered in any order."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

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
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[Any] | None = None
        self._ended = False

    async def serve(self) -> None:
        """Answer calls until the client closes its side; cancel all when it goes away."""
        try:
            while (request := await self._reader.next(self._context)) is not None:
                await self._handle(request)
            while self._calls:
                await asyncio.wait(self._calls.values())
        finally:
            self._ended = True
            for task in self._calls.values():
                if task is not self._writer:
                    task.cancel()
            # A status must not overtake a message: it is lost then, and the client waits for ever.
            if self._calls:
                await asyncio.wait(self._calls.values())

    async def _handle(self, request: Request) -> None:
        call_id = request.call_id
        if request.WhichOneof("action") == "cancel":
            task = self._calls.get(call_id)
            if task is not None:
                task.cancel()
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
        if len(self._calls) >= self._limit:
            await asyncio.wait(self._calls.values(), return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.ensure_future(self._run(call_id, request))
        self._calls[call_id] = task
        task.add_done_callback(lambda _: self._calls.pop(call_id, None))

    def _check(self, request: Request) -> None:
        if not request.call_id:
            raise InvalidInput("call_id must not be zero", "call_id")
        if request.call_id in self._calls:
            raise InvalidInput(f"call {request.call_id} is in flight already on this stream", "call_id")
        if not request.HasField("evaluate"):
            raise InvalidInput("a call needs an action: evaluate or cancel", "action")
        self._reader.check(request)

    async def _run(self, call_id: int, request: Request) -> None:
        try:
            seconds = request.timeout.ToNanoseconds() * 1e-9 if request.HasField("timeout") else None
            async with asyncio.timeout(seconds):
                answer = await self._evaluator.evaluate(request.evaluate)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and (self._ended or self._context.cancelled()):
                raise
            await self._fail(call_id, error)
            return
        await self._send(call_id, answer)

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
            self._writer = asyncio.current_task()
            # A write fails so when the client has gone; the next read says so too.
            with contextlib.suppress(grpc.aio.InternalError):
                await self._context.write(message)
            self._writer = None
