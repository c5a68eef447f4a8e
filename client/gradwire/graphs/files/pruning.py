"""Removes nodes and constants that a graph does not need."""

from collections.abc import Iterable

import onnx


def needed_by(graph: onnx.GraphProto, wanted: Iterable[str]) -> set[str]:
    """Return the wanted values and what they are computed from; nodes may be in any order."""
    producers = {name: node for node in graph.node for name in node.output if name}
    needed, stack = set[str](), list(wanted)
    while stack:
        name = stack.pop()
        if name in needed:
            continue
        needed.add(name)
        node = producers.get(name)
        if node is not None:
            stack.extend(node.input)
            for attribute in node.attribute:
                stack.extend(_read_inside(attribute))
    return needed


def keep(graph: onnx.GraphProto, wanted: Iterable[str]) -> set[str]:
    """Remove, in place, the nodes and constants that none of the wanted values needs; returns the needed."""
    needed = needed_by(graph, wanted)
    nodes = [node for node in graph.node if needed.intersection(node.output)]
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    return needed


def _read_inside(attribute: onnx.AttributeProto) -> set[str]:
    """Return the names that the subgraphs in an attribute read, including their own values."""
    names: set[str] = set()
    for graph in (attribute.g, *attribute.graphs):
        names.update(output.name for output in graph.output)
        for node in graph.node:
            names.update(node.input)
            for inner in node.attribute:
                names |= _read_inside(inner)
    return names
