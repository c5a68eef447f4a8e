"""Plans derivatives of the samples of a batch: a block is some samples, with all seeds of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from gradwire_engine.errors import InvalidInput
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.limits import Limits
from gradwire_engine.planning import derivatives, sizing
from gradwire_engine.planning.kernels import Kernel, SampleSpec, compile_kernel, without_batch
from gradwire_engine.planning.plan import DENSE, Plan, Problem, check_count, choose, possible_modes
from gradwire_engine.values import Block, Blocks


def make_sample_plan(
    graph: Graph,
    problem: Problem,
    limits: Limits | None = None,
    compile: Callable[[SampleSpec], Kernel] | None = None,
) -> Plan:
    """Plan the derivatives of the samples of a batch.

    Args:
        graph: the function's graph.
        problem: the derivative asked for, with `batched` inputs.
        limits: bounds on arrays and memory.
        compile: gives a kernel, for a caller that keeps them; by default kernels are compiled and dropped.

    Raises:
        InvalidInput: a name, shape or option does not fit.
        NotDifferentiable: no derivative, or not in the mode asked for.
        LimitExceeded: a single sample takes more memory than the limit, or there are too many blocks.
    """
    limits = limits or Limits()
    build = compile or (lambda spec: compile_kernel(graph, spec, limits))
    if problem.options.sparsity != DENSE:
        raise InvalidInput(
            "the derivatives of a batch are dense, one for each sample: leave sparsity out", "batched"
        )
    sample, count = without_batch(problem.arguments, problem.batched)
    chosen = choose(graph, replace(problem, arguments=sample), limits)
    modes = possible_modes(chosen.function, problem)
    mode = modes[-1] if chosen.rows <= chosen.columns else modes[0]
    entries = tuple(replace(entry, row_shape=(count, *entry.row_shape)) for entry in chosen.entries)
    kernels: tuple[SampleSpec, ...] = ()
    blocks: list[Block] = []
    memory, flops = 0, 0.0
    if count:
        seeded = chosen.row_types if mode == derivatives.REVERSE else chosen.column_types
        spec = sizing.fitting_samples(
            graph,
            chosen.function,
            SampleSpec(
                problem.function,
                problem.arguments,
                problem.batched,
                mode,
                chosen.wrt,
                chosen.of,
                count,
                problem.options.block_width,
                (),
                chosen.symmetric,
            ),
            [value.size for _, value in seeded],
            sum(entry.nbytes for entry in entries),
        )
        while True:
            kernel = build(spec)
            memory, flops = kernel.cost.memory_bytes, kernel.cost.flops
            if memory <= problem.options.block_memory_bytes or spec.width == 1:
                break
            spec = replace(spec, width=spec.width // 2)
        kernels = (spec,)
        check_count(kernels, limits)
        blocks = [
            Block(index, 0, start, min(count, start + spec.width))
            for index, start in enumerate(range(0, count, spec.width))
        ]
    identity = repr((problem.function, problem.arguments, problem.kind, problem.batched, mode, kernels))
    return Plan(
        problem=problem,
        mode=mode,
        wrt=chosen.wrt,
        of=chosen.of,
        entries=entries,
        kernels=kernels,
        blocks=Blocks(blocks),
        block_memory_bytes=memory,
        block_flops=flops,
        plan_id=hashlib.sha256(identity.encode()).hexdigest()[:32],
    )
