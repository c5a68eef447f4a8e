"""Names, dependencies and order of a graph's nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onnx import FunctionProto, GraphProto, NodeProto

from gradwire_engine.lowering.rules.control_flow.subgraphs import reads

Body = GraphProto | FunctionProto


def graphs_in(graph: Body) -> Iterator[Body]:
    """Yield a graph or function, and every subgraph within it."""
    stack = [graph]
    while stack:
        current = stack.pop()
        yield current
        for node in current.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    stack.append(attribute.g)
                stack.extend(attribute.graphs)


def nodes_in(graph: Body) -> Iterator[NodeProto]:
    """Yield the nodes of a graph or function and of every subgraph within it."""
    for current in graphs_in(graph):
        yield from current.node


def needed_by(graph: GraphProto, wanted: Iterable[str]) -> tuple[set[int], set[str]]:
    """Return the positions of the nodes that values depend on, and the names that those read."""
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    names, found = set(wanted), set()
    stack = list(names)
    while stack:
        index = producer.get(stack.pop())
        if index is None or index in found:
            continue
        found.add(index)
        more = reads(graph.node[index]) - names
        names |= more
        stack.extend(more)
    return found, names


def keep_needed(graph: GraphProto, wanted: Iterable[str]) -> set[str]:
    """Remove nodes and constants that none of the wanted values needs, in place; return what is read."""
    found, names = needed_by(graph, wanted)
    for index in reversed(range(len(graph.node))):
        if index not in found:
            del graph.node[index]
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in names:
            del graph.initializer[index]
    return names


def sort(graph: Body) -> None:
    """Put nodes after those that they read from, in place, in subgraphs too; circles are left as they are."""
    for current in graphs_in(graph):
        order = _order(current)
        if order is not None and order != list(range(len(order))):
            nodes = [NodeProto.FromString(current.node[index].SerializeToString()) for index in order]
            del current.node[:]
            current.node.extend(nodes)


def _order(graph: Body) -> list[int] | None:
    """Return an order of a graph's nodes that follows their dependencies, None where there is none."""
    producer = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    before = [
        sorted({producer[name] for name in reads(node) if name in producer} - {index})
        for index, node in enumerate(graph.node)
    ]
    if all(all(other < index for other in others) for index, others in enumerate(before)):
        return list(range(len(before)))
    waiting = [len(others) for others in before]
    after: list[list[int]] = [[] for _ in before]
    for index, others in enumerate(before):
        for other in others:
            after[other].append(index)
    ready = [index for index, count in enumerate(waiting) if not count][::-1]
    order = []
    while ready:
        index = ready.pop()
        order.append(index)
        for other in reversed(after[index]):
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    return order if len(order) == len(before) else None
