"""A server's processes, looked at from outside."""

from __future__ import annotations

import contextlib
import time

import psutil

from gradwire_server.process import trees


def tree(process_id: int) -> list[psutil.Process]:
    """A process and all below it."""
    return [psutil.Process(process_id), *trees.descendants(process_id)]


def serving(process_id: int) -> psutil.Process:
    """The process that serves, below its supervisor."""
    (found,) = [
        child
        for child in psutil.Process(process_id).children()
        if "gradwire_server.process.serving" in child.cmdline()
    ]
    return found


def workers(process_id: int) -> list[psutil.Process]:
    """The worker processes of a server."""
    found = []
    for process in tree(process_id):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::WorkerActor"):
                found.append(process)
    return found


def computing(process_id: int, seconds: float = 0.5) -> list[psutil.Process]:
    """The workers that compute: more than the little that an idle one does, on a busy machine too."""
    before = {worker: _used(worker) for worker in workers(process_id)}
    time.sleep(seconds)
    return [worker for worker, used in before.items() if _used(worker) - used > 0.06 * seconds]


def _used(process: psutil.Process) -> float:
    """Seconds of computing so far; of a process that ended, none."""
    try:
        return float(process.cpu_times().user)
    except psutil.NoSuchProcess:
        return 0.0


def resident_bytes(process_id: int) -> int:
    """Memory of a server and all its processes, pages they share counted in each."""
    total = 0
    for process in tree(process_id):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total
