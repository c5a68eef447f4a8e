"""Checks the loss of an accumulation, and the inputs that its batches share, before any batch arrives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gradwire_engine.errors import InvalidInput, LimitExceeded
from gradwire_engine.limits import Limits
from gradwire_engine.planning.function import check_arguments
from gradwire_engine.planning.kernels import EvaluateSpec
from gradwire_engine.planning.transforms import FunctionSpec, Gradient, transformed
from gradwire_engine.values import Arguments, ArrayType, Named, Signature, TensorType, is_floating
from gradwire_server.compute.shared_values import RegisteredGraph
from gradwire_server.compute.worker import Point
from gradwire_server.rpc import translate
from gradwire_server.rpc.backend import Backend
from gradwire_wire.v1 import accumulate_pb2, function_pb2

_MEANS = {
    accumulate_pb2.REDUCTION_UNSPECIFIED: False,
    accumulate_pb2.REDUCTION_SUM: False,
    accumulate_pb2.REDUCTION_MEAN: True,
}


@dataclass(frozen=True)
class LossFunction:
    """A function of which one output is the loss.

    Attributes:
        graph: the registered graph.
        signature: the function's; some extents are open.
        gradient: the function's gradient, which gives the outputs too.
        names: of the outputs wanted: the loss, then its gradient by each input of `wrt`.
        type: of the loss itself.
    """

    graph: RegisteredGraph
    signature: Signature
    gradient: FunctionSpec
    names: tuple[str, ...]
    type: ArrayType

    def spec(self, arguments: Arguments) -> EvaluateSpec:
        """Return what is evaluated for a batch; batches of the same types have the same spec."""
        return EvaluateSpec(self.gradient, tuple(sorted(arguments)), self.names)


@dataclass(frozen=True)
class Objective:
    """A loss, a point, and what to differentiate with respect to.

    Attributes:
        loss: of all batches that do not name another function.
        wrt: the inputs to differentiate with respect to.
        shared: types of the inputs that all batches share, by name.
        point: their elements.
        mean: whether batches are averaged instead of added.
    """

    loss: LossFunction
    wrt: tuple[str, ...]
    shared: Arguments
    point: Point
    mean: bool

    @property
    def types(self) -> tuple[ArrayType, ...]:
        """Types of the loss and of its gradients."""
        types = dict(self.shared)
        return (self.loss.type, *(types[name] for name in self.wrt))

    @property
    def nbytes(self) -> int:
        """Bytes of the loss and its gradients in float64, as they are added up."""
        return sum(8 * item.size for item in self.types)

    def check(self, loss: LossFunction, batch: Arguments) -> None:
        """Check that a batch's inputs complete the function's; raise `InvalidInput`."""
        shared = dict(self.shared)
        for name, _ in batch:
            if name in shared:
                raise InvalidInput(
                    f"input {name!r} was given by start, for all batches; leave it out of one of them",
                    f'inputs["{name}"]',
                )
        check_arguments(loss.signature, self.shared + batch)

    async def variant(self, function: function_pb2.Function, backend: Backend) -> LossFunction:
        """Return the same loss by another function, which one batch names.

        Raises:
            InvalidInput: its inputs or outputs are not those of the start's, or what start gave does not fit.
            EngineError, ServiceError: other rows of the error table.
        """
        graph = backend.store.graph(function.graph_id)
        spec = translate.function_from(function, graph)
        own = self.loss.signature
        try:
            signature = await backend.kernels.signature(graph, spec)
            _check_alike("inputs", signature.inputs, own.inputs)
            _check_alike("outputs", signature.outputs, own.outputs)
            _check_shared(signature, self.shared)
            loss = _loss(graph, signature, spec, self.wrt, self.loss.names[0], backend.settings.limits)
            if loss.type != self.loss.type:
                raise InvalidInput(f"its loss is {loss.type}, not {self.loss.type}")
        except InvalidInput as error:
            raise InvalidInput(f"its function does not fit start: {error}", "function") from None
        return loss


async def objective_from(start: accumulate_pb2.AccumulateStart, backend: Backend) -> Objective:
    """Read and check what a start asks for.

    Raises:
        EngineError, ServiceError: rows of the error table; fields begin with `start`.
    """
    graph = backend.store.graph(start.function.graph_id)
    with refusals_about("start", "start"):
        if start.reduction not in _MEANS:
            raise InvalidInput(f"reduction {start.reduction} is not known to this server", "reduction")
        for name, tensor in start.inputs.items():
            if tensor.WhichOneof("content") is None and 0 not in tensor.shape:
                raise InvalidInput(
                    f"input {name!r} has no content: send its elements along, or upload it with PutTensor "
                    "and give its id",
                    f'inputs["{name}"]',
                )
        inputs = translate.inputs_from(start.inputs, backend.store)
        function = translate.function_from(start.function, graph)
        signature = await backend.kernels.signature(graph, function)
        _check_shared(signature, inputs.arguments)
        wrt = _wrt(signature, inputs.arguments, tuple(start.wrt))
        loss = _loss(graph, signature, function, wrt, start.of, backend.settings.limits)
    return Objective(
        loss=loss,
        wrt=wrt,
        shared=inputs.arguments,
        point=inputs.point(),
        mean=_MEANS[start.reduction],
    )


def _loss(
    graph: RegisteredGraph,
    signature: Signature,
    function: FunctionSpec,
    wrt: tuple[str, ...],
    of: str,
    limits: Limits,
) -> LossFunction:
    gradient = Gradient(wrt, of, keep_values=True)
    outputs = transformed(signature, (gradient,), limits).outputs
    # Without a name it is the only floating-point one: the gradient has checked that there is no other.
    name = of or next(name for name, value in signature.outputs if is_floating(value.dtype))
    return LossFunction(
        graph=graph,
        signature=signature,
        gradient=FunctionSpec(function.graph_id, (*function.transforms, gradient)),
        names=(name, *(name for name, _ in outputs[: len(wrt)])),
        type=_one_element(name, dict(signature.outputs)[name]),
    )


def _check_alike(kind: str, values: tuple[Named, ...], expected: tuple[Named, ...]) -> None:
    """Check that inputs or outputs have the names and dtypes expected, in any order."""
    found, wanted = (sorted((name, value.dtype) for name, value in side) for side in (values, expected))
    if found != wanted:
        listed, others = (
            ", ".join(f"{name}: {value}" for name, value in side) for side in (values, expected)
        )
        raise InvalidInput(f"its {kind} {listed} are not what that of start has ({others})")


def _check_shared(signature: Signature, shared: Arguments) -> None:
    given, known = dict(shared), dict(signature.inputs)
    for name in given:
        if name not in known:
            raise InvalidInput(
                f"there is no input {name!r}; the inputs are: {', '.join(known) or 'none'}",
                f'inputs["{name}"]',
            )
    check_arguments(Signature(tuple(item for item in signature.inputs if item[0] in given), ()), shared)


def _wrt(signature: Signature, shared: Arguments, wrt: tuple[str, ...]) -> tuple[str, ...]:
    """Return the inputs to differentiate with respect to, all of them shared."""
    given = dict(shared)
    for name in wrt:
        if name not in given:
            raise InvalidInput(
                f"wrt names {name!r}, which start does not give: gradients add up over batches only for "
                "inputs that all batches share; give it in start, or leave it out of wrt",
                "wrt",
            )
    chosen = wrt or tuple(
        name for name, _ in signature.inputs if name in given and is_floating(given[name].dtype)
    )
    if not chosen:
        raise InvalidInput("start gives no floating-point input to differentiate with respect to", "inputs")
    return chosen


def _one_element(name: str, value: TensorType) -> ArrayType:
    """Return the type of a loss; extents that the signature leaves open can only be 1."""
    shape = value.shape or ()
    if any(isinstance(extent, int) and extent != 1 for extent in shape):
        raise InvalidInput(
            f"output {name!r} is {value}: a loss has one element; reduce it in the graph, "
            "or name another output in 'of'",
            "of",
        )
    return ArrayType(value.dtype, (1,) * len(shape))


def rows_of(batch: Arguments, declared: int) -> int:
    """Return the rows that a batch counts: as declared, or the leading extent that its inputs share.

    Raises:
        InvalidInput: none are declared, and its inputs have no leading extent in common.
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
def refusals_about(what: str, field: str, loss: str = "start") -> Iterator[None]:
    """Make refusals raised within say what they are about: `what` in the message, `field` before the field.

    A refusal of the loss itself, which may come up with any batch, names the field `loss` instead.
    """
    try:
        yield
    except InvalidInput as error:
        owner = loss if error.field in ("of", "wrt") else field
        raise InvalidInput(f"{what}: {error}", f"{owner}.{error.field}" if error.field else owner) from None
    except LimitExceeded as error:
        raise LimitExceeded(f"{what}: {error}", error.limit, error.allowed, error.requested) from None
