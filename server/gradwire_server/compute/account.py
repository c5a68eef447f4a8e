"""One account of the bytes that clients make a server hold, by purpose and by holder.

What can be dropped (graphs, arrays, kernels) is kept in caches, each with a bound. What cannot is counted
here: an upload or a sum for which there is no room is refused, a result waits until there is. Whoever holds
none may have one result, whatever the others hold, so that nobody waits for another's client to read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from gradwire_server.access.admission import Shares
from gradwire_server.errors import Overloaded, TryLater
from gradwire_server.observe.events import current_request
from gradwire_server.observe.readings import Held

_AGAIN_SECONDS = 1.0


class Holding:
    """Bytes held for one purpose, until they are given back or this object is gone."""

    def __init__(self, purpose: Purpose, holder: str) -> None:
        """Hold nothing yet."""
        self._purpose, self._holder = purpose, holder
        self.nbytes = 0

    def resize(self, nbytes: int) -> None:
        """Hold so many bytes.

        Raises:
            TryLater: there is no room now.
            Overloaded: there never is.
        """
        if nbytes > self.nbytes:
            self._purpose.check(self._holder, nbytes - self.nbytes, nbytes)
        self.set(nbytes)

    def set(self, nbytes: int) -> None:
        """Hold so many bytes, whether there is room or not: they are there already."""
        change, self.nbytes = nbytes - self.nbytes, nbytes
        self._purpose.count(self._holder, change)

    def give_back(self) -> None:
        """Hold nothing any more."""
        self.set(0)

    def __del__(self) -> None:
        if self.nbytes:
            self.give_back()


@dataclass(eq=False)
class _Waiting:
    holder: str
    nbytes: int
    future: asyncio.Future[None]


class Purpose:
    """What clients make the server hold for one purpose that cannot be dropped."""

    def __init__(self, what: str, setting: str, limit: int, share: float, seconds: float) -> None:
        """Start with nothing held.

        Args:
            what: holds the bytes, for messages.
            setting: the name of the bound.
            limit: bytes that may be held.
            share: of what the others leave, what one holder may have.
            seconds: that one waits for room while nothing is given back.
        """
        self._seconds = seconds
        self._what, self._setting = what, setting
        self._share = share
        self._shares = Shares(limit, share)
        self._waiting: deque[_Waiting] = deque()
        self.freed = 0
        """Bytes given back so far."""

    def held(self) -> Held:
        """Return what is held and may be held."""
        return Held(self._shares.total, self._shares.limit)

    def open(self) -> Holding:
        """Return a holding of the current call's caller, with nothing in it."""
        return Holding(self, _holder())

    def take(self, nbytes: int) -> Holding:
        """Hold bytes (see `Holding.resize`)."""
        holding = self.open()
        holding.resize(nbytes)
        return holding

    def take_if_free(self, nbytes: int) -> Holding | None:
        """Hold bytes if there is room and nobody waits for it; None if not."""
        holder = _holder()
        if self._waiting or not self._shares.fits(holder, nbytes):
            return None
        return self._filled(holder, nbytes)

    async def wait_for(self, nbytes: int) -> Holding:
        """Hold bytes as soon as there is room; whoever holds nothing may hold them at once.

        Raises:
            TryLater: for long nothing at all was given back.
        """
        holder = _holder()
        if self._fits(holder, nbytes) and not any(other.holder == holder for other in self._waiting):
            return self._filled(holder, nbytes)
        waiting = _Waiting(holder, nbytes, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            freed = -1
            while not (await asyncio.wait((waiting.future,), timeout=self._seconds))[0]:
                if freed == self.freed:
                    raise self._refusal(holder, nbytes)
                freed = self.freed
        except BaseException:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                self._wake()
            else:
                self.count(holder, -nbytes)
            raise
        holding = Holding(self, holder)
        holding.nbytes = nbytes  # counted by who woke this up
        return holding

    def check(self, holder: str, nbytes: int, whole: int) -> None:
        """Check that one may hold more, which makes one holding `whole` (see `Holding.resize`)."""
        if self._shares.fits(holder, nbytes):
            return
        limit = self._shares.limit
        if whole > int(self._share * limit):
            raise Overloaded(
                f"{self._what} would hold {whole} bytes; the limit is {limit} for all clients "
                f"together, of which one may have {int(self._share * limit)} ({self._setting}, tenant_share)",
                self._setting,
                limit,
                whole,
            )
        raise self._refusal(holder, nbytes)

    def _refusal(self, holder: str, nbytes: int) -> TryLater:
        limit = self._shares.limit
        return TryLater(
            f"{self._what} would hold {self._shares.total + nbytes} bytes; the limit is {limit} for all "
            f"clients together, of which this one may have {self._shares.allowed(holder)}; try again later",
            self._setting,
            limit,
            self._shares.total + nbytes,
            _AGAIN_SECONDS,
        )

    def count(self, holder: str, change: int) -> None:
        """Count bytes that one holds from now on, or gives back."""
        self._shares.add(holder, change)
        if change < 0:
            self.freed -= change
            self._wake()

    def _filled(self, holder: str, nbytes: int) -> Holding:
        holding = Holding(self, holder)
        holding.set(nbytes)
        return holding

    def _fits(self, holder: str, nbytes: int) -> bool:
        return self._shares.fits(holder, nbytes) or not self._shares.of(holder)

    def _wake(self) -> None:
        """Let those go on for whom there is room, those of one holder in turn."""
        passed_over = set()
        for waiting in list(self._waiting):
            if waiting.future.done():
                continue
            if waiting.holder in passed_over or not self._fits(waiting.holder, waiting.nbytes):
                passed_over.add(waiting.holder)
                continue
            self._waiting.remove(waiting)
            self._shares.add(waiting.holder, waiting.nbytes)
            waiting.future.set_result(None)


def _holder() -> str:
    request = current_request()
    return request.holder if request is not None else ""


class Account:
    """All that clients make the server hold and that cannot be dropped."""

    def __init__(self, bounds: Mapping[str, int], share: float, seconds: float) -> None:
        """Start with nothing held.

        Args:
            bounds: bytes of uploads, requests, results and sums.
            share: of what the others leave, what one tenant or address may have.
            seconds: that a result waits for room while nothing is given back.
        """

        def purpose(name: str, what: str, setting: str) -> Purpose:
            return Purpose(what, setting, bounds[name], share, seconds)

        self.uploads = purpose("uploads", "uploads under way", "upload_bytes")
        self.requests = purpose("requests", "inputs of requests in progress", "pending_bytes")
        self.results = purpose("results", "results that are not read", "unread_bytes")
        self.sums = purpose("sums", "the sums of accumulations", "accumulation_bytes")
        self._all = {
            "uploads": self.uploads,
            "requests": self.requests,
            "results": self.results,
            "sums": self.sums,
        }

    def held(self) -> dict[str, Held]:
        """Return what is held and may be held, by purpose."""
        return {name: purpose.held() for name, purpose in self._all.items()}

    @property
    def freed(self) -> int:
        """Bytes given back so far."""
        return sum(purpose.freed for purpose in self._all.values())
