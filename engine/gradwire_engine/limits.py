"""Bounds on what one graph may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds the engine enforces before it allocates or compiles anything.

    Attributes:
        graph_bytes: size of a serialized graph, bytes.
        nodes: nodes of a graph, its subgraphs and expanded function bodies.
        array_bytes: size of any single intermediate array, bytes.
        loop_trips: trips of a loop whose count is known before it runs.
        blocks: blocks of one plan.
        evaluation_bytes: memory of one evaluation or block, its results included, bytes.
        detection_bytes: memory of the index sets from which a sparsity pattern is found, bytes.
        nonzeros: entries of a sparsity pattern.
        colors: seeds of a sparse derivative.
        transforms: of one function, one applied to the other.
        names: inputs, or outputs, of a transformed function.
        equations: of the program of a transformed function, as estimated: each transform multiplies it.
    """

    graph_bytes: int = 512 << 20
    nodes: int = 200_000
    array_bytes: int = 8 << 30
    loop_trips: int = 10_000_000
    blocks: int = 1_000_000
    evaluation_bytes: int = 16 << 30
    detection_bytes: int = 4 << 30
    nonzeros: int = 500_000_000
    colors: int = 100_000
    transforms: int = 16
    names: int = 4096
    equations: int = 1_000_000
