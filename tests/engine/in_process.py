"""Runs plans in the calling process, block by block, without a service: for the tests of all packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from gradwire_engine.graphs.graph import Graph
from gradwire_engine.limits import Limits
from gradwire_engine.planning.kernels import EvaluateSpec, Kernel, compile_kernel, place
from gradwire_engine.planning.plan import Plan
from gradwire_engine.planning.sparse_plan import Planned
from gradwire_engine.planning.transforms import FunctionSpec
from gradwire_engine.values import ArrayType, Block, dtype_of

NumpyArray = np.ndarray[Any, Any]


def argument_types(inputs: Mapping[str, NumpyArray]) -> tuple[tuple[str, ArrayType], ...]:
    """Return the types of arrays at hand."""
    return tuple((name, ArrayType(array.dtype.name, array.shape)) for name, array in inputs.items())


def evaluate(
    graph: Graph, function: FunctionSpec, inputs: Mapping[str, NumpyArray], limits: Limits | None = None
) -> dict[str, NumpyArray]:
    """Evaluate a function at a point; outputs by name."""
    kernel = compile_kernel(graph, EvaluateSpec(function, argument_types(inputs)), limits)
    return dict(zip(kernel.output_names, kernel.run(graph.weights, inputs), strict=True))


def blocks(
    graph: Graph, plan: Plan, inputs: Mapping[str, NumpyArray], limits: Limits | None = None
) -> Iterator[tuple[Block, tuple[NumpyArray, ...]]]:
    """Compute a plan's blocks in order; each with one matrix a piece (see Plan.pieces)."""
    kernels: dict[int, Kernel] = {}
    weights, placed = place(graph.weights), place(inputs)
    for block in plan.blocks:
        if block.array not in kernels:
            kernels[block.array] = compile_kernel(graph, plan.kernel(block), limits)
        yield block, kernels[block.array].run(weights, placed, block)


def assemble(
    graph: Graph, plan: Plan, inputs: Mapping[str, NumpyArray], limits: Limits | None = None
) -> list[NumpyArray]:
    """Compute a plan; one array of shape row_shape + column_shape for each entry."""
    matrices = [
        np.zeros((prod(entry.row_shape), prod(entry.column_shape)), dtype_of(entry.dtype))
        for entry in plan.entries
    ]
    for block, arrays in blocks(graph, plan, inputs, limits):
        for piece, array in zip(plan.pieces(block), arrays, strict=True):
            matrices[piece.entry][
                piece.row_start : piece.row_stop, piece.column_start : piece.column_stop
            ] = array
    return [
        matrix.reshape(entry.row_shape + entry.column_shape)
        for matrix, entry in zip(matrices, plan.entries, strict=True)
    ]


def assemble_sparse(
    graph: Graph, planned: Planned, inputs: Mapping[str, NumpyArray], limits: Limits | None = None
) -> NumpyArray:
    """Compute a sparse plan; the joint matrix, dense."""
    plan, structure = planned.plan, planned.structure
    assert plan.sparse is not None and structure is not None
    values = np.full(plan.sparse.nonzeros, np.nan, dtype_of(plan.sparse.dtype))
    for block, (part,) in blocks(graph, plan, {**inputs, **structure.inputs}, limits):
        values[block.first_value : block.last_value] = part
    matrix = np.zeros(plan.joint_shape, values.dtype)
    matrix[structure.rows, structure.columns] = values
    return matrix
