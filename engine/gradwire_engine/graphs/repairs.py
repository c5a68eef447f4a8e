"""Takes models as exporters leave them, which every runtime does, to the form that ONNX's checker accepts.

Nothing here changes what a model computes. What a file says redundantly (shapes of inner values and outputs)
is checked where it fits and dropped where it does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from gradwire_engine.errors import InvalidGraph, one_line
from gradwire_engine.graphs.checks import bodies_of, check, check_structure
from gradwire_engine.graphs.nodes import graphs_in, keep_needed, nodes_in, sort
from gradwire_engine.limits import Limits
from gradwire_engine.lowering.rules.control_flow.subgraphs import reads
from gradwire_engine.lowering.sparse import dense

_ML = "ai.onnx.ml"


def tidy(model: ModelProto, limits: Limits) -> None:
    """Write a model, in place, as the checker wants it.

    Nodes are put in order, ONNX's own domain is left unnamed, an extent of -1 becomes an unknown one, and
    sparse initializers become dense.

    Raises:
        InvalidGraph: the indices of a sparse initializer do not fit its shape.
        LimitExceeded: one is too large to be dense.
    """
    _unname_domain(model)
    for owner in bodies_of(model):
        sort(owner)
        for graph in graphs_in(owner):
            if isinstance(graph, GraphProto):
                for value in (*graph.input, *graph.output, *graph.value_info):
                    _forget_unknown_extents(value)
                _densify(graph, limits)


def _unname_domain(model: ModelProto) -> None:
    owners: list[ModelProto | FunctionProto] = [model, *model.functions]
    for owner in owners:
        known = {(item.domain, item.version) for item in owner.opset_import}
        for index in reversed(range(len(owner.opset_import))):
            item = owner.opset_import[index]
            if item.domain == "ai.onnx":
                if ("", item.version) in known:
                    del owner.opset_import[index]
                else:
                    item.domain = ""
    for body in bodies_of(model):
        for node in nodes_in(body):
            if node.domain == "ai.onnx":
                node.domain = ""


def _forget_unknown_extents(value: ValueInfoProto) -> None:
    for dim in value.type.tensor_type.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value == -1:
            dim.ClearField("dim_value")


def _densify(graph: GraphProto, limits: Limits) -> None:
    for sparse in graph.sparse_initializer:
        name = sparse.values.name
        try:
            array = dense(sparse, limits)
        except (LookupError, ValueError, TypeError) as error:
            raise InvalidGraph(f"sparse constant {name!r} cannot be read: {one_line(error)}") from None
        graph.initializer.append(numpy_helper.from_array(array, name))
    del graph.sparse_initializer[:]


def keep_numbers(model: ModelProto) -> tuple[str, ...]:
    """Remove, in place, what is no array of numbers; return warnings that name the outputs left out.

    Outputs of text and dictionaries are removed, with the nodes and the inputs that only they need. A ZipMap,
    which turns probabilities into dictionaries, is replaced by its input.

    Raises:
        InvalidGraph: no output is an array of numbers.
    """
    graph = model.graph
    zipped: set[str] = set()
    for node in graph.node:
        if node.op_type == "ZipMap" and node.domain == _ML:
            zipped.update(node.output)
            node.op_type, node.domain = "Identity", ""
            del node.attribute[:]
    for value in graph.output:
        if value.name in zipped:
            # The dictionaries' values are of type float; the array's shape follows.
            value.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    kinds = {value.name: _kind(value) for value in graph.output}
    dropped = [name for name, kind in kinds.items() if kind]
    if len(dropped) == len(kinds):
        raise InvalidGraph(
            "no output is an array of numbers: "
            + ", ".join(f"{name!r} is {kind}" for name, kind in kinds.items())
            + "; choose arrays inside the graph with outputs=, or export the model with tensors as outputs"
        )
    if dropped:
        _drop_outputs(graph, dropped)
    read = {value.name for value in graph.output}.union(*map(reads, graph.node))
    for node in graph.node:
        if node.domain == _ML and node.output and node.output[0] not in read:
            _number_labels(node)
    return tuple(f"output {name!r} is left out: it is no array of numbers" for name in dropped)


def _drop_outputs(graph: GraphProto, dropped: Collection[str]) -> None:
    """Remove outputs, with the nodes that only they need, and the inputs of other things than numbers."""
    kept = [value for value in graph.output if value.name not in dropped]
    del graph.output[:]
    graph.output.extend(kept)
    names = keep_needed(graph, [value.name for value in kept])
    for index in reversed(range(len(graph.input))):
        value = graph.input[index]
        if _kind(value) and value.name not in names:
            del graph.input[index]


def _number_labels(node: NodeProto) -> None:
    """Give a classifier whose labels nothing reads numbers for labels of text."""
    for attribute in node.attribute:
        if attribute.name == "classlabels_strings" and attribute.strings:
            count = len(attribute.strings)
            attribute.CopyFrom(helper.make_attribute("classlabels_int64s", list(range(count))))
            return


def _kind(value: ValueInfoProto) -> str:
    """Return what a value is if it is no array of numbers, else ""."""
    kind = value.type.WhichOneof("value")
    if kind is None or kind == "tensor_type":
        return "text" if value.type.tensor_type.elem_type == TensorProto.STRING else ""
    names = {"sequence_type": "a sequence", "map_type": "a dictionary", "optional_type": "an optional"}
    return names.get(kind, "a sparse tensor")


def checked(model: ModelProto, *, by_structure: bool = False) -> None:
    """Check a model; where the shapes it says redundantly are at fault, once more without them, in place.

    Args:
        model: the model.
        by_structure: whether shapes that do not fit may wait for the trace. ONNX's shape inference looks into
            both branches of an If, also where a constant decides which one is taken.

    Raises:
        InvalidGraph: with the checker's reason.
    """
    try:
        check(model)
    except InvalidGraph:
        declared = _without_shapes(model)
        try:
            check(model)
        except InvalidGraph:
            if not by_structure:
                raise
            check_structure(model)
        _restore_outputs(model, declared)


def checked_by_structure(model: ModelProto) -> None:
    """Check a model's structure, without the types that it says redundantly, which are dropped.

    Raises:
        InvalidGraph: with the checker's reason.
    """
    declared = _without_shapes(model)
    check_structure(model)
    model.graph.output.extend(declared)


def _without_shapes(model: ModelProto) -> list[ValueInfoProto]:
    """Drop types of inner values, and outputs, which have no form without a type; return the outputs."""
    for graph in graphs_in(model.graph):
        del graph.value_info[:]
        if isinstance(graph, GraphProto) and graph is not model.graph:
            for value in graph.output:
                value.ClearField("type")
    declared = [ValueInfoProto.FromString(value.SerializeToString()) for value in model.graph.output]
    del model.graph.output[:]
    return declared


def _restore_outputs(model: ModelProto, declared: list[ValueInfoProto]) -> None:
    inferred = types_of(model)
    known = {name for node in model.graph.node for name in node.output} | set(inferred)
    for value in declared:
        if value.name not in known:
            raise InvalidGraph(f"no node gives the output {value.name!r}")
        made = model.graph.output.add(name=value.name)
        found = inferred.get(value.name)
        if value.type.WhichOneof("value") not in (None, "tensor_type"):
            made.type.CopyFrom(value.type)
            continue
        said = value.type.tensor_type.elem_type
        if found is None:
            if said:
                made.type.CopyFrom(helper.make_tensor_type_proto(said, None))
            continue
        if found.HasField("tensor_type") and said and said != found.tensor_type.elem_type:
            raise InvalidGraph(
                f"the output {value.name!r} is declared {_type_name(said)}, and is "
                f"{_type_name(found.tensor_type.elem_type)}"
            )
        made.type.CopyFrom(found)


def _type_name(code: int) -> str:
    try:
        return TensorProto.DataType.Name(code).lower()
    except ValueError:
        return f"of element type {code}"


def types_of(model: ModelProto, declared: Iterable[ValueInfoProto] = ()) -> dict[str, TypeProto]:
    """Return the types of the values of a model's graph, as far as they follow or are declared.

    Args:
        model: a model that is safe to be read by ONNX's shape inference.
        declared: types to believe where none follows.
    """
    types = {value.name: value.type for value in declared if value.type.WhichOneof("value")}
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        graph = model.graph
    types |= {value.name: value.type for value in graph.value_info}
    types |= {value.name: value.type for value in graph.output if value.type.WhichOneof("value")}
    types |= {
        tensor.name: helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        for tensor in graph.initializer
    }
    return types | {value.name: value.type for value in graph.input}
