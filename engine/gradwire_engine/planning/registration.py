"""Registers graphs: parses them, and traces those of fixed shapes.

A graph that cannot be evaluated is refused at registration, not at its first use.
"""

from __future__ import annotations

from dataclasses import replace

from gradwire_engine.graphs.graph import Graph, parse
from gradwire_engine.limits import Limits
from gradwire_engine.planning.function import fixed_arguments, trace
from gradwire_engine.values import Choices, Signature, TensorType


def register(
    data: bytes,
    *,
    text: bool = False,
    limits: Limits | None = None,
    choices: Choices | None = None,
    graph_id: str = "",
) -> Graph:
    """Parse a graph and add what tracing finds: output shapes, warnings, forward-only loops.

    Args:
        data: a serialized `ModelProto`, or UTF-8 text in ONNX's textual form if `text`.
        text: whether it is text.
        limits: bounds on its size and on its arrays.
        choices: its constants, inputs, outputs and rounding; the model's own where None.
        graph_id: the id to give it; its fingerprint by default.

    Raises:
        InvalidGraph, InvalidInput, LimitExceeded: see `gradwire_engine.graphs.graph.parse`.
    """
    limits = limits or Limits()
    graph = parse(data, text=text, limits=limits, choices=choices, graph_id=graph_id, numbers_alone=True)
    arguments = fixed_arguments(graph.info.signature)
    if arguments is None:
        return graph
    traced = trace(graph, arguments, limits)
    declared = graph.info.signature
    outputs = tuple(
        (name, TensorType(value.dtype, value.shape) if value else was)
        for (name, was), value in zip(declared.outputs, traced.outputs, strict=True)
    )
    info = replace(
        graph.info,
        signature=Signature(declared.inputs, outputs),
        forward_only=bool(traced.forward_only),
        forward_only_reason=traced.forward_only,
        warnings=graph.info.warnings + traced.warnings,
    )
    return replace(graph, info=info)
