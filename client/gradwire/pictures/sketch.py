"""Decides what is drawn of a graph: boxes, and arrows between them.

A constant is a line of text in each box that uses it. A subgraph is a sketch inside its node's box. Nodes
beyond a limit are summarized in one box.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference

Kind = Literal["input", "output", "node", "more"]

# Both names of ONNX's own domain.
_STANDARD = ("", "ai.onnx")

# The most characters of a line of text.
_LINE = 30

# The most nodes of a subgraph that is drawn inside its box, and the deepest nesting of boxes.
_INSIDE, _DEPTH = 24, 2

# The most elements of a constant shown by its values, and the most bytes of one that shape inference sees.
_SHOWN, _HEAVY = 3, 1024


@dataclass(frozen=True)
class Box:
    """A box: its kind, its title, the lines under the title, and the subgraphs inside."""

    kind: Kind
    title: str
    lines: tuple[str, ...] = ()
    inside: tuple[Sketch, ...] = ()


@dataclass(frozen=True)
class Arrow:
    """A value passed from one box to another (positions in `Sketch.boxes`); the label is its shape."""

    source: int
    target: int
    label: str


@dataclass(frozen=True)
class Sketch:
    """Boxes in an order in which they could be evaluated, and arrows between them."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


@dataclass
class _Scope:
    """Constants and types by name, of a graph and those around it."""

    constants: Mapping[str, str]
    types: Mapping[str, onnx.TypeProto.Tensor]
    depth: int = 0
    reads: dict[str, None] = field(default_factory=dict)  # names that a subgraph reads from outside


def sketch(model: onnx.ModelProto, title: str, limit: int, bound: Iterable[str] = ()) -> Sketch:
    """Decide what is drawn of a model.

    Args:
        model: checked, of any size; only the types of large weights are looked at.
        title: stands above the drawing.
        limit: the most nodes of its graph, and so boxes; the rest is summarized in one more.
        bound: names of inputs that are shown as constants.

    Returns:
        The boxes and arrows of the graph; those of small subgraphs are in their nodes' boxes.
    """
    typed = onnx.shape_inference.infer_shapes(_light(model))
    types = {value.name: value.type.tensor_type for value in typed.graph.input}
    held = [*bound, *(tensor.name for tensor in model.graph.initializer if tensor.name in types)]
    constants = {name: f"constant {_shape(types[name])}" for name in held}
    return _sketch(typed.graph, title, limit, _Scope(constants, {}))


def _light(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model with its large weights as inputs: shape inference needs only their types."""
    light = onnx.ModelProto()
    light.opset_import.extend(model.opset_import)
    light.ir_version = max(4, model.ir_version)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    known = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= _HEAVY:
            graph.initializer.append(tensor)
            continue
        if tensor.name not in known:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            graph.input.append(value)
    return light


def _sketch(graph: onnx.GraphProto, title: str, limit: int, outer: _Scope) -> Sketch:
    types = dict(outer.types)
    for value in (*graph.value_info, *graph.input, *graph.output):
        types[value.name] = value.type.tensor_type
    constants = dict(outer.constants)
    for tensor in graph.initializer:
        constants[tensor.name] = _constant(tensor)
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in _STANDARD:
            constants[node.output[0]] = _constant_node(node)
        else:
            nodes.append(node)
    scope = _Scope(constants, types, outer.depth, outer.reads)
    boxes: list[Box] = []
    owner: dict[str, int] = {}
    arrows: dict[tuple[int, int, str], Arrow] = {}

    def connect(name: str, target: int) -> None:
        if name in owner:
            if owner[name] != target:
                arrow = Arrow(owner[name], target, _shape(types.get(name)))
                arrows.setdefault((arrow.source, target, name), arrow)
        elif name and name not in constants:
            outer.reads.setdefault(name)

    for value in graph.input:
        if value.name not in constants:
            owner[value.name] = len(boxes)
            boxes.append(Box("input", _short(value.name), (_type(value.type.tensor_type),)))
    shown = nodes if len(nodes) <= limit else nodes[: max(0, limit - 1)]
    for node in shown:
        box, reads = _box(node, scope)
        for name in reads:
            connect(name, len(boxes))
        around = [name for name in reads if name not in owner and name not in constants]
        if around:  # values of the graphs around this one
            box = replace(box, lines=(*box.lines, _short(f"outer {', '.join(around)}")))
        owner.update(dict.fromkeys((name for name in node.output if name), len(boxes)))
        boxes.append(box)
    rest = nodes[len(shown) :]
    if rest:
        place = len(boxes)
        boxes.append(Box("more", f"… {len(rest):,} more nodes", _census(rest)))
        made = {name for node in rest for name in node.output}
        for node in rest:
            for name in _reads(node):
                if name not in made:
                    connect(name, place)
        owner.update(dict.fromkeys(made, place))
    for value in graph.output:
        place = len(boxes)
        lines = (_type(types[value.name]),) if value.name not in constants else (constants[value.name],)
        boxes.append(Box("output", _short(value.name), lines))
        connect(value.name, place)
    return Sketch(title, tuple(boxes), tuple(_bundled(arrows.values())))


def _bundled(arrows: Iterable[Arrow]) -> Iterable[Arrow]:
    """Merge arrows between the same two boxes into one."""
    between: dict[tuple[int, int], list[str]] = {}
    for arrow in arrows:
        between.setdefault((arrow.source, arrow.target), []).append(arrow.label)
    for (source, target), labels in between.items():
        yield Arrow(source, target, labels[0] if len(labels) == 1 else f"{len(labels)} values")


def _box(node: onnx.NodeProto, scope: _Scope) -> tuple[Box, list[str]]:
    """Return the box of a node, and the names that it and its subgraphs read."""
    reads = [name for name in node.input if name]
    lines = [scope.constants[name] for name in reads if name in scope.constants]
    if len(joined := ", ".join(lines)) <= _LINE:
        lines = [joined] if lines else []
    elif len(lines) > 3:
        lines = [*lines[:2], f"… {len(lines) - 2} more constants"]
    settings, inside = [], []
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            inner = _Scope(scope.constants, scope.types, scope.depth + 1)
            if len(attribute.g.node) > _INSIDE or inner.depth > _DEPTH:
                lines.append(_short(f"{attribute.name}: {len(attribute.g.node):,} nodes"))
                lines.extend(_census(attribute.g.node))
                inner.reads.update(dict.fromkeys(_free(attribute.g)))
            else:
                inside.append(_sketch(attribute.g, attribute.name, _INSIDE, inner))
            reads.extend(name for name in inner.reads if name not in reads)
        elif attribute.type != onnx.AttributeProto.TENSOR:
            settings.append(_setting(attribute))
    if settings:
        lines.append(_short(", ".join(settings)))
    title = node.op_type if node.domain in _STANDARD else f"{node.domain}.{node.op_type}"
    return Box("node", _short(title), tuple(lines), tuple(inside)), reads


def _reads(node: onnx.NodeProto) -> list[str]:
    inner = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [name for name in node.input if name] + [name for graph in inner for name in _free(graph)]


def _free(graph: onnx.GraphProto) -> list[str]:
    """Return the names that a subgraph reads from the graphs around it."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    own.update(name for node in graph.node for name in node.output)
    read = [name for node in graph.node for name in _reads(node)]
    read += [value.name for value in graph.output]
    return [name for name in dict.fromkeys(read) if name not in own]


def _census(nodes: Sequence[onnx.NodeProto]) -> tuple[str, ...]:
    """Count the most common operators, in two lines."""
    counts = Counter(node.op_type for node in nodes).most_common(6)
    texts = [f"{name} ×{count:,}" for name, count in counts]
    return tuple(_short(", ".join(texts[start : start + 3])) for start in range(0, len(texts), 3))


def _constant(tensor: onnx.TensorProto) -> str:
    dims = list(tensor.dims)
    if prod(dims) > _SHOWN or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return f"constant {_sides(dims)}"
    return _values(onnx.numpy_helper.to_array(tensor))


def _constant_node(node: onnx.NodeProto) -> str:
    value = onnx.helper.get_attribute_value(node.attribute[0])
    if isinstance(value, onnx.TensorProto):
        return _constant(value)
    if isinstance(value, onnx.SparseTensorProto):
        return f"sparse constant {_sides(list(value.dims))}"
    array = np.asarray(value)
    return _values(array) if array.size <= _SHOWN else f"constant {_sides(list(array.shape))}"


def _values(array: Any) -> str:
    items = [
        one.decode(errors="replace") if isinstance(one, bytes) else one for one in np.ravel(array).tolist()
    ]
    texts = [f"{one:.4g}" if isinstance(one, float) else str(one) for one in items]
    return _short(texts[0] if np.ndim(array) == 0 else f"[{', '.join(texts)}]")


def _setting(attribute: onnx.AttributeProto) -> str:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return f"{attribute.name}={value.decode(errors='replace')}"
    if isinstance(value, float):
        return f"{attribute.name}={value:.4g}"
    if isinstance(value, int):
        return f"{attribute.name}={value}"
    items = list(value) if isinstance(value, Sequence) else []
    if 0 < len(items) <= 4 and all(isinstance(item, int) for item in items):
        return f"{attribute.name}={items}".replace(" ", "")
    return f"{attribute.name}=…"


def _type(tensor: onnx.TypeProto.Tensor) -> str:
    try:
        name = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    except KeyError:
        name = "?"
    return _short(f"{name}{_shape(tensor)}")


def _shape(tensor: onnx.TypeProto.Tensor | None) -> str:
    if tensor is None or not tensor.HasField("shape"):
        return ""
    return _sides(
        [dim.dim_value if dim.HasField("dim_value") else _symbol(dim.dim_param) for dim in tensor.shape.dim]
    )


def _symbol(name: str) -> str:
    """Return the name of a symbolic extent, "?" for one that shape inference made up (unk__0, ...)."""
    return "?" if not name or name.startswith("unk__") else _short(name, 10)


def _sides(dims: Sequence[int | str]) -> str:
    return f"[{', '.join(str(dim) for dim in dims)}]"


def _short(text: str, length: int = _LINE) -> str:
    text = "".join(letter if letter.isprintable() else "�" for letter in text)
    return text if len(text) <= length else text[: length - 1] + "…"
