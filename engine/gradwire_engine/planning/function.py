"""Traces a graph to a JAX function for given shapes, and applies transforms to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from cachetools import LRUCache, cached

from gradwire_engine.abstract import abstract, abstract_argument
from gradwire_engine.errors import InvalidInput
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.jaxprs.rolling import rolled
from gradwire_engine.jaxprs.segments import bodies_cut, runner
from gradwire_engine.limits import Limits
from gradwire_engine.lowering import Notes, evaluate
from gradwire_engine.planning.transforms import Arrays, Function, FunctionSpec, applied
from gradwire_engine.refusals import refusals
from gradwire_engine.values import Arguments, ArrayType, Signature, TensorType


@dataclass(frozen=True)
class TracedGraph:
    """The result of evaluating a graph on abstract arrays.

    Attributes:
        run: from the flattened weights (sorted by name) and inputs (in order) to the outputs.
        outputs: types of the outputs; None for one that is not an array.
        forward_only: why reverse mode is not possible, "" where it is.
        reverse_only: why forward mode is not possible, "" where it is.
        no_derivative: why no derivative is, "" where there is one.
        warnings: for the client.
        equations: their number in the program: a measure of the memory that keeping it takes.
    """

    run: Callable[..., Sequence[Any]]
    outputs: tuple[ArrayType | None, ...]
    forward_only: str
    reverse_only: str
    no_derivative: str
    warnings: tuple[str, ...]
    equations: int


# A graph is traced for its registration, its plan and its kernels, one soon after the other.
_TRACED: LRUCache[Any, TracedGraph] = LRUCache(100_000, getsizeof=lambda traced: traced.equations)


def fixed_arguments(signature: Signature) -> Arguments | None:
    """Return the types of all inputs if the signature fixes them, None if it leaves an extent open."""
    arguments = []
    for name, value in signature.inputs:
        if value.shape is None or not all(isinstance(extent, int) for extent in value.shape):
            return None
        if value.dtype in ("", "string"):
            return None
        arguments.append((name, ArrayType(value.dtype, tuple(int(extent) for extent in value.shape))))  # type: ignore[arg-type]
    return tuple(arguments)


def check_arguments(signature: Signature, arguments: Arguments) -> None:
    """Check arguments against a signature; a symbol must mean one extent throughout.

    Raises:
        InvalidInput: naming the input, what it should be and what it is.
    """
    given = dict(arguments)
    expected = dict(signature.inputs)
    for name in given:
        if name not in expected:
            raise InvalidInput(
                f"there is no input {name!r}; the inputs are: {', '.join(expected) or 'none'}",
                f'inputs["{name}"]',
            )
    symbols: dict[str, tuple[int, str]] = {}
    for name, value in signature.inputs:
        field = f'inputs["{name}"]'
        if name not in given:
            raise InvalidInput(f"input {name!r} ({value}) is missing", field)
        actual = given[name]
        if value.dtype in ("", "string"):
            raise InvalidInput(
                f"input {name!r} is not a numeric tensor: it cannot be given over the wire", field
            )
        if actual.dtype != value.dtype:
            raise InvalidInput(f"input {name!r} should be {value.dtype}, not {actual.dtype}", field)
        if value.shape is None:
            continue
        if len(actual.shape) != len(value.shape):
            raise InvalidInput(f"input {name!r} should be {value}, not {actual}", field)
        for axis, (extent, size) in enumerate(zip(value.shape, actual.shape, strict=True)):
            if isinstance(extent, int) and extent != size:
                raise InvalidInput(
                    f"input {name!r} should be {value}, not {actual}: axis {axis} differs", field
                )
            if isinstance(extent, str):
                first, owner = symbols.setdefault(extent, (size, name))
                # Of two extents that broadcast, one may be 1; evaluation refuses what does not broadcast.
                if size != 1 and first == 1:
                    symbols[extent] = (size, name)
                elif first != size and size != 1:
                    raise InvalidInput(
                        f"input {name!r} has {extent} = {size} on axis {axis}, "
                        f"but input {owner!r} has {extent} = {first}",
                        field,
                    )


def _identity(graph: Graph, arguments: Arguments, limits: Limits) -> tuple[str, Arguments, Limits]:
    return graph.info.graph_id, arguments, limits


@cached(_TRACED, key=_identity, lock=threading.Lock())
def trace(graph: Graph, arguments: Arguments, limits: Limits) -> TracedGraph:
    """Evaluate a graph on abstract arrays; nothing is allocated. Recent results are kept.

    Raises:
        InvalidGraph: it cannot be evaluated on arrays of these shapes.
        LimitExceeded: an intermediate array is over the limit.
    """
    model = graph.proto()
    notes = Notes()
    weight_names = sorted(graph.weights)
    names = [name for name, _ in arguments]
    not_arrays: list[bool] = []

    def run(weights: list[Any], inputs: list[Any]) -> list[Any]:
        values = dict(zip(weight_names, weights, strict=True)) | dict(zip(names, inputs, strict=True))
        outputs = evaluate(model, values, limits, notes, passes_rounding=graph.info.straight_through)
        not_arrays[:] = [value is None or isinstance(value, list) or _is_text(value) for value in outputs]
        return [value for value, other in zip(outputs, not_arrays, strict=True) if not other]

    weights = [abstract(graph.weights[name].shape, graph.weights[name].dtype) for name in weight_names]
    with refusals("the graph cannot be evaluated on inputs of these shapes"):
        jaxpr = jax.make_jaxpr(run)(weights, [abstract_argument(value) for _, value in arguments])
    types = iter(ArrayType(np.dtype(aval.dtype).name, tuple(aval.shape)) for aval in jaxpr.out_avals)
    outputs = tuple(None if other else next(types) for other in not_arrays)
    forward_only, reverse_only = (
        "; ".join(f"node {name}: {reason}" for name, reason in found.items())
        for found in (notes.forward_only, notes.reverse_only)
    )
    no_derivative = "; ".join(
        f"node {name} ({op}) defines no derivative" for name, op in notes.no_derivative.items()
    )
    program = bodies_cut(rolled(jaxpr))
    return TracedGraph(
        runner(program),
        outputs,
        forward_only,
        reverse_only,
        no_derivative,
        tuple(notes.warnings),
        len(program.jaxpr.eqns),
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "OSU"


def _base_function(graph: Graph, traced: TracedGraph, arguments: Arguments, weights: Arrays) -> Function:
    names = [name for name, _ in graph.info.signature.outputs]
    outputs = tuple(
        (name, TensorType(value.dtype, value.shape))
        for name, value in zip(names, traced.outputs, strict=True)
        if value is not None
    )
    inputs = tuple((name, TensorType(value.dtype, value.shape)) for name, value in arguments)
    flat_weights = [weights[name] for name in sorted(graph.weights)]

    def call(values: Arrays) -> dict[str, Any]:
        results = traced.run(*flat_weights, *(values[name] for name, _ in inputs))
        return dict(zip((name for name, _ in outputs), results, strict=True))

    return Function(
        Signature(inputs, outputs),
        call,
        traced.forward_only,
        traced.no_derivative,
        traced.equations,
        traced.reverse_only,
        traced.equations,
    )


class TracedFunction:
    """A function traced for known shapes; only the values of weights and inputs are open.

    `bind(weights)` closes it over weights (arrays or tracers); `signature` is concrete.
    """

    def __init__(self, graph: Graph, spec: FunctionSpec, arguments: Arguments, limits: Limits) -> None:
        """Trace the graph and check the transforms.

        Args:
            graph: parsed and checked; only the shapes and dtypes of its weights are used.
            spec: the graph's id and the transforms applied to it.
            arguments: name, dtype and shape of each input, those that transforms add included.
            limits: of nodes, elements and memory.

        Raises:
            InvalidInput: an argument or a name in a transform does not fit.
            InvalidGraph, NotDifferentiable, LimitExceeded: see trace and transforms.
        """
        self.graph = graph
        self.spec = spec
        self._limits = limits
        base = {name for name, _ in graph.info.signature.inputs}
        given = dict(arguments)
        own = tuple((name, given[name]) for name, _ in graph.info.signature.inputs if name in given)
        extra = tuple((name, value) for name, value in arguments if name not in base)
        # Extra names are checked once the transforms have said which inputs they add.
        check_arguments(graph.info.signature, own if spec.transforms else own + extra)
        self._own = own
        self._traced = trace(graph, own, limits)
        self.function = self.bind(dict.fromkeys(graph.weights))
        check_arguments(self.function.signature, arguments)
        self.signature = self.function.signature
        self.arguments: Arguments = tuple((name, given[name]) for name, _ in self.signature.inputs)

    def bind(self, weights: Arrays) -> Function:
        """Return the function over the given weights."""
        base = _base_function(self.graph, self._traced, self._own, weights)
        return applied(base, self.spec.transforms, self._limits)
