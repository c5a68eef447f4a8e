"""Fuzzing: every input ends in a result or a named error, within time and memory, without side effects.

    python -m tests.conformance.fuzz --inputs 200000 --workers 2      (make fuzz)
    python -m tests.conformance.fuzz --only 1234                      one input, in this process

Inputs are run in processes of their own, so that a crash in native code is reported with the input's
number and does not end the run. In those processes memory is limited by the kernel, writing files is
impossible, and Python's audit events report any file or socket that is opened.
"""

from __future__ import annotations

import argparse
import os
import queue
import resource
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance.mutations import generate

SECONDS = 20.0
"""Seconds of processor time for one input: many times the most that any takes."""

WALL_SECONDS = 240.0
"""Seconds of wall time for one input, for one that waits instead of computing."""

MEMORY = 3 << 30
"""Bytes of address space that a process may add to what it has when it starts."""

BATCH = 2000
"""Inputs after which a process is replaced, so that JAX's caches do not grow without bound."""

EVALUATED = 6
"""One in so many accepted graphs is compiled, differentiated and run as well; the rest are traced."""

ARRAY_BYTES = 1 << 24

_MARK = "fuzz-input"


@dataclass
class Report:
    """The results of a run.

    Attributes:
        outcomes: number of inputs by outcome: "result", or the name of an EngineError.
        failures: the inputs that failed, each with the reason.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)


def attempt(index: int) -> str:
    """Takes one input through the engine as far as possible and returns the name of the outcome.

    Raises:
        Exception: anything but an EngineError, which is a defect.
    """
    import numpy as np

    from gradwire_engine.errors import EngineError
    from gradwire_engine.limits import Limits
    from gradwire_engine.planning.function import fixed_arguments
    from gradwire_engine.planning.kernels import EvaluateSpec, compile_kernel
    from gradwire_engine.planning.plan import JACOBIAN, Problem, make_plan
    from gradwire_engine.planning.registration import register
    from gradwire_engine.planning.transforms import FunctionSpec
    from gradwire_engine.values import dtype_of
    from tests.engine.in_process import blocks

    limits = Limits(
        graph_bytes=1 << 20,
        nodes=2000,
        array_bytes=ARRAY_BYTES,
        loop_trips=1000,
        evaluation_bytes=16 * ARRAY_BYTES,
    )
    data, text = generate(index)
    try:
        graph = register(data, text=text, limits=limits)
        arguments = fixed_arguments(graph.info.signature)
        if index % EVALUATED or arguments is None:
            return "registered"
        if sum(value.nbytes for _, value in arguments) > ARRAY_BYTES:
            return "registered"
        function = FunctionSpec(graph.info.graph_id)
        inputs = {name: np.ones(value.shape, dtype_of(value.dtype)) for name, value in arguments}
        kernel = compile_kernel(graph, EvaluateSpec(function, arguments), limits)
        if not kernel.cost.bounded:
            return "compiled"
        kernel.run(graph.weights, inputs)
        plan = make_plan(graph, Problem(function, arguments, JACOBIAN), limits)
        if plan.kernels and all(kernel.seeds < 1000 for kernel in plan.kernels):
            next(iter(blocks(graph, plan, inputs, limits)), None)
        return "differentiated"
    except EngineError as error:
        assert str(error), "an error without a message"
        return type(error).__name__


def _watch(opened: list[str]) -> None:
    """Records every file outside of Python's own and every socket that is opened from now on."""
    own = tuple(str(Path(path).resolve()) for path in {sys.prefix, sys.base_prefix, *filter(None, sys.path)})

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path = arguments[0]
            if isinstance(path, int) or str(path).endswith((".py", ".pyc", ".so")):
                return
            if not str(Path(os.fsdecode(path)).resolve()).startswith(own):
                opened.append(f"open {path!r}")
        elif event.startswith(("socket.", "subprocess.", "os.system", "urllib.")):
            opened.append(f"{event} {arguments!r}")

    sys.addaudithook(hook)


def worker(start: int, stop: int, step: int) -> None:
    """Runs inputs one after the other; prints the number of each when it begins and its outcome."""
    import jax

    # JAX opens files to find the machine's devices when it first compiles.
    next(index for index in range(0, 10_000, EVALUATED) if attempt(index) == "differentiated")
    status = Path("/proc/self/statm").read_text().split()
    size = int(status[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    opened: list[str] = []
    _watch(opened)
    for index in range(start, stop, step):
        print(_MARK, "begin", index, flush=True)
        try:
            outcome = attempt(index)
        except Exception:
            outcome = "defect " + " | ".join(traceback.format_exc(limit=-3).strip().splitlines())
        if opened:
            outcome = f"defect it touched {'; '.join(opened)}"
            opened.clear()
        print(_MARK, "end", index, outcome, flush=True)
        if index // step % 200 == 199:
            jax.clear_caches()


class _Process:
    """A worker process, read line by line with a deadline."""

    def __init__(self, start: int, stop: int, step: int) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.conformance.fuzz",
            "--worker",
            str(start),
            str(stop),
            str(step),
        ]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            # The worker finds this package where the tests do, however they were started.
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.lines.put(line)
        self.lines.put(None)

    def spent(self) -> float:
        """Returns the processor seconds that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def next_line(self, begun: float) -> str | None:
        """Returns the next line of its output; None at its end.

        Raises:
            TimeoutError: it has exceeded the time for one input since it had spent `begun` seconds.
        """
        for _ in range(int(WALL_SECONDS)):
            try:
                return self.lines.get(timeout=1)
            except queue.Empty:
                if self.spent() - begun > SECONDS:
                    raise TimeoutError(f"took more than {SECONDS:.0f} s of processor time") from None
        raise TimeoutError(f"took more than {WALL_SECONDS:.0f} s")

    def close(self) -> int:
        """Ends the process; returns its exit code."""
        self.process.kill()
        self._reader.join()
        return self.process.wait()


def _share(start: int, stop: int, step: int, report: Report, lock: threading.Lock) -> None:
    """Runs every `step`-th input, in a new process after every batch and every crash."""
    current = start
    while current < stop:
        process = _Process(current, min(stop, current + BATCH * step), step)
        running: int | None = None
        began, spent = time.monotonic(), SECONDS
        while True:
            fate = "the process died in it"
            try:
                line = process.next_line(spent)
            except TimeoutError as error:
                line, fate = None, str(error)
            if line is None:
                code = process.close()
                break
            if not line.startswith(_MARK):
                continue
            _, kind, number, *rest = line.rstrip("\n").split(" ", 3)
            if kind == "begin":
                running, began, spent = int(number), time.monotonic(), process.spent()
                continue
            with lock:
                report.slowest = max(report.slowest, (time.monotonic() - began, int(number)))
                if rest[0].startswith("defect"):
                    report.failures.append((int(number), rest[0]))
                else:
                    report.outcomes[rest[0]] += 1
            current, running = int(number) + step, None
        if running is not None:
            with lock:
                report.failures.append((running, f"{fate} (exit status {code})"))
                print(f"input {running}: {fate} (exit status {code})", file=sys.stderr, flush=True)
            current = running + step
        elif current == start and code not in (0, -9):
            raise RuntimeError(f"a worker ended with status {code} before its first input")


def run(inputs: int, workers: int = 2, first: int = 0) -> Report:
    """Runs inputs `first` to `first + inputs`."""
    report, lock = Report(), threading.Lock()
    threads = [
        threading.Thread(target=_share, args=(first + share, first + inputs, workers, report, lock))
        for share in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return report


def summary(report: Report) -> Iterable[str]:
    """Returns the report as lines of text."""
    for outcome, count in report.outcomes.most_common():
        yield f"{count:8,}  {outcome}"
    yield f"slowest input: {report.slowest[0]:.1f} s, number {report.slowest[1]}"
    for index, what in sorted(report.failures):
        yield f"input {index}: {what}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", type=int, metavar="INPUT", help="run one input in this process")
    parser.add_argument("--worker", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        worker(*options.worker)
        return 0
    if options.only is not None:
        data, text = generate(options.only)
        print(data.decode(errors="replace") if text else f"{len(data)} bytes")
        print(attempt(options.only))
        return 0
    report = run(options.inputs, options.workers, options.first)
    print("\n".join(summary(report)))
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
