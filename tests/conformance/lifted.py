"""The suite's one-node models, converted to float64, as subjects of derivative checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from gradwire_engine.errors import ValueNeeded
from gradwire_engine.lowering import Notes, evaluate
from tests.conformance import suite
from tests.conformance.onnx_backend import is_floating, tensor_choices
from tests.conformance.points import point

Values = Mapping[str, Any]

DTYPE_ATTRIBUTES = ("to", "dtype", "output_datatype")
"""Attributes whose value is an element type."""


def qualified(domain: str, op: str) -> str:
    """Returns an operator's name with its domain before it, unless that is ONNX's."""
    return f"{domain}:{op}" if domain not in ("", "ai.onnx") else op


@dataclass(frozen=True)
class Subject:
    """A model of one operator and a point at which to differentiate it.

    Attributes:
        op: qualified name.
        name: where it comes from.
        model: the model, in float64.
        values: its inputs; sequences are lists.
    """

    op: str
    name: str
    model: onnx.ModelProto
    values: Mapping[str, Any]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Flat:
    """A subject as a function from vector to vector.

    Attributes:
        function: of the floating inputs, flattened and joined; gives the floating outputs likewise.
        x: the point.
        modes: as check_flat takes them.
    """

    function: Callable[[Any], Any]
    x: np.ndarray[Any, Any]
    size: int
    modes: tuple[str, ...]


def lift_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy with float64 in place of float32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _lift_graph(copy.graph)
    return copy


def _lift_graph(graph: GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type
        while (field := kind.WhichOneof("value")) in ("sequence_type", "optional_type"):
            kind = getattr(kind, field).elem_type
        if field == "tensor_type" and kind.tensor_type.elem_type == TensorProto.FLOAT:
            kind.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        _lift_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _lift_graph(attribute.g)
            elif attribute.type == AttributeProto.TENSOR:
                _lift_tensor(attribute.t)
            elif attribute.name in DTYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE


def _lift_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        lifted = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
        tensor.CopyFrom(lifted)


def lift_value(value: Any) -> Any:
    """Returns an input of a test in float64 where it was float32."""
    if isinstance(value, list):
        return [lift_value(item) for item in value]
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    if isinstance(value, np.generic):
        value = np.asarray(value)
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype == np.float32 else value


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Returns a node's attributes as Python values."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def subjects() -> Iterator[Subject]:
    """Returns each one-node test of the suite with a floating input, at a point where it is smooth."""
    for index, test in enumerate(suite.tests()):
        if test.category != "Node" or len(test.model.graph.node) != 1 or test.model.functions:
            continue
        if suite.expected_failure(test.name) is not None or test.case.data_sets is None:
            continue
        if not suite.is_floating(test.model):
            continue
        yield _subject(test, seed=index)


def _subject(test: suite.SuiteTest, seed: int) -> Subject:
    model = lift_model(test.model)
    (node,) = model.graph.node
    assert test.case.data_sets is not None
    given = [lift_value(value) for value in test.case.data_sets[0][0]]
    values = dict(zip((item.name for item in model.graph.input), given, strict=False))
    op = qualified(node.domain, node.op_type)
    inputs = point(op, attributes_of(node), [values.get(name) for name in node.input], seed)
    values.update((name, value) for name, value in zip(node.input, inputs, strict=True) if name in values)
    return Subject(op, test.name, model, values)


def flatten(subject: Subject) -> Flat:
    """Returns the function of a subject's floating inputs, except those whose value must be static.

    Inputs with an infinity or NaN in them (masks) are constants as well, as they have no derivative.
    """
    finite = {
        name: value
        for name, value in subject.values.items()
        if not isinstance(value, np.ndarray) or not is_floating(value.dtype) or np.all(np.isfinite(value))
    }
    needed: ValueNeeded | None = None
    for constant in tensor_choices(finite):
        try:
            return _flatten(subject, [name for name in finite if name not in constant])
        except ValueNeeded as error:
            needed = needed or error
    assert needed is not None
    raise needed


def _flatten(subject: Subject, names: Sequence[str]) -> Flat:
    leaves, tree = jax.tree.flatten({name: subject.values[name] for name in names})
    moving = [index for index, leaf in enumerate(leaves) if np.asarray(leaf).dtype == np.float64]
    points = [np.asarray(leaves[index]) for index in moving]
    ends = np.cumsum([0] + [item.size for item in points])
    constants = {name: value for name, value in subject.values.items() if name not in names}
    notes = Notes()

    def function(vector: Any) -> Any:
        parts = list(leaves)
        for i, (index, item) in enumerate(zip(moving, points, strict=True)):
            parts[index] = vector[ends[i] : ends[i + 1]].reshape(item.shape)
        outputs = evaluate(subject.model, {**constants, **jax.tree.unflatten(tree, parts)}, notes=notes)
        floats = [leaf for leaf in jax.tree.leaves(outputs) if _has_derivative(leaf)]
        return jnp.concatenate([jnp.ravel(leaf) for leaf in floats] or [jnp.zeros(0)])

    x = np.concatenate([np.ravel(item) for item in points] or [np.zeros(0)])
    # Outputs that a mask makes infinite have no finite difference.
    outputs = np.asarray(jax.jit(function)(x))
    finite = np.flatnonzero(np.isfinite(outputs))
    modes = ("forward",) if notes.forward_only else ("forward", "reverse")
    if finite.size == outputs.size:
        return Flat(function, x, outputs.size, modes)
    return Flat(lambda vector: function(vector)[finite], x, finite.size, modes)


def _has_derivative(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and leaf.dtype == np.float64
