"""The synchronous function: every method runs its asynchronous namesake to the end."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, overload

import gradwire_wire as wire
from gradwire._face.evaluation import Arrays
from gradwire._face.function import AsyncFunction, Kind, ProgressWish, Sink
from gradwire._sync.accumulator import Accumulator
from gradwire._sync.bridge import Bridge, in_thread
from gradwire._sync.pipeline import Pipeline, opened
from gradwire._sync.together import Together
from gradwire.graphs.signature import Selection, Signature
from gradwire.results import Block, Info, Plan
from gradwire.transport.connection import GraphInfo


class Function(Together):
    """A function on a server, with its values and derivatives.

    Made by `Client.function`:

        with gw.connect("localhost:50051") as client:
            f = client.function(lambda x: np.sin(x), gw.spec(3))
            J = f.jacobian(np.ones(3))  # 3 x 3

    Inputs are given by position, by name, or as one tuple or mapping (the way to reach an input that is
    called like an option). `wrt=` and `of=` choose inputs and outputs by name or position: one by itself, or
    the only one, gives a plain array; a sequence of them gives a tuple; the default is every floating one.
    Everything takes `timeout=` in seconds, and Ctrl-C stops the work on the server too.
    """

    def __init__(self, function: AsyncFunction, bridge: Bridge) -> None:
        self._function, self._bridge = function, bridge

    @property
    def signature(self) -> Signature:
        """The inputs and outputs of this function, transforms included."""
        return self._function.signature

    @property
    def graph_id(self) -> str:
        """The id of the graph under the transforms."""
        return self._function.graph_id

    @property
    def constants(self) -> Mapping[str, wire.Array]:
        """The large arrays that the function closes over, as they were when it was traced.

        They are no part of the graph: each is sent once, when a server does not hold it already.
        """
        return self._function.constants

    @property
    def asynchronous(self) -> AsyncFunction:
        """The function whose coroutines this one runs, on the loop of the SDK's own thread."""
        return self._function

    def __repr__(self) -> str:
        return repr(self._function).replace("<Async", "<", 1)

    def _repr_html_(self) -> str:
        return self._function._repr_html_().replace("<b>Async", "<b>", 1)

    def describe(self) -> GraphInfo:
        """What the server says about the graph: warnings, size, whether reverse mode is possible."""
        return self._bridge.run(self._function.describe())

    @contextmanager
    def stream(self) -> Iterator[Pipeline]:
        """This function over one open stream, as futures: the quickest way to many small evaluations.

        with f.stream() as s:
            answers = [s.vjp(x, w) for w in cotangents]
            products = [answer.result() for answer in answers]
        """
        with opened(self._function.stream(), self._bridge) as function:
            yield Pipeline(function, self._bridge)

    def gradient(
        self, wrt: Selection = None, of: str | int | None = None, *, keep_values: bool = False
    ) -> "Function":
        """The function from the inputs to the derivative of the one-element output `of`."""
        return Function(self._function.gradient(wrt, of, keep_values=keep_values), self._bridge)

    def as_jvp(self, wrt: Selection = None, of: Selection = None, *, keep_values: bool = False) -> "Function":
        """The function from the inputs and tangents ("x.tangent") to the tangents of the outputs."""
        return Function(self._function.as_jvp(wrt, of, keep_values=keep_values), self._bridge)

    def as_vjp(self, wrt: Selection = None, of: Selection = None, *, keep_values: bool = False) -> "Function":
        """The function from the inputs and cotangents ("y.cotangent") to the cotangents of the inputs."""
        return Function(self._function.as_vjp(wrt, of, keep_values=keep_values), self._bridge)

    def as_hvp(
        self, wrt: Selection = None, of: str | int | None = None, *, keep_values: bool = False
    ) -> "Function":
        """The function from the inputs and tangents to the Hessian of `of` times the tangents."""
        return Function(self._function.as_hvp(wrt, of, keep_values=keep_values), self._bridge)

    def __call__(
        self,
        /,
        *args: Any,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Arrays:
        """The value; the same as `value`."""
        return self._bridge.run(self._function.value(*args, batched=batched, timeout=timeout, **inputs))

    def value(
        self,
        /,
        *args: Any,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Arrays:
        """The outputs. Inputs named in `batched` carry one more, leading axis, and so do all outputs then."""
        return self._bridge.run(self._function.value(*args, batched=batched, timeout=timeout, **inputs))

    def jvp(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Arrays:
        """The Jacobian times a tangent: the last positional argument, or a tuple of one for each `wrt`.

        A batch of tangents is one of the inputs to name in `batched` ("x.tangent").
        """
        return self._bridge.run(
            self._function.jvp(*args, wrt=wrt, of=of, batched=batched, timeout=timeout, **inputs)
        )

    def vjp(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Arrays:
        """A cotangent times the Jacobian: the last positional argument, or a tuple of one for each `of`."""
        return self._bridge.run(
            self._function.vjp(*args, wrt=wrt, of=of, batched=batched, timeout=timeout, **inputs)
        )

    def hvp(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Arrays:
        """The Hessian of a one-element output times a tangent, the last positional argument."""
        return self._bridge.run(
            self._function.hvp(*args, wrt=wrt, of=of, batched=batched, timeout=timeout, **inputs)
        )

    def grad(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Arrays:
        """The gradient of a one-element output."""
        return self._bridge.run(
            self._function.grad(*args, wrt=wrt, of=of, batched=batched, timeout=timeout, **inputs)
        )

    def value_and_grad(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays]:
        """All outputs and the gradient of `of`, from one evaluation."""
        return self._bridge.run(
            self._function.value_and_grad(*args, wrt=wrt, of=of, batched=batched, timeout=timeout, **inputs)
        )

    @overload
    def jacobian(self, /, *args: Any, return_info: Literal[True], **options: Any) -> tuple[Arrays, Info]: ...
    @overload
    def jacobian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        mode: str = "",
        block_width: int = 0,
        block_memory: int = 0,
        out: Any = None,
        sink: Sink | None = None,
        progress: ProgressWish = False,
        timeout: float | None = None,
        return_info: Literal[False] = False,
        **inputs: Any,
    ) -> Arrays: ...
    def jacobian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        mode: str = "",
        block_width: int = 0,
        block_memory: int = 0,
        out: Any = None,
        sink: Sink | None = None,
        progress: ProgressWish = False,
        timeout: float | None = None,
        return_info: bool = False,
        **inputs: Any,
    ) -> Arrays | tuple[Arrays, Info]:
        """First derivatives: an array of shape output.shape + input.shape for each output and input.

        Args:
            *args: the point.
            wrt: inputs to differentiate with respect to.
            of: outputs to differentiate.
            mode: "forward" or "reverse"; chosen by the server when empty.
            block_width: columns or rows computed together; chosen by the server when 0.
            block_memory: bytes that one block may take while it is computed; the server's default when 0.
            out: array (or nested tuple like the result) to fill, such as an `np.memmap`; returned.
            sink: takes blocks as they arrive, in a thread, in place of an array; the result is None then.
            progress: a bar, or a function of `Progress`, called in the SDK's own thread.
            timeout: seconds until the work is stopped with `DeadlineError`.
            return_info: give `(result, Info)`, with the plan and where the time went.
            **inputs: inputs by name.
        """
        call = self._function.jacobian(
            *args,
            wrt=wrt,
            of=of,
            mode=mode,
            block_width=block_width,
            block_memory=block_memory,
            out=out,
            progress=progress,
            timeout=timeout,
            sink=in_thread(sink),
            return_info=True,
            **inputs,
        )
        result, info = self._bridge.run(call)
        return (result, info) if return_info else result

    @overload
    def hessian(self, /, *args: Any, return_info: Literal[True], **options: Any) -> tuple[Arrays, Info]: ...
    @overload
    def hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        mode: str = "",
        block_width: int = 0,
        block_memory: int = 0,
        out: Any = None,
        sink: Sink | None = None,
        progress: ProgressWish = False,
        timeout: float | None = None,
        return_info: Literal[False] = False,
        **inputs: Any,
    ) -> Arrays: ...
    def hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        mode: str = "",
        block_width: int = 0,
        block_memory: int = 0,
        out: Any = None,
        sink: Sink | None = None,
        progress: ProgressWish = False,
        timeout: float | None = None,
        return_info: bool = False,
        **inputs: Any,
    ) -> Arrays | tuple[Arrays, Info]:
        """Second derivatives of a one-element output: an array of shape input.shape + input.shape.

        With several inputs, a tuple for each of them of arrays for each of them. `mode` is
        "forward_over_reverse" or "forward_over_forward"; the other arguments are those of `jacobian`.
        """
        call = self._function.hessian(
            *args,
            wrt=wrt,
            of=of,
            mode=mode,
            block_width=block_width,
            block_memory=block_memory,
            out=out,
            progress=progress,
            timeout=timeout,
            sink=in_thread(sink),
            return_info=True,
            **inputs,
        )
        result, info = self._bridge.run(call)
        return (result, info) if return_info else result

    def jacobian_blocks(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        mode: str = "",
        block_width: int = 0,
        block_memory: int = 0,
        progress: ProgressWish = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Iterator[Block]:
        """The blocks of a Jacobian as they arrive, in order of completion; nothing is kept here."""
        return self._bridge.iterate(
            self._function.jacobian_blocks(
                *args,
                wrt=wrt,
                of=of,
                mode=mode,
                block_width=block_width,
                block_memory=block_memory,
                progress=progress,
                timeout=timeout,
                **inputs,
            )
        )

    def hessian_blocks(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        mode: str = "",
        block_width: int = 0,
        block_memory: int = 0,
        progress: ProgressWish = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Iterator[Block]:
        """The blocks of a Hessian as they arrive, in order of completion; nothing is kept here."""
        return self._bridge.iterate(
            self._function.hessian_blocks(
                *args,
                wrt=wrt,
                of=of,
                mode=mode,
                block_width=block_width,
                block_memory=block_memory,
                progress=progress,
                timeout=timeout,
                **inputs,
            )
        )

    def accumulator(
        self,
        /,
        *params: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        reduction: Literal["sum", "mean"] = "sum",
        timeout: float | None = None,
        **inputs: Any,
    ) -> Accumulator:
        """The gradient of the loss over batches that never lie in one place.

        Args:
            *params: the inputs that all batches share, from the first on; the others come with the batches.
            wrt: those of them to differentiate with respect to.
            of: the output of one element that is the loss.
            reduction: "sum", for a loss that is a sum over its rows, or "mean", for one that is a mean over
                them: an average in which each batch counts by its rows.
            timeout: seconds that each call may take before the work is stopped with `DeadlineError`.
            **inputs: shared inputs by name.

        Nothing is sent before the first batch.

            with loss.accumulator(w=w) as acc:
                for x, y in batches:
                    acc.add(x, y)
                print(acc.value, acc.grad)
        """
        accumulator = self._function.accumulator(
            *params, wrt=wrt, of=of, reduction=reduction, timeout=timeout, **inputs
        )
        return Accumulator(accumulator, self._bridge)

    def plan(
        self,
        /,
        *args: Any,
        kind: Kind = "jacobian",
        wrt: Selection = None,
        of: Selection = None,
        mode: str = "",
        block_width: int = 0,
        block_memory: int = 0,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Plan:
        """How a derivative would be computed, without computing it.

        Only shapes matter: inputs may be given as `gw.spec(...)`, and left out where the signature fixes
        them.
        """
        return self._bridge.run(
            self._function.plan(
                *args,
                kind=kind,
                wrt=wrt,
                of=of,
                mode=mode,
                block_width=block_width,
                block_memory=block_memory,
                timeout=timeout,
                **inputs,
            )
        )
