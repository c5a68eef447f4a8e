"""Removes nodes and constants that a graph does not need."""

from collections.abc import Iterable

import onnx


def keep(graph: onnx.GraphProto, wanted: Iterable[str]) -> None:
    """Remove, in place, the nodes and constants that none of the wanted values needs."""
    needed, nodes = set(wanted), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
            for attribute in node.attribute:
                needed |= _read_inside(attribute)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(constants)


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
