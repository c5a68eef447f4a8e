"""Looks through a model: what is in it, and whether its outputs can have derivatives other than 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import onnx

from gradwire.graphs.signature import Signature

_FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}

_STEPS = {
    *("Round", "Floor", "Ceil", "Sign", "ArgMax", "ArgMin", "Shape", "Size", "NonZero", "IsNaN", "IsInf"),
    *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Xor", "Not"),
    *("QuantizeLinear", "DynamicQuantizeLinear"),
    *("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "Binarizer"),
}
"""Operators whose outputs do not change with small changes of their inputs."""


def contents(model: onnx.ModelProto) -> list[str]:
    """Return lines about the nodes of a model, those in subgraphs and functions included."""
    inner = list(_subgraphs(model.graph.node))
    bodies = [list(function.node) for function in model.functions]
    bodies += [list(graph.node) for function in model.functions for graph in _subgraphs(function.node)]
    nodes = [*model.graph.node, *(node for graph in inner for node in graph.node)]
    nodes += [node for body in bodies for node in body]
    operators = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in nodes)
    parts = [
        f"{len(model.graph.node):,} in the graph",
        *([f"{sum(len(g.node) for g in inner):,} in {_count(len(inner), 'subgraph')}"] if inner else []),
        *([f"{sum(map(len, bodies)):,} in {_count(len(model.functions), 'function')}"] if bodies else []),
    ]
    listed = ", ".join(f"{name} x {count}" for name, count in sorted(operators.items()))
    return [f"nodes: {', '.join(parts)}", f"operators: {listed or 'none'}"]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield graph
                yield from _subgraphs(graph.node)


def without_derivative(model: onnx.ModelProto, signature: Signature) -> str:
    """Say why no derivative of a model is of use; "" if there may be one that is not 0.

    Subgraphs and functions are not looked into: what goes through them may have a derivative.
    """
    inputs = {value.name for value in signature.inputs if value.floating}
    outputs = {value.name for value in signature.outputs if value.floating}
    if not inputs or not outputs:
        return f"nothing can be differentiated: no {'output' if inputs else 'input'} is floating-point"
    functions = {(function.domain, function.name) for function in model.functions}
    reached, changing, steps = set(inputs), set(inputs), set()
    for node in model.graph.node:
        read = _read(node)
        if not read.isdisjoint(reached):
            reached.update(node.output)
        if read.isdisjoint(changing):
            continue
        if (node.domain, node.op_type) not in functions and _is_step(node):
            steps.add(node.op_type)
        else:
            changing.update(node.output)
    if not outputs.isdisjoint(changing):
        return ""
    if outputs.isdisjoint(reached):
        return "every derivative is 0: no output depends on a floating-point input"
    return (
        "every derivative is 0: all that depends on a floating-point input goes through steps "
        f"({', '.join(sorted(steps))})"
    )


def _is_step(node: onnx.NodeProto) -> bool:
    if node.op_type == "Cast":
        return any(one.name == "to" and one.i not in _FLOATS for one in node.attribute)
    return node.op_type in _STEPS


def _read(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, those in its subgraphs included."""
    names = set(node.input)
    for graph in _subgraphs([node]):
        names.update(name for inner in graph.node for name in inner.input)
        names.update(value.name for value in graph.output)
    return names
