# Generated from _face/evaluation.py, _face/preparation.py, _face/function.py
# by `python scripts/generate_sync.py`: do not edit.
"""The synchronous function."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self, overload

import onnx

import gradwire_wire as wire
from gradwire._face.evaluation import Arrays
from gradwire._face.options import HessianMode, JacobianMode, Kind, Mode, ProgressOption, Sink, SparseOption
from gradwire._sync.accumulator import Accumulator
from gradwire._sync.bases import FunctionBase
from gradwire._sync.bridge import in_thread
from gradwire._sync.prepared import Prepared
from gradwire.graphs.signature import Selection, Signature
from gradwire.results import Block, CheckReport, Info, Plan
from gradwire.sparse import SparsityPattern
from gradwire.transport.connection import GraphInfo


class Function(FunctionBase):
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

    @property
    def signature(self) -> Signature:
        """The inputs and outputs of this function, with its transforms applied."""
        return self._function.signature

    @property
    def graph_id(self) -> str:
        """The id of the graph under the transforms."""
        return self._function.graph_id

    @property
    def model(self) -> onnx.ModelProto:
        """The graph under the transforms as an ONNX model, with all constants in it.

        Raises `TraceError` if it would be larger than a model may be, 2 GiB.
        """
        return self._function.model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the function to an ONNX file, with all constants in it; `client.function(path)` reads it.

        Raises:
            InvalidArgumentError: it is a derivative, which ONNX has no form for.
            TraceError: the model would be larger than 2 GiB.
            OSError: the file cannot be written.
        """
        return self._function.save(path)

    @property
    def constants(self) -> Mapping[str, wire.Array]:
        """The large arrays that the function closes over, as they were when it was traced.

        They are not part of the graph: each is uploaded once, if the server does not hold it already.
        """
        return self._function.constants

    def describe(self) -> GraphInfo:
        """Return what the server reports about the graph: warnings, size, possible modes.

        For a traced function, also what was compared with the function that it was traced from.
        """
        return self._bridge.run(self._function.describe())

    def gradient(
        self, wrt: Selection = None, of: str | int | None = None, *, keep_values: bool = False
    ) -> Self:
        """Return the function from the inputs to the gradient of the one-element output `of`.

        Args:
            wrt: inputs to differentiate with respect to; all by default.
            of: the output to differentiate; may be left out where there is one.
            keep_values: give the function's own outputs, too, after the gradient.

        Raises:
            InvalidArgumentError: a name or position is unknown, or the output has more than one element.
        """
        return type(self)(self._function.gradient(wrt, of, keep_values=keep_values), self._bridge)

    def as_jvp(self, wrt: Selection = None, of: Selection = None, *, keep_values: bool = False) -> Self:
        """Return the function from the inputs and tangents ("x.tangent") to the tangents of the outputs.

        The arguments and errors are those of `gradient`, but `of` may be several outputs of any size.
        """
        return type(self)(self._function.as_jvp(wrt, of, keep_values=keep_values), self._bridge)

    def as_vjp(self, wrt: Selection = None, of: Selection = None, *, keep_values: bool = False) -> Self:
        """Return the function from inputs and cotangents ("y.cotangent") to cotangents of the inputs.

        The arguments and errors are those of `gradient`, but `of` may be several outputs of any size.
        """
        return type(self)(self._function.as_vjp(wrt, of, keep_values=keep_values), self._bridge)

    def as_hvp(
        self, wrt: Selection = None, of: str | int | None = None, *, keep_values: bool = False
    ) -> Self:
        """Return the function from the inputs and tangents to the Hessian of `of` times the tangents.

        The arguments and errors are those of `gradient`; tangents are named "x.tangent".
        """
        return type(self)(self._function.as_hvp(wrt, of, keep_values=keep_values), self._bridge)

    def __call__(
        self, /, *args: Any, batched: Selection = None, timeout: float | None = None, **inputs: Any
    ) -> Arrays:
        """Evaluate the function: the same as `value`, with its arguments."""
        return self.value(*args, batched=batched, timeout=timeout, **inputs)

    def value(
        self, /, *args: Any, batched: Selection = None, timeout: float | None = None, **inputs: Any
    ) -> Arrays:
        """Evaluate the function.

        Args:
            *args: the point.
            batched: inputs, by name or position, that have one more, leading axis; all outputs have it then.
            timeout: seconds until the work is stopped with `DeadlineError`.
            **inputs: inputs by name.

        Returns:
            The output, or a tuple of them where there are several.

        Raises:
            InvalidArgumentError: an input is missing, unknown, given twice, or of another dtype or shape.
            DeadlineError: the timeout is over.
        """
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
        """Multiply the Jacobian by a tangent (forward mode).

        Args:
            *args: the point, then the tangent, of the shape of the input, or a tuple of one for each `wrt`.
            wrt: inputs that have tangents.
            of: outputs whose tangents are returned.
            batched: inputs with one more, leading axis, as for `value`; a batch of tangents is named as
                the input "x.tangent".
            timeout: seconds until the work is stopped with `DeadlineError`.
            **inputs: inputs by name.

        Returns:
            The tangent of the output, or a tuple of them.
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
        """Multiply a cotangent by the Jacobian (reverse mode).

        The cotangent is the last positional argument, of the shape of the output, or a tuple of one for each
        `of`; a batch of cotangents is named as the input "y.cotangent". The result has the shape of the
        input. The other arguments are those of `jvp`.
        """
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
        """Multiply the Hessian of a one-element output by a tangent, the last positional argument.

        The arguments are those of `jvp`; the result has the shape of the input.
        """
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
        """Compute the gradient of a one-element output, of the shape of the input.

        Args:
            *args: the point.
            wrt: inputs to differentiate with respect to.
            of: the output to differentiate.
            batched: inputs with one more, leading axis, as for `value`.
            timeout: seconds until the work is stopped with `DeadlineError`.
            **inputs: inputs by name.
        """
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
        """Compute all outputs and the gradient of `of` in one evaluation, with the arguments of `grad`."""
        return self._bridge.run(
            self._function.value_and_grad(*args, wrt=wrt, of=of, batched=batched, timeout=timeout, **inputs)
        )

    def sparsity(
        self,
        /,
        *args: Any,
        kind: Kind = "jacobian",
        wrt: Selection = None,
        of: Selection = None,
        mode: Mode | None = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> SparsityPattern:
        """Find where a derivative may be non-zero, for inputs of these shapes and at every point.

        Inputs may be given as `gw.spec(...)`, and left out where the signature fixes them. The other
        arguments are those of `jacobian` or `hessian`, as `kind` says.
        """
        return self._bridge.run(
            self._function.sparsity(*args, kind=kind, wrt=wrt, of=of, mode=mode, timeout=timeout, **inputs)
        )

    def prepare_jacobian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        mode: JacobianMode | None = None,
        joined: bool = False,
        pattern: Any = None,
        verify_pattern: bool = True,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Prepared:
        """Fix pattern, coloring and kernels of a sparse Jacobian, for many points of the same shapes.

        Inputs may be given as `gw.spec(...)`, and left out where the signature fixes them. The other
        arguments are those of `jacobian`.

        Args:
            *args: the point, or its shapes.
            wrt, of, mode, joined, timeout: as of `jacobian`.
            pattern: a pattern of one's own, as `sparse=` of `jacobian` takes it; found if it is None.
            verify_pattern: compare it, at its first use, by a product with a random vector.
            **inputs: inputs by name.
        """
        return Prepared(
            self._bridge.run(
                self._function.prepare_jacobian(
                    *args,
                    wrt=wrt,
                    of=of,
                    mode=mode,
                    joined=joined,
                    pattern=pattern,
                    verify_pattern=verify_pattern,
                    timeout=timeout,
                    **inputs,
                )
            ),
            self._bridge,
        )

    def prepare_hessian(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        mode: HessianMode | None = None,
        joined: bool = False,
        triangle: bool = False,
        pattern: Any = None,
        verify_pattern: bool = True,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Prepared:
        """Fix pattern, coloring and kernels of a sparse Hessian.

        The arguments are those of `hessian` and of `prepare_jacobian`; one triangle of a pattern stands for
        both.
        """
        return Prepared(
            self._bridge.run(
                self._function.prepare_hessian(
                    *args,
                    wrt=wrt,
                    of=of,
                    mode=mode,
                    joined=joined,
                    triangle=triangle,
                    pattern=pattern,
                    verify_pattern=verify_pattern,
                    timeout=timeout,
                    **inputs,
                )
            ),
            self._bridge,
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

    def jacobian(
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
            sink: takes blocks as they arrive, in a thread, in place of an array; the result is None then.
            progress: a bar, or a function of `Progress`, called in the SDK's own thread.
            timeout: seconds until the work is stopped with `DeadlineError`.
            return_info: give `(result, Info)`, with the plan and where the time went.
            **inputs: inputs by name.

        Raises:
            InvalidArgumentError: an input, a name, an option or `out` does not fit.
            NotDifferentiableError: the derivative does not exist in this mode.
            DeadlineError: the timeout is over.
        """
        return self._bridge.run(
            self._function.jacobian(
                *args,
                wrt=wrt,
                of=of,
                mode=mode,
                block_width=block_width,
                block_memory=block_memory,
                sparse=sparse,
                joined=joined,
                batched=batched,
                out=out,
                sink=in_thread(sink),
                progress=progress,
                timeout=timeout,
                return_info=return_info,
                **inputs,
            )
        )

    @overload
    def hessian(self, /, *args: Any, return_info: Literal[True], **options: Any) -> tuple[Arrays, Info]: ...

    @overload
    def hessian(
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

    def hessian(
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
        return self._bridge.run(
            self._function.hessian(
                *args,
                wrt=wrt,
                of=of,
                mode=mode,
                block_width=block_width,
                block_memory=block_memory,
                sparse=sparse,
                joined=joined,
                batched=batched,
                triangle=triangle,
                out=out,
                sink=in_thread(sink),
                progress=progress,
                timeout=timeout,
                return_info=return_info,
                **inputs,
            )
        )

    def value_and_jacobian(
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

            scipy.optimize.root(f.value_and_jacobian, x0, jac=True)
        """
        return self._bridge.run(
            self._function.value_and_jacobian(
                *args,
                wrt=wrt,
                of=of,
                mode=mode,
                block_width=block_width,
                block_memory=block_memory,
                sparse=sparse,
                joined=joined,
                out=out,
                progress=progress,
                timeout=timeout,
                **inputs,
            )
        )

    def value_and_hessian(
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
        return self._bridge.run(
            self._function.value_and_hessian(
                *args,
                wrt=wrt,
                of=of,
                mode=mode,
                block_width=block_width,
                block_memory=block_memory,
                sparse=sparse,
                joined=joined,
                triangle=triangle,
                out=out,
                progress=progress,
                timeout=timeout,
                **inputs,
            )
        )

    def value_grad_and_hessian(
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
        return self._bridge.run(
            self._function.value_grad_and_hessian(
                *args,
                wrt=wrt,
                of=of,
                block_width=block_width,
                block_memory=block_memory,
                sparse=sparse,
                joined=joined,
                out=out,
                progress=progress,
                timeout=timeout,
                **inputs,
            )
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
    ) -> Iterator[Block]:
        """Iterate over the blocks of a Jacobian in the order in which they arrive; none is kept here.

        The options and the errors are those of `jacobian`. A slow reader holds the server's work back;
        closing the iterator ends it.
        """
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
        mode: HessianMode | None = None,
        block_width: int | None = None,
        block_memory: int | None = None,
        progress: ProgressOption = False,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Iterator[Block]:
        """Iterate over the blocks of a Hessian in the order in which they arrive; none is kept here.

        The options and the errors are those of `hessian`. A slow reader holds the server's work back;
        closing the iterator ends it.
        """
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

            with loss.accumulator(w=w) as acc:
                for x, y in batches:
                    acc.add(x, y)
                print(acc.value, acc.grad)
        """
        return Accumulator(
            self._function.accumulator(
                *params, wrt=wrt, of=of, reduction=reduction, timeout=timeout, **inputs
            ),
            self._bridge,
        )

    def plan(
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
        return self._bridge.run(
            self._function.plan(
                *args,
                kind=kind,
                wrt=wrt,
                of=of,
                mode=mode,
                block_width=block_width,
                block_memory=block_memory,
                sparse=sparse,
                triangle=triangle,
                batched=batched,
                timeout=timeout,
                **inputs,
            )
        )

    def check(self, /, *args: Any, timeout: float | None = None, **inputs: Any) -> CheckReport:
        """Check values and derivatives at a point, print what was compared, and return it.

        Values are compared with the Python function's, where there is one; J v with differences; J v with
        J'w; both modes of the Jacobian, where it has at most a million elements; the Hessian with its
        transpose. Directions are random. `timeout` is for each of some ten calls.

        Raises:
            CheckError: two of them differ by more than rounding.
        """
        return self._bridge.run(self._function.check(*args, timeout=timeout, **inputs))
