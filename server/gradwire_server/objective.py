"""What an accumulation is of: a loss and the inputs that its batches share, checked before one comes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from gradwire.v1 import accumulate_pb2
from gradwire_engine.errors import InvalidInput, LimitExceeded
from gradwire_engine.function import check_arguments
from gradwire_engine.kernels import EvaluateSpec
from gradwire_engine.transforms import FunctionSpec, Gradient, transformed
from gradwire_engine.values import Arguments, ArrayType, Signature, TensorType, is_floating
from gradwire_server import translate
from gradwire_server.evaluator import Evaluator
from gradwire_server.shared import Box, Registered
from gradwire_server.store import Store

_MEANS = {
    accumulate_pb2.REDUCTION_UNSPECIFIED: False,
    accumulate_pb2.REDUCTION_SUM: False,
    accumulate_pb2.REDUCTION_MEAN: True,
}


@dataclass(frozen=True)
class Objective:
    """A loss, a point, and what to differentiate with respect to.

    Attributes:
        graph: the registered graph.
        loss: the signature of the function that the loss is an output of.
        gradient: that function's gradient, its values kept.
        names, types: of the outputs: the loss, then its gradient by each input of ``wrt``.
        shared: types of the inputs that all batches share, by name.
        values: their elements; workers keep them under ``point``.
        mean: whether batches are averaged instead of added.
    """

    graph: Registered
    loss: Signature
    gradient: FunctionSpec
    names: tuple[str, ...]
    types: tuple[ArrayType, ...]
    shared: Arguments
    values: Mapping[str, Box]
    point: str
    mean: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the loss and its gradient in float64, as they are added up."""
        return sum(8 * item.size for item in self.types)

    def check(self, batch: Arguments) -> None:
        """Refuse a batch whose inputs do not complete the function's; raises InvalidInput."""
        shared = dict(self.shared)
        for name, _ in batch:
            if name in shared:
                raise InvalidInput(
                    f"input {name!r} was given by start, for all batches; leave it out of one of them",
                    f'inputs["{name}"]',
                )
        check_arguments(self.loss, self.shared + batch)

    def spec(self, batch: Arguments) -> EvaluateSpec:
        """What a worker evaluates for a batch; batches of the same types have the same."""
        return EvaluateSpec(self.gradient, tuple(sorted(self.shared + batch)), self.names)


async def objective_from(
    start: accumulate_pb2.AccumulateStart, store: Store, evaluator: Evaluator
) -> Objective:
    """What a start asks for.

    Raises:
        EngineError, ServiceError: rows of the error table; fields begin with ``start``.
    """
    graph = store.graph(start.function.graph_id)
    with blaming("start", "start"):
        if start.reduction not in _MEANS:
            raise InvalidInput(f"reduction {start.reduction} is not known to this server", "reduction")
        for name, tensor in start.inputs.items():
            if tensor.WhichOneof("content") is None and 0 not in tensor.shape:
                raise InvalidInput(
                    f"input {name!r} has no content: send its elements along, or upload it with PutTensor "
                    "and give its id",
                    f'inputs["{name}"]',
                )
        inputs = translate.inputs_from(start.inputs, store)
        function = translate.function_from(start.function)
        loss = await evaluator.signature(graph, function)
        _check_shared(loss, inputs.arguments)
        wrt = _wrt(loss, inputs.arguments, tuple(start.wrt))
        gradient = Gradient(wrt, start.of, keep_values=True)
        outputs = transformed(loss, (gradient,)).outputs
        of = start.of or _only_floating(loss)
        scalar = _one_element(of, dict(loss.outputs)[of])
    types = dict(inputs.arguments)
    point = secrets.token_hex(8)
    return Objective(
        graph=graph,
        loss=loss,
        gradient=FunctionSpec(function.graph_id, (*function.transforms, gradient)),
        names=(of, *(name for name, _ in outputs[: len(wrt)])),
        types=(scalar, *(types[name] for name in wrt)),
        shared=inputs.arguments,
        values={
            name: value if isinstance(value, Box) else Box(f"{point} {name}", value, nbytes=value.nbytes)
            for name, value in inputs.values.items()
        },
        point=point,
        mean=_MEANS[start.reduction],
    )


def _check_shared(loss: Signature, shared: Arguments) -> None:
    given, known = dict(shared), dict(loss.inputs)
    for name in given:
        if name not in known:
            raise InvalidInput(
                f"there is no input {name!r}; the inputs are: {', '.join(known) or 'none'}",
                f'inputs["{name}"]',
            )
    check_arguments(Signature(tuple(item for item in loss.inputs if item[0] in given), ()), shared)


def _wrt(loss: Signature, shared: Arguments, wrt: tuple[str, ...]) -> tuple[str, ...]:
    """The inputs to differentiate with respect to, all of them shared."""
    given = dict(shared)
    for name in wrt:
        if name not in given:
            raise InvalidInput(
                f"wrt names {name!r}, which start does not give: gradients add up over batches only for "
                "inputs that all batches share; give it in start, or leave it out of wrt",
                "wrt",
            )
    chosen = wrt or tuple(name for name, _ in loss.inputs if name in given and is_floating(given[name].dtype))
    if not chosen:
        raise InvalidInput("start gives no floating-point input to differentiate with respect to", "inputs")
    return chosen


def _only_floating(loss: Signature) -> str:
    """The only floating-point output; that it is, the gradient has checked."""
    return next(name for name, value in loss.outputs if is_floating(value.dtype))


def _one_element(name: str, value: TensorType) -> ArrayType:
    """The type of a loss; extents that the signature leaves open can only be 1."""
    shape = value.shape or ()
    if any(isinstance(extent, int) and extent != 1 for extent in shape):
        raise InvalidInput(
            f"output {name!r} is {value}: a loss has one element; reduce it in the graph, "
            "or name another output in 'of'",
            "of",
        )
    return ArrayType(value.dtype, (1,) * len(shape))


def rows_of(batch: Arguments, declared: int) -> int:
    """The rows that a batch counts: as declared, or the leading extent that its inputs share.

    Raises:
        InvalidInput: none are declared and its inputs do not say.
    """
    if declared:
        return declared
    extents = {name: value.shape[0] for name, value in batch if value.shape}
    scalars = [name for name, value in batch if not value.shape]
    if scalars or not extents:
        reason = f"input {scalars[0]!r} is a scalar" if scalars else "it gives no inputs"
        raise InvalidInput(f"{reason}, so its rows cannot be counted: say them in 'rows'", "rows")
    if len(set(extents.values())) > 1:
        listed = ", ".join(f"{name}: {extent}" for name, extent in extents.items())
        raise InvalidInput(
            f"its inputs differ in their leading extent ({listed}), so its rows cannot be counted: "
            "say them in 'rows'",
            "rows",
        )
    return next(iter(extents.values()))


@contextmanager
def blaming(what: str, field: str) -> Iterator[None]:
    """Have refusals say what they are about: ``what`` in the message, ``field`` before the field."""
    try:
        yield
    except InvalidInput as error:
        # What a worker finds out about the loss itself was said in start, whichever batch it came with.
        owner = "start" if error.field in ("of", "wrt") else field
        raise InvalidInput(f"{what}: {error}", f"{owner}.{error.field}" if error.field else owner) from None
    except LimitExceeded as error:
        raise LimitExceeded(f"{what}: {error}", error.limit, error.allowed, error.requested) from None
