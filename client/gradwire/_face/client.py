"""The asynchronous client."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt

import gradwire_wire as wire
from gradwire._face.function import AsyncFunction
from gradwire._face.options import GradientOptions, HessianOptions, JacobianOptions, ProductOptions
from gradwire.errors import InvalidArgumentError
from gradwire.frontends.sources import Source, load, specs_like
from gradwire.graphs.signature import FunctionSpec
from gradwire.transport.connection import Connection
from gradwire.transport.retry import Deadline, Retry
from gradwire.transport.stream import CallStream
from gradwire.transport.uploads import Uploaded


def connect(address: str, *, retry: Retry | None = None) -> "AsyncClient":
    """Returns a client of the server at "host:port"; call it where an event loop runs.

    It connects with the first call. Use it with `async with`, or `close` it:

        async with gw.aio.connect("localhost:50051") as client:
            f = client.function(lambda x: np.sin(x), gw.spec(3))
            print(await f.jacobian(np.ones(3)))
    """
    return AsyncClient(Connection(address, retry or Retry()))


class AsyncClient:
    """A client of one server; made by `connect`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def address(self) -> str:
        """The server's address."""
        return self._connection.address

    async def close(self) -> None:
        """Cancels running calls and closes the connection."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Waits until the server's workers serve.

        A server answers while they are still starting: small work at once, large work slowly. Wait for them
        before large work or measurements. Raises `DeadlineError` after `timeout` seconds.
        """
        await self._connection.wait_ready(Deadline(timeout))

    def function(self, source: Source, *specs: Any, names: Sequence[str] | None = None) -> AsyncFunction:
        """Makes a function of NumPy code, an ONNX model or a framework's object.

            f = client.function(lambda w, x: np.tanh(w @ x), gw.spec((4, 3)), gw.spec(3))
            g = client.function("model.onnx")

        Nothing is sent before the function is used. Arrays that a function closes over are taken as they are
        now: later changes to them do not count. Those of 1 MiB or more are copied for that, and uploaded once
        to a server that does not hold them.

        Args:
            source: a Python function, an ONNX model (object, bytes, path or text), or an object of PyTorch,
                JAX or scikit-learn.
            *specs: shapes and dtypes of a Python function's arguments: `gw.spec((2, 3))`, arrays, or dicts,
                tuples, lists, named tuples and dataclasses of them, nested as the arguments are.
            names: names of the inputs; those of the function's parameters by default.

        Raises:
            TraceError: the function cannot be traced.
            InvalidArgumentError: the source is no model, or the specs do not fit it.
            OSError: the file cannot be read.
        """
        model = load(source, specs, names)
        return AsyncFunction(self._connection, model, FunctionSpec(model.graph_id, model.signature))

    async def put(
        self, array: npt.ArrayLike, dtype: npt.DTypeLike | None = None, *, timeout: float | None = None
    ) -> Uploaded:
        """Uploads an array once, to refer to it many times, such as a batch that is accumulated repeatedly.

        The server keeps it until it needs the memory for others. Raises `LimitError` if it is too large.
        """
        values = wire.wire_array(np.asarray(array, dtype))
        tensor_id = await asyncio.to_thread(wire.tensor_id, values)
        await self._connection.upload(tensor_id, values, Deadline(timeout))
        return Uploaded(tensor_id, values)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator["FunctionStream"]:
        """Opens a stream for the evaluations of any number of functions.

        For example:

            async with client.stream() as stream:
                f, g = stream.function(f), stream.function(g)
                await asyncio.gather(f(x), g.vjp(x, w))
        """
        async with CallStream(self._connection.stub, self._connection.address) as calls:
            yield FunctionStream(calls)

    # One-liners. The function is traced in every call, so that arrays it closes over are taken as they
    # are now; the server knows an unchanged graph by its id and compiles nothing again.

    async def jacobian(self, fn: Source, *args: Any, **options: Unpack[JacobianOptions]) -> Any:
        """Computes the Jacobian of `fn` at `args`; options as for `AsyncFunction.jacobian`.

        For example:

            await client.jacobian(lambda x: np.log(x), np.array([1.0, 2.0]))
        """
        return await self.function(fn, *specs_at(fn, args)).jacobian(*args, **options)

    async def hessian(self, fn: Source, *args: Any, **options: Unpack[HessianOptions]) -> Any:
        """Computes the Hessian of `fn` at `args`; options as for `AsyncFunction.hessian`."""
        return await self.function(fn, *specs_at(fn, args)).hessian(*args, **options)

    async def grad(self, fn: Source, *args: Any, **options: Unpack[GradientOptions]) -> Any:
        """Computes the gradient of `fn` at `args`; options as for `AsyncFunction.grad`."""
        return await self.function(fn, *specs_at(fn, args)).grad(*args, **options)

    async def jvp(self, fn: Source, *args: Any, **options: Unpack[ProductOptions]) -> Any:
        """Multiplies the Jacobian of `fn` at `args[:-1]` by the tangent `args[-1]`."""
        return await self.function(fn, *specs_at(fn, args[:-1])).jvp(*args, **options)

    async def vjp(self, fn: Source, *args: Any, **options: Unpack[ProductOptions]) -> Any:
        """Multiplies the cotangent `args[-1]` by the Jacobian of `fn` at `args[:-1]`."""
        return await self.function(fn, *specs_at(fn, args[:-1])).vjp(*args, **options)

    async def hvp(self, fn: Source, *args: Any, **options: Unpack[GradientOptions]) -> Any:
        """Multiplies the Hessian of `fn` at `args[:-1]` by the tangent `args[-1]`."""
        return await self.function(fn, *specs_at(fn, args[:-1])).hvp(*args, **options)


class FunctionStream:
    """An open stream for the evaluations of functions; made by `AsyncClient.stream`."""

    def __init__(self, calls: CallStream) -> None:
        self._calls = calls

    def function(self, function: AsyncFunction) -> AsyncFunction:
        """Returns the same function with its evaluations sent over this stream."""
        return function.with_evaluator(self._calls.evaluate)


def specs_at(fn: Source, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the specs of a one-liner's function at a point; none for a model, which has its own.

    Raises:
        InvalidArgumentError: there is no point.
    """
    if not args:
        raise InvalidArgumentError("pass the point after the function: client.jacobian(fn, x)")
    return tuple(map(specs_like, args)) if callable(fn) else ()
