"""Prints how detected patterns compare with dense derivatives and with asdex, on CUTEst's problems.

Each problem has a limit on its time, in a process of its own that is ended past it:

    python -m tests.conformance.sparsity.table [--limit 90] [--only NAME] [--every N] [--processes N]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import jax

from tests.conformance.sparsity import cutest
from tests.conformance.sparsity.comparison import Comparison, compare


@dataclass(frozen=True)
class Line:
    """A line of the table: a derivative and what was found, or why nothing was."""

    name: str
    kind: str
    found: Comparison | None
    failure: str = ""

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.name:24} {self.kind:9} {self.failure}"
        found = self.found
        shape = f"{found.shape[0]} x {found.shape[1]}"
        opinion = "-" if found.opinion is None else str(found.opinion)
        marks = [
            "MISSED" if found.missed else "",
            f"fewer {found.fewer}" if found.fewer else "",
            f"asdex misses {found.opinion_missed}" if found.opinion_missed else "",
            " ".join(found.dense_primitives),
        ]
        columns = (found.nonzeros, found.missed, found.extra, opinion, f"{found.seconds:.2f}")
        return _row(self.name, self.kind, shape, *columns) + "  " + " ".join(filter(None, marks))


def _row(name: str, kind: str, shape: str, *columns: object) -> str:
    return f"{name:20} {kind:9} {shape:>15}" + "".join(f"{column!s:>10}" for column in columns)


HEAD = _row("problem", "kind", "shape", "non-zeros", "missed", "extra", "asdex", "s")


def lines_of(name: str, opinion: bool = True) -> Iterator[Line]:
    """Compare the derivatives of a module's problems."""
    for problem in cutest.problems(name):
        for derivative in cutest.derivatives(problem):
            try:
                found = compare(derivative.function, derivative.points(), opinion)
            except Exception as error:
                yield Line(problem.name, derivative.kind, None, f"{type(error).__name__}: {str(error)[:120]}")
            else:
                yield Line(problem.name, derivative.kind, found)


def _serve(connection: Connection) -> None:
    jax.config.update("jax_enable_x64", True)
    while (name := connection.recv()) is not None:
        try:
            lines = list(lines_of(name))
        except Exception as error:
            lines = [Line(name, "", None, f"{type(error).__name__}: {str(error)[:120]}")]
        # Each problem compiles its own; none is compiled twice.
        jax.clear_caches()
        connection.send(lines)


class _Worker:
    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: Any = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()

    def lines(self, name: str, limit: float) -> list[Line] | None:
        """Return a module's lines, or None when the limit has passed, which ends the worker."""
        self.connection.send(name)
        try:
            if self.connection.poll(limit):
                found: list[Line] = self.connection.recv()
                return found
        except EOFError:
            pass
        self.process.kill()
        self.process.join()
        return None


def compared(names: Sequence[str], limit: float, processes: int) -> Iterator[Line]:
    """Compare all problems of modules, each within a limit in seconds, in so many processes."""
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for _ in range(processes):
        idle.put(_Worker())

    def lines_within(name: str) -> list[Line]:
        worker = idle.get()
        lines = worker.lines(name, limit)
        idle.put(worker if lines is not None else _Worker())
        return lines or [Line(name, "", None, f"no answer within {limit:.0f} s, or none to compare")]

    with ThreadPoolExecutor(processes) as pool:
        for lines in pool.map(lines_within, names):
            yield from lines
    for _ in range(processes):
        idle.get().connection.send(None)


def summary(lines: Sequence[Line]) -> str:
    """Return the totals."""
    found = [line.found for line in lines if line.found is not None]
    asked = [item for item in found if item.opinion is not None]
    dense = sorted({name for item in found for name in item.dense_primitives})
    failures = [line for line in lines if line.found is None]
    return (
        f"{len(found)} derivatives, {sum(item.nonzeros for item in found)} non-zeros, "
        f"{sum(item.missed for item in found)} missed; extra entries {sum(item.extra for item in found)} of "
        f"{sum(item.measured + item.extra - item.missed for item in found)} looked at, "
        f"in {sum(item.extra > 0 for item in found)} derivatives.\n"
        f"asdex on {len(asked)} of them: {sum(item.opinion or 0 for item in asked)} entries, ours "
        f"{sum(item.nonzeros for item in asked)}; it misses some in "
        f"{sum(item.opinion_missed > 0 for item in asked)}, has fewer extra ones in "
        f"{sum(item.fewer > 0 for item in asked)}.\n"
        f"Taken for dense: {', '.join(dense) or 'nothing'}. Without an answer: {len(failures)}."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; fail where an entry was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=90, help="seconds a module")
    parser.add_argument("--only", default="", help="part of the names to take")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="problems at a time")
    parser.add_argument("--every", type=int, default=1, help="take one module of so many")
    options = parser.parse_args(arguments)
    names = [name for name in cutest.names() if options.only in name][:: options.every]
    start = time.monotonic()
    lines = []
    print(HEAD)
    for line in compared(names, options.limit, options.processes):
        lines.append(line)
        print(line, flush=True)
    print(summary(lines))
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    return int(any(line.found is not None and line.found.missed for line in lines))


if __name__ == "__main__":
    sys.exit(main())
