"""The ONNX graph under construction: nodes, constants, subgraphs, and the model they become."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from gradwire.errors import TraceError
from gradwire.graphs.constants import BoundModel, Constant, is_large, name_for, snapshot

Array = np.ndarray[Any, Any]
DType = np.dtype[Any]
Shape = tuple[int, ...]

OPSET = 21
"""Version of the standard operator set in converted models."""

IR_VERSION = 10
"""Version of the ONNX file format in converted models."""

SCI = "gradwire.sci"
"""Domain of the operators that ONNX lacks."""

_MODEL_BYTES = (1 << 31) - (1 << 20)


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """An array in the graph.

    Attributes:
        name: what nodes call it; "" for a constant that no node has used yet.
        shape: its extents.
        dtype: its NumPy (or ml_dtypes) dtype.
        known: its elements, where they are known while converting.
    """

    name: str
    shape: Shape
    dtype: DType
    known: Array | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        size = 1
        for extent in self.shape:
            size *= extent
        return size


def constant(array: Any, dtype: Any = None) -> Value:
    """A constant, stored in the model once a node uses it."""
    known = np.asarray(array, dtype)
    return Value("", known.shape, known.dtype, known)


def element_type(dtype: Any) -> int:
    """ONNX's number for a dtype.

    Raises:
        TraceError: graphs have no such dtype (complex numbers, random keys).
    """
    try:
        plain = np.dtype(dtype)
        if plain.kind != "c":
            return int(helper.np_dtype_to_tensor_dtype(plain))
    except (TypeError, ValueError, KeyError):
        pass
    raise TraceError(
        f"an array of dtype {dtype} has no place in a graph: use real, integer or boolean arrays; "
        "split complex numbers into two real parts, and draw random samples outside"
    )


class Graph:
    """Nodes in order. A subgraph shares names and constants with the graph around it."""

    def __init__(self, outer: Graph | None = None) -> None:
        self._root: Graph = outer._root if outer else self
        self._nodes: list[onnx.NodeProto] = []
        self._captures: list[frozenset[str]] = []
        self._produced: set[str] = set()
        self._count = 0
        self._constants: dict[Any, onnx.TensorProto] = {}
        self._referenced: dict[str, tuple[str, Constant]] = {}
        self._inputs: list[str] = []

    def inner(self) -> Graph:
        """A graph for the body of a loop or branch; it may use the values of this one."""
        return Graph(self)

    def fresh(self, prefix: str = "_t") -> str:
        """A name that nothing has yet."""
        self._root._count += 1
        return f"{prefix}{self._root._count}"

    def argument(self, shape: Shape, dtype: DType) -> Value:
        """A new input of a subgraph."""
        return self.input(self.fresh("_a"), shape, dtype)

    def input(self, name: str, shape: Shape, dtype: DType) -> Value:
        """An input of the model."""
        self._inputs.append(name)
        return Value(name, shape, dtype)

    def emit(
        self,
        op: str,
        inputs: Sequence[Value | None],
        results: Sequence[tuple[Shape, Any]],
        domain: str = "",
        **attributes: Any,
    ) -> tuple[Value, ...]:
        """Append a node; ``results`` gives the shape and dtype of each output. Empty lists are left out."""
        outputs = tuple(Value(self.fresh(), tuple(shape), np.dtype(dtype)) for shape, dtype in results)
        names = ["" if value is None else self.name(value) for value in inputs]
        set_attributes = {key: content for key, content in attributes.items() if content != []}
        node = helper.make_node(op, names, [value.name for value in outputs], domain=domain, **set_attributes)
        self._nodes.append(node)
        self._captures.append(frozenset(_used(node)))
        self._produced.update(node.output)
        return outputs

    def one(
        self,
        op: str,
        inputs: Sequence[Value | None],
        shape: Shape,
        dtype: Any,
        domain: str = "",
        **attributes: Any,
    ) -> Value:
        """Append a node with one output."""
        return self.emit(op, inputs, [(shape, dtype)], domain, **attributes)[0]

    def name(self, value: Value) -> str:
        """The name of a value; a constant is stored, equal ones once."""
        return value.name if value.known is None else self._root._stored(value.known)

    def _stored(self, array: Array) -> str:
        kind = element_type(array.dtype)
        if is_large(array):
            constant = snapshot(array)
            name = name_for(len(self._referenced), self._inputs)
            return self._referenced.setdefault(constant.tensor_id, (name, constant))[0]
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        digest = data if len(data) <= 256 else hashlib.sha256(data).digest()
        key = (kind, array.shape, digest)
        if key not in self._constants:
            self._constants[key] = onnx.TensorProto(
                name=f"_c{len(self._constants)}", data_type=kind, dims=array.shape, raw_data=data
            )
        return self._constants[key].name

    def body(self, name: str, inputs: Sequence[Value], outputs: Sequence[Value]) -> onnx.GraphProto:
        """This subgraph, as an attribute of the node whose body it is."""
        results = [self._own(value) for value in outputs]
        return helper.make_graph(
            self._live(value.name for value in results),
            name,
            [_information(value) for value in inputs],
            [_information(value) for value in results],
        )

    def _own(self, value: Value) -> Value:
        """The value under a name of its own: a graph's outputs must each be made by its nodes."""
        return self.one("Identity", [value], value.shape, value.dtype)

    def _live(self, wanted: Iterable[str]) -> list[onnx.NodeProto]:
        needed = set(wanted)
        live = []
        for node, captures in zip(reversed(self._nodes), reversed(self._captures), strict=True):
            if not needed.isdisjoint(node.output):
                live.append(node)
                needed |= captures
        return live[::-1]

    def model(self, name: str, inputs: Sequence[Value], outputs: Mapping[str, Value]) -> BoundModel:
        """The model that computes ``outputs``, without the nodes and constants that none of them needs.

        Its inputs are ``inputs``, then those for the large constants.

        Raises:
            TraceError: the constants do not fit in one model.
        """
        for label, value in outputs.items():
            node = helper.make_node("Identity", [self.name(value)], [label])
            self._nodes.append(node)
            self._captures.append(frozenset(node.input))
        nodes = self._live(outputs)
        used = set().union(*map(_used, nodes))
        constants = [tensor for tensor in self._constants.values() if tensor.name in used]
        size = sum(len(tensor.raw_data) for tensor in constants)
        if size > _MODEL_BYTES:
            raise TraceError(
                f"the function has {size} bytes of constants, more than one model can hold: "
                "pass the large arrays as arguments"
            )
        bound = {key: constant for key, constant in self._referenced.values() if key in used}
        held = [Value(key, one.array.shape, one.array.dtype) for key, one in bound.items()]
        results = [Value(label, value.shape, value.dtype) for label, value in outputs.items()]
        graph = helper.make_graph(
            nodes,
            name,
            [_information(value) for value in (*inputs, *held)],
            [_information(value) for value in results],
            constants,
        )
        for index, node in enumerate(graph.node):
            node.name = f"{node.op_type}_{index}"
        opsets = [helper.make_opsetid("", OPSET)]
        if any(domain == SCI for domain in _domains(graph)):
            opsets.append(helper.make_opsetid(SCI, 1))
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="gradwire"
        )
        return BoundModel(model, bound)


def _subgraphs(node: onnx.NodeProto) -> Iterable[onnx.GraphProto]:
    return (item.g for item in node.attribute if item.type == onnx.AttributeProto.GRAPH)


def _used(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, its subgraphs included."""
    names = set(node.input)
    for graph in _subgraphs(node):
        for inner in graph.node:
            names |= _used(inner)
    return names


def _domains(graph: onnx.GraphProto) -> Iterable[str]:
    for node in graph.node:
        yield node.domain
        for inner in _subgraphs(node):
            yield from _domains(inner)


def _information(value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, element_type(value.dtype), value.shape)
