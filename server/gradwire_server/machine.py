"""The memory of this machine: how much there is, and how it is given back."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

_UNLIMITED = 1 << 60
_FREED_BYTES = 64 << 20
"""Freed memory from which on it is worth giving back."""

_LOOK_SECONDS = 5.0


def memory_bytes(root: Path = Path("/")) -> int:
    """Return the memory that this process may use: of the machine, or less where a control group says so."""
    return min([psutil.virtual_memory().total, *_group_limits(root)])


def _group_limits(root: Path) -> Iterator[int]:
    """Yield the limits of this process's control group and those above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        # In a container the path may be the host's; the group's own files are at the top then.
        for folder in (base / path.lstrip("/"), *(base / path.lstrip("/")).parents):
            if folder == base.parent:
                break
            try:
                limit = int((folder / name).read_text())
            except (OSError, ValueError):  # none there, or "max"
                continue
            if 0 < limit < _UNLIMITED:
                yield limit


def give_back_freed_memory(freed: Callable[[], int]) -> None:
    """From now on give memory back to the system when much was freed, in a thread; only with glibc.

    The allocator keeps what is freed for the next messages (`gradwire_wire.keep_freed_memory`), which is
    right while they come. After a burst it would keep its peak for ever.

    Args:
        freed: returns how many bytes this process has freed so far, about.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return

    def watch() -> None:
        given_back = last = freed()
        while True:
            time.sleep(_LOOK_SECONDS)
            now = freed()
            # While more is being freed, more is being used.
            if now == last and now - given_back >= _FREED_BYTES:
                trim(0)
                given_back = now
            last = now

    threading.Thread(target=watch, name="giving memory back", daemon=True).start()
