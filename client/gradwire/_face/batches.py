"""Messages for a loss over batches: which inputs all batches share and which come with each.

Nothing is sent here: messages are built from the arrays, and written to a stream elsewhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradwire_wire as wire
from gradwire._face.arguments import bind, given_values
from gradwire.errors import InvalidArgumentError
from gradwire.graphs.models import Model
from gradwire.graphs.signature import FunctionSpec, Selection, Value, select, select_scalar
from gradwire.graphs.spec import ArraySpec
from gradwire.transport.uploads import Uploaded
from gradwire_wire import framing
from gradwire_wire.v1 import accumulate_pb2, tensor_pb2

REDUCTIONS: Mapping[str, accumulate_pb2.Reduction] = {
    "sum": accumulate_pb2.REDUCTION_SUM,
    "mean": accumulate_pb2.REDUCTION_MEAN,
}
"""How gradients of batches are combined, by the names that users write."""

# Functions that are kept, each traced again for batches of other shapes.
_KEPT = 64

Values = dict[str, wire.Array | Uploaded]


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """The point at which a gradient is taken.

    Attributes:
        params: the shared inputs.
        message: the request that starts there.
        large: parameters that are sent by id and have not been uploaded.
        uploads: arrays that are sent by id and that the server may have already.
    """

    params: Values
    message: bytes
    large: tuple[Uploaded, ...]
    uploads: tuple[Uploaded, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One batch, ready to be sent.

    Attributes:
        message: the request that starts it.
        rows: its weight in a mean.
        model: the graph of a batch that needs another than the loss's own.
        uploads: arrays that are sent by id.
        large: arrays that follow the message in chunks.
        kept: all arrays are sent by id, so that the batch can be sent again at any time.
        inputs: what the batch brings.
    """

    message: bytes
    rows: int
    model: Model | None
    uploads: tuple[Uploaded, ...]
    large: tuple[tuple[str, memoryview], ...]
    kept: bool
    inputs: Values

    def messages(self) -> Iterator[bytes]:
        """Yield the requests to send, in order; copy each data byte once, when its request is made."""
        yield self.message
        for name, data in self.large:
            offset = 0
            for chunk in wire.chunks(data):
                yield framing.batch_chunk(name, offset, chunk)
                offset += len(chunk)


class Loss:
    """A one-element output of a function, with its inputs divided into shared and batched ones.

    Args:
        model: the graph.
        spec: the function.
        shared: names of the inputs that all batches share.
        wrt: those of them to differentiate with respect to; every floating-point one by default.
        of: the output.
        reduction: "sum" or "mean".

    Raises:
        InvalidArgumentError: an input, the output or the reduction does not fit.
    """

    def __init__(
        self,
        model: Model,
        spec: FunctionSpec,
        shared: Sequence[str],
        wrt: Selection,
        of: str | int | None,
        reduction: str,
    ) -> None:
        inputs = spec.signature.inputs
        self.model, self._spec = model, spec
        self.shared = tuple(value for value in inputs if value.name in shared)
        self.batched = tuple(value for value in inputs if value.name not in shared)
        self.wrt = self._chosen(wrt)
        self.of = select_scalar(spec.signature.outputs, of)
        if reduction not in REDUCTIONS:
            raise InvalidArgumentError(f"reduction is 'sum' or 'mean', not {reduction!r}")
        self._reduction = REDUCTIONS[reduction]
        if not self.batched:
            raise InvalidArgumentError(
                "every input is given to the accumulator, so that nothing is left to come with the batches; "
                "give it the parameters alone"
            )
        self._retraced: dict[object, tuple[Model, FunctionSpec]] = {}

    def __str__(self) -> str:
        return f"{self.of} by {', '.join(self.wrt)}"

    def _chosen(self, wrt: Selection) -> tuple[str, ...]:
        if not self.shared:
            raise InvalidArgumentError(
                "an accumulator needs the inputs that all batches share, the parameters: "
                "f.accumulator(w=w) for a function of w and a batch"
            )
        if wrt is None:
            return select(self.shared, None, "shared input", "wrt")
        chosen = select(self._spec.signature.inputs, wrt, "input", "wrt")
        for name in chosen:
            if name in (value.name for value in self.batched):
                raise InvalidArgumentError(
                    f"wrt names input {name!r}, which comes with the batches: gradients add up for shared "
                    "inputs alone; give it to the accumulator, or leave it out of wrt"
                )
        return chosen

    def start(self, params: Mapping[str, Any]) -> Start:
        """Return the start at these parameters. Copy them: an optimizer may update its own in place."""
        arrays = bind(self.shared, (dict(params),), {})
        values: Values = {}
        for value in self.shared:
            taken = _as_uploaded(value, params[value.name], arrays[value.name])
            if not value.takes(taken.shape):
                raise InvalidArgumentError(
                    f"input {value} is shared by all batches and cannot be given with the shape {taken.shape}"
                )
            values[value.name] = taken if isinstance(taken, Uploaded) else taken.copy()
        message = accumulate_pb2.AccumulateStart(
            function=self._spec.proto, wrt=self.wrt, of=self.of, reduction=self._reduction
        )
        large: list[Uploaded] = []
        constants = {n: Uploaded(one.tensor_id, one.array) for n, one in self.model.bound.items()}
        uploads = list(constants.values())
        for name, constant in constants.items():
            message.inputs[name].CopyFrom(_by_id(constant))
        room = wire.CHUNK_BYTES
        for name, one in values.items():
            if isinstance(one, Uploaded):
                uploads.append(one)
                message.inputs[name].CopyFrom(_by_id(one))
            elif one.nbytes <= room:
                room -= one.nbytes
                message.inputs[name].CopyFrom(wire.to_tensor(one))
            else:
                large.append(Uploaded(wire.tensor_id(one), one))
                message.inputs[name].CopyFrom(_by_id(large[-1]))
        request = accumulate_pb2.AccumulateRequest(start=message)
        return Start(values, request.SerializeToString(), tuple(large), tuple(uploads))

    def moved(self, start: Start, args: tuple[Any, ...], named: Mapping[str, Any]) -> Start:
        """Return the start with some parameters changed."""
        return self.start({**start.params, **given_values(self.shared, args, named)})

    def arguments(self, batch: Any) -> tuple[Any, ...]:
        """Return the arguments of `add` for one item of an iterable. Data loaders give lists for tuples."""
        several = isinstance(batch, list) and len(self.batched) > 1
        return tuple(batch) if several else (batch,)

    def batch(self, args: tuple[Any, ...], named: Mapping[str, Any], rows: int | None) -> Batch:
        """Return the batch of these arguments of `add`; raise `InvalidArgumentError` if they do not fit."""
        given = {*named, *(args[0] if len(args) == 1 and isinstance(args[0], Mapping) else ())}
        for value in self.shared:
            if value.name in given:
                raise InvalidArgumentError(
                    f"input {value.name!r} is shared by all batches: change it with zero({value.name}=...)"
                )
        raw = given_values(self.batched, args, named)
        arrays = bind(self.batched, (raw,), {})
        values = {v.name: _as_uploaded(v, raw[v.name], arrays[v.name]) for v in self.batched}
        model, function = self._fitting(values)
        message = accumulate_pb2.Batch(rows=_rows(values, rows))
        if function is not None:
            message.function.CopyFrom(function.proto)
        uploads: list[Uploaded] = []
        large: list[tuple[str, memoryview]] = []
        room = wire.CHUNK_BYTES
        for name, one in values.items():
            if isinstance(one, Uploaded):
                uploads.append(one)
                message.inputs[name].CopyFrom(_by_id(one))
            elif one.nbytes <= room:
                room -= one.nbytes
                message.inputs[name].CopyFrom(wire.to_tensor(one))
            else:
                large.append((name, wire.byte_view(one)))
                message.inputs[name].CopyFrom(wire.tensor_type(one.dtype, one.shape))
        request = accumulate_pb2.AccumulateRequest(batch=message).SerializeToString()
        kept = len(uploads) == len(values)
        return Batch(request, message.rows, model, tuple(uploads), tuple(large), kept, values)

    def _fitting(self, values: Values) -> tuple[Model | None, FunctionSpec | None]:
        """Return the graph and function for a batch of these shapes, if they are not the loss's own."""
        unfit = [value for value in self.batched if not value.takes(values[value.name].shape)]
        if not unfit:
            return None, None
        for value in unfit:
            if value.shape is None or len(value.shape) != len(values[value.name].shape):
                raise InvalidArgumentError(_misfit(value, values))
        if self.model.again is None:
            raise InvalidArgumentError(
                f"{_misfit(unfit[0], values)}: the model fixes its shapes; give the axis that batches run "
                "along a name in place of an extent, or pass the function that the model was made of"
            )
        key = tuple(one.shape for one in values.values())
        found = self._retraced.get(key)
        if found is None:
            if len(self._retraced) >= _KEPT:  # shapes keep changing
                self._retraced.clear()
            found = self._retraced[key] = self._retrace(self.model.again, values)
        return found

    def _retrace(
        self, again: Callable[[Sequence[ArraySpec]], Model], values: Values
    ) -> tuple[Model, FunctionSpec]:
        try:
            model = again([_spec(value, values) for value in self.model.signature.inputs])
            spec = FunctionSpec(model.graph_id, model.signature)
            for transform in self._spec.transforms:
                spec = spec.then(transform)
            select_scalar(spec.signature.outputs, self.of)
            if _ids(model) != _ids(self.model):
                raise InvalidArgumentError(
                    "the function closes over other large arrays for these shapes than for those it was made "
                    "with: pass them as inputs"
                )
            for value in spec.signature.inputs:
                if value.name in values and not value.takes(values[value.name].shape):
                    raise InvalidArgumentError(_misfit(value, values))
        except Exception as error:
            shapes = ", ".join(f"{name} {one.shape}" for name, one in values.items())
            error.add_note(f"while the function was traced again for a batch of other shapes: {shapes}")
            raise
        return model, spec


def _as_uploaded(value: Value, given: Any, array: wire.Array) -> wire.Array | Uploaded:
    if not isinstance(given, Uploaded):
        return array
    if array is not given.array:  # it was converted, but the server holds the original
        raise InvalidArgumentError(
            f"input {value} was uploaded as {given.dtype.name}: upload it as {array.dtype.name}"
        )
    return given


def _by_id(one: Uploaded) -> tensor_pb2.Tensor:
    return wire.tensor_by_id(one.tensor_id, one.dtype, one.shape)


def _ids(model: Model) -> dict[str, str]:
    return {name: constant.tensor_id for name, constant in model.bound.items()}


def _rows(values: Values, given: int | None) -> int:
    if given is not None:
        if given < 1:
            raise InvalidArgumentError(
                f"rows is what the batch counts in a mean, a positive number, not {given}"
            )
        return given
    extents = {name: one.shape[0] for name, one in values.items() if one.shape}
    if len(set(extents.values())) != 1:
        listed = ", ".join(f"{name} has {extent}" for name, extent in extents.items()) or "they have no axes"
        raise InvalidArgumentError(
            f"the batch's inputs do not agree on its number of rows ({listed}): say it with rows="
        )
    return next(iter(extents.values()))


def _misfit(value: Value, values: Values) -> str:
    return f"input {value} cannot be given with the shape {values[value.name].shape}"


def _spec(value: Value, values: Values) -> ArraySpec:
    """Return the spec of a traced function's input, whose own shape is always fixed."""
    shape = values[value.name].shape if value.name in values else value.shape
    assert shape is not None and value.dtype is not None
    return ArraySpec(tuple(extent for extent in shape if isinstance(extent, int)), value.dtype)
