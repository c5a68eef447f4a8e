"""All figures of the table in README.md: ``python -m benchmarks``."""

from __future__ import annotations

import sys

from benchmarks import jacobian, latency, memory, scaling, throughput
from benchmarks.report import Figure, table


def main() -> None:
    """Run every benchmark in turn and print the table."""
    rows: list[Figure] = []
    for module in (latency, jacobian, throughput, scaling, memory):
        print(f"{module.__name__} ...", file=sys.stderr, flush=True)
        rows += module.figures()
    print(table(rows))


if __name__ == "__main__":
    main()
