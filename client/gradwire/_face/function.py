"""The asynchronous function: evaluation, Jacobians and Hessians."""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, Literal, overload

import gradwire_wire as wire
from gradwire._face.accumulation import AsyncAccumulator
from gradwire._face.arguments import abstract, fixed_type, given_values
from gradwire._face.batches import Loss
from gradwire._face.evaluation import Arrays, BaseFunction, one_output
from gradwire._face.options import (
    HessianMode,
    JacobianMode,
    Kind,
    Mode,
    Options,
    ProgressOption,
    Sink,
)
from gradwire._face.structures import Choice
from gradwire.errors import InvalidArgumentError
from gradwire.graphs.signature import Selection, select, select_scalar
from gradwire.graphs.spec import ArraySpec
from gradwire.results import Block, Info, Plan, ProgressReporter
from gradwire.transport.placement import BlockBuffers, ResultArrays, flatten_out
from gradwire.transport.receiver import DerivativeReceiver, DerivativeRequest, public_block
from gradwire.transport.request import tensor_ids, tensors
from gradwire.transport.retry import Deadline
from gradwire_wire.kinds import KIND_NAMES, KINDS
from gradwire_wire.v1 import derivative_pb2


class AsyncFunction(BaseFunction):
    """A function on a server, with its values and derivatives as coroutines.

    Made by `AsyncClient.function`:

        async with gw.aio.connect("localhost:50051") as client:
            f = client.function(lambda x: np.sin(x), gw.spec(3))
            J = await f.jacobian(np.ones(3))  # 3 x 3

    Inputs are given by position, by name, or as one tuple or mapping (the way to reach an input that is
    called like an option). `wrt=` and `of=` choose inputs and outputs by name or position: one by itself, or
    the only one, gives a plain array; a sequence of them gives a tuple; the default is every floating one.
    Everything takes `timeout=` in seconds, and cancelling a call stops the work on the server too.
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
        mode: JacobianMode | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        out: Any = None,
        sink: Sink | None = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        return_info: bool = False,
        **inputs: Any,
    ) -> Arrays: ...
    async def jacobian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        mode: JacobianMode | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        out: Any = None,
        sink: Sink | None = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        return_info: bool = False,
        **inputs: Any,
    ) -> Arrays:
        """Computes first derivatives: an array of shape output.shape + input.shape per output and input.

        Args:
            *args: the point.
            wrt: inputs to differentiate with respect to.
            of: outputs to differentiate.
            mode: "forward" or "reverse"; None leaves the choice to the server.
            block_width: columns or rows computed together; None leaves the choice to the server.
            block_memory: bytes that one block may take while it is computed; None for the server's default.
            out: array (or nested tuple like the result) to fill, such as an `np.memmap`; returned.
            sink: takes blocks as they arrive in place of an array; the result is None then.
            progress: a bar, or a function of `Progress`.
            timeout: seconds until the work is stopped with `DeadlineError`.
            return_info: give `(result, Info)`, with the plan and where the time went.
            **inputs: inputs by name.

        Raises:
            InvalidArgumentError: an input, a name, an option or `out` does not fit.
            NotDifferentiableError: the derivative does not exist in this mode.
            DeadlineError: the timeout is over.
        """
        columns, rows = self._columns(wrt), self._rows(of)
        options = Options(
            wrt=columns.selection,
            of=rows.selection,
            mode=mode,
            block_width=block_width,
            block_memory=block_memory,
            out=out,
            sink=sink,
            progress=progress,
            timeout=timeout,
        )
        request = await self._request("jacobian", args, inputs, options)
        arrays, info = await self._receive(request, options)
        result = None if arrays is None else _nested(arrays, rows, columns, request)
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
        mode: HessianMode | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        out: Any = None,
        sink: Sink | None = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        return_info: bool = False,
        **inputs: Any,
    ) -> Arrays: ...
    async def hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        mode: HessianMode | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        out: Any = None,
        sink: Sink | None = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        return_info: bool = False,
        **inputs: Any,
    ) -> Arrays:
        """Computes second derivatives of a one-element output, of shape input.shape + input.shape.

        With several inputs, the result is a tuple for each of them of arrays for each of them. `mode` is
        "forward_over_reverse" or "forward_over_forward"; the other arguments and the errors are those of
        `jacobian`.
        """
        columns = self._columns(wrt)
        options = Options(
            wrt=columns.selection,
            of=self._scalar(of),
            mode=mode,
            block_width=block_width,
            block_memory=block_memory,
            out=out,
            sink=sink,
            progress=progress,
            timeout=timeout,
        )
        request = await self._request("hessian", args, inputs, options)
        arrays, info = await self._receive(request, options)
        result = None if arrays is None else _nested(arrays, columns, columns, request)
        return (result, info) if return_info else result

    async def value_and_jacobian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        mode: JacobianMode | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        out: Any = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays]:
        """Computes all outputs and the Jacobian of `of`, in one call to the server.

        The arguments are those of `jacobian`.
        """
        columns, rows = self._columns(wrt), self._rows(of)
        options = Options(
            wrt=columns.selection,
            of=rows.selection,
            mode=mode,
            block_width=block_width,
            block_memory=block_memory,
            out=out,
            progress=progress,
            timeout=timeout,
        )
        request = await self._request("jacobian", args, inputs, options, values=True)
        received = await self._assemble(request, options)
        return self._result(received.values), _nested(received.arrays, rows, columns, request)

    async def value_and_hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        mode: HessianMode | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        out: Any = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays]:
        """Computes all outputs and the Hessian of `of`, in one call to the server.

        The arguments are those of `hessian`.
        """
        columns = self._columns(wrt)
        options = Options(
            wrt=columns.selection,
            of=self._scalar(of),
            mode=mode,
            block_width=block_width,
            block_memory=block_memory,
            out=out,
            progress=progress,
            timeout=timeout,
        )
        request = await self._request("hessian", args, inputs, options, values=True)
        received = await self._assemble(request, options)
        return self._result(received.values), _nested(received.arrays, columns, columns, request)

    async def value_grad_and_hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        out: Any = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays, Arrays]:
        """Computes all outputs, and the gradient and the Hessian of `of`: what a Newton step takes.

        One call to the server brings them. The Hessian is computed as the Jacobian of the gradient, which is
        what the function that is sent gives; the arguments are those of `hessian`, but for `mode`.
        """
        columns = self._columns(wrt)
        both = self.gradient(columns.selection, self._scalar(of), keep_values=True)
        count = len(both.signature.outputs) - len(self.signature.outputs)
        options = Options(
            wrt=select(self.signature.inputs, columns.selection, "input", "wrt"),
            of=[value.name for value in both.signature.outputs[:count]],
            block_width=block_width,
            block_memory=block_memory,
            out=out,
            progress=progress,
            timeout=timeout,
        )
        request = await both._request("jacobian", args, inputs, options, values=True)
        received = await both._assemble(request, options)
        return (
            self._result(received.values[count:]),
            columns.arrange(received.values[:count]),
            _nested(received.arrays, columns, columns, request),
        )

    def jacobian_blocks(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        mode: JacobianMode | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> AsyncIterator[Block]:
        """Iterates over the blocks of a Jacobian in the order in which they arrive; none is kept here."""
        columns, rows = self._columns(wrt), self._rows(of)
        options = Options(
            wrt=columns.selection,
            of=rows.selection,
            mode=mode,
            block_width=block_width,
            block_memory=block_memory,
            progress=progress,
            timeout=timeout,
        )
        return self._blocks("jacobian", args, inputs, options)

    def hessian_blocks(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        mode: HessianMode | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> AsyncIterator[Block]:
        """Iterates over the blocks of a Hessian in the order in which they arrive; none is kept here."""
        columns = self._columns(wrt)
        options = Options(
            wrt=columns.selection,
            of=self._scalar(of),
            mode=mode,
            block_width=block_width,
            block_memory=block_memory,
            progress=progress,
            timeout=timeout,
        )
        return self._blocks("hessian", args, inputs, options)

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
        """Accumulates the gradient of the loss over batches that are never held together.

        Args:
            *params: the inputs that all batches share, from the first on; the others come with the batches.
            wrt: those of them to differentiate with respect to.
            of: the output of one element that is the loss.
            reduction: "sum", for a loss that is a sum over its rows, or "mean", for one that is a mean over
                them: an average in which each batch counts by its rows.
            timeout: seconds that each call may take before the work is stopped with `DeadlineError`.
            **inputs: shared inputs by name.

        Nothing is sent before the first batch.

            async with loss.accumulator(w=w) as acc:
                for x, y in batches:
                    await acc.add(x, y)
                print(await acc.value(), await acc.grad())
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
        mode: Mode | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Plan:
        """Plans a derivative without computing it: mode, blocks, memory and operations.

        Only shapes matter: inputs may be given as `gw.spec(...)`, and left out where the signature fixes
        them. The other arguments are those of `jacobian` or `hessian`, as `kind` says.
        """
        options = Options(
            wrt=wrt, of=of, mode=mode, block_width=block_width, block_memory=block_memory, timeout=timeout
        )
        deadline = Deadline(timeout)
        own = self.signature.inputs
        if not args and not inputs:
            inputs = {value.name: ArraySpec(*fixed_type(value)) for value in own}
        arrays = self._bind(tuple(map(abstract, args)), {n: abstract(one) for n, one in inputs.items()})
        rows = self._rows(of).selection if kind == "jacobian" else self._scalar(one_output(of))
        chosen_wrt, chosen_of = self._choose(kind, self._columns(wrt).selection, rows)
        request = derivative_pb2.PlanRequest(
            function=self._spec.proto,
            inputs={name: wire.tensor_type(array.dtype, array.shape) for name, array in arrays.items()}
            | self._constants,
            kind=KINDS[kind],
            wrt=chosen_wrt,
            of=chosen_of,
            options=options.plan_options(kind),
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

    async def _request(
        self,
        kind: Kind,
        args: tuple[Any, ...],
        inputs: Mapping[str, Any],
        options: Options,
        values: bool = False,
    ) -> DerivativeRequest:
        deadline = Deadline(options.timeout)
        arrays = self._bind(args, inputs)
        wrt, of = self._choose(kind, options.wrt, options.of)
        ids = await tensor_ids(arrays)
        message = derivative_pb2.DifferentiateRequest(
            function=self._spec.proto,
            inputs=tensors(arrays, ids) | self._constants,
            kind=KINDS[kind],
            wrt=wrt,
            of=of,
            options=options.plan_options(kind),
            values=values,
        )
        return DerivativeRequest(message, self._model, {ids[name]: arrays[name] for name in ids}, deadline)

    async def _receive(
        self, request: DerivativeRequest, options: Options
    ) -> tuple[list[wire.Array] | None, Info]:
        """Receives into arrays, or into the sink where there is one."""
        if options.sink is None:
            received = await self._assemble(request, options)
            return received.arrays, received.info
        receiver = self._block_receiver(request, options)
        async for block in receiver.blocks():
            taken = options.sink(public_block(block, receiver.plan))
            if isinstance(taken, Awaitable):
                await taken
        return None, receiver.info

    async def _assemble(self, request: DerivativeRequest, options: Options) -> DerivativeReceiver:
        given = flatten_out(options.out)
        reporter = _reporter(request, options)
        receiver = DerivativeReceiver(
            self._connection, request, lambda plan: ResultArrays(plan, given), reporter, restart=True
        )
        await receiver.run()
        return receiver

    def _block_receiver(self, request: DerivativeRequest, options: Options) -> DerivativeReceiver:
        reporter = _reporter(request, options)
        return DerivativeReceiver(self._connection, request, BlockBuffers, reporter, restart=False)

    async def _blocks(
        self, kind: Kind, args: tuple[Any, ...], inputs: Mapping[str, Any], options: Options
    ) -> AsyncIterator[Block]:
        request = await self._request(kind, args, inputs, options)
        receiver = self._block_receiver(request, options)
        blocks = receiver.blocks()
        try:
            async for block in blocks:
                yield public_block(block, receiver.plan)
        finally:
            await blocks.aclose()


def _reporter(request: DerivativeRequest, options: Options) -> ProgressReporter:
    return ProgressReporter(options.progress, KIND_NAMES[request.message.kind])


def _nested(
    arrays: Sequence[wire.Array], rows: Choice, columns: Choice, request: DerivativeRequest
) -> Arrays:
    """Nests the matrices of a result, given row by row, as `of=` and `wrt=` asked for them."""
    width = len(request.message.wrt)
    starts = range(0, len(arrays), width)
    return rows.arrange([columns.arrange(arrays[start : start + width]) for start in starts])
