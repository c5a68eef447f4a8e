"""Plans: how a Jacobian or Hessian is cut into blocks, decided before anything is evaluated.

A plan depends on the problem and its options alone. It never depends on how many workers there are,
so a result has the same bits on one worker or a hundred, and can be resumed block by block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import jax

from gradwire_engine import derivatives
from gradwire_engine.abstract import abstract, abstract_argument
from gradwire_engine.cost import Cost, estimate
from gradwire_engine.derivatives import Derivative
from gradwire_engine.errors import InvalidInput, NotDifferentiable
from gradwire_engine.function import TracedFunction
from gradwire_engine.graph import Graph
from gradwire_engine.kernels import BlockSpec, Kernel, compile_kernel
from gradwire_engine.limits import Limits
from gradwire_engine.transforms import (
    FunctionSpec,
    check_scalar,
    choose_inputs,
    choose_outputs,
    choose_scalar,
)
from gradwire_engine.values import Arguments, ArrayType, Block, dtype_of

JACOBIAN = "jacobian"
HESSIAN = "hessian"

BLOCK_BYTES = 8 << 20
"""Result bytes of one block at most: large enough to move at full speed, small enough to stream."""

BLOCK_FLOPS = 4e9
"""Operations of one block at most, unless a single seed takes more: some tenths of a second of a core."""

WORTH_BYTES = 256 << 10
WORTH_FLOPS = 5e7
"""A block of fewer bytes and fewer operations than these costs more to hand out than to compute."""

SHARES = 16
"""Blocks to aim for, where each is worth handing out: enough to keep many workers evenly busy."""

CACHE_BYTES = 4 << 20
"""Working set of a batch of seeds to aim for, at least: about a core's share of cache."""


@dataclass(frozen=True)
class PlanOptions:
    """Wishes about a plan.

    Attributes:
        mode: a mode of derivatives, or "" to choose.
        block_memory_bytes: memory one block may take while it is computed.
        block_width: seeds a block, or 0 to choose.
    """

    mode: str = ""
    block_memory_bytes: int = 256 << 20
    block_width: int = 0


@dataclass(frozen=True)
class Problem:
    """Which derivative of which function, for inputs of which types."""

    function: FunctionSpec
    arguments: Arguments
    kind: str
    wrt: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    options: PlanOptions = PlanOptions()


@dataclass(frozen=True)
class Entry:
    """One matrix of the result: d row / d column, of shape (row size, column size) when flattened."""

    row: str
    row_shape: tuple[int, ...]
    column: str
    column_shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix."""
        return prod(self.row_shape) * prod(self.column_shape) * dtype_of(self.dtype).itemsize


@dataclass(frozen=True)
class Piece:
    """A rectangle of one entry's matrix."""

    entry: int
    row_start: int
    row_stop: int
    column_start: int
    column_stop: int


@dataclass(frozen=True)
class Plan:
    """A derivative cut into blocks.

    Attributes:
        problem: what was asked.
        mode: how it is computed.
        wrt, of: inputs and outputs, chosen.
        entries: matrices of the result: for each of ``of`` (Hessian: of ``wrt``), for each of ``wrt``.
        kernels: one a seeded array.
        blocks: in order.
        block_memory_bytes, block_flops: of one block of the first kernel.
        plan_id: equal ids have equal blocks.
    """

    problem: Problem
    mode: str
    wrt: tuple[str, ...]
    of: tuple[str, ...]
    entries: tuple[Entry, ...]
    kernels: tuple[BlockSpec, ...]
    blocks: tuple[Block, ...]
    block_memory_bytes: int
    block_flops: float
    plan_id: str

    @property
    def block_width(self) -> int:
        """Seeds of a full block (of the widest kernel)."""
        return max((kernel.width for kernel in self.kernels), default=0)

    @property
    def seeds(self) -> int:
        """Seeds of all blocks."""
        return sum(kernel.seeds for kernel in self.kernels)

    @property
    def result_bytes(self) -> int:
        """Bytes of the whole result."""
        return sum(entry.nbytes for entry in self.entries)

    def kernel(self, block: Block) -> BlockSpec:
        """What computes a block."""
        return self.kernels[block.array]

    def pieces(self, block: Block) -> tuple[Piece, ...]:
        """The rectangles a block covers, in the order its kernel returns them."""
        across = len(self.wrt)
        if self.mode == derivatives.FORWARD:
            return tuple(
                Piece(index, 0, prod(self.entries[index].row_shape), block.start, block.stop)
                for index in range(block.array, len(self.entries), across)
            )
        return tuple(
            Piece(index, block.start, block.stop, 0, prod(self.entries[index].column_shape))
            for index in range(block.array * across, (block.array + 1) * across)
        )


def make_plan(
    graph: Graph,
    problem: Problem,
    limits: Limits | None = None,
    compile: Callable[[BlockSpec], Kernel] | None = None,
) -> Plan:
    """Plan a derivative.

    The function is traced and its first kernel compiled: how wide a block may be follows from XLA's
    account of the memory it takes.

    Args:
        graph: the function's graph.
        problem: what is asked.
        limits: bounds on arrays and memory.
        compile: how to get a kernel, for a caller that keeps them; default: compile and forget.

    Raises:
        InvalidInput: a name, shape or option does not fit.
        NotDifferentiable: no derivative, or not in the mode asked for.
        LimitExceeded: a single seed takes more memory than the limit.
    """
    limits = limits or Limits()
    build = compile or (lambda spec: compile_kernel(graph, spec, limits))
    _check_options(problem)
    function = TracedFunction(graph, problem.function, problem.arguments, limits)
    wrt = choose_inputs(function.function, problem.wrt)
    if problem.kind == HESSIAN:
        of: tuple[str, ...] = (choose_scalar(function.function, problem.of[0] if problem.of else ""),)
    else:
        of = choose_outputs(function.function, problem.of)
    inputs = {name: _concrete(value.dtype, value.shape) for name, value in function.signature.inputs}
    outputs = {name: _concrete(value.dtype, value.shape) for name, value in function.signature.outputs}
    if problem.kind == HESSIAN:
        check_scalar(of[0], outputs[of[0]].shape)
    mode = _mode(
        function, problem, sum(inputs[name].size for name in wrt), sum(outputs[name].size for name in of)
    )
    rows = (
        [(name, inputs[name]) for name in wrt]
        if problem.kind == HESSIAN
        else [(name, outputs[name]) for name in of]
    )
    entries = tuple(
        Entry(row, row_type.shape, column, inputs[column].shape, row_type.dtype)
        for row, row_type in rows
        for column in wrt
    )
    seeded = rows if mode == derivatives.REVERSE else [(name, inputs[name]) for name in wrt]
    kernels, memory, flops = [], 0, 0.0
    for array, (_, seeds) in enumerate(seeded):
        spec = _fitting(graph, function, problem, Derivative(mode, wrt, of, array), seeds, entries)
        if seeds.size:
            spec, kernel = _within_memory(spec, problem.options.block_memory_bytes, build)
            if not memory:
                memory, flops = kernel.cost.memory_bytes, kernel.cost.flops
        kernels.append(spec)
    blocks: list[Block] = []
    for array, spec in enumerate(kernels):
        for start in range(0, spec.seeds, max(1, spec.width)):
            blocks.append(Block(len(blocks), array, start, min(spec.seeds, start + spec.width)))
    identity = repr((problem.function, problem.arguments, problem.kind, wrt, of, mode, kernels))
    return Plan(
        problem=problem,
        mode=mode,
        wrt=wrt,
        of=of,
        entries=entries,
        kernels=tuple(kernels),
        blocks=tuple(blocks),
        block_memory_bytes=memory,
        block_flops=flops,
        plan_id=hashlib.sha256(identity.encode()).hexdigest()[:32],
    )


def _concrete(dtype: str, shape: Any) -> ArrayType:
    return ArrayType(dtype, tuple(int(extent) for extent in shape))


def _check_options(problem: Problem) -> None:
    modes = {
        JACOBIAN: ("", derivatives.FORWARD, derivatives.REVERSE),
        HESSIAN: ("", derivatives.FORWARD_OVER_REVERSE, derivatives.FORWARD_OVER_FORWARD),
    }
    if problem.kind not in modes:
        raise InvalidInput(f"kind is {problem.kind!r}; it must be jacobian or hessian", "kind")
    if problem.options.mode not in modes[problem.kind]:
        allowed = ", ".join(mode for mode in modes[problem.kind] if mode)
        raise InvalidInput(
            f"mode {problem.options.mode!r} is none of a {problem.kind}'s: {allowed}", "options.mode"
        )
    if problem.kind == HESSIAN and len(problem.of) > 1:
        raise InvalidInput(f"a Hessian is of one output, not {len(problem.of)}", "of")
    if problem.options.block_width < 0 or problem.options.block_memory_bytes <= 0:
        raise InvalidInput("block_width and block_memory_bytes must be positive", "options")


def _mode(function: TracedFunction, problem: Problem, columns: int, rows: int) -> str:
    """The mode asked for, or the one with fewer seeds; on a tie forward, which keeps no residuals."""
    reason = function.function.forward_only
    asked = problem.options.mode
    if problem.kind == HESSIAN:
        if asked == derivatives.FORWARD_OVER_REVERSE and reason:
            raise NotDifferentiable(f"reverse mode is not possible: {reason}; use mode forward_over_forward")
        return asked or (derivatives.FORWARD_OVER_FORWARD if reason else derivatives.FORWARD_OVER_REVERSE)
    if asked == derivatives.REVERSE and reason:
        raise NotDifferentiable(f"reverse mode is not possible: {reason}; use mode forward")
    return asked or (derivatives.REVERSE if rows < columns and not reason else derivatives.FORWARD)


def _seed_cost(graph: Graph, function: TracedFunction, derivative: Derivative) -> Cost:
    """The estimated cost of one seed: of the linear part alone, the point already linearized."""
    weights = {name: abstract(array.shape, array.dtype) for name, array in graph.weights.items()}
    inputs = {name: abstract_argument(value) for name, value in function.arguments}
    costs: list[Cost] = []

    def linear(weights: Any, inputs: Any) -> None:
        push, seeded = derivatives.linear_part(function.bind(weights), derivative, inputs)
        traced = jax.make_jaxpr(push)(seeded)
        cost = estimate(traced)
        shared = sum(const.size * const.dtype.itemsize for const in traced.consts)
        costs.append(Cost(cost.flops, max(1, cost.memory_bytes - shared), cost.bounded))

    jax.eval_shape(linear, weights, inputs)
    return costs[0]


def _fitting(
    graph: Graph,
    function: TracedFunction,
    problem: Problem,
    derivative: Derivative,
    seeds: ArrayType,
    entries: tuple[Entry, ...],
) -> BlockSpec:
    """A kernel whose blocks are small enough to stream and to share out, and large enough to be worth it."""
    across = len(derivative.wrt)
    mine = (
        entries[derivative.array :: across]
        if derivative.mode == derivatives.FORWARD
        else entries[derivative.array * across : (derivative.array + 1) * across]
    )
    size = seeds.size
    if not size:
        return BlockSpec(problem.function, function.arguments, derivative, 0, 0, 1)
    cost = _seed_cost(graph, function, derivative)
    result = max(1, sum(entry.nbytes for entry in mine) // size)
    shared = sum(array.nbytes for array in graph.weights.values())
    batch = max(1, max(CACHE_BYTES, shared) // max(1, cost.memory_bytes))
    width = problem.options.block_width
    if not width:
        largest = max(1, min(BLOCK_BYTES // result, int(BLOCK_FLOPS / max(1.0, cost.flops))))
        worth = max(1, min(ceil(WORTH_BYTES / result), ceil(WORTH_FLOPS / max(1.0, cost.flops))))
        width = min(largest, max(worth, ceil(size / SHARES)))
        if width > batch:
            width -= width % batch
    width = min(width, size)
    return BlockSpec(problem.function, function.arguments, derivative, size, width, _divisor(width, batch))


def _divisor(width: int, most: int) -> int:
    """The largest divisor of ``width`` that is at most ``most``."""
    return next(batch for batch in range(min(width, max(1, most)), 0, -1) if width % batch == 0)


def _within_memory(
    spec: BlockSpec, budget: int, build: Callable[[BlockSpec], Kernel]
) -> tuple[BlockSpec, Kernel]:
    """Narrow a block until XLA's account of its memory is within the budget, or one seed is left."""
    while True:
        kernel = build(spec)
        if kernel.cost.memory_bytes <= budget or spec.width == 1:
            return spec, kernel
        if spec.batch > 1:
            # Fewer seeds at a time first: the block stays as wide as it was planned.
            share = budget / kernel.cost.memory_bytes
            batch = _divisor(spec.width, max(1, int(spec.batch * min(0.5, share))))
            spec = BlockSpec(spec.function, spec.arguments, spec.derivative, spec.seeds, spec.width, batch)
        else:
            width = max(1, spec.width // 2)
            spec = BlockSpec(spec.function, spec.arguments, spec.derivative, spec.seeds, width, 1)
