"""Plans sparse derivatives: pattern, coloring, kernels and the ranges of values that blocks hold.

Like any plan it depends on the problem alone, so that a result has the same bits on any number of workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from gradwire_engine.abstract import abstract
from gradwire_engine.errors import InvalidInput, LimitExceeded
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.jaxprs.cost import Cost
from gradwire_engine.limits import Limits
from gradwire_engine.planning import compressed, derivatives, sizing
from gradwire_engine.planning.compressed import TOGETHER, Form
from gradwire_engine.planning.kernels import (
    COLUMN_COLORS,
    OFFSETS,
    PLACES,
    ROW_COLORS,
    CompressedSpec,
    Kernel,
    compile_kernel,
)
from gradwire_engine.planning.plan import (
    AUTO,
    DENSE,
    HESSIAN,
    SPARSE,
    Chosen,
    Plan,
    Problem,
    SparseLayout,
    Structure,
    check_count,
    choose,
    make_plan,
    possible_modes,
)
from gradwire_engine.planning.sample_plan import make_sample_plan
from gradwire_engine.planning.structure import (
    ColoredPattern,
    color_pattern,
    detect_pattern,
    given_pattern,
    ordered,
    pattern_id_of,
)
from gradwire_engine.planning.transforms import Arrays, Function
from gradwire_engine.sparsity.coloring.recovery import DirectColoring
from gradwire_engine.sparsity.coloring.results import (
    BidirectionalColoring,
    ColumnColoring,
    RowColoring,
    StarColoring,
)
from gradwire_engine.sparsity.detection import Detected
from gradwire_engine.values import Arguments, ArrayType, Block, Blocks, dtype_of

Array = np.ndarray[Any, Any]
Build = Callable[[Any], Kernel]


@dataclass(frozen=True, eq=False)
class Planned:
    """A plan, and the structure of the derivative if it is sparse."""

    plan: Plan
    structure: Structure | None


def plan_derivative(
    graph: Graph,
    problem: Problem,
    known: Mapping[str, Array] | None = None,
    limits: Limits | None = None,
    compile: Build | None = None,
) -> Planned:
    """Plan a derivative, dense or sparse as its options say.

    Args:
        graph: the function's graph.
        problem: the derivative asked for.
        known: the arrays that `problem.known` names, by input, and the coordinates of a pattern given.
        limits: bounds on arrays, memory, non-zeros and colors.
        compile: gives a kernel, for a caller that keeps them; by default kernels are compiled and dropped.

    Raises:
        InvalidInput: a name, shape or option does not fit.
        NotDifferentiable: no derivative, or not in the mode asked for.
        LimitExceeded: a limit is too low for it.
    """
    limits = limits or Limits()
    sparsity = problem.options.sparsity
    if problem.batched:
        return Planned(make_sample_plan(graph, problem, limits, compile), None)
    if sparsity == DENSE:
        return Planned(make_plan(graph, problem, limits, compile), None)
    build: Build = compile or (lambda spec: compile_kernel(graph, spec, limits))
    try:
        return _sparse(graph, problem, known or {}, limits, build, may_decline=sparsity == AUTO)
    except (_NotWorthwhile, LimitExceeded):
        if sparsity == SPARSE:
            raise
    dense = replace(problem, options=replace(problem.options, sparsity=DENSE))
    plan = make_plan(graph, dense, limits, compile)
    return Planned(replace(plan, problem=problem), None)


WORTH_BYTES = 4 << 20
"""Values of a block below which it costs more to hand out than to compute: a color takes little work."""

WRITTEN_OUT = 1_200
"""Equations up to which the images of all colors are written out: compiling them takes its time."""


class _NotWorthwhile(Exception):
    """A sparse derivative that would take more work than the dense one."""


def _sparse(
    graph: Graph,
    problem: Problem,
    known: Mapping[str, Array],
    limits: Limits,
    build: Build,
    may_decline: bool,
) -> Planned:
    for name, _ in problem.arguments:
        if name.startswith("\0"):
            raise InvalidInput(
                f"input {name!r}: names that begin with a zero character are taken by sparse derivatives",
                "inputs",
            )
    chosen = choose(graph, problem, limits)
    modes = possible_modes(chosen.function, problem)
    if problem.options.pattern:
        shape = chosen.rows, chosen.columns
        detected = given_pattern(known, shape, symmetric=problem.kind == HESSIAN and chosen.symmetric)
    else:
        seeded = chosen.row_types if modes[0] == derivatives.REVERSE else chosen.column_types
        types = [value for _, value in seeded]
        detected = detect_pattern(
            graph, chosen.function, modes[0], chosen.wrt, chosen.of, types, known, limits
        )
    _check_nonzeros(detected, limits)
    costs = {mode: _seed_cost(graph, chosen, mode) for mode in modes}
    weights = {mode: max(1.0, cost.flops) for mode, cost in costs.items()}
    coloring = color_pattern(detected.pattern, problem.kind == HESSIAN and chosen.symmetric, modes, weights)
    if coloring.count > limits.colors:
        raise LimitExceeded(
            f"the coloring has {coloring.count} colors; the limit is {limits.colors}: the pattern has dense "
            "rows and columns, ask for the derivative dense, or for fewer inputs or outputs",
            "colors",
            limits.colors,
            coloring.count,
        )
    if may_decline and 2 * coloring.count > min(detected.pattern.shape):
        raise _NotWorthwhile
    colored = ordered(detected.pattern, coloring, problem.options.triangle)
    return _planned(graph, problem, chosen, modes, detected, colored, costs, limits, build)


def _check_nonzeros(detected: Detected, limits: Limits) -> None:
    count = detected.pattern.nonzeros
    if count > limits.nonzeros:
        rows, columns = detected.pattern.shape
        raise LimitExceeded(
            f"the sparsity pattern has {count} non-zeros of {rows} x {columns}; the limit is "
            f"{limits.nonzeros}: ask for fewer inputs or outputs (wrt, of)",
            "nonzeros",
            limits.nonzeros,
            count,
        )


def _seed_cost(graph: Graph, chosen: Chosen, mode: str) -> Cost:
    """Estimate the cost of one seed over all arrays: of the linear part alone."""

    def image(function: Function, inputs: Arrays) -> ClosedJaxpr:
        push, seeded = compressed.linear_part(function, mode, chosen.wrt, chosen.of, inputs)
        return jax.make_jaxpr(push)([abstract(array.shape, array.dtype) for array in seeded])

    return sizing.cost_of(graph, chosen.function, image)


@dataclass(frozen=True, eq=False)
class _Side:
    """The colors of the columns, or of the rows, and what their seeds take.

    Attributes:
        mode: of its kernel.
        name: of the array of its colors.
        colors: of each column or row, from 0.
        first: the number of its first color among those of both sides.
        count: how many colors it has.
        vector: elements of the image of a seed.
        width, batch: colors of a block, and evaluated together.
    """

    mode: str
    name: str
    colors: Array
    first: int
    count: int
    vector: int
    width: int = 0
    batch: int = 1


def _sides(coloring: DirectColoring, modes: tuple[str, ...], shape: tuple[int, int]) -> list[_Side]:
    rows, columns = shape
    match coloring:
        case RowColoring(row_colors=colors):
            return [_Side(derivatives.REVERSE, ROW_COLORS, colors, 0, coloring.count, columns)]
        case BidirectionalColoring(column_colors=by_column, row_colors=by_row, column_count=first):
            return [
                _Side(derivatives.FORWARD, COLUMN_COLORS, by_column, 0, first, rows),
                _Side(derivatives.REVERSE, ROW_COLORS, by_row, first, coloring.row_count, columns),
            ]
        case _:
            return [_Side(modes[0], COLUMN_COLORS, coloring.column_colors, 0, coloring.count, rows)]


def _planned(
    graph: Graph,
    problem: Problem,
    chosen: Chosen,
    modes: tuple[str, ...],
    detected: Detected,
    colored: ColoredPattern,
    costs: Mapping[str, Cost],
    limits: Limits,
    build: Build,
) -> Planned:
    coloring = colored.coloring
    dtype = _promoted(chosen)
    nonzeros = len(colored.order)
    share = nonzeros * dtype_of(dtype).itemsize // max(1, coloring.count)
    sides = [
        _fitting(problem, side, costs[side.mode], share)
        for side in _sides(coloring, modes, detected.pattern.shape)
        if side.count
    ]
    while True:
        blocks = _blocks(colored, sides)
        inputs, forms = _structured(colored, blocks, sides, chosen.function.function.equations)
        kernels = tuple(
            CompressedSpec(
                function=problem.function,
                arguments=chosen.function.arguments,
                mode=side.mode,
                wrt=chosen.wrt,
                of=chosen.of,
                seeds=side.count,
                first=side.first,
                form=form,
                structure=_types({name: inputs[name] for name in (side.name, PLACES, OFFSETS)}),
                dtype=dtype,
            )
            for side, form in zip(sides, forms, strict=True)
        )
        check_count(kernels, limits)
        built = [build(spec) for spec in kernels]
        narrower = [
            side if kernel.cost.memory_bytes <= problem.options.block_memory_bytes else _narrowed(side)
            for side, kernel in zip(sides, built, strict=True)
        ]
        if all(side is other for side, other in zip(sides, narrower, strict=True)):
            break
        sides = narrower
    layout = SparseLayout(
        pattern_id=pattern_id_of(colored),
        nonzeros=nonzeros,
        coloring=NAMES[type(coloring)],
        column_colors=sum(side.count for side in sides if side.name == COLUMN_COLORS),
        row_colors=sum(side.count for side in sides if side.name == ROW_COLORS),
        dtype=dtype,
        dense_primitives=detected.dense_primitives,
    )
    # Equal plans have equal structures too: workers keep its arrays under the plan's id.
    digests = [hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for array in inputs.values()]
    identity = repr((problem.function, problem.arguments, problem.kind, layout, kernels, digests))
    plan = Plan(
        problem=problem,
        mode=_mode(sides, modes),
        wrt=chosen.wrt,
        of=chosen.of,
        entries=chosen.entries,
        kernels=kernels,
        blocks=blocks,
        block_memory_bytes=max((kernel.cost.memory_bytes for kernel in built), default=0),
        block_flops=max((kernel.cost.flops for kernel in built), default=0.0),
        plan_id=hashlib.sha256(identity.encode()).hexdigest()[:32],
        sparse=layout,
    )
    return Planned(plan, Structure(layout.pattern_id, colored.rows, colored.columns, inputs))


def _mode(sides: Sequence[_Side], modes: tuple[str, ...]) -> str:
    """Return the name of what a plan does: of its one side, or "bidirectional"."""
    if len(sides) > 1:
        return BIDIRECTIONAL
    return sides[0].mode if sides else modes[0]


BIDIRECTIONAL = "bidirectional"

NAMES: dict[type, str] = {
    ColumnColoring: "column",
    RowColoring: "row",
    BidirectionalColoring: "bidirectional",
    StarColoring: "star",
}


def _promoted(chosen: Chosen) -> str:
    dtypes = [dtype_of(entry.dtype) for entry in chosen.entries]
    return str(jnp.result_type(*dtypes).name)


def _types(arrays: Mapping[str, Array]) -> Arguments:
    return tuple((name, ArrayType(array.dtype.name, array.shape)) for name, array in arrays.items())


def _fitting(problem: Problem, side: _Side, cost: Cost, result: int) -> _Side:
    """Choose how many colors a block and a batch hold; blocks are as even as can be."""
    batch = max(1, sizing.CACHE_BYTES // cost.memory_bytes)
    width = problem.options.block_width or sizing.width_for(side.count, result, cost.flops, WORTH_BYTES)
    width = min(width, side.count)
    width = ceil(side.count / ceil(side.count / width))
    return replace(side, width=width, batch=min(width, batch))


def _narrowed(side: _Side) -> _Side:
    """Halve what is evaluated together first, then the block; one color is the least."""
    if side.batch > 1:
        return replace(side, batch=side.batch // 2)
    return replace(side, width=side.width // 2) if side.width > 1 else side


def _blocks(colored: ColoredPattern, sides: Sequence[_Side]) -> Blocks:
    blocks: list[Block] = []
    for array, side in enumerate(sides):
        starts = list(range(0, side.count, side.width))
        bounds = np.searchsorted(colored.colors, np.array([*starts, side.count]) + side.first)
        blocks += [
            Block(
                len(blocks) + k,
                array,
                start,
                min(side.count, start + side.width),
                int(bounds[k]),
                int(bounds[k + 1]),
            )
            for k, start in enumerate(starts)
        ]
    return Blocks(blocks)


def _structured(
    colored: ColoredPattern, blocks: Sequence[Block], sides: Sequence[_Side], equations: int
) -> tuple[dict[str, Array], list[Form]]:
    """Return what kernels take beside the point, and the form of each side's blocks.

    Args:
        colored, blocks, sides: of the plan.
        equations: length of the function's program.
    """
    colors = sum(side.count for side in sides)
    offsets = np.searchsorted(colored.colors, np.arange(colors + 1))
    places = colored.places.astype(np.int32)
    forms: list[Form] = []
    for array, side in enumerate(sides):
        own = [block for block in blocks if block.array == array]
        entries = max(block.last_value - block.first_value for block in own)
        together = side.width * side.vector <= TOGETHER and side.width * equations <= WRITTEN_OUT
        lengths = np.diff(offsets[side.first : side.first + side.count + 1])
        longest = int(lengths.max(initial=1))
        forms.append(
            Form(side.width, 1, entries, 0) if together else Form(side.width, side.batch, entries, longest)
        )
        for block in own if together else ():
            values = slice(block.first_value, block.last_value)
            number = colored.colors[values] - (side.first + block.start)
            places[values] += number.astype(np.int32) * np.int32(side.vector)
    # A slice must fit behind the first value of the last block, or color.
    beyond = max((max(form.entries, form.longest) for form in forms), default=0)
    further = max((form.width + form.batch for form in forms), default=0)
    inputs = {side.name: side.colors for side in sides}
    inputs[PLACES] = np.concatenate([places, np.zeros(beyond, np.int32)])
    inputs[OFFSETS] = np.concatenate([offsets, np.full(further, len(places))]).astype(np.int64)
    return inputs, forms
