"""Plans sparse derivatives: pattern, coloring, kernels and the ranges of values that blocks hold.

Like any plan it depends on the problem alone, so that a result has the same bits on any number of workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from gradwire_engine.abstract import abstract
from gradwire_engine.errors import InvalidInput, LimitExceeded
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.jaxprs.convolutions import contracts
from gradwire_engine.limits import Limits
from gradwire_engine.planning import compressed, derivatives, sizing
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
from gradwire_engine.planning.sides import (
    Side,
    Work,
    blocks_of,
    fitting,
    narrowed,
    sides_of,
    structured,
    structured_twice,
)
from gradwire_engine.planning.structure import (
    ColoredPattern,
    color_pattern,
    detect_pattern,
    given_pattern,
    ordered,
    pattern_id_of,
    substitution_ordered,
)
from gradwire_engine.planning.substituting import Substituting
from gradwire_engine.planning.transforms import Arrays, Function, Gradient, choose_inputs
from gradwire_engine.sparsity.coloring.choice import acyclic_instead
from gradwire_engine.sparsity.coloring.costs import Costs
from gradwire_engine.sparsity.coloring.results import (
    AcyclicColoring,
    BidirectionalColoring,
    ColumnColoring,
    RowColoring,
    StarColoring,
)
from gradwire_engine.sparsity.detection import Detected
from gradwire_engine.sparsity.pattern import SparsityPattern
from gradwire_engine.values import Arguments, ArrayType, Blocks, dtype_of

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


SUBSTITUTED_FLOPS = 1e7
"""Operations of all colors below which a Hessian is read directly: it takes a few milliseconds, and to find
colors for substitution takes tenths of a second."""

SUBSTITUTED_ENTRY = 40.0
"""What an entry that follows by substitution costs, in operations of a product."""


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
    symmetric = chosen.symmetric and (problem.kind == HESSIAN or _is_of_gradient(problem, chosen, modes))
    if problem.options.pattern:
        shape = chosen.rows, chosen.columns
        detected = given_pattern(known, shape, symmetric)
    else:
        seeded = chosen.row_types if modes[0] == derivatives.REVERSE else chosen.column_types
        types = [value for _, value in seeded]
        detected = detect_pattern(
            graph, chosen.function, modes[0], chosen.wrt, chosen.of, types, known, limits
        )
    _check_nonzeros(detected, limits)
    works = {mode: _seed_work(graph, chosen, mode) for mode in modes}
    weights = {mode: max(1.0, work.cost.flops) for mode, work in works.items()}
    coloring = color_pattern(detected.pattern, symmetric, modes, weights)
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

    def planned(colored: ColoredPattern) -> Planned | None:
        return _planned(graph, problem, chosen, modes, detected, colored, works, limits, build)

    if isinstance(coloring, StarColoring):
        fewer = _by_substitution(problem, chosen, detected.pattern, coloring, works[modes[0]])
        if fewer is not None and (found := planned(fewer)) is not None:
            return found
    assert not isinstance(coloring, AcyclicColoring), "it is chosen in place of a star coloring"
    found = planned(ordered(detected.pattern, coloring, problem.options.triangle))
    assert found is not None, "blocks of a direct coloring may be narrowed"
    return found


def _is_of_gradient(problem: Problem, chosen: Chosen, modes: tuple[str, ...]) -> bool:
    """Tell whether a Jacobian by columns is that of a gradient, by the same inputs: a Hessian."""
    transforms, function = problem.function.transforms, chosen.function.function
    if modes[0] == derivatives.REVERSE or not transforms or not isinstance(transforms[-1], Gradient):
        return False
    inputs = choose_inputs(function, transforms[-1].wrt)
    # The gradients come before the outputs that are kept, in the order of the inputs.
    inputs_of = {name: own for (name, _), own in zip(function.signature.outputs, inputs, strict=False)}
    return tuple(inputs_of.get(name) for name in chosen.of) == chosen.wrt


def _by_substitution(
    problem: Problem, chosen: Chosen, pattern: SparsityPattern, star: StarColoring, work: Work
) -> ColoredPattern | None:
    """Color a Hessian for substitution, if its plan is one block in any case and this takes less work.

    Only in double precision, which has digits to lose; and not in a pattern of the client's own, whose check
    asks for values that are each accurate.
    """
    if problem.options.pattern or _promoted(chosen) != "float64":
        return None
    if star.count * work.cost.flops < SUBSTITUTED_FLOPS:
        return None
    (side,) = sides_of(star, (problem.options.mode,), pattern.shape)
    share = pattern.nonzeros * dtype_of("float64").itemsize // star.count
    if fitting(side, work, share, problem.options.block_width).width < star.count:
        return None
    acyclic = acyclic_instead(star, pattern, Costs(jvp=work.cost.flops, entry=SUBSTITUTED_ENTRY))
    if acyclic is None:
        return None
    return substitution_ordered(pattern, acyclic, star, problem.options.triangle)


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


def _seed_work(graph: Graph, chosen: Chosen, mode: str) -> Work:
    """Estimate what one seed takes."""
    found: list[bool] = []

    def image(function: Function, inputs: Arrays) -> ClosedJaxpr:
        push, seeded = compressed.linear_part(function, mode, chosen.wrt, chosen.of, inputs)
        traced = jax.make_jaxpr(push)([abstract(array.shape, array.dtype) for array in seeded])
        found.append(any(map(contracts, traced.jaxpr.eqns)))
        return traced

    cost = sizing.cost_of(graph, chosen.function, image)
    return Work(cost, found[-1])


def _planned(
    graph: Graph,
    problem: Problem,
    chosen: Chosen,
    modes: tuple[str, ...],
    detected: Detected,
    colored: ColoredPattern,
    works: Mapping[str, Work],
    limits: Limits,
    build: Build,
) -> Planned | None:
    """Compile kernels whose memory fits; None where substitution would take more than one block."""
    coloring = colored.coloring
    dtype = _promoted(chosen)
    nonzeros = len(colored.order)
    share = nonzeros * dtype_of(dtype).itemsize // max(1, coloring.count)
    sides = [
        fitting(side, works[side.mode], share, problem.options.block_width)
        for side in sides_of(coloring, modes, detected.pattern.shape)
    ]
    while True:
        blocks = blocks_of(colored, sides)
        equations = chosen.function.function.equations
        further: dict[str, Array] = {}
        substituting = None
        if colored.substituted is None:
            taken = structured(colored, blocks, sides, equations)
        elif len(blocks) > 1:
            return None
        else:
            taken, further = structured_twice(colored, blocks, sides[0], equations)
            substituting = Substituting(
                colored.substituted.star.count, colored.substituted.terms, _types(further)
            )
            blocks = Blocks([replace(blocks[0], last_value=nonzeros)])
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
                structure=_types({name: taken.inputs[name] for name in (side.name, PLACES, OFFSETS)}),
                dtype=dtype,
                substituting=substituting,
            )
            for side, form in zip(sides, taken.forms, strict=True)
        )
        check_count(kernels, limits)
        built = [build(spec) for spec in kernels]
        narrower = [
            side if kernel.cost.memory_bytes <= problem.options.block_memory_bytes else narrowed(side)
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
    inputs = {**taken.inputs, **further}
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


def _mode(sides: Sequence[Side], modes: tuple[str, ...]) -> str:
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
    AcyclicColoring: "acyclic",
}


def _promoted(chosen: Chosen) -> str:
    dtypes = [dtype_of(entry.dtype) for entry in chosen.entries]
    return str(jnp.result_type(*dtypes).name)


def _types(arrays: Mapping[str, Array]) -> Arguments:
    return tuple((name, ArrayType(array.dtype.name, array.shape)) for name, array in arrays.items())
