"""Deduplicates concurrent computations of one key (single-flight)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(eq=False)
class _Flight(Generic[V]):
    task: asyncio.Task[V]
    waiters: int = 0


class SingleFlight(Generic[K, V]):
    """Runs at most one computation per key, to its end even when its callers have gone.

    What it computes is kept elsewhere for the next caller: one whose time is shorter than the computation
    gets it on a later attempt. The computation is the first caller's in events. Only so many go on for
    nobody; one more is cancelled.
    """

    def __init__(self, abandoned: int) -> None:
        """Start with nothing running; at most `abandoned` computations go on without callers."""
        self._abandoned = abandoned
        self._flights: dict[K, _Flight[V]] = {}

    async def run(self, key: K, compute: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Return the result of `compute()`, or of the computation that already runs under this key.

        An error reaches every waiting caller; neither it nor a result is kept.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(compute()))
            flight.task.add_done_callback(lambda task: self._finish(key, task))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.task.done() and self._too_many():
                self._forget(key, flight.task)
                flight.task.cancel()

    def _too_many(self) -> bool:
        return sum(not flight.waiters for flight in self._flights.values()) > self._abandoned

    def _finish(self, key: K, task: asyncio.Task[V]) -> None:
        self._forget(key, task)
        if not task.cancelled():
            # Marks the error as retrieved: the waiters raise it, and there may be none left.
            task.exception()

    def _forget(self, key: K, task: asyncio.Task[V]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
