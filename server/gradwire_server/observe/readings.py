"""What a server holds at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Held:
    """Bytes held for one purpose, and those that may be held."""

    nbytes: int
    budget: int


@dataclass(frozen=True)
class Reading:
    """What a server holds.

    Attributes:
        serving: whether workers of Ray take tasks, as health says.
        workers: that take tasks, the process that helps until Ray is up among them.
        queued: requests that wait for a worker.
        held: bytes held for clients, by purpose.
        resident: bytes of memory of the server's own process.
    """

    serving: bool
    workers: int
    queued: int
    held: Mapping[str, Held]
    resident: int
