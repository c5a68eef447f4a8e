"""Finds the values that a subgraph captures, and the part of it that some of its outputs need."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import AttributeProto, GraphProto, NodeProto


def reads(node: NodeProto) -> set[str]:
    """Return the names that a node reads, its subgraphs' captures included."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            names |= captures(attribute.g)
    return names


def captures(graph: GraphProto) -> set[str]:
    """Return the names that a subgraph takes from the enclosing graphs."""
    known = {item.name for item in graph.input}
    known |= {tensor.name for tensor in graph.initializer}
    known |= {sparse.values.name for sparse in graph.sparse_initializer}
    outside: set[str] = set()
    for node in graph.node:
        outside |= reads(node) - known
        known.update(node.output)
    return outside | ({item.name for item in graph.output} - known)


def needed_names(nodes: Iterable[NodeProto], name: str) -> list[str]:
    """Returns the names that a value is computed from and that no node gives."""
    producers = {output: node for node in nodes for output in node.output if output}
    found: dict[str, None] = {}
    stack = [name]
    while stack:
        current = stack.pop()
        if current not in found:
            found[current] = None
            if current in producers:
                stack.extend(sorted(reads(producers[current]), reverse=True))
    return [one for one in found if one not in producers]


def needed_for(graph: GraphProto, outputs: Iterable[str]) -> tuple[GraphProto, set[str]]:
    """Return the part of a graph that some of its outputs need, and all the names that part reads.

    The part has the graph's inputs and declares no outputs.
    """
    names = set(outputs)
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if names.intersection(node.output):
            kept.append(node)
            names |= reads(node)
    part = GraphProto(name=graph.name)
    part.input.extend(graph.input)
    part.node.extend(reversed(kept))
    part.initializer.extend(tensor for tensor in graph.initializer if tensor.name in names)
    part.sparse_initializer.extend(
        sparse for sparse in graph.sparse_initializer if sparse.values.name in names
    )
    return part, names
