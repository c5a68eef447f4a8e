"""Results that are likely to be asked for again soon, up to a total size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Recent(Generic[Result]):
    """The results asked for last, by key; those asked for longest ago give way. May be used from threads."""

    def __init__(self, size: int, size_of: Callable[[Result], int]) -> None:
        """Keep results of ``size`` in all, as ``size_of`` counts them; a larger one is not kept."""
        self._size = size
        self._size_of = size_of
        self._results: OrderedDict[Hashable, Result] = OrderedDict()
        self._lock = threading.Lock()
        self._held = 0

    def get(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """The result under ``key``; made if it is not at hand."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        # Two threads may make the same at once: better than that all wait for the slowest.
        result = make()
        with self._lock:
            if key not in self._results and self._size_of(result) <= self._size:
                self._results[key] = result
                self._held += self._size_of(result)
                while self._held > self._size:
                    _, dropped = self._results.popitem(last=False)
                    self._held -= self._size_of(dropped)
        return result
