"""Runs the suite against one evaluator in a process of its own, which may crash or hang in a test.

`python -m tests.conformance.measure NAME START` is that process: it prints one line for each test.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import unittest
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.conformance import peers, suite

PATIENCE = 120.0
"""Seconds without a result after which a test is abandoned and its process ended."""

KEPT = Path(__file__).parents[2] / "build" / "conformance"
"""The folder of results, from which the tables can be written again."""

_MARK = "conformance-result"


@dataclass(frozen=True)
class Result:
    """The result of one test with one evaluator."""

    category: str
    name: str
    passed: bool


def worker(name: str, start: int) -> None:
    """Runs the suite's tests from `start` on; prints the name of each before it and its result after it."""
    warnings.simplefilter("ignore")
    case = unittest.TestCase()
    for category, test, function in list(suite.functions(peers.backend(name)))[start:]:
        print(_MARK, category, test, "begin", flush=True)
        try:
            function(case)
            passed = True
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            passed = False
        print(_MARK, category, test, "pass" if passed else "fail", flush=True)


def measure(name: str) -> list[Result]:
    """Returns every offline test's result for an evaluator."""
    results: list[Result] = []
    total = len(suite.tests())
    while len(results) < total:
        before = len(results)
        crashed = _run(name, results)
        if crashed is not None:
            results.append(Result(*crashed, passed=False))
        if len(results) == before:
            raise RuntimeError(f"the process that measures {name} ended before its first test")
    KEPT.mkdir(parents=True, exist_ok=True)
    (KEPT / f"{name}.json").write_text(json.dumps([asdict(result) for result in results]))
    return results


def last(name: str) -> list[Result]:
    """Returns the results of the last run of `measure`."""
    return [Result(**item) for item in json.loads((KEPT / f"{name}.json").read_text())]


def _run(name: str, results: list[Result]) -> tuple[str, str] | None:
    """Runs one process; returns its results, and the test it crashed or hung in (None if it finished)."""
    command = [sys.executable, "-m", "tests.conformance.measure", name, str(len(results))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    stream = process.stdout

    def read() -> None:
        for line in stream:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    running: tuple[str, str] | None = None
    try:
        while True:
            try:
                line = lines.get(timeout=PATIENCE)
            except queue.Empty:
                return running
            if line is None:
                return running
            if not line.startswith(_MARK):
                continue
            _, category, test, state = line.split()
            running = (category, test) if state == "begin" else None
            if state != "begin":
                results.append(Result(category, test, state == "pass"))
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    worker(sys.argv[1], int(sys.argv[2]))
