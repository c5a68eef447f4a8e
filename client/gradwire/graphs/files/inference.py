"""Types of the values in a graph, by ONNX's shape inference on a copy without weights."""

from collections.abc import Iterable

import onnx
import onnx.helper
import onnx.shape_inference

_KEPT_ELEMENTS = 1024
"""Constants of at most this many elements may decide shapes, and stay in the copy."""


def types_of(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """Return the types of a graph's inputs, constants and inner values, as far as they follow.

    What the model says of inner values and outputs is not believed: exporters are wrong there.
    """
    bare = onnx.ModelProto(ir_version=model.ir_version)
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    graph = bare.graph
    graph.name = "types"
    graph.input.extend(model.graph.input)
    named = {value.name for value in graph.input}
    types = {}
    for tensor in model.graph.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        if _size(tensor.dims) <= _KEPT_ELEMENTS:
            graph.initializer.append(tensor)
        elif tensor.name not in named:
            graph.input.add(name=tensor.name, type=types[tensor.name])
    for sparse in model.graph.sparse_initializer:
        name = sparse.values.name
        types[name] = onnx.helper.make_tensor_type_proto(sparse.values.data_type, list(sparse.dims))
        graph.input.add(name=name, type=types[name])
    graph.node.extend(model.graph.node)
    try:
        inferred: Iterable[onnx.ValueInfoProto] = onnx.shape_inference.infer_shapes(bare).graph.value_info
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        inferred = ()
    types |= {value.name: value.type for value in inferred}
    return types | {value.name: value.type for value in model.graph.input}


def _size(dims: Iterable[int]) -> int:
    size = 1
    for extent in dims:
        size *= max(0, extent)
    return size


def corrected(value: onnx.ValueInfoProto, found: onnx.TypeProto | None) -> onnx.ValueInfoProto:
    """Return an output with the type that follows, where what it declares is missing or contradicts it."""
    said = value.type.tensor_type
    if found is None or not found.tensor_type.elem_type or _agree(value.type, found):
        return value
    made = onnx.ValueInfoProto(name=value.name, type=found)
    same = said.HasField("shape") and len(said.shape.dim) == len(found.tensor_type.shape.dim)
    for declared, dim in zip(said.shape.dim, made.type.tensor_type.shape.dim, strict=False) if same else ():
        if not dim.HasField("dim_value") and declared.dim_param:
            dim.dim_param = declared.dim_param
    return made


def _agree(said: onnx.TypeProto, found: onnx.TypeProto) -> bool:
    if not (said.HasField("tensor_type") and said.tensor_type.HasField("shape")):
        return False
    if not found.tensor_type.HasField("shape"):
        return True
    own, other = said.tensor_type.shape.dim, found.tensor_type.shape.dim
    return len(own) == len(other) and all(
        not (one.HasField("dim_value") and two.HasField("dim_value")) or one.dim_value == two.dim_value
        for one, two in zip(own, other, strict=True)
    )
