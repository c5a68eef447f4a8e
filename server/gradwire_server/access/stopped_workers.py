"""Counts the requests of each peer that made the server stop workers, and says which peers wait for that.

Work that goes on after its deadline can only be stopped with the process that does it. A peer whose requests
do that again and again takes workers from everybody. So after two in a short time it comes after all others,
and the last worker is not for it; after some more it gets one worker at a time, with a pause after each that
it costs; one that goes on is refused for a while. A peer is a tenant, or an address where nobody is asked.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from gradwire_server.errors import TryLater

_FREE = 1
"""Requests of a peer that may cost workers within the next time without any consequence."""

_FEW = 3
"""Requests of a peer that may cost workers within the next time before it is slowed."""

_SECONDS = 10.0

_PAUSE_SECONDS = 1.0
"""The pause after a request that cost workers, for each over the few."""

_LONGEST_PAUSE = 4.0
_REFUSED = 20
"""Requests that cost workers within the next time, after which a peer is refused."""

_REFUSED_SECONDS = 60.0
_PEERS = 1024
"""Peers to remember."""


class StoppedWorkers:
    """The requests of late that cost workers, by peer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with none; `clock` gives the time in seconds."""
        self._clock = clock
        self._times: dict[str, deque[float]] = {}

    def note(self, peer: str) -> None:
        """Note that workers were stopped because of a request of a peer; "" is nobody."""
        if not peer:
            return
        while len(self._times) >= _PEERS:
            del self._times[next(iter(self._times))]
        self._times.setdefault(peer, deque(maxlen=_REFUSED)).append(self._clock())

    def slowed(self, peer: str) -> bool:
        """Tell whether a peer gets one worker at a time."""
        return self._recently(peer) > _FEW

    def last(self, peer: str) -> bool:
        """Tell whether a peer comes after all others, and gets no last worker."""
        return self._recently(peer) > _FREE

    def pause(self, peer: str) -> float:
        """Return the seconds for which a peer gets no worker."""
        over = self._recently(peer) - _FEW
        if over <= 0:
            return 0.0
        last = self._recent(peer)[-1]
        return max(0.0, last + min(over * _PAUSE_SECONDS, _LONGEST_PAUSE) - self._clock())

    def check(self, peer: str) -> None:
        """Raise `TryLater` for a peer that went on although it was slowed."""
        times = self._recent(peer)
        if len(times) == _REFUSED:
            raise TryLater(
                f"work of this client had to be stopped {_REFUSED} times within {_REFUSED_SECONDS:g} s, each "
                "time with the process that did it; try again later, with longer timeouts or less work",
                "stopped_workers",
                _REFUSED,
                _REFUSED + 1,
                times[0] + _REFUSED_SECONDS - self._clock(),
            )

    def _recently(self, peer: str) -> int:
        if not self._times:
            return 0
        start = self._clock() - _SECONDS
        return sum(at > start for at in self._recent(peer))

    def _recent(self, peer: str) -> deque[float]:
        times = self._times.get(peer)
        if times is None:
            return deque()
        while times and times[0] <= self._clock() - _REFUSED_SECONDS:
            times.popleft()
        if not times:
            del self._times[peer]
        return times
