"""What a client chooses of a graph: constants, inputs, outputs, and what rounding means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto, helper, numpy_helper

from gradwire_engine.errors import InvalidInput
from gradwire_engine.graphs.checks import bodies_of
from gradwire_engine.graphs.nodes import keep_needed, nodes_in
from gradwire_engine.graphs.repairs import checked_by_structure, types_of
from gradwire_engine.values import STRAIGHT_THROUGH, Choices

_ROUNDING = ("Round", "Floor", "Ceil", "QuantizeLinear")


def apply(model: ModelProto, choices: Choices) -> None:
    """Make the chosen graph of a model, in place.

    Args:
        model: the model, in order.
        choices: what to make of it.

    Raises:
        InvalidGraph: the model's structure is not legal.
        InvalidInput: a name or an array does not fit the model, or a choice has no effect.
    """
    if choices.rounding not in ("", STRAIGHT_THROUGH):
        raise InvalidInput(
            f"rounding is {choices.rounding!r}; it is {STRAIGHT_THROUGH!r} or not given", "rounding"
        )
    _fix(model.graph, choices)
    if choices.inputs or choices.outputs:
        _cut(model, choices)
    if choices.rounding and not any(
        node.op_type in _ROUNDING for owner in bodies_of(model) for node in nodes_in(owner)
    ):
        raise InvalidInput(
            f"rounding={choices.rounding!r} has no effect: the graph has no {', '.join(_ROUNDING[:-1])} or "
            f"{_ROUNDING[-1]}",
            "rounding",
        )


def _fix(graph: GraphProto, choices: Choices) -> None:
    given = {value.name: value for value in graph.input}
    for name, array in choices.fixed.items():
        if name not in given:
            raise InvalidInput(f"fixed: there is no input {name!r}{_near(name, given)}", f'fixed["{name}"]')
        if name in choices.inputs:
            raise InvalidInput(f"input {name!r} is fixed and an input at once", f'fixed["{name}"]')
        _check_fits(given[name], array)
    fixed = set(choices.fixed)
    for items in (graph.input, graph.initializer):
        for index in reversed(range(len(items))):
            if items[index].name in fixed:
                del items[index]
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in choices.fixed.items())


def _check_fits(value: ValueInfoProto, array: np.ndarray[Any, Any]) -> None:
    tensor = value.type.tensor_type
    expected = (
        np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else array.dtype
    )
    extents = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    fits = not tensor.HasField("shape") or (
        len(extents) == array.ndim
        and all(one in (None, size) for one, size in zip(extents, array.shape, strict=True))
    )
    if array.dtype != expected or not fits:
        shape = ", ".join("?" if one is None else str(one) for one in extents)
        raise InvalidInput(
            f"fixed: input {value.name!r} should be {expected.name}[{shape}], "
            f"not {array.dtype.name}{list(array.shape)}",
            f'fixed["{value.name}"]',
        )


def _cut(model: ModelProto, choices: Choices) -> None:
    graph = model.graph
    declared = [ValueInfoProto.FromString(value.SerializeToString()) for value in graph.value_info]
    checked_by_structure(model)
    types = types_of(model, declared)
    produced = {name: node for node in graph.node for name in node.output if name}
    known = set(types) | set(produced)
    for role, names in (("inputs", choices.inputs), ("outputs", choices.outputs)):
        for name in names:
            if name not in known:
                raise InvalidInput(f"{role}: the graph has no value {name!r}{_near(name, known)}", role)
            if names.count(name) > 1:
                raise InvalidInput(f"{role}: {name!r} is given twice", role)
    for name in choices.inputs:
        if name in produced:
            _disconnect(produced[name], name, known)
    own = {value.name: value for value in graph.output}
    if choices.outputs:
        kept = [own.get(name) or _value(name, types.get(name)) for name in choices.outputs]
        del graph.output[:]
        graph.output.extend(kept)
    needed = keep_needed(graph, [value.name for value in graph.output])
    before = [value for value in graph.input if value.name in needed or not choices.outputs]
    if choices.inputs:
        before = _chosen_inputs(graph, choices, types, needed)
    del graph.input[:]
    graph.input.extend(before)


def _chosen_inputs(
    graph: GraphProto, choices: Choices, types: Mapping[str, TypeProto], needed: set[str]
) -> list[ValueInfoProto]:
    own = {value.name: value for value in graph.input}
    constants = {tensor.name for tensor in graph.initializer}
    missing = [
        name for name in own if name in needed and name not in choices.inputs and name not in constants
    ]
    if missing:
        raise InvalidInput(
            f"inputs: the outputs also need {missing[0]!r}: list it, or give it a value with fixed=",
            "inputs",
        )
    for name in choices.inputs:
        if name not in needed:
            raise InvalidInput(f"inputs: no output depends on {name!r}; leave it out", "inputs")
        kind = types[name].tensor_type if name in types else None
        if kind is None or not kind.elem_type or not kind.HasField("shape"):
            raise InvalidInput(
                f"inputs: type and rank of {name!r} do not follow from the graph; cut it elsewhere", "inputs"
            )
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name in choices.inputs:
            del graph.initializer[index]
    return [own.get(name) or _value(name, types[name]) for name in choices.inputs]


def _disconnect(node: NodeProto, name: str, taken: set[str]) -> None:
    """Give a node's output another name, so that what reads it reads an input in its place."""
    other = f"{name}.before"
    while other in taken:
        other += "_"
    taken.add(other)
    for index, output in enumerate(node.output):
        if output == name:
            node.output[index] = other


def _value(name: str, kind: TypeProto | None) -> ValueInfoProto:
    value = ValueInfoProto(name=name)
    if kind is not None:
        value.type.CopyFrom(kind)
    return value


def _near(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
