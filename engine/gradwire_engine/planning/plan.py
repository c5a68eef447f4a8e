"""Plans Jacobians and Hessians: mode, kernels and block boundaries, before anything is evaluated.

A plan depends on the problem and its options alone, never on the number of workers, so a result has the same
bits on one worker or a hundred, and can be resumed block by block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradwire_engine.errors import InvalidInput, LimitExceeded, NotDifferentiable
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.limits import Limits
from gradwire_engine.planning import derivatives, sizing
from gradwire_engine.planning.derivatives import Derivative
from gradwire_engine.planning.function import TracedFunction
from gradwire_engine.planning.kernels import (
    BlockSpec,
    DerivativeSpec,
    Kernel,
    compile_kernel,
)
from gradwire_engine.planning.transforms import (
    FunctionSpec,
    check_scalar,
    choose_inputs,
    choose_outputs,
    choose_scalar,
)
from gradwire_engine.values import Arguments, ArrayType, Block, Blocks, dtype_of

Array = np.ndarray[Any, Any]

JACOBIAN = "jacobian"
HESSIAN = "hessian"

PATTERN_ROWS, PATTERN_COLUMNS = "\0pattern_rows", "\0pattern_columns"
"""Names of the coordinates of a client's own pattern among the known arrays; no input is called so."""

DENSE, SPARSE, AUTO = "dense", "sparse", "auto"
"""Whether all entries of a derivative are computed, those of its pattern, or what takes less work."""


@dataclass(frozen=True)
class PlanOptions:
    """Options of a plan.

    Attributes:
        mode: one of the four mode names, or "" to choose.
        block_memory_bytes: memory one block may take while it is computed.
        block_width: seeds a block, or 0 to choose.
        sparsity: "dense", "sparse", or "auto" for whichever is cheaper.
        triangle: of a sparse Hessian, send the entries on and below the diagonal alone.
        pattern: names the coordinates of a pattern of the client's own; "" for one that is found.
    """

    mode: str = ""
    block_memory_bytes: int = 256 << 20
    block_width: int = 0
    sparsity: str = DENSE
    triangle: bool = False
    pattern: str = ""


@dataclass(frozen=True)
class Problem:
    """The derivative to plan: kind, function, types of all inputs, and the inputs and outputs chosen.

    `known` gives the ids of inputs whose values a sparsity pattern may depend on: indices and masks.
    `batched` names inputs with one more, leading axis: the derivative is that of each sample.
    """

    function: FunctionSpec
    arguments: Arguments
    kind: str
    wrt: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    options: PlanOptions = PlanOptions()
    known: tuple[tuple[str, str], ...] = ()
    batched: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One matrix of the result, d row / d column, of shape (row size, column size)."""

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
class SparseLayout:
    """What a plan of a sparse derivative says of it beside its blocks.

    Attributes:
        pattern_id: names the pattern, and the order in which values travel.
        nonzeros: entries of the pattern; each is one value.
        coloring: "column", "row", "bidirectional", "star" or "acyclic".
        column_colors, row_colors: seeds of either kind.
        dtype: of the values: the one that those of all entries promote to.
        dense_primitives: operators that detection took for dense, for want of a rule.
    """

    pattern_id: str
    nonzeros: int
    coloring: str
    column_colors: int
    row_colors: int
    dtype: str
    dense_primitives: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Structure:
    """What the server keeps of a sparse derivative beside its plan.

    Attributes:
        pattern_id: names it.
        rows, columns: int32, of each value, in the order in which values travel.
        inputs: what kernels take beside the point, by name: the colors of columns and rows, and for each
            value its place in the compressed vectors of its block.
    """

    pattern_id: str
    rows: Array
    columns: Array
    inputs: dict[str, Array]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.rows.nbytes + self.columns.nbytes + sum(array.nbytes for array in self.inputs.values())


@dataclass(frozen=True)
class Plan:
    """A derivative cut into blocks.

    Attributes:
        problem: the derivative asked for.
        mode: the mode chosen.
        wrt, of: names of the inputs and outputs chosen.
        entries: matrices of the result: for each of `of` (Hessian: of `wrt`), for each of `wrt`.
        kernels: one for each seeded array.
        blocks: in order of their index.
        block_memory_bytes, block_flops: memory and operations of a block of the first kernel.
        plan_id: equal ids have equal blocks.
        sparse: of a sparse derivative; None for a dense one.
        by_columns: whether blocks of a dense derivative are columns.
    """

    problem: Problem
    mode: str
    wrt: tuple[str, ...]
    of: tuple[str, ...]
    entries: tuple[Entry, ...]
    kernels: tuple[DerivativeSpec, ...]
    blocks: Blocks
    block_memory_bytes: int
    block_flops: float
    plan_id: str
    sparse: SparseLayout | None = None
    by_columns: bool = False

    @property
    def block_width(self) -> int:
        """Seeds of a full block (of the widest kernel)."""
        return max((kernel.width for kernel in self.kernels), default=0)

    @property
    def seeds(self) -> int:
        """Seeds of all blocks."""
        return sum(kernel.seeds for kernel in self.kernels)

    @property
    def joint_shape(self) -> tuple[int, int]:
        """Rows and columns of the entries' matrices put together."""
        across = len(self.wrt)
        return (
            sum(prod(entry.row_shape) for entry in self.entries[::across]),
            sum(prod(entry.column_shape) for entry in self.entries[:across]),
        )

    @property
    def result_bytes(self) -> int:
        """Bytes of the whole result; of a sparse one, of its values."""
        if self.sparse is not None:
            return self.sparse.nonzeros * dtype_of(self.sparse.dtype).itemsize
        return sum(entry.nbytes for entry in self.entries)

    def kernel(self, block: Block) -> DerivativeSpec:
        """Return the kernel that computes a block."""
        return self.kernels[block.array]

    def pieces(self, block: Block) -> tuple[Piece, ...]:
        """List the rectangles that a block of a dense derivative covers, in its kernel's order."""
        across = len(self.wrt)
        if self.problem.batched:
            return tuple(
                Piece(index, block.start * rows, block.stop * rows, 0, prod(entry.column_shape))
                for index, entry in enumerate(self.entries)
                for rows in [prod(entry.row_shape[1:])]
            )
        if self.by_columns:
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
        problem: the derivative asked for.
        limits: bounds on arrays and memory.
        compile: gives a kernel, for a caller that keeps them; by default kernels are compiled and dropped.

    Raises:
        InvalidInput: a name, shape or option does not fit.
        NotDifferentiable: no derivative, or not in the mode asked for.
        LimitExceeded: a single seed takes more memory than the limit, or there are too many blocks.
    """
    limits = limits or Limits()
    build = compile or (lambda spec: compile_kernel(graph, spec, limits))
    chosen = choose(graph, problem, limits)
    function, wrt, of, entries = chosen.function, chosen.wrt, chosen.of, chosen.entries
    modes = possible_modes(function, problem)
    # Reverse on a tie: its rows are contiguous.
    mode = modes[-1] if chosen.rows <= chosen.columns else modes[0]
    seeded = chosen.row_types if mode == derivatives.REVERSE else chosen.column_types
    kernels: list[BlockSpec] = []
    memory, flops = 0, 0.0
    for array, (_, seeds) in enumerate(seeded):
        derivative = Derivative(mode, wrt, of, array, chosen.symmetric)
        if not seeds.size:
            kernels.append(BlockSpec(problem.function, function.arguments, derivative, 0, 0, 1))
            continue
        size = sum(entry.nbytes for entry in _seeded_entries(entries, derivative))
        spec = sizing.fitting(graph, function, derivative, seeds.size, size, problem.options.block_width)
        spec, kernel = sizing.within_memory(spec, problem.options.block_memory_bytes, build)
        if not memory:
            memory, flops = kernel.cost.memory_bytes, kernel.cost.flops
        kernels.append(spec)
    check_count(kernels, limits)
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
        blocks=Blocks(blocks),
        block_memory_bytes=memory,
        block_flops=flops,
        plan_id=hashlib.sha256(identity.encode()).hexdigest()[:32],
        by_columns=derivatives.gives_columns(mode, chosen.symmetric),
    )


@dataclass(frozen=True, eq=False)
class Chosen:
    """A problem with its names and shapes resolved.

    Attributes:
        function: traced for the shapes of the inputs.
        wrt, of: names of the inputs and outputs chosen.
        row_types, column_types: the arrays that rows and columns of the result stand for.
        entries: matrices of the result.
        symmetric: whether a Hessian is.
    """

    function: TracedFunction
    wrt: tuple[str, ...]
    of: tuple[str, ...]
    row_types: tuple[tuple[str, ArrayType], ...]
    column_types: tuple[tuple[str, ArrayType], ...]
    entries: tuple[Entry, ...]
    symmetric: bool

    @property
    def rows(self) -> int:
        """Elements of all rows' arrays; of a Hessian, those of its one output."""
        return sum(value.size for _, value in self.row_types)

    @property
    def columns(self) -> int:
        """Elements of all columns' arrays."""
        return sum(value.size for _, value in self.column_types)


def choose(graph: Graph, problem: Problem, limits: Limits) -> Chosen:
    """Resolve a problem's names and shapes.

    Raises:
        InvalidInput: a name, shape or option does not fit.
        InvalidGraph, NotDifferentiable, LimitExceeded: the function cannot be traced or has no derivative.
    """
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
    columns = tuple((name, inputs[name]) for name in wrt)
    rows = columns if problem.kind == HESSIAN else tuple((name, outputs[name]) for name in of)
    entries = tuple(
        Entry(row, row_type.shape, column, column_type.shape, _promoted(row_type, column_type))
        for row, row_type in rows
        for column, column_type in columns
    )
    return Chosen(function, wrt, of, rows, columns, entries, not graph.info.own_derivatives)


def _seeded_entries(entries: tuple[Entry, ...], derivative: Derivative) -> tuple[Entry, ...]:
    """Return the matrices that the seeds of one array fill."""
    across, array = len(derivative.wrt), derivative.array
    if derivative.by_columns:
        return entries[array::across]
    return entries[array * across : (array + 1) * across]


def check_count(kernels: Sequence[DerivativeSpec], limits: Limits) -> None:
    """Check that the blocks of all kernels are not too many; raise `LimitExceeded`."""
    count = sum(ceil(kernel.seeds / max(1, kernel.width)) for kernel in kernels)
    if count > limits.blocks:
        seeds = sum(kernel.seeds for kernel in kernels)
        raise LimitExceeded(
            f"the result falls into {count} blocks for {seeds} seeds; the limit is {limits.blocks} blocks: "
            "ask for fewer inputs or outputs (wrt, of), or a larger block_width",
            "blocks",
            limits.blocks,
            count,
        )


def _concrete(dtype: str, shape: Any) -> ArrayType:
    return ArrayType(dtype, tuple(int(extent) for extent in shape))


def _promoted(row: ArrayType, column: ArrayType) -> str:
    return str(jnp.promote_types(dtype_of(row.dtype), dtype_of(column.dtype)).name)


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
    if problem.options.sparsity not in (DENSE, SPARSE, AUTO):
        raise InvalidInput(
            f"sparsity is {problem.options.sparsity!r}; it must be dense, sparse or auto", "options.sparsity"
        )
    if problem.options.triangle and (problem.kind != HESSIAN or problem.options.sparsity != SPARSE):
        raise InvalidInput("one triangle is sent of a sparse Hessian alone", "options.triangle")
    if problem.options.pattern and problem.options.sparsity != SPARSE:
        raise InvalidInput("a pattern is of a sparse derivative: set sparsity to sparse", "options.pattern")
    if problem.options.block_width < 0 or problem.options.block_memory_bytes <= 0:
        raise InvalidInput("block_width and block_memory_bytes must be positive", "options")


def possible_modes(function: TracedFunction, problem: Problem) -> tuple[str, ...]:
    """Return the modes that a derivative can be computed in, the usual choice first; the one asked for alone.

    Raises:
        NotDifferentiable: there is none, or not the one asked for.
    """
    reason, forward_reason = function.function.forward_only, function.function.reverse_only
    asked = problem.options.mode
    if problem.kind == HESSIAN:
        if asked == derivatives.FORWARD_OVER_REVERSE and reason:
            raise NotDifferentiable(f"reverse mode is not possible: {reason}; use mode forward_over_forward")
        usual = derivatives.FORWARD_OVER_FORWARD if reason else derivatives.FORWARD_OVER_REVERSE
        return (asked or usual,)
    if asked == derivatives.REVERSE and reason:
        raise NotDifferentiable(f"reverse mode is not possible: {reason}; use mode forward")
    if forward_reason:
        if reason or asked == derivatives.FORWARD:
            raise NotDifferentiable(f"forward mode is not possible: {forward_reason}; use mode reverse")
        return (derivatives.REVERSE,)
    if asked or reason:
        return (asked or derivatives.FORWARD,)
    return (derivatives.FORWARD, derivatives.REVERSE)
