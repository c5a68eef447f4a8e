"""How long a graph takes to arrive: registered, planned and its first block compiled, by number of nodes.

    python -m benchmarks.arrival [--curve | --profile NODES]

The graph is a chain over one vector of 64 elements; each length runs in a process of its own, so that
nothing is warm but the imports. Three chains of a length are told apart: "mixed" has its operators in no
order, "repeated" has the same run of ten over and over, as an unrolled loop has it, and "called" is
that one written as calls of one model-local function.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
from collections.abc import Sequence
from time import perf_counter

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.report import Figure, table

LENGTHS = (500, 1000, 2000, 5000)
SIZE = 64
RUN = ("Sin", "Mul", "Tanh", "Add", "Sigmoid", "Mul", "Cos", "Add", "Softsign", "Sub")
"""Operators of one run of the chain; those of two inputs take the run's own input as well."""

KINDS = ("mixed", "repeated", "called")
STAGES = ("register", "plan", "first block")


def _run(ops: Sequence[str], source: str, prefix: str) -> tuple[list[onnx.NodeProto], str]:
    nodes, current = [], source
    for index, op in enumerate(ops):
        inputs = [current, source] if op in ("Mul", "Add", "Sub") else [current]
        current = f"{prefix}_{index}"
        nodes.append(helper.make_node(op, inputs, [current]))
    return nodes, current


def chain(length: int, kind: str) -> bytes:
    """Build a model of about `length` nodes: mixed, repeated or called."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    nodes: list[onnx.NodeProto] = []
    functions = []
    current = "x"
    if kind == "called":
        body, output = _run(RUN, "a", "f")
        functions = [helper.make_function("local", "Stretch", ["a"], [output], body, opsets[:1])]
    draw = np.random.default_rng(0)
    for index in range(length // len(RUN)):
        if kind == "called":
            nodes.append(helper.make_node("Stretch", [current], [f"s{index}"], domain="local"))
            current = f"s{index}"
            continue
        ops = draw.permutation(RUN).tolist() if kind == "mixed" else RUN
        made, current = _run(ops, current, f"s{index}")
        nodes.extend(made)
    value = helper.make_tensor_value_info("x", TensorProto.DOUBLE, [SIZE])
    result = helper.make_tensor_value_info(current, TensorProto.DOUBLE, [SIZE])
    graph = helper.make_graph(nodes, "chain", [value], [result])
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)
    return model.SerializeToString()


def arrive(data: bytes) -> dict[str, float]:
    """Return seconds of each stage."""
    from gradwire_engine.planning.kernels import BlockSpec, Kernel, compile_kernel
    from gradwire_engine.planning.plan import JACOBIAN, Problem, make_plan
    from gradwire_engine.planning.registration import register
    from gradwire_engine.planning.transforms import FunctionSpec
    from gradwire_engine.values import ArrayType

    kernels: dict[BlockSpec, Kernel] = {}

    def build(spec: BlockSpec) -> Kernel:
        if spec not in kernels:
            kernels[spec] = compile_kernel(graph, spec)
        return kernels[spec]

    times = [perf_counter()]
    graph = register(data)
    times.append(perf_counter())
    arguments = (("x", ArrayType("float64", (SIZE,))),)
    plan = make_plan(graph, Problem(FunctionSpec(graph.info.graph_id), arguments, JACOBIAN), compile=build)
    times.append(perf_counter())
    block = plan.blocks[0]
    build(plan.kernel(block)).run(graph.weights, {"x": np.linspace(0.1, 1.0, SIZE)}, block)
    times.append(perf_counter())
    return dict(zip(STAGES, np.diff(times).tolist(), strict=True))


def measure(length: int, kind: str) -> dict[str, float]:
    """Return seconds of each stage, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.arrival", "--one", str(length), "--kind", kind]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
    times: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return times


def curve() -> str:
    """Return the curve as a Markdown table."""
    lines = [f"| chain | nodes | {' | '.join(STAGES)} | ms a node |", "|:---|---:|" + "---:|" * 4]
    for kind in KINDS:
        for length in LENGTHS:
            times = measure(length, kind)
            cells = [f"{times[stage]:.2f} s" for stage in STAGES]
            lines.append(
                f"| {kind} | {length:,} | {' | '.join(cells)} | {1000 * sum(times.values()) / length:.2f} |"
            )
    return "\n".join(lines)


def figures() -> list[Figure]:
    """Return whether 5,000 nodes take ten times what 500 do, and what repetition among them saves."""
    few, many = (sum(measure(length, "mixed").values()) for length in (LENGTHS[0], LENGTHS[-1]))
    repeated = sum(measure(LENGTHS[-1], "repeated").values())
    ratio = many / few / (LENGTHS[-1] / LENGTHS[0])
    return [
        Figure(
            f"arrival of {LENGTHS[-1]:,} nodes, a node",
            f"{1000 * many / LENGTHS[-1]:.2f} ms",
            f"{1000 * few / LENGTHS[0]:.2f} ms of {LENGTHS[0]} nodes",
            ratio,
            "<= 1.3 (linear)",
            ratio <= 1.3,
        ),
        Figure(
            f"arrival of {LENGTHS[-1]:,} nodes that repeat a run of {len(RUN)}",
            f"{repeated:.2f} s",
            f"{many:.2f} s of nodes in no order",
            repeated / many,
            "<= 0.5 (compiled once)",
            repeated / many <= 0.5,
        ),
    ]


def main() -> None:
    """Print the table, the curve or a profile, as the command line asks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curve", action="store_true", help="every chain at every length")
    parser.add_argument("--profile", type=int, metavar="NODES", help="where the time of one length goes")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=KINDS, default="mixed", help="of the chain that is profiled")
    options = parser.parse_args()
    if options.one:
        arrive(chain(30, "mixed"))
        print(json.dumps(arrive(chain(options.one, options.kind))))
    elif options.profile:
        data = chain(options.profile, options.kind)
        arrive(chain(30, "mixed"))
        with cProfile.Profile() as profile:
            arrive(data)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    else:
        print(curve() if options.curve else table(figures()))


if __name__ == "__main__":
    main()
