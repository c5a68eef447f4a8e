"""The asynchronous function: evaluation, Jacobians and Hessians."""

from collections.abc import AsyncIterator
from typing import Any, Literal, overload

import gradwire_wire as wire
from gradwire._face.accumulation import AsyncAccumulator
from gradwire._face.arguments import batched_names, given_values
from gradwire._face.batches import Loss
from gradwire._face.checking import check
from gradwire._face.differentiation import results_of
from gradwire._face.evaluation import Arrays, one_output
from gradwire._face.flat import FlatFunction
from gradwire._face.options import (
    HessianMode,
    JacobianMode,
    Kind,
    Mode,
    Options,
    ProgressOption,
    Sink,
    SparseOption,
)
from gradwire._face.preparation import SparseFunction
from gradwire.graphs.signature import Selection, select
from gradwire.results import Block, CheckReport, Info, Plan
from gradwire.transport.retry import Deadline
from gradwire_wire.kinds import KINDS
from gradwire_wire.v1 import derivative_pb2


class AsyncFunction(SparseFunction):
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
        sparse: SparseOption = False,
        joined: bool = False,
        batched: Selection = None,
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
        sparse: SparseOption = False,
        joined: bool = False,
        batched: Selection = None,
        out: Any = None,
        sink: Sink | None = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        return_info: bool = False,
        **inputs: Any,
    ) -> Arrays:
        """Compute first derivatives: an array of shape output.shape + input.shape per output and input.

        Args:
            *args: the point.
            wrt: inputs to differentiate with respect to.
            of: outputs to differentiate.
            mode: "forward" or "reverse"; None leaves the choice to the server.
            block_width: columns or rows computed together; None leaves the choice to the server.
            block_memory: bytes that one block may take while it is computed; None for the server's default.
            sparse: True gives `scipy.sparse.csr_array`s of shape (output size, input size), computed by
                colors of columns or rows that share no entry; "auto" does so where it takes less work. The
                pattern is found for these shapes and holds at every point; or give one (`SparsityPattern`, a
                SciPy matrix, a boolean matrix, or rows and columns), which is checked at its first use.
            joined: give one sparse matrix, all outputs by all inputs, in place of one for each pair.
            batched: inputs with one more, leading axis: the derivatives of each sample, of shape
                (samples,) + output.shape + input.shape. Inputs that are not named are the same for all of
                them.
            out: array (or nested tuple like the result) to fill, such as an `np.memmap`; returned. Or a path
                (or nested tuple): the array is made in that file of NumPy's format, and `gw.resume` finishes
                it if this process ends before it is whole.
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
            sparse=sparse,
            joined=joined,
            batched=batched,
            out=out,
            sink=sink,
            progress=progress,
            timeout=timeout,
        )
        request = await self._request("jacobian", args, inputs, options)
        arrays, info = await self._receive(request, options)
        result = self._nested(arrays, rows, columns, request, options)
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
        sparse: SparseOption = False,
        joined: bool = False,
        batched: Selection = None,
        triangle: bool = False,
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
        sparse: SparseOption = False,
        joined: bool = False,
        batched: Selection = None,
        triangle: bool = False,
        out: Any = None,
        sink: Sink | None = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        return_info: bool = False,
        **inputs: Any,
    ) -> Arrays:
        """Compute second derivatives of a one-element output, of shape input.shape + input.shape.

        With several inputs, the result is a tuple for each of them of arrays for each of them. `mode` is
        "forward_over_reverse" or "forward_over_forward"; `triangle` leaves out what a sparse Hessian has
        above its diagonal; the other arguments and the errors are those of `jacobian`.
        """
        columns = self._columns(wrt)
        options = Options(
            wrt=columns.selection,
            of=self._scalar(of),
            mode=mode,
            block_width=block_width,
            block_memory=block_memory,
            sparse=sparse,
            joined=joined,
            batched=batched,
            triangle=triangle,
            out=out,
            sink=sink,
            progress=progress,
            timeout=timeout,
        )
        request = await self._request("hessian", args, inputs, options)
        arrays, info = await self._receive(request, options)
        result = self._nested(arrays, columns, columns, request, options)
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
        sparse: SparseOption = False,
        joined: bool = False,
        out: Any = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays]:
        """Compute all outputs and the Jacobian of `of`, in one call to the server.

        The arguments are those of `jacobian`.
        """
        columns, rows = self._columns(wrt), self._rows(of)
        options = Options(
            wrt=columns.selection,
            of=rows.selection,
            mode=mode,
            block_width=block_width,
            block_memory=block_memory,
            sparse=sparse,
            joined=joined,
            out=out,
            progress=progress,
            timeout=timeout,
        )
        request = await self._request("jacobian", args, inputs, options, values=True)
        received = await self._assemble(request, options)
        found = results_of(received, options)
        return self._result(received.values), self._nested(found, rows, columns, request, options)

    async def value_and_hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        mode: HessianMode | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        sparse: SparseOption = False,
        joined: bool = False,
        triangle: bool = False,
        out: Any = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays]:
        """Compute all outputs and the Hessian of `of`, in one call to the server.

        The arguments are those of `hessian`.
        """
        columns = self._columns(wrt)
        options = Options(
            wrt=columns.selection,
            of=self._scalar(of),
            mode=mode,
            block_width=block_width,
            block_memory=block_memory,
            sparse=sparse,
            joined=joined,
            triangle=triangle,
            out=out,
            progress=progress,
            timeout=timeout,
        )
        request = await self._request("hessian", args, inputs, options, values=True)
        received = await self._assemble(request, options)
        found = results_of(received, options)
        return self._result(received.values), self._nested(found, columns, columns, request, options)

    async def value_grad_and_hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        sparse: SparseOption = False,
        joined: bool = False,
        out: Any = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> tuple[Arrays, Arrays, Arrays]:
        """Compute all outputs, and the gradient and the Hessian of `of`: what a Newton step takes.

        One call to the server brings them. The Hessian is computed as the Jacobian of the gradient, which is
        what the function that is sent gives; a sparse one is colored as that of `hessian`. The arguments are
        those of `hessian`, but for `mode` and `triangle`.
        """
        columns = self._columns(wrt)
        both = self.gradient(columns.selection, self._scalar(of), keep_values=True)
        count = len(both.signature.outputs) - len(self.signature.outputs)
        options = Options(
            wrt=select(self.signature.inputs, columns.selection, "input", "wrt"),
            of=[value.name for value in both.signature.outputs[:count]],
            block_width=block_width,
            block_memory=block_memory,
            sparse=sparse,
            joined=joined,
            out=out,
            progress=progress,
            timeout=timeout,
        )
        request = await both._request("jacobian", args, inputs, options, values=True)
        received = await both._assemble(request, options)
        return (
            self._result(received.values[count:]),
            columns.arrange(received.values[:count]),
            self._nested(results_of(received, options), columns, columns, request, options),
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
        """Iterate over the blocks of a Jacobian in the order in which they arrive; none is kept here.

        The options and the errors are those of `jacobian`. A slow reader holds the server's work back;
        closing the iterator ends it.
        """
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
        """Iterate over the blocks of a Hessian in the order in which they arrive; none is kept here.

        The options and the errors are those of `hessian`. A slow reader holds the server's work back;
        closing the iterator ends it.
        """
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
        """Accumulate the gradient of the loss over batches that are never held together.

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
        return AsyncAccumulator(self._connection, loss, loss.start(shared), wrt, timeout, self._beside_of)

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
        sparse: SparseOption = False,
        triangle: bool = False,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Plan:
        """Plan a derivative without computing it: mode, blocks, memory and operations.

        Only shapes matter: inputs may be given as `gw.spec(...)`, and left out where the signature fixes
        them. The other arguments are those of `jacobian` or `hessian`, as `kind` says.
        """
        options = Options(
            wrt=wrt,
            of=of,
            mode=mode,
            block_width=block_width,
            block_memory=block_memory,
            sparse=sparse,
            triangle=triangle,
            batched=batched,
            timeout=timeout,
        )
        deadline = Deadline(timeout)
        arrays = self._abstract(args, inputs)
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
            batched=batched_names(self.signature, batched),
        ).SerializeToString()
        answer = await self._connection.call(
            self._model, {}, deadline, lambda remaining: self._connection.stub.plan(request, remaining)
        )
        plan = Plan.from_proto(derivative_pb2.PlanResponse.FromString(answer).plan, chosen_of)
        self._warn_of_dense(plan)
        return plan

    async def check(self, /, *args: Any, timeout: float | None = None, **inputs: Any) -> CheckReport:
        """Check values and derivatives at a point, print what was compared, and return it.

        Values are compared with the Python function's, where there is one; J v with differences; J v with
        J'w; both modes of the Jacobian, where it has at most a million elements; the Hessian with its
        transpose. Directions are random. `timeout` is for each of some ten calls.

        Raises:
            CheckError: two of them differ by more than rounding.
        """
        arrays = self._bind(args, inputs)
        reference = None if self._spec.transforms else self._model.reference
        unverified = type(self)(self._connection, self._model, self._spec, self._evaluator)
        return await check(FlatFunction(unverified, timeout), list(arrays.values()), reference)
