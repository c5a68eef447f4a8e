"""Caches of limited bytes that drop the least recently used value first, also among tenants."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from cachetools import LRUCache

from gradwire_server.observe.readings import Held

V = TypeVar("V")


class SharedCache(Generic[V]):
    """The values of several tenants, bounded together; whoever holds most loses what is over."""

    def __init__(self, capacity: int, size_of: Callable[[V], int]) -> None:
        """Hold about `capacity` bytes, as `size_of` counts them, and the newest value whatever its size."""
        self._capacity = capacity
        self._size_of = size_of
        self._parts: dict[str, LRUCache[str, V]] = {}
        self._used: dict[str, dict[str, float]] = {}
        """When each value was last used, by tenant, on the clock `time.monotonic`."""

    def of(self, tenant: str) -> TenantCache[V]:
        """Return one tenant's view."""
        if tenant not in self._parts:
            self._parts[tenant] = LRUCache(float("inf"), self._size_of)
            self._used[tenant] = {}
        return TenantCache(self, self._parts[tenant], self._used[tenant])

    def clear(self) -> None:
        """Drop the values of all tenants."""
        for part in self._parts.values():
            part.clear()
        for used in self._used.values():
            used.clear()

    @property
    def nbytes(self) -> float:
        """Bytes of all values."""
        # Also read by the thread that answers Prometheus: tenants may come meanwhile.
        return sum(part.currsize for part in list(self._parts.values()))

    def held(self) -> Held:
        """Return what is held and may be held."""
        return Held(int(self.nbytes), self._capacity)

    def shrink(self, newest: LRUCache[str, V]) -> None:
        """Drop values until the rest fits, but not the newest one."""
        while self.nbytes > self._capacity:
            largest = max(self._parts.values(), key=lambda part: part.currsize)
            if largest is newest and len(largest) == 1:
                others = [part for part in self._parts.values() if part is not newest and part]
                if not others:
                    return
                largest = max(others, key=lambda part: part.currsize)
            key, _ = largest.popitem()
            next(self._used[tenant] for tenant, part in self._parts.items() if part is largest).pop(key, None)


class TenantCache(Generic[V]):
    """One tenant's part of a `SharedCache`; no key of another tenant is found in it."""

    def __init__(self, whole: SharedCache[V], part: LRUCache[str, V], used: dict[str, float]) -> None:
        """Read and write one part of a cache; `used` says when its values were."""
        self._used = used
        self._whole = whole
        self._part = part

    def get(self, key: str) -> V | None:
        """Return a value, used now; None where there is none."""
        found = self._part.get(key)
        if found is not None:
            self._used[key] = time.monotonic()
        return found

    def __contains__(self, key: str) -> bool:
        return key in self._part

    def __setitem__(self, key: str, value: V) -> None:
        self._part[key] = value
        self._used[key] = time.monotonic()
        self._whole.shrink(self._part)

    def expire(self, seconds: float) -> list[str]:
        """Drop the values that were not used for so long; return their keys."""
        since = time.monotonic() - seconds
        expired = [key for key, used in self._used.items() if used <= since]
        for key in expired:
            self.pop(key)
        return expired

    def __len__(self) -> int:
        return len(self._part)

    @property
    def nbytes(self) -> float:
        """Bytes of this tenant's values."""
        return self._part.currsize

    def drop_oldest(self) -> None:
        """Drop the value that was used longest ago."""
        key, _ = self._part.popitem()
        self._used.pop(key, None)

    def pop(self, key: str) -> V | None:
        """Drop a value and return it; None where there is none."""
        self._used.pop(key, None)
        return self._part.pop(key, None)


def lru_of_bytes(capacity: int, size_of: Callable[[V], int]) -> LRUCache[Any, V]:
    """Make an LRU cache of about `capacity` bytes, as `size_of` counts them.

    The newest value is kept whatever its size: one over the capacity counts as all of it. A client that
    has just registered a graph must find it, however small the cache is.
    """
    capacity = max(1, capacity)
    return LRUCache(capacity, lambda value: min(size_of(value), capacity))
