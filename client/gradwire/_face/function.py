"""The asynchronous function: evaluation, Jacobians and Hessians."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np

import gradwire_wire as wire
from gradwire._face.accumulation import AsyncAccumulator
from gradwire._face.arguments import bind, given_values
from gradwire._face.batches import Loss
from gradwire._face.evaluation import Arrays, Evaluable, one_output, unwrapped
from gradwire.errors import InvalidArgumentError
from gradwire.graphs.signature import Selection, Value, select, select_scalar
from gradwire.graphs.spec import ArraySpec
from gradwire.results import Block, Info, Plan, Progress, Reporter
from gradwire.transport.placement import Assembly, Fresh, flatten_out
from gradwire.transport.receiver import Order, Reception, public_block
from gradwire.transport.request import tensor_ids, tensors
from gradwire.transport.retry import Deadline
from gradwire_wire.kinds import KINDS, MODES
from gradwire_wire.v1 import derivative_pb2

ProgressWish = bool | Callable[[Progress], object]
"""False for silence, True for a bar, or a function that is called as data arrive."""

Sink = Callable[[Block], object]
"""Takes blocks as they arrive; the next one is read when it returns (or when what it returns is awaited)."""

Kind = Literal["jacobian", "hessian"]

_MODES = {"jacobian": ("forward", "reverse"), "hessian": ("forward_over_reverse", "forward_over_forward")}


class AsyncFunction(Evaluable):
    """A function on a server, with its values and derivatives as coroutines.

    Made by `AsyncClient.function`:

        async with gw.aio.connect("localhost:50051") as client:
            f = client.function(lambda x: np.sin(x), gw.spec(3))
            J = await f.jacobian(np.ones(3))

    Inputs are given by position, by name, or as one tuple or mapping (the way to reach an input that is
    called like an option). `wrt=` and `of=` choose inputs and outputs by name or position: one by itself, or
    the only one, gives a plain array; a sequence of them gives a tuple; the default is every floating one.
    """

    @overload
    async def jacobian(
        self, /, *args: Any, return_info: Literal[True], **options: Any
    ) -> tuple[Arrays, Info]: ...
    @overload
    async def jacobian(
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
    async def jacobian(
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
            sink: takes blocks as they arrive in place of an array; the result is None then.
            progress: a bar, or a function of `Progress`.
            timeout: seconds until the work is stopped with `DeadlineError`.
            return_info: give `(result, Info)`, with the plan and where the time went.
            **inputs: inputs by name.
        """
        order, deadline = await self._order(
            "jacobian", args, inputs, wrt, of, (mode, block_width, block_memory), timeout
        )
        result, info = await self._receive(order, deadline, out, sink, progress)
        if result is not None:
            per_output = _rows(result, len(order.request.wrt))
            result = unwrapped([unwrapped(row, wrt) for row in per_output], of)
        return (result, info) if return_info else result

    @overload
    async def hessian(
        self, /, *args: Any, return_info: Literal[True], **options: Any
    ) -> tuple[Arrays, Info]: ...
    @overload
    async def hessian(
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
    async def hessian(
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
        order, deadline = await self._order(
            "hessian", args, inputs, wrt, of, (mode, block_width, block_memory), timeout
        )
        result, info = await self._receive(order, deadline, out, sink, progress)
        if result is not None:
            rows = _rows(result, len(order.request.wrt))
            result = unwrapped([unwrapped(row, wrt) for row in rows], wrt)
        return (result, info) if return_info else result

    async def value_and_jacobian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        mode: str = "",
        block_width: int = 0,
        block_memory: int = 0,
        out: Any = None,
        progress: ProgressWish = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays]:
        """All outputs and the Jacobian of `of`, from one trip; the arguments are those of `jacobian`."""
        order, deadline = await self._order(
            "jacobian", args, inputs, wrt, of, (mode, block_width, block_memory), timeout, values=True
        )
        reception = await self._assemble(order, deadline, out, progress)
        rows = _rows(reception.arrays, len(order.request.wrt))
        return unwrapped(reception.values, None), unwrapped([unwrapped(row, wrt) for row in rows], of)

    async def value_and_hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        mode: str = "",
        block_width: int = 0,
        block_memory: int = 0,
        out: Any = None,
        progress: ProgressWish = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays]:
        """All outputs and the Hessian of `of`, from one trip; the arguments are those of `hessian`."""
        order, deadline = await self._order(
            "hessian", args, inputs, wrt, of, (mode, block_width, block_memory), timeout, values=True
        )
        reception = await self._assemble(order, deadline, out, progress)
        rows = _rows(reception.arrays, len(order.request.wrt))
        return unwrapped(reception.values, None), unwrapped([unwrapped(row, wrt) for row in rows], wrt)

    async def value_grad_and_hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        block_width: int = 0,
        block_memory: int = 0,
        out: Any = None,
        progress: ProgressWish = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays, Arrays]:
        """All outputs, and the gradient and the Hessian of `of`, from one trip.

        The Hessian is computed as the Jacobian of the gradient, which is what the function that is sent
        gives; the arguments are those of `hessian`, but for `mode`.
        """
        both = self.gradient(wrt, of, keep_values=True)
        count = len(both.signature.outputs) - len(self.signature.outputs)
        names = [value.name for value in both.signature.outputs[:count]]
        order, deadline = await both._order(
            "jacobian",
            args,
            inputs,
            select(self.signature.inputs, wrt, "input", "wrt"),
            names,
            ("", block_width, block_memory),
            timeout,
            values=True,
        )
        reception = await both._assemble(order, deadline, out, progress)
        rows = _rows(reception.arrays, count)
        return (
            unwrapped(reception.values[count:], None),
            unwrapped(reception.values[:count], wrt),
            unwrapped([unwrapped(row, wrt) for row in rows], wrt),
        )

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
    ) -> AsyncIterator[Block]:
        """The blocks of a Jacobian as they arrive, in order of completion; nothing is kept here."""
        options = (mode, block_width, block_memory)
        return self._blocks("jacobian", args, inputs, wrt, of, options, progress, timeout)

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
    ) -> AsyncIterator[Block]:
        """The blocks of a Hessian as they arrive, in order of completion; nothing is kept here."""
        options = (mode, block_width, block_memory)
        return self._blocks("hessian", args, inputs, wrt, of, options, progress, timeout)

    def accumulator(
        self,
        /,
        *params: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        reduction: Literal["sum", "mean"] = "sum",
        timeout: float | None = None,
        **inputs: Any,
    ) -> AsyncAccumulator:
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
        """
        shared = given_values(self.signature.inputs, params, inputs)
        loss = Loss(self._model, self._spec, tuple(shared), wrt, one_output(of), reduction)
        return AsyncAccumulator(self._connection, loss, loss.start(shared), wrt, timeout)

    async def plan(
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
        deadline = Deadline(timeout)
        own = self.signature.inputs
        if not args and not inputs:
            inputs = {value.name: ArraySpec(*_fixed(value)) for value in own}
        arrays = bind(own, tuple(map(_abstract, args)), {n: _abstract(one) for n, one in inputs.items()})
        chosen_wrt, chosen_of = self._choose(kind, wrt, of)
        request = derivative_pb2.PlanRequest(
            function=self._spec.proto,
            inputs={name: wire.tensor_type(array.dtype, array.shape) for name, array in arrays.items()}
            | self._constants,
            kind=KINDS[kind],
            wrt=chosen_wrt,
            of=chosen_of,
            options=_options(kind, mode, block_width, block_memory),
        ).SerializeToString()
        answer = await self._connection.call(
            self._model, {}, deadline, lambda remaining: self._connection.stub.plan(request, remaining)
        )
        return Plan.from_proto(derivative_pb2.PlanResponse.FromString(answer).plan)

    def _choose(self, kind: Kind, wrt: Selection, of: Selection) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if kind not in KINDS:
            raise InvalidArgumentError(f"kind is 'jacobian' or 'hessian', not {kind!r}")
        outputs = self.signature.outputs
        if kind == "hessian":
            chosen: tuple[str, ...] = (select_scalar(outputs, one_output(of)),)
        else:
            chosen = select(outputs, of, "output", "of")
        return select(self.signature.inputs, wrt, "input", "wrt"), chosen

    async def _order(
        self,
        kind: Kind,
        args: tuple[Any, ...],
        inputs: Mapping[str, Any],
        wrt: Selection,
        of: Selection,
        options: tuple[str, int, int],
        timeout: float | None,
        values: bool = False,
    ) -> tuple[Order, Deadline]:
        deadline = Deadline(timeout)
        arrays = bind(self.signature.inputs, args, inputs)
        chosen_wrt, chosen_of = self._choose(kind, wrt, of)
        ids = await tensor_ids(arrays)
        request = derivative_pb2.DifferentiateRequest(
            function=self._spec.proto,
            inputs=tensors(arrays, ids) | self._constants,
            kind=KINDS[kind],
            wrt=chosen_wrt,
            of=chosen_of,
            options=_options(kind, *options),
            values=values,
        )
        return Order(request, self._model, {ids[name]: arrays[name] for name in ids}), deadline

    async def _receive(
        self, order: Order, deadline: Deadline, out: Any, sink: Sink | None, progress: ProgressWish
    ) -> tuple[list[wire.Array] | None, Info]:
        if sink is not None:
            if out is not None:
                raise InvalidArgumentError("out= and sink= both say where blocks go: pass one of them")
            return None, await self._pour(order, deadline, sink, progress)
        reception = await self._assemble(order, deadline, out, progress)
        return reception.arrays, reception.info

    async def _assemble(
        self, order: Order, deadline: Deadline, out: Any, progress: ProgressWish
    ) -> Reception:
        given = flatten_out(out)
        reporter = Reporter(progress, _title(order))
        reception = Reception(
            self._connection, order, deadline, lambda plan: Assembly(plan, given), reporter, restart=True
        )
        await reception.run()
        return reception

    async def _pour(self, order: Order, deadline: Deadline, sink: Sink, progress: ProgressWish) -> Info:
        reception = Reception(
            self._connection, order, deadline, Fresh, Reporter(progress, _title(order)), restart=False
        )
        async for block in reception.blocks():
            taken = sink(public_block(block, reception.plan))
            if isinstance(taken, Awaitable):
                await taken
        return reception.info

    async def _blocks(
        self,
        kind: Kind,
        args: tuple[Any, ...],
        inputs: Mapping[str, Any],
        wrt: Selection,
        of: Selection,
        options: tuple[str, int, int],
        progress: ProgressWish,
        timeout: float | None,
    ) -> AsyncIterator[Block]:
        order, deadline = await self._order(kind, args, inputs, wrt, of, options, timeout)
        reception = Reception(
            self._connection, order, deadline, Fresh, Reporter(progress, _title(order)), restart=False
        )
        blocks = reception.blocks()
        try:
            async for block in blocks:
                yield public_block(block, reception.plan)
        finally:
            await blocks.aclose()


def _title(order: Order) -> str:
    return next(name for name, number in KINDS.items() if number == order.request.kind)


def _options(kind: Kind, mode: str, block_width: int, block_memory: int) -> derivative_pb2.PlanOptions:
    fitting = (
        ("forward", "reverse") if kind == "jacobian" else ("forward_over_reverse", "forward_over_forward")
    )
    if mode and mode not in fitting:
        raise InvalidArgumentError(f"mode of a {kind} is {fitting[0]!r} or {fitting[1]!r}, not {mode!r}")
    for name, value in (("block_width", block_width), ("block_memory", block_memory)):
        if value < 0:
            raise InvalidArgumentError(f"{name} is positive, or 0 to leave it to the server, not {value}")
    return derivative_pb2.PlanOptions(
        mode=MODES[mode],
        block_memory_bytes=block_memory,
        block_width=block_width,
    )


def _rows(entries: Sequence[wire.Array], columns: int) -> list[Sequence[wire.Array]]:
    return [entries[start : start + columns] for start in range(0, len(entries), columns)]


def _abstract(given: Any) -> Any:
    """An array without memory for a spec; anything else as it is."""
    if isinstance(given, ArraySpec):
        return np.broadcast_to(np.empty((), given.dtype), given.shape)
    if isinstance(given, tuple):
        return tuple(map(_abstract, given))
    if isinstance(given, Mapping):
        return {name: _abstract(one) for name, one in given.items()}
    return given


def _fixed(value: Value) -> tuple[tuple[int, ...], np.dtype[Any]]:
    shape = tuple(extent for extent in value.shape or () if isinstance(extent, int))
    if value.shape is None or value.dtype is None or len(shape) != len(value.shape):
        raise InvalidArgumentError(f"the shape of input {value} is open: pass an array or gw.spec(...)")
    return shape, value.dtype
