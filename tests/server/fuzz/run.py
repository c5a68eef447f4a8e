"""Fuzzing of the wire: mutated requests of every call against a live server, with its health watched.

    python -m tests.server.fuzz.run --requests 200000      (make fuzz-wire)
    python -m tests.server.fuzz.run --only Evaluate 1234   what one request is, and how it is answered

Every request ends in an answer or a named refusal; the server is right in between, its processes do not
grow without bound, and no health check waits: those are the rows of the table.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from gradwire_wire.v1 import function_pb2
from tests.server import calls
from tests.server.fuzz.requests import generate
from tests.server.fuzz.watch import Check, HealthWatch
from tests.server.fuzz.world import KINDS, SHAPES, SINES, A, World, X, begin
from tests.server.processes import resident_bytes

SECONDS = 60.0
"""Deadline of a request: many times what any should take."""

HEALTH_SECONDS = 0.2
GROWTH_BYTES = 3 << 30
GOLDEN = 25
"""After so many requests of a thread, one whose answer is known."""

DEFECTS = {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "DATA_LOSS"}
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


@dataclass
class CallReport:
    """What came of the requests of one call.

    Attributes:
        statuses: how many ended with which; calls on a stream count by themselves.
        defects: index and reason of those that must not be.
        slowest: seconds and index.
        spans: begin, end and index of each, in seconds of `time.time`.
        health: the checks meanwhile.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    defects: list[tuple[int, str]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    spans: list[tuple[float, float, int]] = field(default_factory=list)
    health: list[Check] = field(default_factory=list)

    def suspects(self) -> list[tuple[Check, list[int]]]:
        """Checks over the bound, each with the requests that were under way."""
        return [
            (one, [i for start, stop, i in self.spans if start < one.began + one.took and stop > one.began])
            for one in self.health
            if one.took > HEALTH_SECONDS
        ]


@dataclass
class Report:
    """The results of a run, by call; memory of the server and its processes before and after, in bytes."""

    calls: dict[str, CallReport]
    memory: tuple[int, int] = (0, 0)
    idle: list[Check] = field(default_factory=list)

    def defects(self) -> Iterator[str]:
        """What must not be, in words; delays of health are not among it."""
        for method, report in self.calls.items():
            for index, what in report.defects:
                yield f"{method} {index}: {what}"
        before, after = self.memory
        if after - before > GROWTH_BYTES:
            yield f"the server's processes grew by {(after - before) / 2**20:,.0f} MiB"

    def delays(self) -> Iterator[str]:
        """Health checks over the bound, in words."""
        for method, report in self.calls.items():
            for check, indices in report.suspects():
                yield f"{method}: health took {check.took:.2f} s during {indices[:6]}"


def send(channel: grpc.Channel, method: str, messages: Sequence[bytes]) -> list[bytes]:
    """Send the messages of a call; return its answers as bytes."""
    kind = SHAPES[method]
    call = getattr(channel, kind)(f"/gradwire.v1.GradientService/{method}")
    request: Any = iter(messages) if kind.startswith("stream") else messages[0]
    answer = call(request, timeout=SECONDS)
    return list(answer) if kind.endswith("stream") else [answer]


def _outcomes(channel: grpc.Channel, method: str, messages: Sequence[bytes]) -> Iterator[tuple[str, str]]:
    """Yield the status of a call, and of calls on its stream; and their messages."""
    try:
        answers = send(channel, method, messages)
    except grpc.RpcError as error:
        yield error.code().name, error.details() or ""
        return
    yield "OK", ""
    if method == "EvaluateStream":
        for data in answers:
            answer = function_pb2.EvaluateStreamResponse.FromString(data)
            if answer.HasField("error"):
                name = _CODES[answer.error.code]
                # A client may ask for either: a call's own timeout, and its end.
                asked = name in ("DEADLINE_EXCEEDED", "CANCELLED")
                yield f"call {name}" if asked else name, answer.error.message


def _check_golden(channel: grpc.Channel, graph_id: str) -> None:
    found = calls.evaluate(channel, graph_id, {"a": A, "x": X}, timeout=SECONDS)
    np.testing.assert_allclose(found["y"], np.sin(A @ X), rtol=1e-14)


def _share(
    address: str, world: World, method: str, indices: Iterable[int], report: CallReport, lock: Any
) -> None:
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        graph_id = calls.register(channel, SINES).graph_id
        for count, index in enumerate(indices):
            messages = generate(world, method, index)
            start, clock = time.time(), time.perf_counter()
            outcomes = list(_outcomes(channel, method, messages))
            took = time.perf_counter() - clock
            with lock:
                report.spans.append((start, start + took, index))
                report.slowest = max(report.slowest, (took, index))
                for name, words in outcomes:
                    report.statuses[name] += 1
                    if name in DEFECTS or (name != "OK" and not words):
                        report.defects.append((index, f"{name}: {words[:300]}"))
            if count % GOLDEN == GOLDEN - 1:
                try:
                    _check_golden(channel, graph_id)
                except (grpc.RpcError, AssertionError) as error:
                    with lock:
                        report.defects.append((index, f"a right answer afterwards: {str(error)[:300]}"))


def run(address: str, process_id: int, requests: int, threads: int = 2, first: int = 0) -> Report:
    """Send requests, an equal number of each call, one call after the other."""
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        world = begin(channel)
    each, report = requests // len(KINDS), Report({method: CallReport() for method in KINDS})
    before, lock = resident_bytes(process_id), threading.Lock()
    phases: dict[str, tuple[float, float]] = {}
    with HealthWatch(address) as health:
        started = time.time()
        time.sleep(min(5.0, requests / 2000))
        phases[""] = started, time.time()
        for method in KINDS:
            started = time.time()
            workers = [
                threading.Thread(
                    target=_share,
                    args=(
                        address,
                        world,
                        method,
                        range(first + share, first + each, threads),
                        report.calls[method],
                        lock,
                    ),
                )
                for share in range(threads)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            phases[method] = started, time.time()
    for phase, (start, stop) in phases.items():
        found = [one for one in health.checks if start <= one.began < stop]
        if phase:
            report.calls[phase].health = found
        else:
            report.idle = found
    report.memory = before, resident_bytes(process_id)
    return report


def _milliseconds(checks: Sequence[Check]) -> str:
    took = sorted(one.took * 1e3 for one in checks) or [float("nan")]
    return f"{took[min(len(took) - 1, int(len(took) * 0.99))]:.0f} / {took[-1]:.0f}"


def table(report: Report) -> Iterator[str]:
    """Return the report as a table of Markdown, and what must not be below it."""
    yield "| call | requests | statuses | slowest request | health, p99 / longest (ms) |"
    yield "|---|---:|---|---:|---:|"
    yield f"| none, for comparison | | | | {_milliseconds(report.idle)} |"
    for method, one in report.calls.items():
        statuses = ", ".join(f"{name} {count:,}" for name, count in one.statuses.most_common())
        yield (
            f"| {method} | {len(one.spans):,} | {statuses} | {one.slowest[0]:.2f} s, number "
            f"{one.slowest[1]} | {_milliseconds(one.health)} |"
        )
    before, after = (size / 2**20 for size in report.memory)
    yield ""
    yield f"Memory of the server and all its processes: {before:,.0f} MiB before, {after:,.0f} MiB after."
    yield from report.defects()
    yield from report.delays()


def main(arguments: Sequence[str] | None = None) -> int:
    from gradwire_server.process import embedded
    from tests.conftest import wait_until_serving

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs=2, metavar=("CALL", "NUMBER"), help="send one request")
    options = parser.parse_args(arguments)
    server = embedded.start(workers=2, log_level="error")
    try:
        wait_until_serving(server.address)
        if options.only:
            with grpc.insecure_channel(server.address, options=_OPTIONS) as channel:
                method, index = options.only[0], int(options.only[1])
                messages = generate(begin(channel), method, index)
                for data in messages:
                    print(len(data), "bytes", str(KINDS[method].FromString(data))[:2000])
                start = time.perf_counter()
                print(list(_outcomes(channel, method, messages)), f"{time.perf_counter() - start:.2f} s")
            return 0
        report = run(server.address, server.process_id, options.requests, options.threads, options.first)
    finally:
        server.stop()
    print("\n".join(table(report)))
    return any(True for _ in (*report.defects(), *report.delays()))


if __name__ == "__main__":
    sys.exit(main())
