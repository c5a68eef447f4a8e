"""Watches a server's health from a process of its own: when each check began, and how long it took.

    python -m tests.server.fuzz.watch ADDRESS

It checks until its standard input ends, then prints what it saw as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

PAUSE = 0.005


@dataclass(frozen=True)
class Check:
    """One check of the health, in seconds of `time.time`."""

    began: float
    took: float


class HealthWatch:
    """Checks the health of a server while the block runs; `checks` holds them afterwards."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.checks: list[Check] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.fuzz.watch", self._address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([p or "." for p in sys.path])},
            cwd=Path(__file__).parents[3],
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it is connected
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        output, _ = self._process.communicate()
        self.checks = [Check(*pair) for pair in json.loads(output)]


def watch(address: str) -> None:
    """Check until standard input ends."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with contextlib.suppress(OSError):
        os.nice(-5)  # what is measured is the server's delay, not this process's
    checks = []
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60)
        print("watching", flush=True)
        while not ended.is_set():
            began, start = time.time(), time.perf_counter()
            stub.Check(health_pb2.HealthCheckRequest(), timeout=120)
            checks.append((began, time.perf_counter() - start))
            time.sleep(PAUSE)
    print(json.dumps(checks))


if __name__ == "__main__":
    watch(sys.argv[1])
