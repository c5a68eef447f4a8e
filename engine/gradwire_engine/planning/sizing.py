"""Chooses the width of blocks: small enough to stream, distribute and fit memory, large enough to pay off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from gradwire_engine.abstract import abstract, abstract_argument
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.jaxprs.cost import Cost, estimate
from gradwire_engine.jaxprs.seeds import Seeds, push_units
from gradwire_engine.planning import derivatives
from gradwire_engine.planning.derivatives import Derivative
from gradwire_engine.planning.function import TracedFunction
from gradwire_engine.planning.kernels import BlockSpec, Kernel, SampleSpec
from gradwire_engine.planning.transforms import Arrays, Function
from gradwire_engine.refusals import refusals

BLOCK_BYTES = 8 << 20
"""Upper bound on the result bytes of a block: large enough to move at full speed, small enough to stream."""

BLOCK_FLOPS = 4e9
"""Upper bound on the operations of a block of more than one seed: tenths of a second on a core."""

WORTH_BYTES = 2 << 20
WORTH_FLOPS = 2e8
"""A block below both costs more to distribute than to compute."""

SHARES = 16
"""Blocks to aim for where each pays off: enough to keep many workers evenly busy."""

CACHE_BYTES = 4 << 20
"""Least working set of a batch of seeds: about a core's share of cache."""


def seed_cost(graph: Graph, function: TracedFunction, derivative: Derivative) -> Cost:
    """Estimate the cost of one seed: of the linear part alone, without linearizing at the point.

    Raises:
        NotDifferentiable, InvalidGraph: the function cannot be linearized.
    """

    def image(function: Function, inputs: Arrays) -> ClosedJaxpr:
        push, seeded = derivatives.linear_part(function, derivative, inputs)

        def pushed(start: Any) -> list[Any]:
            return push_units(push, seeded.shape, seeded.dtype, Seeds(start, 1))

        return jax.make_jaxpr(pushed)(abstract((), np.int64))

    return cost_of(graph, function, image)


def cost_of(graph: Graph, function: TracedFunction, image: Callable[[Function, Arrays], ClosedJaxpr]) -> Cost:
    """Estimate the cost of a linear program; what all seeds share is not counted.

    Args:
        graph: the function's graph.
        function: traced for the shapes of the inputs.
        image: makes the program, from the function with its weights bound and the inputs.

    Raises:
        NotDifferentiable, InvalidGraph: the function cannot be linearized.
    """
    weights = {name: abstract(array.shape, array.dtype) for name, array in graph.weights.items()}
    inputs = {name: abstract_argument(value) for name, value in function.arguments}
    costs: list[Cost] = []

    def linear(weights: Any, inputs: Any) -> None:
        traced = image(function.bind(weights), inputs)
        cost = estimate(traced)
        shared = sum(const.size * const.dtype.itemsize for const in traced.consts)
        costs.append(Cost(cost.flops, max(1, cost.memory_bytes - shared), cost.bounded))

    with refusals("the function cannot be differentiated"):
        jax.eval_shape(linear, weights, inputs)
    return costs[0]


def width_for(seeds: int, result_bytes: int, flops: float, worth_bytes: int = WORTH_BYTES) -> int:
    """Choose the width of blocks: enough of them to share out, each large enough to be worth it.

    Args:
        seeds: in all.
        result_bytes, flops: of one seed.
        worth_bytes: result below which a block costs more to hand out than to compute.
    """
    result_bytes, flops = max(1, result_bytes), max(1.0, flops)
    largest = max(1, min(BLOCK_BYTES // result_bytes, int(BLOCK_FLOPS / flops)))
    worth = max(1, min(ceil(worth_bytes / result_bytes), ceil(WORTH_FLOPS / flops)))
    return min(largest, max(worth, ceil(seeds / SHARES)))


def fitting(
    graph: Graph, function: TracedFunction, derivative: Derivative, seeds: int, result_bytes: int, width: int
) -> BlockSpec:
    """Choose the width and batch of a kernel's blocks.

    Args:
        graph: the function's graph.
        function: traced for the shapes of the inputs.
        derivative: which derivative, seeded where.
        seeds: number of seeds of the seeded array; at least one.
        result_bytes: bytes of the matrices that all seeds fill.
        width: seeds a block, or 0 to choose.
    """
    cost = seed_cost(graph, function, derivative)
    result = max(1, result_bytes // seeds)
    # Every seed reads the weights and the inputs that are not differentiated: a batch reads them once.
    read = sum(array.nbytes for array in graph.weights.values())
    read += sum(value.nbytes for name, value in function.arguments if name not in derivative.wrt)
    batch = max(1, max(CACHE_BYTES, read) // cost.memory_bytes)
    if not width:
        width = width_for(seeds, result, cost.flops)
        if batch < width < seeds:
            width -= width % batch
    width = min(width, seeds)
    return BlockSpec(function.spec, function.arguments, derivative, seeds, width, _even_batch(width, batch))


def fitting_samples(
    graph: Graph, function: TracedFunction, spec: SampleSpec, seeds: Sequence[int], result_bytes: int
) -> SampleSpec:
    """Choose how many samples a block of a batched derivative holds, and how many seeds run together.

    Args:
        graph: the function's graph.
        function: traced for the shapes of one sample.
        spec: of the kernel; its width is the one asked for, or 0 to choose.
        seeds: of each seeded array.
        result_bytes: bytes of the matrices of all samples.
    """
    costs = [
        seed_cost(graph, function, Derivative(spec.mode, spec.wrt, spec.of, array))
        if count
        else Cost(0.0, 1, True)
        for array, count in enumerate(seeds)
    ]
    batches = tuple(
        _even_batch(count, max(1, CACHE_BYTES // cost.memory_bytes)) if count else 0
        for count, cost in zip(seeds, costs, strict=True)
    )
    flops = sum(count * cost.flops for count, cost in zip(seeds, costs, strict=True))
    result = max(1, result_bytes // spec.seeds)
    width = spec.width
    if not width:
        width = width_for(spec.seeds, result, flops)
    return replace(spec, width=min(width, spec.seeds), batches=batches)


def _even_batch(width: int, most: int) -> int:
    """Return the smallest batch that cuts `width` into as few batches as batches of `most` do."""
    return ceil(width / ceil(width / most))


def within_memory(
    spec: BlockSpec, budget: int, build: Callable[[BlockSpec], Kernel]
) -> tuple[BlockSpec, Kernel]:
    """Narrow a block until its memory, as XLA accounts for it, is within the budget or one seed is left.

    Args:
        spec: the block to begin with.
        budget: bytes.
        build: compiles a kernel.

    Returns:
        The narrowed spec and its kernel.
    """
    while True:
        kernel = build(spec)
        if kernel.cost.memory_bytes <= budget or spec.width == 1:
            return spec, kernel
        if spec.batch > 1:
            # Fewer seeds at a time first: the block stays as wide as it was planned.
            share = budget / kernel.cost.memory_bytes
            most = max(1, int(spec.batch * min(0.5, share)))
            spec = replace(spec, batch=_even_batch(spec.width, most))
        else:
            spec = replace(spec, width=max(1, spec.width // 2))
