"""Functions on a server: transforms, and evaluation at a point."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn, Self

import gradwire_wire as wire
from gradwire._face.arguments import batched_names, bind, vectors
from gradwire._face.pickling import FUNCTION, refuse
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

    def __reduce__(self) -> NoReturn:
        refuse(self, FUNCTION.format(address=self._connection.address))

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
        key = (kind, normalized(wrt, "wrt"), normalized(of, "of"), keep_values)
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
        arrays = bind(self.signature.inputs, args, inputs)
        return unwrapped(await self._evaluate(arrays, batched, timeout), None)

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
        outputs = await self._product("tangent", self.as_jvp(wrt, of), args, inputs, wrt, batched, timeout)
        return unwrapped(outputs, of)

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
        outputs = await self._product("cotangent", self.as_vjp(wrt, of), args, inputs, of, batched, timeout)
        return unwrapped(outputs, wrt)

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
        outputs = await self._product("tangent", self.as_hvp(wrt, of), args, inputs, wrt, batched, timeout)
        return unwrapped(outputs, wrt)

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
        arrays = bind(self.signature.inputs, args, inputs)
        return unwrapped(await self.gradient(wrt, of)._evaluate(arrays, batched, timeout), wrt)

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
        both = self.gradient(wrt, of, keep_values=True)
        outputs = await both._evaluate(bind(self.signature.inputs, args, inputs), batched, timeout)
        count = len(outputs) - len(self.signature.outputs)
        return unwrapped(outputs[count:], None), unwrapped(outputs[:count], wrt)

    async def _product(
        self,
        word: str,
        product: "BaseFunction",
        args: tuple[Any, ...],
        inputs: Mapping[str, Any],
        selection: Selection,
        batched: Selection,
        timeout: float | None,
    ) -> list[wire.Array]:
        if not args:
            raise InvalidArgumentError(f"the {word} is missing: pass it as the last positional argument")
        own = self.signature.inputs
        arrays = bind(own, args[:-1], inputs)
        targets = product.signature.inputs[len(own) :]
        single = selection is None or is_single(selection)
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


def one_output(selection: Selection) -> str | int | None:
    """Refuses a selection of several outputs."""
    if selection is None or is_single(selection):
        return selection
    raise InvalidArgumentError("of= names one output here, by name or position: a gradient is of one number")


def unwrapped(values: Sequence[Any], selection: Selection) -> Arrays:
    """Returns a tuple of values, or the value itself if it is the only one or was selected by itself."""
    several = selection is not None and not is_single(selection)
    return tuple(values) if several or len(values) != 1 else values[0]
