"""One open Accumulate call: writes messages and reads gradients."""

import asyncio

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

import gradwire_wire as wire
from gradwire.errors import CancelledError, ServerError, UnavailableError
from gradwire.transport.channel import DuplexCall, Stub
from gradwire.transport.status import StatusRecorder, from_rpc_error
from gradwire_wire.framing import FramingError, gradient_chunk
from gradwire_wire.outputs import fill_output, output_arrays
from gradwire_wire.v1 import accumulate_pb2

_READ = accumulate_pb2.AccumulateRequest(read=accumulate_pb2.ReadGradient()).SerializeToString()


class PartialGradient:
    """A gradient and its arrays, which chunks fill until nothing is missing."""

    def __init__(self, gradient: accumulate_pb2.Gradient) -> None:
        self.gradient = gradient
        self.arrays = output_arrays(gradient)
        self.missing = sum(
            array.nbytes
            for named, array in zip(gradient.outputs, self.arrays, strict=True)
            if named.tensor.WhichOneof("content") is None
        )


class GradientStream:
    """An Accumulate call. A task reads it all the time, so that an error in a batch is known at once.

    Attributes:
        registered: ids of the graphs that were registered since the call was opened.
    """

    def __init__(self, stub: Stub, address: str) -> None:
        self._address = address
        self._call: DuplexCall = stub.accumulate()
        self._status = StatusRecorder(self._call)
        self._reader = asyncio.create_task(self._run(), name="gradwire gradient reader")
        self._answer: asyncio.Future[PartialGradient] | None = None
        self._failure: ServerError | None = None
        self.registered: set[str] = set()

    @property
    def open(self) -> bool:
        """Whether the call is not known to have ended."""
        return self._failure is None

    def check(self) -> None:
        """Raise the error that the call has ended with, if it has ended."""
        if self._failure is not None:
            raise self._failure

    async def write(self, message: bytes) -> None:
        """Write a message; wait while flow control leaves no room for it."""
        self.check()
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await asyncio.wait([self._reader])  # the reader gets the reason
            self.check()
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._closed() from None  # the client was closed, nobody cancelled this task

    async def read(self) -> PartialGradient:
        """Ask for the gradient of everything written so far and wait for it."""
        answer: asyncio.Future[PartialGradient] = asyncio.get_running_loop().create_future()
        self._answer = answer
        try:
            await self.write(_READ)
            return await answer
        finally:
            self._answer = None
            if answer.done() and not answer.cancelled():
                answer.exception()  # marks it as retrieved, also when the write failed with it

    def cancel(self) -> None:
        """Cancel the call and the work that the server does for it."""
        self._call.cancel()
        self._reader.cancel()

    def _closed(self) -> ServerError:
        return CancelledError(f"the connection to {self._address} was closed")

    async def _run(self) -> None:
        failure: ServerError = UnavailableError(f"the server at {self._address} ended the stream")
        partial: PartialGradient | None = None
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                partial = self._take(message, partial)
        except grpc.aio.AioRpcError as error:
            reason = await self._status.reason(error)
            if reason.code() is not grpc.StatusCode.OK:
                failure = from_rpc_error(reason, self._address, None)
        except (FramingError, DecodeError, wire.WireError, ServerError) as error:
            failure = ServerError(f"the server's answer cannot be read: {error}", code="DATA_LOSS")
        except asyncio.CancelledError:
            failure = self._closed()
        finally:
            self._failure = failure
            self._call.cancel()
            if self._answer is not None and not self._answer.done():
                self._answer.set_exception(failure)

    def _take(self, message: bytes, partial: PartialGradient | None) -> PartialGradient | None:
        """Take one more message; return the gradient that is still incomplete after it, if any."""
        chunk = gradient_chunk(message)
        if chunk is None:
            response = accumulate_pb2.AccumulateResponse.FromString(message)
            if not response.HasField("gradient"):
                return partial
            partial = PartialGradient(response.gradient)
        elif partial is None:
            raise ServerError("a chunk came without a gradient that it belongs to")
        else:
            fill_output(partial.arrays, chunk)
            partial.missing -= len(chunk.data)
        if partial.missing > 0:
            return partial
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(partial)
        return None
