"""All figures of the table in README.md: `python -m benchmarks`."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.report import table

MODULES = ("latency", "jacobian", "throughput", "scaling", "memory", "arrival", "solvers", "accumulate")


def main() -> None:
    """Run every benchmark in turn, each in a process of its own, and print their rows as one table."""
    rows: list[str] = []
    for module in MODULES:
        print(f"{module} ...", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", f"benchmarks.{module}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
        rows += done.stdout.splitlines()[2:]
    print("\n".join([table([]), *rows]))


if __name__ == "__main__":
    main()
