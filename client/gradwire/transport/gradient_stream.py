"""One open Accumulate call: messages out, and one gradient at a time back."""

import asyncio

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

import gradwire_wire as wire
from gradwire.errors import CancelledError, ServerError, UnavailableError
from gradwire.transport.channel import DuplexCall, Stub
from gradwire.transport.status import Ending, from_rpc_error
from gradwire_wire.framing import FramingError, gradient_chunk
from gradwire_wire.outputs import fill_output, output_arrays
from gradwire_wire.v1 import accumulate_pb2

_READ = accumulate_pb2.AccumulateRequest(read=accumulate_pb2.ReadGradient()).SerializeToString()


class Incoming:
    """A gradient and its arrays, which chunks may still have to fill."""

    def __init__(self, gradient: accumulate_pb2.Gradient) -> None:
        self.gradient = gradient
        self.arrays = output_arrays(gradient)
        self.missing = sum(
            array.nbytes
            for named, array in zip(gradient.outputs, self.arrays, strict=True)
            if named.tensor.WhichOneof("content") is None
        )


class GradientStream:
    """An Accumulate call. It is read all the time, so that what goes wrong with a batch is known at once.

    `registered` are the graphs that the server was told of since it was opened.
    """

    def __init__(self, stub: Stub, address: str) -> None:
        self._address = address
        self._call: DuplexCall = stub.accumulate()
        self._ending = Ending(self._call)
        self._reader = asyncio.create_task(self._read(), name="gradwire gradient reader")
        self._answer: asyncio.Future[Incoming] | None = None
        self._failure: ServerError | None = None
        self.registered: set[str] = set()

    @property
    def open(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self._failure is None

    def check(self) -> None:
        """Raise what the call has ended with, if it has."""
        if self._failure is not None:
            raise self._failure

    async def write(self, message: bytes) -> None:
        """Send a message, when there is room for it."""
        self.check()
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await asyncio.wait([self._reader])  # it learns why
            self.check()
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._closed() from None  # the call was cancelled, by closing the client, and not we

    async def ask(self) -> Incoming:
        """The gradient of everything sent so far."""
        answer: asyncio.Future[Incoming] = asyncio.get_running_loop().create_future()
        self._answer = answer
        try:
            await self.write(_READ)
            return await answer
        finally:
            self._answer = None
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also where the write had failed with it

    def cancel(self) -> None:
        """Give the call up, and with it whatever the server does for it."""
        self._call.cancel()
        self._reader.cancel()

    def _closed(self) -> ServerError:
        return CancelledError(f"the connection to {self._address} was closed")

    async def _read(self) -> None:
        failure: ServerError = UnavailableError(f"the server at {self._address} ended the stream")
        incoming: Incoming | None = None
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                incoming = self._taken(message, incoming)
        except grpc.aio.AioRpcError as error:
            reason = await self._ending.reason(error)
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

    def _taken(self, message: bytes, incoming: Incoming | None) -> Incoming | None:
        """What is still incomplete after one more message."""
        chunk = gradient_chunk(message)
        if chunk is None:
            response = accumulate_pb2.AccumulateResponse.FromString(message)
            if not response.HasField("gradient"):
                return incoming
            incoming = Incoming(response.gradient)
        elif incoming is None:
            raise ServerError("a chunk came without a gradient that it belongs to")
        else:
            fill_output(incoming.arrays, chunk)
            incoming.missing -= len(chunk.data)
        if incoming.missing > 0:
            return incoming
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(incoming)
        return None
