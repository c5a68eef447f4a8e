"""The asynchronous client."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

import gradwire_wire as wire
from gradwire._face.function import AsyncFunction
from gradwire.errors import InvalidArgumentError
from gradwire.frontends.sources import Source, load
from gradwire.graphs.signature import FunctionSpec
from gradwire.graphs.spec import ArraySpec, spec_of
from gradwire.transport.connection import Connection
from gradwire.transport.retry import Deadline, Retry
from gradwire.transport.stream import CallStream
from gradwire.transport.uploads import Uploaded


def connect(address: str, *, retry: Retry | None = None) -> "AsyncClient":
    """A client of the server at "host:port"; call it where an event loop runs.

    The connection is made with the first call. Use it with `async with`, or `close` it:

        async with gw.aio.connect("localhost:50051") as client:
            f = client.function(lambda x: np.sin(x), gw.spec(3))
            print(await f.jacobian(np.ones(3)))
    """
    return AsyncClient(Connection(address, retry or Retry()))


class AsyncClient:
    """Functions on one server; made by `connect`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._connection.address

    async def close(self) -> None:
        """Cancel what is running and give the connection up."""
        await self._connection.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until the server's workers serve.

        A server answers while they are still starting: small work at once, large work slowly. Wait for them
        before something large, or before measuring. Raises `DeadlineError` after `timeout` seconds.
        """
        await self._connection.wait_ready(Deadline(timeout))

    def function(
        self, source: Source, *specs: ArraySpec | wire.Array, names: Sequence[str] | None = None
    ) -> AsyncFunction:
        """A function from NumPy code, an ONNX model (object, bytes, path or text) or a framework's object.

        `specs` are the shapes and dtypes of a Python function's arguments (`gw.spec((2, 3))`, or arrays like
        them) and `names` what to call them. Nothing is sent before the function is used.

        Arrays that a function closes over are taken as they are now: later changes to them do not count.
        Those of 1 MiB or more are copied for that, and sent once to a server that does not hold them.
        """
        model = load(source, specs, names)
        return AsyncFunction(self._connection, model, FunctionSpec(model.graph_id, model.signature))

    async def put(
        self, array: npt.ArrayLike, dtype: npt.DTypeLike | None = None, *, timeout: float | None = None
    ) -> Uploaded:
        """Send an array once, to refer to it many times: a batch that accumulators go over again.

        The server keeps it until it needs the room for others. Raises `LimitError` for one that is too large.
        """
        values = wire.wire_array(np.asarray(array, dtype))
        tensor_id = await asyncio.to_thread(wire.tensor_id, values)
        await self._connection.upload(tensor_id, values, Deadline(timeout))
        return Uploaded(tensor_id, values)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator["FunctionStream"]:
        """One open stream for the evaluations of any number of functions.

        async with client.stream() as stream:
            f, g = stream.function(f), stream.function(g)
            await asyncio.gather(f(x), g.vjp(x, w))
        """
        async with CallStream(self._connection.stub, self._connection.address) as calls:
            yield FunctionStream(calls)

    # One-liners. The function is traced in every call, so that arrays it closes over are taken as they
    # are now; the server knows an unchanged graph by its id and compiles nothing again.

    def traced(self, fn: Source, args: tuple[Any, ...]) -> AsyncFunction:
        """The function that a one-liner differentiates, with the shapes of its arguments."""
        if not args:
            raise InvalidArgumentError("pass the point after the function: client.jacobian(fn, x)")
        return self.function(fn, *(spec_of(arg) for arg in args)) if callable(fn) else self.function(fn)

    async def jacobian(self, fn: Source, *args: Any, **options: Any) -> Any:
        """The Jacobian of `fn` at `args`; options as for `AsyncFunction.jacobian`."""
        return await self.traced(fn, args).jacobian(*args, **options)

    async def hessian(self, fn: Source, *args: Any, **options: Any) -> Any:
        """The Hessian of `fn` at `args`; options as for `AsyncFunction.hessian`."""
        return await self.traced(fn, args).hessian(*args, **options)

    async def grad(self, fn: Source, *args: Any, **options: Any) -> Any:
        """The gradient of `fn` at `args`; options as for `AsyncFunction.grad`."""
        return await self.traced(fn, args).grad(*args, **options)

    async def jvp(self, fn: Source, *args: Any, **options: Any) -> Any:
        """The Jacobian of `fn` at `args[:-1]` times the tangent `args[-1]`."""
        return await self.traced(fn, args[:-1]).jvp(*args, **options)

    async def vjp(self, fn: Source, *args: Any, **options: Any) -> Any:
        """The cotangent `args[-1]` times the Jacobian of `fn` at `args[:-1]`."""
        return await self.traced(fn, args[:-1]).vjp(*args, **options)

    async def hvp(self, fn: Source, *args: Any, **options: Any) -> Any:
        """The Hessian of `fn` at `args[:-1]` times the tangent `args[-1]`."""
        return await self.traced(fn, args[:-1]).hvp(*args, **options)


class FunctionStream:
    """An open stream that functions can be evaluated over."""

    def __init__(self, calls: CallStream) -> None:
        self._calls = calls

    def function(self, function: AsyncFunction) -> AsyncFunction:
        """The same function with its evaluations sent over this stream."""
        return function.over(self._calls.evaluate)
