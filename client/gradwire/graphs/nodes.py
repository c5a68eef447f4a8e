"""Values, nodes and bodies of a graph while it is built, and their form in an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import helper

from gradwire.graphs.refusals import refuse
from gradwire.graphs.sizes import is_symbolic

if TYPE_CHECKING:
    from gradwire.graphs.builder import GraphBuilder

DType = np.dtype[Any]
Shape = tuple[int, ...]
"""Extents of axes; a `Size` takes the place of one that is not known."""


class GraphValue:
    """The result of a node, an input or a constant: an immutable name, shape and dtype.

    It belongs to the body that it was made in, and to that body's graph, in which its name is unique.
    """

    __slots__ = ("body", "dtype", "graph", "name", "shape")

    def __init__(self, body: Body, name: str, shape: Shape, dtype: DType) -> None:
        self.graph = body.graph
        self.body = body
        self.name = name
        self.shape = shape
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size


class Node(NamedTuple):
    """A node: its operator, the names of its inputs and outputs, and its attributes."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    captured: frozenset[str]
    """Names that its bodies read."""


class Body:
    """The nodes of one ONNX graph: the function itself, or the body of a loop or branch in it.

    Attributes:
        graph: the builder that it belongs to.
        outer: the body around it, whose values it may use; None for the function's own.
        nodes: in the order in which they were traced.
        inputs: values that the body is given.
        outputs: values that it returns.
    """

    __slots__ = ("graph", "inputs", "nodes", "outer", "outputs")

    def __init__(self, graph: GraphBuilder, outer: Body | None) -> None:
        self.graph = graph
        self.outer = outer
        self.nodes: list[Node] = []
        self.inputs: list[GraphValue] = []
        self.outputs: list[GraphValue] = []

    def sees(self, body: Body) -> bool:
        """Return whether values of another body can be used in this one."""
        around: Body | None = self
        while around is not None and around is not body:
            around = around.outer
        return around is body

    def reads(self) -> set[str]:
        """Names that its nodes and their bodies read."""
        return {name for node in self.nodes for name in (*node.inputs, *node.captured)}


def element_type(dtype: DType, kinds: str = "fiub") -> int:
    """ONNX's number for a dtype whose kind is one of `kinds`.

    Raises:
        TraceError: the dtype is complex, long double, text or object.
    """
    if dtype.kind not in kinds or dtype.itemsize > 8:
        raise refuse(
            f"an array of dtype {dtype}",
            "graphs hold float16/32/64, integers and bool: convert it, or split real and imaginary parts",
        )
    return int(helper.np_dtype_to_tensor_dtype(dtype))


def uses(nodes: Sequence[Node], domain: str) -> bool:
    """Return whether an operator of a domain is among nodes, or in their bodies."""
    return any(
        node.domain == domain
        or any(uses(item.nodes, domain) for item in node.attributes.values() if isinstance(item, Body))
        for node in nodes
    )


def write(graph: onnx.GraphProto, nodes: Sequence[Node], final: Mapping[str, str]) -> None:
    """Add nodes to a message, under the final names of values."""
    for index, node in enumerate(nodes):
        proto = graph.node.add(
            op_type=node.op,
            domain=node.domain,
            name=f"{node.op}_{index}",
            input=[final.get(item, item) for item in node.inputs],
            output=[final.get(item, item) for item in node.outputs],
        )
        for key, content in node.attributes.items():
            given = _body(key, content, final) if isinstance(content, Body) else content
            proto.attribute.append(helper.make_attribute(key, given))


def _body(name: str, body: Body, final: Mapping[str, str]) -> onnx.GraphProto:
    graph = onnx.GraphProto(name=name)
    graph.input.extend(value_info(value.name, value) for value in body.inputs)
    graph.output.extend(value_info(value.name, value) for value in body.outputs)
    write(graph, body.nodes, final)
    return graph


def value_info(name: str, value: GraphValue) -> onnx.ValueInfoProto:
    """Describe a value as an input or output of that name; a size is written as the name of an extent."""
    shape = [str(extent) if is_symbolic(extent) else extent for extent in value.shape]
    return helper.make_tensor_value_info(name, element_type(value.dtype, value.graph.kinds), shape)
