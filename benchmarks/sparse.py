"""Sparse derivatives beside asdex and CasADi: prepared, cold, and over the wire.

python -m benchmarks.sparse      (peers: pip install 'gradwire[peers]')

Prepared: pattern, coloring and code are there. Cold: a function that the server has not seen, from the Python
function to the matrix; the server is up and its loops are compiled. float64, medians of calls taken in turn,
over the wire each at a point of its own; JAX has one thread, as in a worker.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

import benchmarks.one_thread  # noqa: F401  (before JAX)
import gradwire as gw
from benchmarks.report import Figure, interleaved, table
from benchmarks.sparse_cases import Case, brusselator, bundle_adjustment, minimal_surface, rosenbrock
from gradwire_engine.planning.kernels import compile_kernel, place
from gradwire_engine.planning.plan import PlanOptions, Problem
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.sparse_plan import plan_derivative
from gradwire_engine.planning.transforms import FunctionSpec
from gradwire_engine.values import ArrayType

ROUNDS = 15
Call = Callable[[], object]


def _figure(name: str, ours: float, peer: str, theirs: float, target: str, reached: bool) -> Figure:
    return Figure(name, _time(ours), f"{peer}, {_time(theirs)}", ours / theirs, target, reached)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _specs(case: Case) -> list[gw.ArraySpec]:
    return [gw.spec(array.shape) for array in case.point]


def engine(case: Case) -> Call:
    """Return the compiled kernels in this process, at a point that is placed."""
    model = gw.tracing.trace(case.function(np), _specs(case))
    graph = register(model.SerializeToString())
    names = [name for name, _ in graph.info.signature.inputs]
    arguments = tuple(
        (name, ArrayType("float64", array.shape)) for name, array in zip(names, case.point, strict=True)
    )
    function = FunctionSpec(graph.info.graph_id)
    problem = Problem(function, arguments, case.kind, options=PlanOptions(sparsity="sparse"))
    planned = plan_derivative(graph, problem)
    assert planned.structure is not None
    kernels = [compile_kernel(graph, spec) for spec in planned.plan.kernels]
    weights = place(graph.weights)
    inputs = place({**dict(zip(names, case.point, strict=True)), **planned.structure.inputs})
    return lambda: [kernels[block.array].run(weights, inputs, block) for block in planned.plan.blocks]


def asdex_prepared(case: Case) -> tuple[Call, float]:
    """Return asdex's compiled derivative, and the seconds that it took to get its first matrix."""
    import asdex
    import jax
    import jax.numpy as jnp

    function = case.function(jnp)
    bounds = np.cumsum([array.size for array in case.point])[:-1]

    def flat(joint: Any) -> Any:  # its matrices of more axes cannot be indexed at these sizes
        parts = jnp.split(joint, bounds)
        value = function(*(part.reshape(array.shape) for part, array in zip(parts, case.point, strict=True)))
        return value if case.kind == "hessian" else value.ravel()

    placed = jax.device_put(np.concatenate([array.ravel() for array in case.point]))
    start = perf_counter()
    make = asdex.jacobian if case.kind == "jacobian" else asdex.hessian
    derivative = jax.jit(make(flat, placed))
    jax.block_until_ready(derivative(placed))
    taken = perf_counter() - start
    return lambda: jax.block_until_ready(derivative(placed)), taken


def casadi_prepared(case: Case) -> tuple[Call, float]:
    """Return CasADi's function on SX graphs, and the seconds that it took to get its first matrix."""
    import casadi as ca

    assert case.casadi is not None
    x = case.point[0].ravel()
    start = perf_counter()
    u = ca.SX.sym("u", x.size)
    value = case.casadi(ca, u)
    matrix = ca.jacobian(value, u) if case.kind == "jacobian" else ca.hessian(value, u)[0]
    function = ca.Function("derivative", [u], [matrix])
    buffer, evaluate = function.buffer()
    result = np.zeros(matrix.nnz())
    buffer.set_arg(0, memoryview(x))  # type: ignore[arg-type]
    buffer.set_res(0, memoryview(result))
    evaluate()
    taken = perf_counter() - start

    def call(held: Any = (buffer, function, x, result)) -> None:  # the buffer does not hold what it points to
        evaluate()

    return call, taken


def cold(client: gw.Client, case: Case) -> float:
    """Return the seconds from a Python function that nobody has seen to its matrix."""
    function = case.function(np)
    start = perf_counter()
    f = client.function(function, *_specs(case), verify="never")
    _derivative(f, case)
    return perf_counter() - start


def _derivative(f: gw.Function, case: Case) -> Any:
    compute = f.jacobian if case.kind == "jacobian" else f.hessian
    return compute(*case.point, sparse=True, joined=True)


def _points(case: Case) -> Iterator[tuple[Any, ...]]:
    """Yield points near that of a case, as a solver goes from one to the next."""
    for step in count():
        yield tuple(array + 1e-6 * step for array in case.point)


@dataclass(frozen=True)
class Aims:
    """What a case is to reach: prepared as a ratio to the best peer, cold in seconds."""

    engine: float
    wire: float
    cold: float


def figures(client: gw.Client, case: Case, aims: Aims, peers: tuple[str, ...]) -> list[Figure]:
    """Measure one case.

    Args:
        client: of a server that is up.
        case: what to compute.
        aims: what is to be reached.
        peers: names of those that can do it.
    """
    begun = cold(client, case)
    f = client.function(case.function(np), *_specs(case), verify="never")
    prepared = (f.prepare_jacobian if case.kind == "jacobian" else f.prepare_hessian)(joined=True)
    points = _points(case)
    calls: dict[str, Call] = {"engine": engine(case), "wire": lambda: prepared(*next(points))}
    first: dict[str, float] = {}
    for peer in peers:
        calls[peer], first[peer] = {"asdex": asdex_prepared, "CasADi SX": casadi_prepared}[peer](case)
    for call in calls.values():
        call()
    times = dict(zip(calls, interleaved(ROUNDS, *calls.values()), strict=True))
    best = min(peers, key=times.__getitem__)
    fastest = min(peers, key=first.__getitem__)
    return [
        *(
            _figure(
                f"{case.name}, prepared, {where}",
                times[call],
                best,
                times[best],
                f"at most {aim:g}",
                times[call] <= aim * times[best],
            )
            for call, where, aim in (
                ("engine", "engine alone", aims.engine),
                ("wire", "client to client", aims.wire),
            )
        ),
        _figure(f"{case.name}, cold", begun, fastest, first[fastest], f"{aims.cold:g} s", begun <= aims.cold),
    ]


def large(client: gw.Client, case: Case, seconds: float) -> Figure:
    """Measure a cold derivative that no peer finished; the ratio is to the seconds aimed at."""
    taken = cold(client, case)
    return Figure(
        f"{case.name}, cold",
        _time(taken),
        "no peer finished",
        taken / seconds,
        f"{seconds:g} s",
        taken <= seconds,
    )


def restarted(cache: str, case: Case, seconds: float) -> Figure:
    """Measure the first call of a function that an earlier server with this cache knew."""
    with gw.local(workers=2, cache_dir=cache) as client:
        client.wait_ready()
        f = client.function(case.function(np), *_specs(case), verify="never")
        start = perf_counter()
        _derivative(f, case)
        taken = perf_counter() - start
    return Figure(
        f"{case.name}, first call after a restart",
        _time(taken),
        "pattern, coloring and code come from the disk",
        taken / seconds,
        _time(seconds),
        taken <= seconds,
    )


def main() -> None:
    """Print the rows of all cases."""
    both = ("asdex", "CasADi SX")
    rows: list[Figure] = []
    known = brusselator(70)
    with TemporaryDirectory() as cache:
        with gw.local(workers=2, cache_dir=cache) as client:
            client.wait_ready()
            # The loops of detection and coloring are compiled by their first use.
            for warm in (brusselator(5), rosenbrock(10), bundle_adjustment(3, 7, 20), known):
                cold(client, warm)
            for case, aims, peers in (
                (brusselator(100), Aims(0.83, 5.0, 0.5), both),
                (brusselator(300), Aims(1.0, 2.1, 1.5), both),
                (rosenbrock(100_000), Aims(1.0, 5.0, 0.7), both),
                (minimal_surface(100), Aims(1.0, 5.0, 0.75), ("asdex",)),
                (bundle_adjustment(), Aims(0.25, 0.25, 2.5), ("asdex",)),
            ):
                print(f"{case.name} ...", file=sys.stderr, flush=True)
                rows += figures(client, case, aims, peers)
            rows.append(large(client, brusselator(1000), 6.0))
            rows.append(large(client, rosenbrock(1_000_000), 2.0))
        rows.append(restarted(cache, known, 0.03))
    print(table(rows))


if __name__ == "__main__":
    main()
