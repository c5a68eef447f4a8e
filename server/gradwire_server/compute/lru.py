"""Caches of limited bytes that drop the least recently used value first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from cachetools import LRUCache

V = TypeVar("V")


def lru_of_bytes(capacity: int, size_of: Callable[[V], int]) -> LRUCache[Any, V]:
    """Make an LRU cache of about `capacity` bytes, as `size_of` counts them.

    The newest value is kept whatever its size: one over the capacity counts as all of it. A client that
    has just registered a graph must find it, however small the cache is.
    """
    capacity = max(1, capacity)
    return LRUCache(capacity, lambda value: min(size_of(value), capacity))
