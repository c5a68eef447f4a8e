"""What the synchronous classes have of their own: the rest of each is generated from its asynchronous class.

Tracing, reading files and preparing messages happen in the caller's thread; what waits runs on the bridge.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import gradwire_wire as wire
from gradwire._face.accumulation import AsyncAccumulator
from gradwire._face.batches import Batch, Start
from gradwire._face.client import AsyncClient, FunctionStream
from gradwire._face.evaluation import Arrays
from gradwire._face.function import AsyncFunction
from gradwire._face.options import FoundSparsity
from gradwire._face.pickling import CLIENT, FUNCTION, refuse
from gradwire._face.preparation import AsyncPrepared
from gradwire._sync.bridge import Bridge, entered
from gradwire._sync.callbacks import Callbacks, Prefetch
from gradwire._sync.pipeline import Pipeline
from gradwire.results import Accumulated

if TYPE_CHECKING:
    from gradwire._sync.function import Function


class PreparedBase:
    """The part of `Prepared` that is not generated: its representation."""

    def __init__(self, prepared: AsyncPrepared, bridge: Bridge) -> None:
        self._prepared, self._bridge = prepared, bridge

    def __repr__(self) -> str:
        return repr(self._prepared).replace("<Async", "<")


class FunctionBase:
    """The part of `Function` that is not generated: its representation, streams of futures, callbacks."""

    def __init__(self, function: AsyncFunction, bridge: Bridge) -> None:
        self._function, self._bridge = function, bridge

    @property
    def asynchronous(self) -> AsyncFunction:
        """The function whose coroutines this one runs, on the event loop of the SDK's own thread."""
        return self._function

    def __repr__(self) -> str:
        return repr(self._function).replace("<Async", "<", 1)

    def __reduce__(self) -> Any:
        """Pickle the graph, its constants and the server's address; it reconnects when it is used."""
        from gradwire._sync.remaking import parts_of, remade  # here: it makes functions, which stand on this

        return remade, parts_of(self._function)

    def _repr_html_(self) -> str:
        return self._function._repr_html_().replace("<b>Async", "<b>", 1)

    @contextmanager
    def stream(self) -> Iterator[Pipeline]:
        """Open a stream for evaluations of this function, as futures: the fastest way to many small ones.

        For example:

            with f.stream() as s:
                answers = [s.vjp(x, w) for w in cotangents]
                products = [answer.result() for answer in answers]
        """
        with entered(self._function.stream(), self._bridge) as function:
            yield Pipeline(function, self._bridge)

    def callbacks(
        self,
        wrt: str | int | None = None,
        of: str | int | None = None,
        *,
        along: Prefetch = "auto",
        sparse: FoundSparsity = False,
        timeout: float | None = None,
    ) -> Callbacks:
        """Return the functions that a numerical solver calls; one call to the server serves a point.

        For example:

            c = f.callbacks()
            scipy.optimize.minimize(c.value, x0, jac=c.grad, method="BFGS")
            scipy.optimize.least_squares(c.value, x0, jac=c.jacobian)

        Args:
            wrt: the input that the solver varies, by name or position; the first floating-point one by
                default. The others are what solvers call `args`.
            of: the output that the solver asks for; the first floating-point one by default.
            along: what is fetched with a value: "grad", "jacobian", "hessian" (with the gradient), "nothing",
                or what fits the output ("auto": the gradient of one number, the Jacobian of several).
            sparse: give Jacobians and Hessians as `scipy.sparse.csr_array`; "auto" where that takes
                less work.
            timeout: seconds until the work for one point is stopped with `DeadlineError`.

        Raises:
            InvalidArgumentError: `wrt`, `of`, `along` or `sparse` does not fit the function.
            ModuleNotFoundError: `sparse` is asked for without SciPy.
        """
        return Callbacks(self._function, self._bridge, wrt, of, along, sparse, timeout)


class AccumulatorBase:
    """The part of `Accumulator` that is not generated: messages are made here and sent on the bridge."""

    def __init__(self, accumulator: AsyncAccumulator, bridge: Bridge) -> None:
        self._accumulator, self._bridge = accumulator, bridge
        self._loss = accumulator._loss

    def __repr__(self) -> str:
        return repr(self._accumulator).replace("<Async", "<", 1)

    def __reduce__(self) -> NoReturn:
        refuse(self, FUNCTION.format(address=self._accumulator._connection.address))

    @property
    def grad(self) -> Arrays:
        """The gradient over all batches added so far: an array, or a tuple as `wrt` asked for it.

        Waits for the batches. Everything is kept, and more may be added.
        """
        return self._bridge.run(self._accumulator.read()).grad

    @property
    def value(self) -> wire.Array:
        """The loss over all batches added so far; waits for them."""
        result: Accumulated = self._bridge.run(self._accumulator.read())
        return result.value

    @property
    def _start(self) -> Start:
        return self._accumulator._start

    def _send(self, batch: Batch, timeout: float | None) -> None:
        self._bridge.run(self._accumulator._send(batch, timeout))

    def _restart(self, start: Start | None, timeout: float | None) -> None:
        self._bridge.run(self._accumulator._restart(start, timeout))


class ClientBase:
    """The part of `Client` that is not generated: its representation, streams of futures."""

    def __init__(self, client: AsyncClient, bridge: Bridge) -> None:
        self._client, self._bridge = client, bridge
        client._ask = lambda graph_id: bridge.run(client.held(graph_id))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._client.address}>"

    def __reduce__(self) -> NoReturn:
        refuse(self, CLIENT.format(address=self._client.address))

    def registered(self, graph_id: str, *, timeout: float | None = None) -> "Function":
        """Return the function of a graph that the server holds, by its id: `f.graph_id` of another function.

        Large arrays that the other function closes over are inputs of it. Whoever registered the graph has
        its bytes: the server does not give them. `client.function(graph_id)` is the same.

        Raises:
            NotFoundError: the server holds no such graph.
        """
        from gradwire._sync.function import Function  # here: it stands on this

        model = self._bridge.run(self._client.held(graph_id, timeout))
        return Function(self._client.of(model), self._bridge)

    @contextmanager
    def stream(self) -> Iterator["Stream"]:
        """Open a stream for the evaluations of any number of functions, as futures.

        For example:

            with client.stream() as stream:
                answers = [stream.function(f).value(x), stream.function(g).vjp(x, w)]
                value, product = (answer.result() for answer in answers)
        """
        with entered(self._client.stream(), self._bridge) as stream:
            yield Stream(stream, self._bridge)


class Stream:
    """An open stream for the evaluations of functions; made by `Client.stream`."""

    def __init__(self, stream: FunctionStream, bridge: Bridge) -> None:
        self._stream, self._bridge = stream, bridge

    def function(self, function: FunctionBase) -> Pipeline:
        """Return the same function with its evaluations sent over this stream, as futures."""
        return Pipeline(self._stream.function(function.asynchronous), self._bridge)
