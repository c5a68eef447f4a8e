"""The precision that a graph computes with."""

from collections.abc import Iterator

import onnx
from onnx import TensorProto

_BYTES: dict[int, int] = {
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT: 4,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
}


def shortest_float(data: bytes) -> int:
    """Return the bytes of the shortest floating-point numbers in a serialized graph; 8 if there are none.

    Inputs, outputs, constants and casts are looked at, in subgraphs too: all that can begin a type.
    """
    model = onnx.ModelProto.FromString(data)
    nodes = [node for function in model.functions for node in function.node]
    types = [*_types(model.graph), *(one for node in nodes for one in _types_of_node(node))]
    return min((_BYTES[one] for one in types if one in _BYTES), default=8)


def _types(graph: onnx.GraphProto) -> Iterator[int]:
    yield from (value.type.tensor_type.elem_type for value in (*graph.input, *graph.output))
    yield from (tensor.data_type for tensor in graph.initializer)
    for node in graph.node:
        yield from _types_of_node(node)


def _types_of_node(node: onnx.NodeProto) -> Iterator[int]:
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.type == onnx.AttributeProto.INT:
            yield attribute.i
        elif attribute.type == onnx.AttributeProto.TENSOR:
            yield attribute.t.data_type
        elif attribute.type == onnx.AttributeProto.GRAPH:
            yield from _types(attribute.g)
