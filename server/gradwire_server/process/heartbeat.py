"""Tells a process that is frozen or gone from one that is busy, by whether the system runs any thread of it.

A worker cannot be asked: while it parses, traces or serializes, it may hold Python's lock for longer than any
patience, and would not answer. So each worker has a thread that wakes every second (`beat`). Even where
another thread holds the lock, this one then runs for a few microseconds to ask for it, and the system counts
them. A process of which no thread has run for a while is stopped (SIGSTOP, a debugger, a frozen control
group); one that waits for a core on a machine under load is not, for it is runnable.

This sees the processes of the server's own machine. When another machine of a cluster freezes, Ray finds that
its node does not answer, and reports its workers dead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

_BEAT_SECONDS = 1.0
_PROCESSES = Path("/proc")
_ENDED = (b"Z", b"X")
_STOPPED = (b"T", b"t")


@dataclass(frozen=True)
class Place:
    """Where a process runs.

    Attributes:
        process_id: its id.
        machine: what sets the machine, since it was started, and the container apart from others.
        started: when the process started, by the machine's clock: ids are given again.
    """

    process_id: int
    machine: str
    started: bytes

    @classmethod
    def of(cls, process_id: int) -> Place:
        """Return the place of a process of this machine."""
        return cls(process_id, _machine(), _started(process_id))

    @property
    def is_here(self) -> bool:
        """Whether the id means the same process to this one."""
        return bool(self.machine) and self.machine == _machine()

    def kill(self) -> None:
        """End the process, stopped or not; do nothing if it is gone or elsewhere."""
        if self.is_here and self.started and _started(self.process_id) == self.started:
            with contextlib.suppress(OSError):
                os.kill(self.process_id, signal.SIGKILL)


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process_id: int) -> bytes:
    try:
        return _fields(_PROCESSES / str(process_id))[19]
    except (OSError, IndexError):
        return b""


def _fields(process: Path) -> list[bytes]:
    """Return what the system says of a process or thread, from its state on.

    The name before it is in parentheses, and may contain any characters.
    """
    return (process / "stat").read_bytes().rpartition(b")")[2].split()


def beat() -> None:
    """Have a thread of this process run every second, whatever the others do."""

    def wake() -> None:
        while True:
            time.sleep(_BEAT_SECONDS)

    threading.Thread(target=wake, name="heartbeat", daemon=True).start()


@dataclass(frozen=True)
class Activity:
    """What the system counts of a process.

    Attributes:
        ran: nanoseconds that its threads have run.
        runnable: one of them runs or waits for a core.
    """

    ran: int
    runnable: bool


class Gone(Exception):
    """The process has ended."""


def activity_of(process_id: int) -> Activity | None:
    """Read what the system counts of a process; None where it does not count, or this look was too late.

    Raises:
        Gone: the process has ended.
    """
    process = _PROCESSES / str(process_id)
    ran, runnable = 0, False
    try:
        if _fields(process)[0] in _ENDED:
            raise Gone
        for thread in (process / "task").iterdir():
            ran += int((thread / "schedstat").read_bytes().split()[0])
            runnable = runnable or _fields(thread)[0] == b"R"
    except (OSError, ValueError, IndexError):
        if _PROCESSES.exists() and not process.exists():
            raise Gone from None
        return None
    return Activity(ran, runnable)


def is_out(process_id: int) -> bool:
    """Tell whether a process has ended or is stopped."""
    try:
        return _fields(_PROCESSES / str(process_id))[0] in (*_ENDED, *_STOPPED)
    except OSError:
        return True


class Watch:
    """Says which processes are gone, and which have not run for so long that they count as frozen."""

    def __init__(self, seconds: float, read: Callable[[int], Activity | None] = activity_of) -> None:
        """Count a process as frozen after `seconds`; `read` says what the system counts of it."""
        self._seconds = seconds
        self._read = read
        self._seen: dict[int, tuple[int, float]] = {}
        self._looked = 0.0

    def look(self, process_ids: Collection[int], now: float) -> dict[int, str]:
        """Look at processes at a time, which grows from call to call.

        Returns:
            "died" or "frozen" for those that are.
        """
        if now - self._looked > self._seconds:
            self._seen.clear()  # this process did not run either
        self._looked = now
        seen: dict[int, tuple[int, float]] = {}
        lost: dict[int, str] = {}
        for process_id in process_ids:
            try:
                activity = self._read(process_id)
            except Gone:
                lost[process_id] = "died"
                continue
            ran, since = self._seen.get(process_id, (-1, now))
            if activity is None or activity.runnable or activity.ran != ran:
                ran, since = -1 if activity is None else activity.ran, now
            seen[process_id] = ran, since
            if now - since >= self._seconds:
                lost[process_id] = "frozen"
        self._seen = seen
        return lost
