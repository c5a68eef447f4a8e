"""EvaluateStream: calls tagged by id on one stream, answered in any order."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from gradwire_engine.errors import InvalidInput
from gradwire_server.compute.account import Holding
from gradwire_server.errors import Stalled, TryLater, Unavailable
from gradwire_server.rpc.evaluate import Answer, Evaluator
from gradwire_server.rpc.incoming.reader import Reader
from gradwire_server.rpc.incoming.stalls import write
from gradwire_server.rpc.status import status_of
from gradwire_server.settings import Settings
from gradwire_wire import framing
from gradwire_wire.outputs import INLINE_BYTES
from gradwire_wire.v1 import function_pb2

Request = function_pb2.EvaluateStreamRequest
Response = function_pb2.EvaluateStreamResponse
Context = grpc.aio.ServicerContext[Request, "Message | bytes"]

_LOOK_SECONDS = 0.1


class EvaluateStreamCall:
    """One stream, and the calls in flight on it."""

    def __init__(
        self, evaluator: Evaluator, context: Context, reader: Reader[Request], settings: Settings
    ) -> None:
        """Serve a stream with a bounded number of calls in flight; no more are read meanwhile."""
        self._reader = reader
        self._settings = settings
        self._evaluator = evaluator
        self._context = context
        self._calls: dict[int, asyncio.Task[Answer]] = {}
        """The evaluations of calls that are not answered yet."""
        self._answering: set[asyncio.Task[None]] = set()
        """Nothing cancels these: a message that is cut off while it is written blocks all that follow."""
        self._writing = asyncio.Lock()
        self._ended = False
        self._serving: asyncio.Task[Any] | None = None
        self._error: Exception | None = None
        """Why the stream is ended from this side."""
        self._draining = self._handling = self._half_closed = False
        self._last = asyncio.get_running_loop().time()
        """When a call last came or was answered."""

    async def serve(self) -> None:
        """Answer calls until the client closes its side; cancel all when it goes away.

        Raises:
            Stalled: no call came for long and none was in flight, or the client did not read answers.
            Unavailable: the server is draining.
        """
        self._serving = asyncio.current_task()
        watching = asyncio.ensure_future(self._end_after_idling())
        try:
            while (request := await self._reader.next(self._context)) is not None:
                self._handling = True
                await self._handle(request)
                self._handling = False
                self._rest()
            self._half_closed = True
            while self._answering:
                await asyncio.wait(self._answering)
        except asyncio.CancelledError:
            if self._error is None or self._serving is None:
                raise
            self._serving.uncancel()
            raise self._error from None
        finally:
            watching.cancel()
            self._ended = True
            for evaluation in self._calls.values():
                evaluation.cancel()
            # A status must not overtake a message: it is lost then, and the client waits for ever.
            if self._answering:
                await asyncio.wait(self._answering)

    def end_when_idle(self) -> None:
        """End the stream as soon as no call is in flight: the server is draining."""
        self._draining = True
        self._end_if_draining()

    def _end_if_draining(self) -> None:
        if self._draining and not (self._answering or self._handling or self._half_closed):
            self._end(Unavailable("the server is draining: open a stream to another, or try again later"))

    def _rest(self) -> None:
        self._last = asyncio.get_running_loop().time()
        self._end_if_draining()

    async def _end_after_idling(self) -> None:
        loop, seconds = asyncio.get_running_loop(), self._settings.idle_seconds
        while (left := self._last + seconds - loop.time()) > 0 or self._answering or self._handling:
            if self._answering:
                await asyncio.wait(self._answering)
            else:
                await asyncio.sleep(max(left, _LOOK_SECONDS))
        self._end(
            Stalled(f"no call came for {seconds:g} s (idle_seconds of this server): open another stream")
        )

    def _end(self, error: Exception) -> None:
        if self._error is None and self._serving is not None:
            self._error = error
            self._serving.cancel()

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
        if len(self._answering) >= self._settings.calls_per_stream:
            await asyncio.wait(self._answering, return_when=asyncio.FIRST_COMPLETED)
        try:
            holding = await self._evaluator.hold_inputs(request)
        except TryLater as error:
            await self._fail(call_id, error)
            return
        evaluation = self._calls[call_id] = asyncio.ensure_future(self._evaluate(request))
        answering = asyncio.ensure_future(self._answer(call_id, evaluation, holding))
        self._answering.add(answering)
        answering.add_done_callback(self._answered)

    def _answered(self, answering: asyncio.Task[None]) -> None:
        self._answering.discard(answering)
        self._rest()

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

    async def _answer(self, call_id: int, evaluation: asyncio.Task[Answer], inputs: Holding) -> None:
        """Send the result of an evaluation, or its error; the call is over then."""
        try:
            await asyncio.wait((evaluation,))
            inputs.give_back()
            if evaluation.cancelled():
                await self._fail(call_id, asyncio.CancelledError())
            elif (error := evaluation.exception()) is not None:
                await self._fail(call_id, error)
            else:
                await self._send(call_id, evaluation.result())
                evaluation.result().give_back()
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
            try:
                await write(self._context, message, self._settings.unread_seconds)
            except Stalled as error:
                self._ended = True
                self._end(error)
            except grpc.aio.InternalError:
                pass  # the client has gone; the next read says so too
