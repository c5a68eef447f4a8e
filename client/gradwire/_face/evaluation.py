"""Functions on a server: transforms, and evaluation at a point."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import gradwire_wire as wire
from gradwire._face.arguments import batched_names, bind, vectors
from gradwire._face.structures import (
    Choice,
    arguments_of,
    choose,
    named_leaves,
    result_of,
    unwrapped,
)
from gradwire.errors import InvalidArgumentError, LimitError
from gradwire.graphs.models import Model
from gradwire.graphs.signature import FunctionSpec, Selection, Signature, Transform, select, select_scalar
from gradwire.graphs.trees import unflatten
from gradwire.transport.connection import LARGE_BYTES, Connection, GraphInfo
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
        self, connection: Connection, model: Model, spec: FunctionSpec, evaluator: Evaluator | None = None
    ) -> None:
        self._connection, self._model, self._spec = connection, model, spec
        self._evaluator = evaluator
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
    def model(self) -> Model:
        """The graph under the transforms, as it is registered."""
        return self._model

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

    def _repr_html_(self) -> str:
        steps = "".join(f" | {step.kind}" for step in self._spec.transforms)
        notes = [f"over {name}: {constant}" for name, constant in self._model.bound.items()]
        return self.signature.html(f"{type(self).__name__} {self.graph_id[:12]}{steps}", notes)

    async def describe(self) -> GraphInfo:
        """Returns what the server reports about the graph: warnings, size, possible modes."""
        return await self._connection.register(self._model, Deadline(None))

    # Transforms: each returns a function with another signature.

    def gradient(
        self, wrt: Selection = None, of: str | int | None = None, *, keep_values: bool = False
    ) -> Self:
        """Returns the function from the inputs to the gradient of the one-element output `of`."""
        return self._then("gradient", wrt, of, keep_values)

    def as_jvp(self, wrt: Selection = None, of: Selection = None, *, keep_values: bool = False) -> Self:
        """Returns the function from the inputs and tangents ("x.tangent") to the tangents of the outputs."""
        return self._then("jvp", wrt, of, keep_values)

    def as_vjp(self, wrt: Selection = None, of: Selection = None, *, keep_values: bool = False) -> Self:
        """Returns the function from inputs and cotangents ("y.cotangent") to cotangents of the inputs."""
        return self._then("vjp", wrt, of, keep_values)

    def as_hvp(
        self, wrt: Selection = None, of: str | int | None = None, *, keep_values: bool = False
    ) -> Self:
        """Returns the function from the inputs and tangents to the Hessian of `of` times the tangents."""
        return self._then("hvp", wrt, of, keep_values)

    def _then(self, kind: str, wrt: Selection, of: Selection, keep_values: bool) -> Self:
        key = (kind, _hashable(wrt), _hashable(of), keep_values)
        found = self._derived.get(key)
        if found is None:
            inputs = select(self.signature.inputs, wrt, "input", "wrt")
            if kind in ("gradient", "hvp"):
                outputs: tuple[str, ...] = (select_scalar(self.signature.outputs, one_output(of)),)
            else:
                outputs = select(self.signature.outputs, of, "output", "of")
            spec = self._spec.then(Transform(kind, inputs, outputs, keep_values))
            found = type(self)(self._connection, self._model, spec, self._evaluator)
            self._derived[key] = found
        return found

    # Nested arguments and results.

    def _bind(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, wire.Array]:
        """Returns one array for each input of what callers pass, which may be nested."""
        structure = self._structure
        if structure is None or all(tree.is_leaf for _, tree in structure.arguments):
            return bind(self.signature.inputs, args, named)
        parts = arguments_of(structure)
        names = {value.name for value in self.signature.inputs}
        if len(args) == 1 and isinstance(args[0], Mapping) and set(args[0]) <= names:
            return bind(self.signature.inputs, args, named)
        own = args[: len(parts)]
        # Transforms have inputs of their own after the function's.
        further = self.signature.inputs[len(structure.inputs) :]
        given = named_leaves(parts, own if further else args, named)
        given |= {value.name: arg for value, arg in zip(further, args[len(parts) :], strict=False)}
        return bind(self.signature.inputs, (), given)

    def _result(self, values: Sequence[Any]) -> Arrays:
        """Nests all outputs as the function returns them."""
        if self._structure is None or self._spec.transforms:
            return unwrapped(values, None)
        return unflatten(self._structure.result, values)

    def _columns(self, wrt: Selection) -> Choice:
        """Chooses inputs, nested as arguments are."""
        structure = self._structure
        if structure is None or all(tree.is_leaf for _, tree in structure.arguments):
            return Choice(wrt, lambda values: unwrapped(values, wrt))
        return choose(arguments_of(structure), None, self.signature.inputs, wrt, "wrt")

    def _rows(self, of: Selection) -> Choice:
        """Chooses outputs, nested as the result is."""
        structure = self._structure
        if structure is None or structure.result.is_flat or self._spec.transforms:
            return Choice(of, lambda values: unwrapped(values, of))
        return choose(result_of(structure), structure.result, self.signature.outputs, of, "of")

    # Evaluation at a point.

    async def __call__(
        self, /, *args: Any, batched: Selection = None, timeout: float | None = None, **inputs: Any
    ) -> Arrays:
        """Evaluates the function; the same as `value`."""
        return await self.value(*args, batched=batched, timeout=timeout, **inputs)

    async def value(
        self, /, *args: Any, batched: Selection = None, timeout: float | None = None, **inputs: Any
    ) -> Arrays:
        """Evaluates the function.

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
        """Multiplies the Jacobian by a tangent (forward mode).

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
        """Multiplies a cotangent by the Jacobian (reverse mode).

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
        """Multiplies the Hessian of a one-element output by a tangent, the last positional argument.

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
        """Computes the gradient of a one-element output, of the shape of the input.

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
        """Computes all outputs and the gradient of `of` in one evaluation, with the arguments of `grad`."""
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
            single = chosen.selection is None or isinstance(chosen.selection, str | int)
            arrays |= vectors(word, args[-1], targets, single)
        return await product._evaluate(arrays, batched, timeout)

    async def _evaluate(
        self, arrays: dict[str, wire.Array], batched: Selection, timeout: float | None
    ) -> list[wire.Array]:
        deadline = Deadline(timeout)
        leading = batched_names(self.signature, batched)
        ids = await tensor_ids(arrays) if any(a.nbytes > LARGE_BYTES for a in arrays.values()) else {}
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
        """Returns how to send an evaluation, and whether its answer must fit into one message."""
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
        """Opens a stream for the evaluations of this function: the fastest way to many small ones.

        For example:

            async with f.stream() as s:
                products = await asyncio.gather(*(s.vjp(x, w) for w in cotangents))
        """
        async with CallStream(self._connection.stub, self._connection.address) as calls:
            yield self.with_evaluator(calls.evaluate)

    def with_evaluator(self, evaluator: Evaluator) -> Self:
        """Returns this function with its evaluations sent by `evaluator`."""
        return type(self)(self._connection, self._model, self._spec, evaluator)


def _hashable(selection: Selection) -> object:
    return selection if selection is None or isinstance(selection, str | int) else tuple(selection)


def one_output(selection: Selection) -> str | int | None:
    """Refuses a selection of several outputs."""
    if selection is None or isinstance(selection, str | int):
        return selection
    raise InvalidArgumentError("of= names one output here, by name or position: a gradient is of one number")
