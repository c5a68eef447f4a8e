"""The synchronous client."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

import gradwire_wire as wire
from gradwire._face.client import AsyncClient, FunctionStream
from gradwire._face.client import connect as connect_async
from gradwire._sync.bridge import Bridge, shared_bridge
from gradwire._sync.function import Function
from gradwire._sync.pipeline import Pipeline, opened
from gradwire.frontends.sources import Source
from gradwire.graphs.spec import ArraySpec
from gradwire.transport.retry import Retry
from gradwire.transport.uploads import Uploaded


def connect(address: str, *, retry: Retry | None = None) -> "Client":
    """A client of the server at "host:port".

    The connection is made with the first call. Use it with `with`, or `close` it:

        with gw.connect("localhost:50051") as client:
            f = client.function(lambda x: np.sin(x), gw.spec(3))
            print(f.jacobian(np.ones(3)))
    """
    bridge = shared_bridge()
    return Client(bridge.call(lambda: connect_async(address, retry=retry)), bridge)


class Client:
    """Functions on one server; made by `connect` or `local`. May be used from several threads."""

    def __init__(self, client: AsyncClient, bridge: Bridge) -> None:
        self._client, self._bridge = client, bridge

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._client.address

    def close(self) -> None:
        """Cancel what is running and give the connection up."""
        self._bridge.finish(self._client.close())

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until the server's workers serve.

        A server answers while they are still starting: small work at once, large work slowly. Wait for them
        before something large, or before measuring. Raises `DeadlineError` after `timeout` seconds.
        """
        self._bridge.run(self._client.wait_ready(timeout))

    def function(
        self, source: Source, *specs: ArraySpec | wire.Array, names: Sequence[str] | None = None
    ) -> Function:
        """A function from NumPy code, an ONNX model (object, bytes, path or text) or a framework's object.

        `specs` are the shapes and dtypes of a Python function's arguments (`gw.spec((2, 3))`, or arrays like
        them) and `names` what to call them. Nothing is sent before the function is used.

        Arrays that a function closes over are taken as they are now: later changes to them do not count.
        Those of 1 MiB or more are copied for that, and sent once to a server that does not hold them.

            f = client.function(lambda w, x: np.tanh(w @ x), gw.spec((4, 3)), gw.spec(3))
            g = client.function("model.onnx")
        """
        return Function(self._client.function(source, *specs, names=names), self._bridge)

    def put(
        self, array: npt.ArrayLike, dtype: npt.DTypeLike | None = None, *, timeout: float | None = None
    ) -> Uploaded:
        """Send an array once, to refer to it many times: a batch that accumulators go over again.

        The server keeps it until it needs the room for others. Raises `LimitError` for one that is too large.
        """
        return self._bridge.run(self._client.put(array, dtype, timeout=timeout))

    @contextmanager
    def stream(self) -> Iterator["Stream"]:
        """One open stream for the evaluations of any number of functions, as futures.

        with client.stream() as stream:
            answers = [stream.function(f).value(x), stream.function(g).vjp(x, w)]
            value, product = (answer.result() for answer in answers)
        """
        with opened(self._client.stream(), self._bridge) as stream:
            yield Stream(stream, self._bridge)

    # One-liners. The function is traced in every call, so that arrays it closes over are taken as they
    # are now; the server knows an unchanged graph by its id and compiles nothing again.

    def jacobian(self, fn: Source, *args: Any, **options: Any) -> Any:
        """The Jacobian of `fn` at `args`; options as for `Function.jacobian`.

        client.jacobian(lambda x: np.log(x), np.array([1.0, 2.0]))
        """
        return self._function(fn, args).jacobian(*args, **options)

    def hessian(self, fn: Source, *args: Any, **options: Any) -> Any:
        """The Hessian of `fn` at `args`; options as for `Function.hessian`."""
        return self._function(fn, args).hessian(*args, **options)

    def grad(self, fn: Source, *args: Any, **options: Any) -> Any:
        """The gradient of `fn` at `args`; options as for `Function.grad`."""
        return self._function(fn, args).grad(*args, **options)

    def jvp(self, fn: Source, *args: Any, **options: Any) -> Any:
        """The Jacobian of `fn` at `args[:-1]` times the tangent `args[-1]`."""
        return self._function(fn, args[:-1]).jvp(*args, **options)

    def vjp(self, fn: Source, *args: Any, **options: Any) -> Any:
        """The cotangent `args[-1]` times the Jacobian of `fn` at `args[:-1]`."""
        return self._function(fn, args[:-1]).vjp(*args, **options)

    def hvp(self, fn: Source, *args: Any, **options: Any) -> Any:
        """The Hessian of `fn` at `args[:-1]` times the tangent `args[-1]`."""
        return self._function(fn, args[:-1]).hvp(*args, **options)

    def _function(self, fn: Source, args: tuple[Any, ...]) -> Function:
        return Function(self._client.traced(fn, args), self._bridge)


class Stream:
    """An open stream that functions can be evaluated over."""

    def __init__(self, stream: FunctionStream, bridge: Bridge) -> None:
        self._stream, self._bridge = stream, bridge

    def function(self, function: Function) -> Pipeline:
        """The same function with its evaluations sent over this stream, as futures."""
        return Pipeline(self._stream.function(function.asynchronous), self._bridge)
