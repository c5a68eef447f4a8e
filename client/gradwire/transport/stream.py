"""Multiplexes evaluations over one stream; none waits for another.

One task writes queued requests, another reads answers and wakes the callers they belong to, so that a call
costs no task and no connection of its own.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

import gradwire_wire as wire
from gradwire.errors import DeadlineError, ServerError, UnavailableError
from gradwire.transport.channel import DuplexCall, Stub
from gradwire.transport.status import StatusRecorder, from_parts, from_rpc_error
from gradwire_wire.framing import FramingError, output_chunk
from gradwire_wire.outputs import fill_output, output_arrays
from gradwire_wire.v1 import function_pb2

# Added to a call's timeout, so that the server's own error (which says more) arrives first.
_GRACE_SECONDS = 0.25


@dataclass(slots=True)
class _Pending:
    """A call that has not been answered yet."""

    answer: "asyncio.Future[list[wire.Array]]"
    arrays: list[wire.Array] = field(default_factory=list)


class CallStream:
    """An EvaluateStream call, opened with the first evaluation and reopened after it broke."""

    def __init__(self, stub: Stub, address: str) -> None:
        self._stub, self._address = stub, address
        self._pending: dict[int, _Pending] = {}
        self._outbox: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._call: DuplexCall | None = None
        self._last_id = 0
        self._closed = False

    async def evaluate(
        self, message: function_pb2.EvaluateStreamRequest, timeout: float | None
    ) -> list[wire.Array]:
        """Evaluate one request and return the outputs. Serialize the message before awaiting anything."""
        if self._closed:
            raise RuntimeError("the stream is closed: open another with stream()")
        if self._call is None:
            self._open()
        self._last_id += 1
        call_id = message.call_id = self._last_id
        if timeout is None:
            message.ClearField("timeout")
        else:
            message.timeout.FromNanoseconds(int(timeout * 1e9))
        pending = _Pending(asyncio.get_running_loop().create_future())
        self._pending[call_id] = pending
        self._outbox.append(message.SerializeToString())
        self._wake.set()
        try:
            if timeout is None:
                return await pending.answer
            async with asyncio.timeout(timeout + _GRACE_SECONDS):
                return await pending.answer
        except TimeoutError as error:
            if isinstance(error, ServerError):
                raise
            raise DeadlineError(
                f"the call took longer than its timeout of {timeout:g} s and was stopped"
            ) from None
        finally:
            if self._pending.pop(call_id, None) is not None:  # given up here: tell the server to stop
                stop = function_pb2.EvaluateStreamRequest(call_id=call_id, cancel=True)
                self._outbox.append(stop.SerializeToString())
                self._wake.set()

    def _open(self) -> None:
        self._outbox.clear()
        self._wake = asyncio.Event()
        self._call = self._stub.evaluate_stream()
        self._tasks = [
            asyncio.create_task(self._write(self._call, self._wake), name="gradwire stream writer"),
            asyncio.create_task(self._read(self._call), name="gradwire stream reader"),
        ]

    async def _write(self, call: DuplexCall, wake: asyncio.Event) -> None:
        outbox = self._outbox
        try:
            while not self._closed:
                wake.clear()
                while outbox:
                    await call.write(outbox.popleft())
                await wake.wait()
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the reader gets the reason

    async def _read(self, call: DuplexCall) -> None:
        error: ServerError = UnavailableError(f"the server at {self._address} ended the stream")
        status = StatusRecorder(call)
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                self._dispatch(message)
        except grpc.aio.AioRpcError as failure:
            reason = await status.reason(failure)
            if reason.code() is not grpc.StatusCode.OK:
                error = from_rpc_error(reason, self._address, None)
        except (FramingError, wire.WireError, ServerError) as failure:
            error = ServerError(f"the server's answer cannot be read: {failure}", code="DATA_LOSS")
        finally:
            self._fail(call, error)

    def _fail(self, call: DuplexCall, error: ServerError) -> None:
        """Abandon the stream: pending calls raise the error, and the next call opens another stream."""
        call.cancel()
        if self._call is call:
            self._call = None
            self._tasks[0].cancel()
            waiting = list(self._pending.values())
            self._pending.clear()
            for pending in waiting:
                if not pending.answer.done():
                    pending.answer.set_exception(error)

    def _dispatch(self, message: bytes) -> None:
        found = output_chunk(message)
        if found is not None:
            call_id, chunk, last = found
            pending = self._pending.get(call_id)
            if pending is not None:
                fill_output(pending.arrays, chunk)
                self._finish(call_id, pending, last)
            return
        answer = function_pb2.EvaluateStreamResponse.FromString(message)
        pending = self._pending.get(answer.call_id)
        if pending is None:  # cancelled in the meantime
            return
        if answer.HasField("error"):
            del self._pending[answer.call_id]
            failure = from_parts(answer.error.code, answer.error.message, answer.error.details)
            if not pending.answer.done():
                pending.answer.set_exception(failure)
            return
        pending.arrays = output_arrays(answer.response)
        self._finish(answer.call_id, pending, answer.last)

    def _finish(self, call_id: int, pending: _Pending, last: bool) -> None:
        if last:
            del self._pending[call_id]
            if not pending.answer.done():
                pending.answer.set_result(pending.arrays)

    async def close(self, at_once: bool = False) -> None:
        """Close the stream once the calls in flight are answered, or `at_once`."""
        if not at_once and self._pending:
            await asyncio.wait([pending.answer for pending in self._pending.values()])
        self._closed = True
        self._wake.set()
        call, tasks = self._call, self._tasks
        if call is None:
            return
        if not at_once:
            await asyncio.wait(tasks, timeout=1.0)
        call.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> "CallStream":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        await self.close(at_once=kind is not None)


Evaluator = Callable[[function_pb2.EvaluateStreamRequest, float | None], Awaitable[list[wire.Array]]]
"""Evaluates a filled request, given the seconds that are left."""
