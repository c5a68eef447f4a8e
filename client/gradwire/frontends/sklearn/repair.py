"""Completes and corrects a model that skl2onnx made.

Removes outputs that were not asked for, with the nodes that only they need. Adds casts after ONNX's classical
operators, which return float32 also in float64 graphs. Infers shapes again, since skl2onnx declares some
wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.defs
import onnx.helper
import onnx.shape_inference

from gradwire.errors import InvalidArgumentError
from gradwire.graphs.files.pruning import keep

_FAILURES = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)
_ML = "ai.onnx.ml"


def finished(
    proto: onnx.ModelProto,
    kept: Mapping[str, str],
    rows: int | None,
    dtype: np.dtype[Any],
    columns: tuple[int, ...] | None,
) -> onnx.ModelProto:
    """Change a model in place so that it has exactly the outputs in `kept`, with correct types, and check
    it.

    Args:
        proto: the model that skl2onnx made.
        kept: the new name of each output that stays, in order.
        rows: the number of rows, or None for any.
        dtype: of the input: float64 or float32.
        columns: the shape of each output without its rows, or None to leave it as it is.

    Returns:
        `proto`.

    Raises:
        InvalidArgumentError: an output is text, or the model does not pass ONNX's full check.
    """
    graph = proto.graph
    declared = {value.name: _copied(value) for value in graph.output}
    for name in kept:
        if declared[name].elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
            raise InvalidArgumentError(
                "the labels are text, which does not travel: fit with integers, or ask for predict_proba"
            )
    opsets = {one.domain: one.version for one in proto.opset_import}  # skl2onnx may list a domain twice
    del proto.opset_import[:]
    proto.opset_import.extend(onnx.helper.make_opsetid(domain, number) for domain, number in opsets.items())
    entry = graph.input[0].type.tensor_type
    _set_shape(entry, rows, (entry.shape.dim[1].dim_value,))
    del graph.value_info[:], graph.output[:]
    keep(graph, kept)
    _cast(graph, opsets, onnx.helper.np_dtype_to_tensor_dtype(dtype))
    types = _inferred(proto)
    for name, new in kept.items():
        inner = f"{name}_of_{graph.name}"
        rename(graph, name, inner)
        shape = _known(types.get(name), declared[name]).shape.dim
        if columns == ():
            # One number a row; the two columns of a margin differ in sign, and the method returns the second.
            wide = len(shape) == 2 and shape[1].dim_value == 2
            what = np.array(1) if wide else np.array([-1])
            graph.initializer.append(onnx.numpy_helper.from_array(what, f"{new}_rows"))
            op = onnx.helper.make_node("Reshape", [inner, f"{new}_rows"], [new])
            if wide:
                op = onnx.helper.make_node("Gather", [inner, f"{new}_rows"], [new], axis=1)
            graph.node.append(op)
        else:
            graph.node.append(onnx.helper.make_node("Identity", [inner], [new]))
    types = _inferred(proto)
    for name, new in kept.items():
        tensor = graph.output.add(name=new).type.tensor_type
        tensor.CopyFrom(_known(types.get(new), declared[name]))
        if new in types:
            tensor.elem_type = types[new].elem_type
        if columns is not None:
            _set_shape(tensor, rows, columns)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except _FAILURES as error:
        raise _conflict(proto, error) from error
    return proto


def _conflict(proto: onnx.ModelProto, error: Exception) -> InvalidArgumentError:
    return InvalidArgumentError(f"skl2onnx makes a graph of {proto.graph.name} that does not hold: {error}")


def _cast(graph: onnx.GraphProto, opsets: Mapping[str, int], to: int) -> None:
    """Cast outputs of classical operators that are always float32 to the element type of the graph.

    In float32 graphs too: shape inference does not find the output type of some of these operators.
    """
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.domain != _ML:
            continue
        schema = onnx.defs.get_schema(node.op_type, opsets[_ML], _ML)
        for place, output in enumerate(node.output):
            if output and schema.outputs[place].types == {"tensor(float)"}:
                node.output[place] = f"{output}_float32"
                nodes.append(onnx.helper.make_node("Cast", [node.output[place]], [output], to=to))
    del graph.node[:]
    graph.node.extend(nodes)


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename an input of a graph or a value of its nodes, except in subgraphs.

    Raises:
        InvalidArgumentError: something else has that name.
    """
    taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    taken |= {output for node in graph.node for output in node.output}
    if new in taken and new != old:
        raise InvalidArgumentError(f"the graph has another value called {new!r}: choose another name")
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = new if name == old else name


def _known(inferred: onnx.TypeProto.Tensor | None, declared: onnx.TypeProto.Tensor) -> onnx.TypeProto.Tensor:
    """Return the inferred type, or the declared one if no shape was inferred."""
    return declared if inferred is None or not inferred.HasField("shape") else inferred


def _copied(value: onnx.ValueInfoProto) -> onnx.TypeProto.Tensor:
    tensor = onnx.TypeProto.Tensor()
    tensor.CopyFrom(value.type.tensor_type)
    return tensor


def _set_shape(tensor: onnx.TypeProto.Tensor, rows: int | None, columns: tuple[int, ...]) -> None:
    del tensor.shape.dim[:]
    tensor.shape.SetInParent()
    if rows is None:
        tensor.shape.dim.add(dim_param="rows")
    else:
        tensor.shape.dim.add(dim_value=rows)
    for extent in columns:
        tensor.shape.dim.add(dim_value=extent)


def _inferred(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    try:
        typed = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except _FAILURES as error:
        raise _conflict(proto, error) from error
    return {value.name: value.type.tensor_type for value in typed.graph.value_info}
