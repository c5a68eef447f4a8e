"""The asynchronous client."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn, Self, TypeGuard, Unpack

import numpy as np
import numpy.typing as npt

import gradwire_wire as wire
from gradwire._face.arguments import convert
from gradwire._face.differentiation import received_into
from gradwire._face.function import AsyncFunction
from gradwire._face.options import (
    GradientOptions,
    HessianOptions,
    JacobianOptions,
    ProductOptions,
    ProgressOption,
    Rounding,
)
from gradwire._face.pickling import CLIENT, refuse
from gradwire._face.verification import Verifier, Verify
from gradwire.errors import InvalidArgumentError
from gradwire.frontends.sources import Source, load, specs_like
from gradwire.graphs.files.choosing import choose
from gradwire.graphs.models import Model
from gradwire.graphs.signature import FunctionSpec, Transform
from gradwire.progress import ProgressReporter
from gradwire.transport.address import checked
from gradwire.transport.connection import Connection
from gradwire.transport.files import ResultFiles
from gradwire.transport.retry import Deadline, Retry
from gradwire.transport.security import PathLike, security
from gradwire.transport.server_info import ServerInfo
from gradwire.transport.stream import CallStream
from gradwire.transport.uploads import Referred, Uploaded
from gradwire_wire.choices import GraphChoices
from gradwire_wire.kinds import KIND_NAMES


def connect(
    address: str | Sequence[str] | None = None,
    *,
    token: str | None = None,
    tls: bool | None = None,
    ca: PathLike | None = None,
    cert: Sequence[PathLike] | None = None,
    retry: Retry | None = None,
    verify: Verify = "first",
) -> "AsyncClient":
    """Return a client of the server at "host:port"; call it where an event loop runs.

    It connects with the first call. Use it with `async with`, or `close` it:

        async with gw.aio.connect("localhost:50051") as client:
            f = client.function(lambda x: np.sin(x), gw.spec(3))
            print(await f.jacobian(np.ones(3)))

    Args:
        address: "host:port"; several of them, of which the first that answers is used; or another target of
            gRPC, such as "dns:///name:port" or "unix:/path". By default that in the environment variable
            `GRADWIRE_ADDRESS`.
        token: that the server asks for; by default that in `GRADWIRE_TOKEN`. It travels encrypted, or within
            this machine, unless `tls=False` says that something else encrypts the connection.
        tls: whether the connection is encrypted; by default if `ca` or `cert` is given.
        ca: a PEM file of the root of the server's certificate; by default the system's roots.
        cert: PEM files of this client's certificate and its key, where the server asks for one.
        retry: how calls are retried.
        verify: when traced functions are compared with the functions they came from, where
            `AsyncClient.function` is not told otherwise: "first", "always" or "never".

    Raises:
        InvalidArgumentError: the address is none, a file cannot be read, or the token would travel in plain
            text over a network.
    """
    where = checked(address)
    protection = security(where, token, tls, ca, cert)
    return AsyncClient(Connection(where, retry or Retry(), protection), Verifier(verify))


class AsyncClient:
    """A client of one server; made by `connect`."""

    def __init__(self, connection: Connection, verifier: Verifier) -> None:
        self._connection, self._verifier = connection, verifier
        # Asks the server for a graph and waits, where that can be done without a coroutine.
        self._ask: Callable[[str], Model] | None = None

    @property
    def address(self) -> str:
        """The server's address."""
        return self._connection.address

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.address}>"

    def __reduce__(self) -> NoReturn:
        refuse(self, CLIENT.format(address=self.address))

    async def close(self) -> None:
        """Cancel running calls and close the connection."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until the server's workers serve.

        A server answers while they are still starting: small work at once, large work slowly. Wait for them
        before large work or measurements. Raise `DeadlineError` after `timeout` seconds.
        """
        await self._connection.wait_ready(Deadline(timeout))

    async def server_info(self, timeout: float | None = 30.0) -> ServerInfo:
        """Return the server's versions, limits and workers.

        Raise `ServerError` with the code UNIMPLEMENTED for a server older than this question.
        """
        return await self._connection.server_info(Deadline(timeout))

    def function(
        self,
        source: Source,
        *specs: Any,
        names: Sequence[str] | None = None,
        fixed: Mapping[str, npt.ArrayLike] | None = None,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        rounding: Rounding | None = None,
        verify: Verify | None = None,
    ) -> AsyncFunction:
        """Make a function of NumPy code, an ONNX model or a framework's object.

            f = client.function(lambda w, x: np.tanh(w @ x), gw.spec((4, 3)), gw.spec(3))
            g = client.function("model.onnx")

        Nothing is sent before the function is used. Arrays that a function closes over are taken as they are
        now: later changes to them do not count. Those of 1 MiB or more are copied for that, and uploaded once
        to a server that does not hold them.

        Args:
            source: a Python function, an ONNX model (object, bytes, path or text), or an object of PyTorch,
                JAX or scikit-learn; the id of a graph that the server holds, as `registered` takes it.
            *specs: shapes and dtypes of a Python function's arguments: `gw.spec((2, 3))`, arrays, or dicts,
                tuples, lists, named tuples and dataclasses of them, nested as the arguments are.
            names: names of the inputs; those of the function's parameters by default.
            verify: when the graph of a Python function is compared with the function itself: "first", where
                it is first used at a point, "always" or "never"; what `connect` was given by default. A
                difference raises `TraceMismatchError` from the call that uses the function.
            fixed: values of a model's inputs that become constants, which may decide shapes and branches:
                `fixed={"sr": 16000}`.
            inputs: a model's values to be the inputs: its own, weights (initializers) and inner values; all
                that the outputs need.
            outputs: a model's values to be the outputs: its own and inner values.
            rounding: "straight_through" gives Round, Floor, Ceil and pairs of QuantizeLinear and
                DequantizeLinear the derivative of the identity; their own derivative is zero.

        Raises:
            TraceError: the function cannot be traced.
            InvalidArgumentError: the source is no model, or the specs do not fit it.
            OSError: the file cannot be read.
        """
        if is_graph_id(source):
            if specs or any(one is not None for one in (names, fixed, inputs, outputs, rounding)):
                raise InvalidArgumentError(
                    "a graph that the server holds is taken as it is: leave out specs, names= and choices, "
                    "or pass the model that it was registered from"
                )
            return self.of(self._asked(source))
        model = load(source, specs, names, whole=outputs is not None)
        if fixed is not None or inputs is not None or outputs is not None or rounding is not None:
            model = choose(model, choices_of(model, fixed, inputs, outputs, rounding))
        return self.of(model, verify=verify)

    async def registered(self, graph_id: str, *, timeout: float | None = None) -> AsyncFunction:
        """Return the function of a graph that the server holds, by its id: `f.graph_id` of another function.

        Large arrays that the other function closes over are inputs of it. Whoever registered the graph has
        its bytes: the server does not give them.

        Raises:
            NotFoundError: the server holds no such graph.
        """
        return self.of(await self.held(graph_id, timeout))

    async def resume(
        self,
        path: str | os.PathLike[str],
        *,
        progress: ProgressOption = False,
        timeout: float | None = None,
    ) -> Any:
        """Finish a derivative that was going to a file, `out="J.npy"`, when its process ended.

        What is needed lies beside the file, in `J.npy.gradwire`: only the blocks that are missing are
        computed, on this client's server, and the bits are the same.

        Args:
            path: the file; of several, the first.
            progress: a bar, or a function of `Progress`.
            timeout: seconds until the work is stopped with `DeadlineError`.

        Returns:
            The array in the file, or tuples of arrays, nested as `out` was.

        Raises:
            InvalidArgumentError: nothing is unfinished there.
        """
        files = ResultFiles.opened(path, Deadline(timeout))
        reporter = ProgressReporter(progress, KIND_NAMES[files.request.message.kind])
        await received_into(files, self._connection, reporter)
        return files.arranged()

    async def held(self, graph_id: str, timeout: float | None = None) -> Model:
        """Return a graph that the server holds."""
        return await self._connection.held(graph_id, Deadline(timeout))

    def _asked(self, graph_id: str) -> Model:
        if self._ask is None:
            raise InvalidArgumentError(
                f"{graph_id} is the id of a graph, which the server is asked for: write "
                "await client.registered(graph_id)"
            )
        return self._ask(graph_id)

    def of(
        self, model: Model, transforms: Sequence[Transform] = (), verify: Verify | None = None
    ) -> AsyncFunction:
        """Return a loaded graph as a function, with transforms applied."""
        spec = FunctionSpec(model.graph_id, model.signature)
        for transform in transforms:
            spec = spec.then(transform)
        return AsyncFunction(self._connection, model, spec, verification=self._verifier.of(model, verify))

    async def put(
        self, array: npt.ArrayLike, dtype: npt.DTypeLike | None = None, *, timeout: float | None = None
    ) -> Uploaded:
        """Upload an array once, to refer to it many times, such as a batch that is accumulated repeatedly.

        The server keeps it until it needs the memory for others. Raise `LimitError` if it is too large.
        """
        values = wire.wire_array(np.asarray(array, dtype))
        tensor_id = await asyncio.to_thread(wire.tensor_id, values)
        await self._connection.upload(tensor_id, values, Deadline(timeout))
        return Uploaded(tensor_id, values)

    async def forget(self, what: Referred | Uploaded, *, timeout: float | None = None) -> bool:
        """Delete a function's graph, with the large arrays that it closes over, or an array from the server.

        The server has no copy of it on disk any more, and answers no call that refers to it. Workers may keep
        it in memory until they need that for others. What is used again after this is sent again.

        Args:
            what: a function of this client, or what `put` returned.
            timeout: seconds that it may take.

        Returns:
            Whether the server held it.
        """
        deadline = Deadline(timeout)
        if isinstance(what, Uploaded):
            return await self._connection.delete_tensor(what.tensor_id, deadline)
        if not hasattr(what, "graph_id"):
            raise InvalidArgumentError(
                f"a server holds no {type(what).__name__}: give a function, or what put() returned"
            )
        for constant in what.constants.values():
            tensor_id = await asyncio.to_thread(wire.tensor_id, constant)
            await self._connection.delete_tensor(tensor_id, deadline)
        return await self._connection.delete_graph(what.graph_id, deadline)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator["FunctionStream"]:
        """Open a stream for the evaluations of any number of functions.

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
        """Compute the Jacobian of `fn` at `args`; options as for `AsyncFunction.jacobian`.

        For example:

            await client.jacobian(lambda x: np.log(x), np.array([1.0, 2.0]))
        """
        return await self.function(fn, *specs_at(fn, args)).jacobian(*args, **options)

    async def hessian(self, fn: Source, *args: Any, **options: Unpack[HessianOptions]) -> Any:
        """Compute the Hessian of `fn` at `args`; options as for `AsyncFunction.hessian`."""
        return await self.function(fn, *specs_at(fn, args)).hessian(*args, **options)

    async def grad(self, fn: Source, *args: Any, **options: Unpack[GradientOptions]) -> Any:
        """Compute the gradient of `fn` at `args`; options as for `AsyncFunction.grad`."""
        return await self.function(fn, *specs_at(fn, args)).grad(*args, **options)

    async def jvp(self, fn: Source, *args: Any, **options: Unpack[ProductOptions]) -> Any:
        """Multiply the Jacobian of `fn` at `args[:-1]` by the tangent `args[-1]`."""
        return await self.function(fn, *specs_at(fn, args[:-1])).jvp(*args, **options)

    async def vjp(self, fn: Source, *args: Any, **options: Unpack[ProductOptions]) -> Any:
        """Multiply the cotangent `args[-1]` by the Jacobian of `fn` at `args[:-1]`."""
        return await self.function(fn, *specs_at(fn, args[:-1])).vjp(*args, **options)

    async def hvp(self, fn: Source, *args: Any, **options: Unpack[GradientOptions]) -> Any:
        """Multiply the Hessian of `fn` at `args[:-1]` by the tangent `args[-1]`."""
        return await self.function(fn, *specs_at(fn, args[:-1])).hvp(*args, **options)


def is_graph_id(source: Any) -> TypeGuard[str]:
    """Return whether a source is the id of a graph: a SHA-256 in lower-case hexadecimal digits."""
    return isinstance(source, str) and re.fullmatch("[0-9a-f]{64}", source) is not None


def choices_of(
    model: Model,
    fixed: Mapping[str, npt.ArrayLike] | None,
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
    rounding: str | None,
) -> GraphChoices:
    """Return the choices that a function is made with, constants in the dtypes of their inputs.

    Raises:
        InvalidArgumentError: a list of names is empty or a string, a constant does not fit its input, or the
            model is traced, and has its own inputs and outputs.
    """
    for word, given in (("fixed", fixed), ("inputs", inputs), ("outputs", outputs)):
        if given is None:
            continue
        if model.again is not None:
            raise InvalidArgumentError(f"{word}= is for models: bind or select in the Python function itself")
        if not given or isinstance(given, str):
            raise InvalidArgumentError(f"{word}={given!r}: name at least one value, in a list or mapping")
    own = {value.name: value for value in model.signature.inputs}
    arrays = {}
    for name, value in (fixed or {}).items():
        if name not in own:
            raise InvalidArgumentError(
                f"fixed: there is no input {name!r}; the inputs are: {', '.join(own) or 'none'}"
            )
        arrays[name] = wire.wire_array(convert(own[name], value))
    return GraphChoices(arrays, tuple(inputs or ()), tuple(outputs or ()), rounding or "")


class FunctionStream:
    """An open stream for the evaluations of functions; made by `AsyncClient.stream`."""

    def __init__(self, calls: CallStream) -> None:
        self._calls = calls

    def function(self, function: AsyncFunction) -> AsyncFunction:
        """Return the same function with its evaluations sent over this stream."""
        return function.with_evaluator(self._calls.evaluate)


def specs_at(fn: Source, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the specs of a one-liner's function at a point; none for a model, which has its own.

    Raises:
        InvalidArgumentError: there is no point.
    """
    if not args:
        raise InvalidArgumentError("pass the point after the function: client.jacobian(fn, x)")
    return tuple(map(specs_like, args)) if callable(fn) else ()
