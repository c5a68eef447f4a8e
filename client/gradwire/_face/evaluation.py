"""Functions on a server: transforms, and evaluation at a point."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, Self

import onnx

import gradwire_wire as wire
from gradwire._face.arguments import batched_names, bind, check_extents, vectors
from gradwire._face.flat import FlatFunction
from gradwire._face.pickling import FUNCTION, refuse
from gradwire._face.structures import Choice, chosen_inputs, chosen_outputs, given_leaves, unwrapped
from gradwire._face.verification import Verification
from gradwire.errors import InvalidArgumentError, LimitError
from gradwire.graphs.models import Model
from gradwire.graphs.signature import (
    FunctionSpec,
    Selection,
    Signature,
    Transform,
    is_single,
    normalized,
    select,
    select_scalar,
)
from gradwire.graphs.trees import unflatten
from gradwire.transport.connection import Connection, GraphInfo
from gradwire.transport.request import Templates, constants_by_id, tensor_ids
from gradwire.transport.retry import Deadline
from gradwire.transport.stream import CallStream, Evaluator
from gradwire_wire.outputs import output_arrays
from gradwire_wire.v1 import function_pb2

Arrays = Any
"""An array, or tuples of arrays where several inputs or outputs were asked for."""

# Larger results are asked for over a stream, without an attempt at a single message.
_ONE_MESSAGE_BYTES = 1 << 20


class BaseFunction:
    """A graph on a server with the transforms applied to it, and all that takes a single evaluation.

    Derivatives that are computed in blocks are in `AsyncFunction`, which also says how inputs are given.
    """

    def __init__(
        self,
        connection: Connection,
        model: Model,
        spec: FunctionSpec,
        evaluator: Evaluator | None = None,
        verification: Verification | None = None,
    ) -> None:
        self._connection, self._model, self._spec = connection, model, spec
        self._evaluator, self._verification = evaluator, verification
        self._constants = constants_by_id(model.bound)
        self._templates = Templates(spec, self._constants)
        self._derived: dict[object, Self] = {}
        self._structure = None if model.structure is None or model.structure.is_flat else model.structure

    @property
    def signature(self) -> Signature:
        """The inputs and outputs of this function, with its transforms applied."""
        return self._spec.signature

    @property
    def graph_id(self) -> str:
        """The id of the graph under the transforms."""
        return self._spec.graph_id

    @property
    def model(self) -> onnx.ModelProto:
        """The graph under the transforms as an ONNX model, with all constants in it.

        Raises `TraceError` if it would be larger than a model may be, 2 GiB.
        """
        return self._model.embedded()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the function to an ONNX file, with all constants in it; `client.function(path)` reads it.

        Raises:
            InvalidArgumentError: it is a derivative, which ONNX has no form for.
            TraceError: the model would be larger than 2 GiB.
            OSError: the file cannot be written.
        """
        if self.transforms:
            steps = ", ".join(step.kind for step in self.transforms)
            raise InvalidArgumentError(
                f"a derivative ({steps}) has no form in ONNX: save the function that it is taken of, or "
                "pickle this one"
            )
        Path(path).write_bytes(self.model.SerializeToString())

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The transforms that are applied to the graph, first to last."""
        return self._spec.transforms

    @property
    def constants(self) -> Mapping[str, wire.Array]:
        """The large arrays that the function closes over, as they were when it was traced.

        They are not part of the graph: each is uploaded once, if the server does not hold it already.
        """
        return {name: constant.array for name, constant in self._model.bound.items()}

    def __repr__(self) -> str:
        steps = "".join(f" | {step.kind}" for step in self._spec.transforms)
        held = ", ".join(f"{name}: {constant}" for name, constant in self._model.bound.items())
        over = f" over {held}" if held else ""
        return f"<{type(self).__name__} {self.graph_id[:12]}{steps} {self.signature}{over}>"

    def __reduce__(self) -> NoReturn:
        refuse(self, FUNCTION.format(address=self._connection.address))

    def _repr_html_(self) -> str:
        steps = "".join(f" | {step.kind}" for step in self._spec.transforms)
        notes = [f"over {name}: {constant}" for name, constant in self._model.bound.items()]
        return self.signature.html(f"{type(self).__name__} {self.graph_id[:12]}{steps}", notes)

    async def describe(self) -> GraphInfo:
        """Return what the server reports about the graph: warnings, size, possible modes.

        For a traced function, also what was compared with the function that it was traced from.
        """
        info = await self._connection.register(self._model, Deadline(None))
        return replace(info, verified=str(self._verification or ""))

    # Transforms: each returns a function with another signature.

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
        return self._then("gradient", wrt, of, keep_values)

    def as_jvp(self, wrt: Selection = None, of: Selection = None, *, keep_values: bool = False) -> Self:
        """Return the function from the inputs and tangents ("x.tangent") to the tangents of the outputs.

        The arguments and errors are those of `gradient`, but `of` may be several outputs of any size.
        """
        return self._then("jvp", wrt, of, keep_values)

    def as_vjp(self, wrt: Selection = None, of: Selection = None, *, keep_values: bool = False) -> Self:
        """Return the function from inputs and cotangents ("y.cotangent") to cotangents of the inputs.

        The arguments and errors are those of `gradient`, but `of` may be several outputs of any size.
        """
        return self._then("vjp", wrt, of, keep_values)

    def as_hvp(
        self, wrt: Selection = None, of: str | int | None = None, *, keep_values: bool = False
    ) -> Self:
        """Return the function from the inputs and tangents to the Hessian of `of` times the tangents.

        The arguments and errors are those of `gradient`; tangents are named "x.tangent".
        """
        return self._then("hvp", wrt, of, keep_values)

    def _then(self, kind: str, wrt: Selection, of: Selection, keep_values: bool) -> Self:
        key = (kind, normalized(wrt, "wrt"), normalized(of, "of"), keep_values)
        found = self._derived.get(key)
        if found is None:
            inputs = select(self.signature.inputs, wrt, "input", "wrt")
            if kind in ("gradient", "hvp"):
                outputs: tuple[str, ...] = (select_scalar(self.signature.outputs, one_output(of)),)
            else:
                outputs = select(self.signature.outputs, of, "output", "of")
            spec = self._spec.then(Transform(kind, inputs, outputs, keep_values))
            found = type(self)(self._connection, self._model, spec, self._evaluator, self._verification)
            self._derived[key] = found
        return found

    # Nested arguments and results.

    def _bind(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, wire.Array]:
        """Return one array for each input of what callers pass, which may be nested."""
        if self._structure is not None:
            args, named = (self._leaves(args, named),), {}
        arrays = bind(self.signature.inputs, args, named)
        if self._model.structure is not None:  # it was traced
            check_extents(self.signature.inputs, arrays)
        return arrays

    def _leaves(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
        """Return what callers pass by the inputs' names, not converted yet."""
        return given_leaves(self._structure, self.signature.inputs, args, named)

    def _result(self, values: Sequence[Any]) -> Arrays:
        """Nest all outputs as the function returns them."""
        if self._structure is None or self._spec.transforms:
            return unwrapped(values, None)
        return unflatten(self._structure.result, values)

    def _columns(self, wrt: Selection) -> Choice:
        """Choose inputs, nested as arguments are."""
        return chosen_inputs(self._structure, self.signature.inputs, wrt)

    def _rows(self, of: Selection) -> Choice:
        """Choose outputs, nested as the result is."""
        structure = None if self._spec.transforms else self._structure
        return chosen_outputs(structure, self.signature.outputs, of)

    # Evaluation at a point.

    async def __call__(
        self, /, *args: Any, batched: Selection = None, timeout: float | None = None, **inputs: Any
    ) -> Arrays:
        """Evaluate the function: the same as `value`, with its arguments."""
        return await self.value(*args, batched=batched, timeout=timeout, **inputs)

    async def value(
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
        return self._result(await self._evaluate(self._bind(args, inputs), batched, timeout))

    async def jvp(
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
        columns, rows = self._columns(wrt), self._rows(of)
        product = self.as_jvp(columns.selection, rows.selection)
        return rows.arrange(await self._product("tangent", product, args, inputs, columns, batched, timeout))

    async def vjp(
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
        columns, rows = self._columns(wrt), self._rows(of)
        product = self.as_vjp(columns.selection, rows.selection)
        return columns.arrange(
            await self._product("cotangent", product, args, inputs, rows, batched, timeout)
        )

    async def hvp(
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
        columns = self._columns(wrt)
        product = self.as_hvp(columns.selection, self._scalar(of))
        return columns.arrange(
            await self._product("tangent", product, args, inputs, columns, batched, timeout)
        )

    async def grad(
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
        columns, arrays = self._columns(wrt), self._bind(args, inputs)
        gradient = self.gradient(columns.selection, self._scalar(of))
        return columns.arrange(await gradient._evaluate(arrays, batched, timeout))

    async def value_and_grad(
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
        columns = self._columns(wrt)
        both = self.gradient(columns.selection, self._scalar(of), keep_values=True)
        outputs = await both._evaluate(self._bind(args, inputs), batched, timeout)
        count = len(outputs) - len(self.signature.outputs)
        return self._result(outputs[count:]), columns.arrange(outputs[:count])

    def _scalar(self, of: str | int | None) -> str | int | None:
        """Chooses one output, which may be nested; None leaves it to the signature."""
        rows = self._rows(of) if of is not None else None
        if rows is None or rows.flatten is None:
            return of
        if not isinstance(rows.selection, list) or len(rows.selection) != 1:
            raise InvalidArgumentError(f"of={of!r} names several outputs; a gradient is of one number")
        return str(rows.selection[0])

    async def _product(
        self,
        word: str,
        product: "BaseFunction",
        args: tuple[Any, ...],
        inputs: Mapping[str, Any],
        chosen: Choice,
        batched: Selection,
        timeout: float | None,
    ) -> list[wire.Array]:
        if not args:
            raise InvalidArgumentError(f"the {word} is missing: pass it as the last positional argument")
        own = self.signature.inputs
        arrays = self._bind(args[:-1], inputs)
        targets = product.signature.inputs[len(own) :]
        if chosen.flatten is not None:
            arrays |= vectors(word, chosen.flatten(f"the {word}", args[-1]), targets, False)
        else:
            single = chosen.selection is None or is_single(chosen.selection)
            arrays |= vectors(word, args[-1], targets, single)
        return await product._evaluate(arrays, batched, timeout)

    async def _evaluate(
        self, arrays: dict[str, wire.Array], batched: Selection, timeout: float | None
    ) -> list[wire.Array]:
        deadline = Deadline(timeout)
        leading = batched_names(self.signature, batched)
        if self._verification is None or self._verification.settled:
            return await self._send(arrays, leading, deadline)
        async with self._beside(arrays, leading):
            return await self._send(arrays, leading, deadline)

    def _beside(
        self, arrays: Mapping[str, wire.Array], batched: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[None]:
        """Compare a traced function with the function it came from, while the block runs."""
        if self._verification is None or self._verification.settled:
            return nullcontext()
        return self._verification.beside(self._plain(self._model), arrays, batched)

    def _beside_of(self, model: Model, arrays: Mapping[str, wire.Array]) -> AbstractAsyncContextManager[None]:
        """Do what `_beside` does, for the same source traced for other shapes."""
        if self._verification is None or model is self._model:
            return self._beside(arrays)
        return self._verification.of(model).beside(self._plain(model), arrays)

    def _plain(self, model: Model) -> FlatFunction:
        return FlatFunction(
            type(self)(self._connection, model, FunctionSpec(model.graph_id, model.signature))
        )

    async def _send(
        self, arrays: dict[str, wire.Array], leading: tuple[str, ...], deadline: Deadline
    ) -> list[wire.Array]:
        ids = await tensor_ids(arrays, self._connection.sightings)
        template = self._templates.get(arrays, (), leading)
        send, one_message = self._transport(arrays, leading)

        async def attempt(remaining: float | None) -> list[wire.Array]:
            template.fill(arrays, ids)
            return await send(template.message, remaining)

        uploads = {ids[name]: arrays[name] for name in ids}
        try:
            return await self._connection.call(self._model, uploads, deadline, attempt)
        except LimitError as error:
            if error.limit != "message_bytes" or not one_message:
                raise
        send = self._over_a_stream
        return await self._connection.call(self._model, uploads, deadline, attempt)

    def _transport(
        self, arrays: Mapping[str, wire.Array], batched: tuple[str, ...]
    ) -> tuple[Evaluator, bool]:
        """Return how to send an evaluation, and whether its answer must fit into one message."""
        if self._evaluator is not None:
            return self._evaluator, False
        shapes = {name: a.shape[1:] if name in batched else a.shape for name, a in arrays.items()}
        size = self.signature.result_bytes(shapes)
        if size is not None and batched:
            size *= next(iter(arrays[batched[0]].shape), 1)
        if size is not None and size > _ONE_MESSAGE_BYTES:
            return self._over_a_stream, False
        return self._unary, True

    async def _unary(
        self, message: function_pb2.EvaluateStreamRequest, timeout: float | None
    ) -> list[wire.Array]:
        answer = await self._connection.stub.evaluate(message.evaluate.SerializeToString(), timeout)
        return output_arrays(function_pb2.EvaluateResponse.FromString(answer))

    async def _over_a_stream(
        self, message: function_pb2.EvaluateStreamRequest, timeout: float | None
    ) -> list[wire.Array]:
        async with CallStream(self._connection.stub, self._connection.address) as stream:
            return await stream.evaluate(message, timeout)

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[Self]:
        """Open a stream for the evaluations of this function: the fastest way to many small ones.

        For example:

            async with f.stream() as s:
                products = await asyncio.gather(*(s.vjp(x, w) for w in cotangents))
        """
        async with CallStream(self._connection.stub, self._connection.address) as calls:
            yield self.with_evaluator(calls.evaluate)

    def with_evaluator(self, evaluator: Evaluator) -> Self:
        """Return this function with its evaluations sent by `evaluator`."""
        return type(self)(self._connection, self._model, self._spec, evaluator, self._verification)


def one_output(selection: Selection) -> str | int | None:
    """Refuse a selection of several outputs."""
    if selection is None or is_single(selection):
        return selection
    raise InvalidArgumentError("of= names one output here, by name or position: a gradient is of one number")


def nested(arrays: Sequence[wire.Array], rows: Choice, columns: Choice, width: int) -> Arrays:
    """Nest the matrices of a result, given row by row, as they were asked for.

    Args:
        arrays: one for each pair, `width` to a row.
        rows: what was chosen for the rows: the `of=` of a Jacobian, the `wrt=` of a Hessian.
        columns: what was chosen by `wrt=`.
        width: how many inputs were chosen.
    """
    starts = range(0, len(arrays), width)
    return rows.arrange([columns.arrange(arrays[start : start + width]) for start in starts])
