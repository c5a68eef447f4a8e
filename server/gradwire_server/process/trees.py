"""Process trees: the descendants of a process, and their end."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import psutil

_WAIT_SECONDS = 3.0


def descendants(process_id: int) -> list[psutil.Process]:
    """Return all processes below a process; none if it is gone."""
    try:
        return psutil.Process(process_id).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill processes and wait until they are gone; those that are gone already are skipped."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=_WAIT_SECONDS)
