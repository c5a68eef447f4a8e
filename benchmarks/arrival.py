"""How long a graph takes to arrive: registered, planned and its first block compiled, by number of nodes.

    python -m benchmarks.arrival [--profile NODES]

The graph is a chain over one vector of 64 elements; each length runs in a process of its own, so that
nothing is warm but the imports. "repeated" is the same chain built of calls of one model-local function.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import subprocess
import sys
from time import perf_counter

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.report import Figure

LENGTHS = (500, 1000, 2000, 5000)
SIZE = 64
BLOCK = ("Sin", "Mul", "Tanh", "Add", "Sigmoid", "Mul", "Cos", "Add", "Sqrt", "Sub")
"""Operators of one stretch of the chain; those of two inputs take the stretch's own input as well."""

STAGES = ("register", "plan", "first block")


def _stretch(source: str, prefix: str) -> tuple[list[onnx.NodeProto], str]:
    nodes, current = [], source
    for index, op in enumerate(BLOCK):
        if op == "Sqrt":
            nodes.append(helper.make_node("Abs", [current], [f"{prefix}_abs"]))
            current = f"{prefix}_abs"
        inputs = [current, source] if op in ("Mul", "Add", "Sub") else [current]
        current = f"{prefix}_{index}"
        nodes.append(helper.make_node(op, inputs, [current]))
    return nodes, current


def chain(length: int, *, repeated: bool = False) -> bytes:
    """A model of about ``length`` nodes: stretches in a row, or calls of one function of a stretch."""
    stretches = length // (len(BLOCK) + 1)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    nodes: list[onnx.NodeProto] = []
    functions = []
    current = "x"
    if repeated:
        body, output = _stretch("a", "f")
        functions = [helper.make_function("local", "Stretch", ["a"], [output], body, opsets[:1])]
    for index in range(stretches):
        if repeated:
            nodes.append(helper.make_node("Stretch", [current], [f"s{index}"], domain="local"))
            current = f"s{index}"
        else:
            made, current = _stretch(current, f"s{index}")
            nodes.extend(made)
    value = helper.make_tensor_value_info("x", TensorProto.DOUBLE, [SIZE])
    result = helper.make_tensor_value_info(current, TensorProto.DOUBLE, [SIZE])
    graph = helper.make_graph(nodes, "chain", [value], [result])
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)
    return model.SerializeToString()


def arrive(data: bytes) -> dict[str, float]:
    """Seconds of each stage."""
    from gradwire_engine.kernels import BlockSpec, Kernel, compile_kernel
    from gradwire_engine.plan import JACOBIAN, Problem, make_plan
    from gradwire_engine.registration import register
    from gradwire_engine.transforms import FunctionSpec
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


def measure(length: int, repeated: bool) -> dict[str, float]:
    """Seconds of each stage, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.arrival", "--one", str(length)]
    output = subprocess.run(
        [*command, *(["--repeated"] if repeated else [])], check=True, capture_output=True, text=True
    )
    times: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return times


def curve() -> str:
    """The curve as a Markdown table."""
    lines = [f"| nodes | {' | '.join(STAGES)} | ms a node | repeated: ms a node |", "|---:|" + "---:|" * 5]
    for length in LENGTHS:
        plain, shared = (measure(length, repeated) for repeated in (False, True))
        cells = [f"{plain[stage]:.2f} s" for stage in STAGES]
        cells += [f"{1000 * sum(times.values()) / length:.2f}" for times in (plain, shared)]
        lines.append(f"| {length:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def figures() -> list[Figure]:
    """Whether 5,000 nodes take ten times what 500 do."""
    few, many = (sum(measure(length, False).values()) for length in (LENGTHS[0], LENGTHS[-1]))
    ratio = many / few / (LENGTHS[-1] / LENGTHS[0])
    return [
        Figure(
            f"arrival of {LENGTHS[-1]:,} nodes, a node",
            f"{1000 * many / LENGTHS[-1]:.2f} ms",
            f"{1000 * few / LENGTHS[0]:.2f} ms of {LENGTHS[0]} nodes",
            ratio,
            "<= 1.3 (linear)",
            ratio <= 1.3,
        )
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", type=int, metavar="NODES", help="where the time of one length goes")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--repeated", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        import gradwire_engine.plan  # noqa: F401  (imports are not part of an arrival)

        arrive(chain(24))
        print(json.dumps(arrive(chain(options.one, repeated=options.repeated))))
    elif options.profile:
        data = chain(options.profile)
        arrive(chain(24))
        with cProfile.Profile() as profile:
            arrive(data)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
    else:
        print(curve())


if __name__ == "__main__":
    main()
