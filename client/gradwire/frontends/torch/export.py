"""Exports a PyTorch function to an ONNX model.

Tensors that the function closes over become inputs, and those that it changes in place become outputs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import torch
from torch.utils import _pytree as pytree

from gradwire.errors import InvalidArgumentError, TraceError
from gradwire.frontends.numpy.arrays.array import TracedArray, wrap
from gradwire.frontends.torch import rules as _rules
from gradwire.frontends.torch.capture import TensorSpec, as_written, capture, name_of, tensor_spec
from gradwire.frontends.torch.lowering import Array, inner_dtype, interpret, numpy_dtype
from gradwire.frontends.torch.recording.local_writes import local_writes
from gradwire.frontends.torch.reference import recorded_reference, reference_of
from gradwire.frontends.torch.seeds import seeded
from gradwire.frontends.torch.tensors import to_numpy
from gradwire.graphs.builder import GraphBuilder
from gradwire.graphs.constants import BoundModel
from gradwire.graphs.nodes import GraphValue
from gradwire.graphs.spec import ArraySpec
from gradwire.graphs.trees import Structure, Tree, flatten, unflatten

assert _rules  # importing the package registers its rules


@dataclass(frozen=True)
class Exported:
    """A function as a model.

    Attributes:
        bound: the model. Its inputs are the arguments, then the closed-over tensors; its outputs are the
            function's results, then the new values of the tensors that it changed in place.
        arguments: how many of the inputs are arguments.
        closed_over: the tensors that the function reads besides its arguments, in the order of the inputs.
        changed: positions of the inputs that the function changed in place, in the order of the outputs.
        outputs: structure of what the function returns.
        connected: for each output of the model, the positions of the inputs that it has a derivative by.
        originals: by position of an input that the function changed, the tensor as it was before.
        constants: closed-over tensors whose values are a part of the model.
        repeatable: whether the model and its changes to tensors are all that the function does.
        ran: whether the function ran, and changed what one call of it changes.
    """

    bound: BoundModel
    arguments: int
    closed_over: tuple[torch.Tensor, ...]
    changed: tuple[int, ...]
    outputs: pytree.TreeSpec
    connected: tuple[frozenset[int], ...]
    originals: Mapping[int, torch.Tensor] = field(default_factory=dict)
    constants: tuple[torch.Tensor, ...] = ()
    repeatable: bool = True
    ran: bool = False

    @property
    def model(self) -> onnx.ModelProto:
        """The model with its large constants in it."""
        return self.bound.embedded()


def export(
    fn: Callable[..., Any],
    specs: Sequence[TensorSpec],
    names: Sequence[str] | None = None,
    *,
    constants: bool = False,
    point: Sequence[torch.Tensor] | None = None,
    state: Any = None,
) -> Exported:
    """Record `fn` and lower it to a model.

    Args:
        fn: takes one tensor for each spec, and returns tensors or tuples, lists and dicts of them.
        specs: shape, dtype and `requires_grad` of each argument.
        names: names of the model's inputs; by default those of the function's parameters.
        constants: store closed-over floating-point tensors in the model instead of making them inputs.
            Tensors of other dtypes are always stored, unless the function changes them in place.
        point: the arguments, for the function to run on; without, it leaves everything as it was.
        state: what the function reads, where `fn` is a wrapper that is made anew for each call.

    Raises:
        TraceError: the function does something that has no place in a graph.
    """
    recorded = capture(fn, specs, point, state)
    program = recorded.program
    graph = GraphBuilder()
    labels = _labels(names or _parameter_names(fn, len(specs)), len(specs))
    inputs: list[TracedArray] = [
        wrap(graph.input(label, spec.shape, numpy_dtype(spec.dtype)))
        for label, spec in zip(labels, specs, strict=True)
    ]
    closed_over: list[torch.Tensor] = []
    stored: list[torch.Tensor] = []
    before = [array.value for array in inputs]
    originals = {
        place: tensor
        for place, (var, given) in enumerate(zip(program.arguments, point or (), strict=False))
        if (tensor := var.before(given)) is not None
    }

    def lift(place: int) -> Array:
        one = program.closed_over[place]
        tensor, var = one.tensor, one.var
        dtype = inner_dtype(var.dtype)
        if not constants and not one.literal and (var.dtype.is_floating_point or var.content.written):
            known = wrap(graph.input(f"closed_over_{len(closed_over)}", var.shape, dtype))
            original = var.before(tensor)
            if original is not None:
                originals[len(inputs)] = original
            closed_over.append(tensor)
            inputs.append(known)
            before.append(known.value)
            if recorded.values >> (place + 1) & 1:
                stored.append(tensor)
            return known
        original = var.before(tensor)
        values = to_numpy(tensor if original is None else original)
        if not one.literal:
            stored.append(tensor)
        return wrap(graph.constant(values)) if dtype.kind == "f" else values.copy()

    results = interpret(graph, program, inputs[:], lift, local_writes(program))
    unread = [
        one.tensor
        for place, one in enumerate(program.closed_over)
        if recorded.values >> (place + 1) & 1 and not any(one.tensor is other for other in stored)
    ]
    outputs = [_as_value(graph, item) for item in results]
    touched = tuple(i for i, array in enumerate(inputs) if array.value is not before[i])
    outputs += [inputs[position].value for position in touched]
    taken = [value.name for value in before]
    named = {_fresh(f"y{i}" if len(outputs) > 1 else "y", taken): value for i, value in enumerate(outputs)}
    bound = graph.model(named, re.sub(r"\W", "_", name_of(fn)).strip("_") or "function")
    reach = _reach(bound.proto)
    position = {value.name: index for index, value in enumerate(before)}
    connected = tuple(
        frozenset(position[name] for name in reach[label] if name in position)
        if index < len(recorded.connected) and recorded.connected[index]
        else frozenset()
        for index, label in enumerate(named)
    )
    if point is not None:
        arguments = [originals.get(i, tensor) for i, tensor in enumerate(point)]
        written = [(*point, *closed_over)[i].detach() for i in touched]
        results = [*recorded.returned, *written]
        reference = recorded_reference(fn, fn if state is None else state, arguments, results)
        bound = replace(bound, reference=reference)
    return Exported(
        bound,
        len(specs),
        tuple(closed_over),
        touched,
        recorded.outputs,
        connected,
        originals,
        (*stored, *unread),
        recorded.repeatable,
        recorded.ran,
    )


def convert(
    source: Any, specs: Sequence[Any], names: Sequence[str] | None, seed: int | None = None
) -> BoundModel:
    """Convert a function or module for `client.function`; tensors that it closes over become constants.

    Random numbers are refused, or drawn from the seed while it is recorded.
    """
    source = as_written(source)
    flattened = [flatten(spec) for spec in specs]
    trees = [tree for tree, _ in flattened]
    leaves: list[ArraySpec] = [leaf for _, own in flattened for leaf in own]
    tensors = list(map(_tensor_spec, leaves))
    arguments = _labels(_parameter_names(source, len(specs)), len(specs))
    nested = not all(tree.is_leaf for tree in trees)
    if names is None and all(spec.name for spec in leaves):
        names = [str(spec.name) for spec in leaves]
    elif names is None and nested:
        names = [path for name, tree in zip(arguments, trees, strict=True) for path in tree.paths(name)]
    flat = seeded(_of_leaves(source, trees) if nested else source, seed)
    exported = export(flat, tensors, names or arguments, constants=True, state=source)
    structure = _structure(exported, arguments, trees)
    return replace(exported.bound, reference=reference_of(flat, source), structure=structure)


def convert_with_parameters(
    module: torch.nn.Module, specs: Sequence[ArraySpec], seed: int | None = None
) -> BoundModel:
    """Convert a module to a model whose inputs are its arguments, then its parameters under their names."""
    module = as_written(module)
    parameters = dict(module.named_parameters())

    def run(*tensors: torch.Tensor) -> Any:
        held = dict(zip(parameters, tensors[len(specs) :], strict=True))
        return torch.func.functional_call(module, held, tensors[: len(specs)])

    run.__name__ = type(module).__name__
    given = _parameter_names(module, len(specs))
    names = [
        spec.name or (given[place] if place < len(given) else f"x{place}") for place, spec in enumerate(specs)
    ]
    tensors = [tensor_spec(parameter, True) for parameter in parameters.values()]
    drawing = seeded(run, seed)
    exported = export(
        drawing, [*map(_tensor_spec, specs), *tensors], [*names, *parameters], constants=True, state=module
    )
    return replace(exported.bound, reference=reference_of(drawing, module))


def _tensor_spec(spec: ArraySpec) -> TensorSpec:
    dtype = torch.from_numpy(np.empty(0, spec.dtype)).dtype
    return TensorSpec(spec.shape, dtype, spec.dtype.kind == "f")


def _of_leaves(source: Any, trees: Sequence[Tree]) -> Callable[..., Any]:
    """Return the function of the leaves of its arguments."""

    def function(*tensors: torch.Tensor) -> Any:
        leaves = iter(tensors)
        return source(*(unflatten(tree, leaves) for tree in trees))

    function.__name__ = name_of(source)
    return function


def _structure(exported: Exported, arguments: Sequence[str], trees: Sequence[Tree]) -> Structure | None:
    """Say how arguments and result are nested; None where a container is one that only PyTorch knows."""
    if exported.changed:
        return None
    count = exported.outputs.num_leaves
    try:
        result, places = flatten(pytree.tree_unflatten(list(range(count)), exported.outputs))
    except InvalidArgumentError:
        return None
    if places != list(range(count)):
        return None
    graph = exported.bound.proto.graph
    inputs = [info.name for info in graph.input if info.name not in exported.bound.bound]
    taken = iter(inputs)
    own = [[next(taken) for _ in range(len(tree))] for tree in trees]
    named = tuple(
        (leaves[0] if tree.is_leaf else name, tree)
        for name, tree, leaves in zip(arguments, trees, own, strict=True)
    )
    return Structure(named, tuple(inputs), result, tuple(info.name for info in graph.output))


def _as_value(graph: GraphBuilder, item: Any) -> GraphValue:
    if item.dtype.kind == "c":
        raise TraceError("a complex result cannot be sent: return torch.view_as_real of it, or its parts")
    return item.value if isinstance(item, TracedArray) else graph.constant(np.asarray(item))


def _parameter_names(fn: Callable[..., Any], count: int) -> list[str]:
    """Return the names of the function's positional parameters, at most `count`."""
    target = fn.forward if isinstance(fn, torch.nn.Module) else fn
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind in plain][:count]


def _labels(names: Sequence[str], count: int) -> list[str]:
    labels: list[str] = []
    for position in range(count):
        _fresh(names[position] if position < len(names) else f"x{position}", labels)
    return labels


def _fresh(name: str, taken: list[str]) -> str:
    while name in taken:
        name += "_"
    taken.append(name)
    return name


_SEPARATING = frozenset({
    "StopGradient", "Shape", "Size", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or",
    "Not", "Xor", "IsNaN", "IsInf", "ArgMax", "ArgMin", "ConstantOfShape", "NonZero",
})  # fmt: skip
"""Operators without a derivative; those whose derivative is zero are not among them."""


def _reach(model: onnx.ModelProto) -> dict[str, frozenset[str]]:
    """Return, for each output, the inputs of the graph that it has a derivative by."""
    reach = {info.name: frozenset((info.name,)) for info in model.graph.input}
    for node in model.graph.node:
        inputs: Iterable[str] = node.input
        if node.op_type in _SEPARATING or _casts_to_integers(node):
            inputs = ()
        elif node.op_type == "Where":
            inputs = node.input[1:]
        found = frozenset().union(*(reach.get(name, frozenset()) for name in inputs))
        reach.update(dict.fromkeys(node.output, found))
        if node.op_type in ("Sort", "MaxPool") and len(node.output) > 1:
            reach[node.output[1]] = frozenset()
    return {info.name: reach.get(info.name, frozenset()) for info in model.graph.output}


def _casts_to_integers(node: onnx.NodeProto) -> bool:
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
    return node.op_type == "Cast" and node.attribute[0].i not in floats
