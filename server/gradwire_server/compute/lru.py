"""A mapping that forgets what was used least recently once it grows too heavy."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """At most ``capacity`` in all, by ``weight`` of each value; the newest stays whatever it weighs."""

    def __init__(self, capacity: int, weight: Callable[[V], int] = lambda value: 1) -> None:
        """Start empty; without ``weight`` the capacity counts values."""
        self._capacity = capacity
        self._weight = weight
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.total = 0

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: K) -> bool:
        return key in self._items

    def get(self, key: K) -> V | None:
        """The value, which is then the most recently used, or None."""
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item[0]

    def put(self, key: K, value: V) -> V:
        """Keep a value, forgetting others to make room; returns it."""
        self.pop(key)
        weight = self._weight(value)
        self._items[key] = (value, weight)
        self.total += weight
        while self.total > self._capacity and len(self._items) > 1:
            _, (_, lost) = self._items.popitem(last=False)
            self.total -= lost
        return value

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self.total = 0

    def pop(self, key: K) -> None:
        """Forget a key, if it is there."""
        item = self._items.pop(key, None)
        if item is not None:
            self.total -= item[1]
