"""Writes the table of results: onnx's backend suite against the engine and the peers installed, in one run.

    python -m tests.conformance.marks [EVALUATOR ...] [--operators]

Peers come with the extra `[peers]`. With --operators, docs/operators.md is written from the results.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from tests.conformance import measure, operators, peers, suite
from tests.conformance.measure import Result


def _rows() -> list[tuple[str, Callable[[Result], bool]]]:
    floating = {
        test.name for test in suite.tests() if test.category == "Node" and suite.is_floating(test.model)
    }
    return [
        ("all", lambda _: True),
        ("node", lambda result: result.category == "Node"),
        ("node, float32 or float64 in and out", lambda result: result.name in floating),
        ("pytorch-converted", lambda result: result.category == "PyTorchConverted"),
        ("pytorch-operator", lambda result: result.category == "PyTorchOperator"),
        ("simple", lambda result: result.category == "Simple"),
    ]


def table(measured: dict[str, list[Result]]) -> str:
    """Returns the results as a Markdown table: tests passed, of how many."""
    lines = [
        "| tests | " + " | ".join(measured) + " | of |",
        "|---|" + "---:|" * (len(measured) + 1),
    ]
    for title, chosen in _rows():
        counts = [sum(chosen(item) and item.passed for item in results) for results in measured.values()]
        total = sum(map(chosen, next(iter(measured.values()))))
        lines.append(f"| {title} | " + " | ".join(f"{count:,}" for count in counts) + f" | {total:,} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("evaluators", nargs="*", metavar="EVALUATOR", help=", ".join(peers.BACKENDS))
    parser.add_argument("--operators", action="store_true", help="write docs/operators.md")
    options = parser.parse_args(arguments)
    measured = {}
    for name in options.evaluators or peers.installed():
        start = time.monotonic()
        measured[name] = measure.measure(name)
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    missing = [name for name in peers.BACKENDS if name not in peers.installed()]
    print(table(measured))
    if missing and not options.evaluators:
        print(f"\nnot installed: {', '.join(missing)} (pip install 'gradwire[peers]')", file=sys.stderr)
    if options.operators:
        operators.write(measured["gradwire"])


if __name__ == "__main__":
    main()
