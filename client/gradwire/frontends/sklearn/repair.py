"""What is left to do to a graph that skl2onnx made.

Outputs that were not asked for go, and the nodes that only they needed. Classical operators give float32,
which skl2onnx forgets in float64 graphs: casts are put after them. Shapes are inferred again, since some are
wrong.
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
from gradwire.graphs.pruning import keep

_FAILURES = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)
_ML = "ai.onnx.ml"


def finished(
    proto: onnx.ModelProto,
    kept: Mapping[str, str],
    rows: int | None,
    dtype: np.dtype[Any],
    columns: tuple[int, ...] | None,
) -> onnx.ModelProto:
    """The graph with the outputs in `kept`, under the names given there.

    Args:
        proto: what skl2onnx made; it is changed.
        kept: the new name of each output that stays, in order.
        rows: the number of rows, or None for any.
        dtype: of the input.
        columns: the shape of an output without its rows, or None to leave it as it is.

    Raises:
        InvalidArgumentError: an output is text, or types conflict.
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
            # One number a row; where a margin has two columns they differ in sign, and the second is meant.
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
    """Cast what classical operators give in float32, whatever they are given, to the type of the graph.

    In float32 graphs too: some of these operators say nothing of their output's type, a cast does.
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
    """Give an input of a graph, or a value of its nodes, another name; subgraphs read none of their own.

    Raises `InvalidArgumentError` where something else has that name.
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
    """What inference found, or where it found no shape what skl2onnx says."""
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
