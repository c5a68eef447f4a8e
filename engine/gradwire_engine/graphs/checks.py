"""Checks of untrusted models, made before ONNX's own C++ code sees them.

That code follows nesting and model-local functions by recursion and expands functions call by call, so
what would exhaust its stack or its time is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import prod

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from gradwire_engine.errors import InvalidGraph, LimitExceeded, one_line
from gradwire_engine.graphs.nodes import Body, graphs_in, nodes_in
from gradwire_engine.limits import Limits
from gradwire_engine.lowering.domains import domain_of, opsets_of

NESTING = 100
"""Upper bound on levels of brackets in a text, and of functions that call functions; protobuf's own bound."""

_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|#[^\n]*|[(\[{]|[)\]}]', re.DOTALL)

FunctionKey = tuple[str, str, str]


def read_text(data: bytes) -> ModelProto:
    """Read a model from ONNX's textual form.

    Raises:
        InvalidGraph: it is not one, or nests too deeply.
    """
    depth = 0
    for match in _BRACKETS.finditer(data):
        depth += {b"(": 1, b"[": 1, b"{": 1, b")": -1, b"]": -1, b"}": -1}.get(match.group(), 0)
        if depth > NESTING:
            raise InvalidGraph(f"the text nests brackets more than {NESTING} levels deep")
    try:
        return onnx.parser.parse_model(data.decode())
    except (onnx.parser.ParseError, RuntimeError, ValueError, IndexError, MemoryError) as error:
        # Numbers that are cut short end the parser with errors of C++'s own.
        raise InvalidGraph(f"the text is not an ONNX model: {one_line(error)}") from None
    except DecodeError:
        raise InvalidGraph("the text nests subgraphs too deeply for an ONNX ModelProto") from None


def read_bytes(data: bytes) -> ModelProto:
    """Read a model from its serialized form.

    Raises:
        InvalidGraph: the bytes are not one.
    """
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise InvalidGraph(
            f"the {len(data)} bytes are not a serialized ONNX ModelProto (truncated, or not a model at all)"
        ) from None
    if not model.HasField("graph") or not model.opset_import:
        raise InvalidGraph("the bytes hold no ONNX model: a ModelProto needs a graph and an opset_import")
    return model


def functions_of(model: ModelProto) -> dict[FunctionKey, FunctionProto]:
    """Return the model-local functions."""
    return {(domain_of(item), item.name, item.overload): item for item in model.functions}


def bodies_of(model: ModelProto) -> tuple[Body, ...]:
    """Return the model's graph and its functions."""
    return (model.graph, *model.functions)


def _attributes(model: ModelProto) -> Iterator[onnx.AttributeProto]:
    for function in model.functions:
        yield from function.attribute_proto
    for owner in bodies_of(model):
        for node in nodes_in(owner):
            yield from node.attribute


def tensors_in(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every constant of a model: initializers and attributes, sparse ones and subgraphs' included."""
    sparse: list[onnx.SparseTensorProto] = []
    for owner in bodies_of(model):
        for graph in graphs_in(owner):
            if isinstance(graph, GraphProto):
                yield from graph.initializer
                sparse.extend(graph.sparse_initializer)
    for attribute in _attributes(model):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("sparse_tensor"):
            sparse.append(attribute.sparse_tensor)
        sparse.extend(attribute.sparse_tensors)
    for item in sparse:
        yield from (item.values, item.indices)


def refuse_external_data(model: ModelProto) -> None:
    """Refuse a model that refers to files.

    Raises:
        InvalidGraph: naming the tensor.
    """
    for tensor in tensors_in(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise InvalidGraph(
                f"tensor {tensor.name!r} keeps its data in another file; "
                "save the model with its data inside (onnx.save with save_as_external_data=False)"
            )


def refuse_excess(model: ModelProto, limits: Limits) -> None:
    """Refuse a model that has too many nodes, counting each call of one of its functions as its body.

    Raises:
        InvalidGraph: a function calls itself, or calls go too deep.
        LimitExceeded: there are more nodes than `limits.nodes`.
    """
    functions = functions_of(model)
    known: dict[FunctionKey, tuple[int, int]] = {}

    def measure(graph: Body, path: tuple[FunctionKey, ...]) -> tuple[int, int]:
        """Count nodes after expansion, and levels of calls."""
        count = depth = 0
        for node in nodes_in(graph):
            key = (domain_of(node), node.op_type, node.overload)
            count += 1
            if key not in functions:
                continue
            if key in path:
                raise InvalidGraph(f"function {key[1]!r} of domain {key[0]!r} calls itself")
            if key not in known:
                if len(path) >= NESTING:
                    raise InvalidGraph(f"functions call functions more than {NESTING} levels deep")
                known[key] = measure(functions[key], (*path, key))
            count += known[key][0]
            depth = max(depth, 1 + known[key][1])
        return count, depth

    count, depth = measure(model.graph, ())
    for key, function in functions.items():
        # ONNX's checker visits functions that nothing calls as well.
        if key not in known:
            known[key] = measure(function, (key,))
        count, depth = max(count, known[key][0]), max(depth, known[key][1])
    if depth > NESTING:
        raise InvalidGraph(f"functions call functions {depth} levels deep; the most is {NESTING}")
    if count > limits.nodes:
        raise LimitExceeded(
            f"the graph has {count} nodes, functions expanded; the limit is {limits.nodes}",
            "nodes",
            limits.nodes,
            count,
        )


_TERM = rb"[A-Za-z ]*(\.\.\.)?[A-Za-z ]*"
_EQUATION = re.compile(rb"%b(,%b)*(->%b)?" % (_TERM, _TERM, _TERM))


def _gather_nd(node: NodeProto, attributes: dict[str, AttributeProto]) -> str:
    axes = attributes.get("batch_dims")
    legal = axes is None or 0 <= axes.i <= 64
    return "" if legal else "attribute batch_dims must be in [0, 64]"


def _split(node: NodeProto, attributes: dict[str, AttributeProto]) -> str:
    count = attributes.get("num_outputs")
    legal = count is None or count.i == len(node.output)
    return "" if legal else f"attribute num_outputs must be its number of outputs, {len(node.output)}"


def _einsum(node: NodeProto, attributes: dict[str, AttributeProto]) -> str:
    equation = attributes.get("equation")
    legal = equation is None or _EQUATION.fullmatch(equation.s)
    return "" if legal else "attribute equation must be terms of letters, like 'ij,jk->ik'"


RANK = 64
"""Upper bound on the axes of an array: NumPy's own."""

_SHAPES = {"Expand": 1, "Reshape": 1, "ConstantOfShape": 0}
"""Operators whose output has as many axes as one of their inputs has elements."""

_FATAL: dict[str, Callable[[NodeProto, dict[str, AttributeProto]], str]] = {
    "GatherND": _gather_nd,
    "Split": _split,
    "Einsum": _einsum,
}
"""Attributes and inputs with which ONNX's shape inference corrupts memory, aborts the process or hangs."""


def _lengths(model: ModelProto) -> dict[str, int]:
    """Return the declared extents of vectors, by name."""
    found = {}
    for graph in graphs_in(model.graph):
        if isinstance(graph, GraphProto):
            for value in (*graph.input, *graph.value_info):
                dims = value.type.tensor_type.shape.dim
                if len(dims) == 1:
                    found[value.name] = dims[0].dim_value
            for tensor in graph.initializer:
                if len(tensor.dims) == 1:
                    found[tensor.name] = tensor.dims[0]
    return found


def refuse_negative_extents(model: ModelProto) -> None:
    """Refuse negative extents in shapes: with them ONNX's shape inference reads beyond its memory.

    Raises:
        InvalidGraph: naming the value.
    """
    for graph in graphs_in(model.graph):
        if isinstance(graph, GraphProto):
            for value in (*graph.input, *graph.output, *graph.value_info):
                if any(dim.dim_value < 0 for dim in value.type.tensor_type.shape.dim):
                    raise InvalidGraph(
                        f"{value.name!r} has a negative extent in its shape; "
                        "leave an extent out, or name it, where it is not known"
                    )
    for tensor in tensors_in(model):
        if any(extent < 0 for extent in tensor.dims):
            raise InvalidGraph(f"constant {tensor.name or '(unnamed)'} has a negative extent in its shape")


def _texts(model: ModelProto) -> Iterator[str]:
    """Yield every name in a model that evaluation may look up."""
    yield from (item.domain for item in model.opset_import)
    for function in model.functions:
        yield from (function.name, function.domain, function.overload)
        yield from (*function.input, *function.output, *function.attribute)
    owners: list[GraphProto | FunctionProto] = [model.graph, *model.functions]
    for owner in owners:
        for graph in graphs_in(owner):
            if isinstance(graph, GraphProto):
                for value in (*graph.input, *graph.output, *graph.value_info):
                    yield value.name
                    yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
                yield from (tensor.name for tensor in graph.initializer)
            for node in graph.node:
                yield from (node.name, node.op_type, node.domain, node.overload, *node.input, *node.output)
                for attribute in node.attribute:
                    yield from (attribute.name, attribute.ref_attr_name)


def refuse_undecodable(model: ModelProto) -> None:
    """Refuse names that are not UTF-8, which protobuf gives as bytes.

    Raises:
        InvalidGraph: showing the name.
    """
    for text in _texts(model):
        if not isinstance(text, str):
            raise InvalidGraph(f"the name {text!r} in the model is not UTF-8")


def refuse_unreadable_strings(model: ModelProto) -> None:
    """Refuse strings that are not UTF-8, and constants of more or fewer strings than their shape has.

    Raises:
        InvalidGraph: naming the attribute or the constant.
    """
    for attribute in _attributes(model):
        if not all(map(_is_utf8, (attribute.s, *attribute.strings))):
            raise InvalidGraph(f"attribute {attribute.name} holds a string that is not UTF-8")
    for tensor in tensors_in(model):
        if tensor.data_type != TensorProto.STRING:
            continue
        name = tensor.name or "(unnamed)"
        if len(tensor.string_data) != prod(tensor.dims):
            raise InvalidGraph(
                f"constant {name} of shape {list(tensor.dims)} holds {len(tensor.string_data)} strings"
            )
        if not all(map(_is_utf8, tensor.string_data)):
            raise InvalidGraph(f"constant {name} holds a string that is not UTF-8")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def refuse_fatal(model: ModelProto) -> None:
    """Refuse models that ONNX's C++ code is known to crash on.

    Raises:
        InvalidGraph: naming the node and the attribute.
    """
    owners: list[GraphProto | FunctionProto] = [model.graph, *model.functions]
    lengths = _lengths(model)
    for owner in owners:
        for node in nodes_in(owner):
            for attribute in node.attribute:
                if attribute.name == "axis" and not -RANK <= attribute.i <= RANK:
                    raise InvalidGraph(
                        f"node {node.name or '(unnamed)'} ({node.op_type}): attribute axis is {attribute.i}; "
                        f"arrays have {RANK} axes at most"
                    )
            if node.op_type in _FATAL and not domain_of(node):
                attributes = {attribute.name: attribute for attribute in node.attribute}
                reason = _FATAL[node.op_type](node, attributes)
                if reason:
                    raise InvalidGraph(f"node {node.name or '(unnamed)'} ({node.op_type}): {reason}")
            if node.op_type in _SHAPES and len(node.input) > _SHAPES[node.op_type]:
                rank = lengths.get(node.input[_SHAPES[node.op_type]], 0)
                if rank > RANK:
                    raise InvalidGraph(
                        f"node {node.name or '(unnamed)'} ({node.op_type}): asks for an array of {rank} "
                        f"axes; the most is {RANK}"
                    )


def refuse_unsafe(model: ModelProto) -> None:
    """Refuse what ONNX's C++ code, the checker and shape inference, must not see.

    Raises:
        InvalidGraph: naming the node, value or constant.
    """
    refuse_undecodable(model)
    refuse_negative_extents(model)
    refuse_fatal(model)
    refuse_unreadable_strings(model)


def check(model: ModelProto) -> None:
    """Run ONNX's own full check: structure, operators' schemas, types and shapes.

    The checker forgets the default values of attributes when it expands an operator's function body and
    when it infers the shape of an STFT, and so refuses legal models: one that fails is checked once more
    with its defaults written out.

    Raises:
        InvalidGraph: with the checker's reason.
    """
    refuse_unsafe(model)
    try:
        _check_once(model)
    except InvalidGraph:
        explicit = _with_defaults(model)
        if explicit is None:
            raise
        _check_once(explicit)


def check_structure(model: ModelProto) -> None:
    """Run the part of ONNX's check that does without types and shapes of inner values.

    Raises:
        InvalidGraph: with the checker's reason.
    """
    refuse_unsafe(model)
    _check_once(model, full=False)


def _check_once(model: ModelProto, full: bool = True) -> None:
    try:
        onnx.checker.check_model(model, full_check=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InvalidGraph(f"the model fails ONNX's checker: {one_line(error)}") from None
    except (RuntimeError, ValueError, TypeError, IndexError, UnicodeDecodeError, MemoryError) as error:
        # The checker reports some malformed models through C++ exceptions of other kinds.
        raise InvalidGraph(f"the model cannot be checked: {one_line(error)}") from None


def _with_defaults(model: ModelProto) -> ModelProto | None:
    """Return a copy whose nodes set every attribute that has a default; None if they all do already."""
    copy = ModelProto()
    copy.CopyFrom(model)
    added = False
    for owner in bodies_of(copy):
        opsets = opsets_of(copy if isinstance(owner, GraphProto) else owner)
        for node in nodes_in(owner):
            domain = domain_of(node)
            version = opsets.get(domain, 1)
            if not 0 < version < 1 << 31 or not onnx.defs.has(node.op_type, version, domain):
                continue
            present = {attribute.name for attribute in node.attribute}
            for name, attribute in onnx.defs.get_schema(node.op_type, version, domain).attributes.items():
                if name not in present and attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
                    node.attribute.append(attribute.default_value)
                    added = True
    return copy if added else None
