"""Shares: what one tenant or address may have of what all callers share, and the calls that are open.

Whoever holds a part may have a share of what the others leave. With a share of a half, one caller alone gets
a half, the next a quarter or more: whoever comes finds room, however many came before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote

from gradwire_server.access.callers import Caller
from gradwire_server.errors import TryLater

_AGAIN_SECONDS = 1.0
_NETWORK_BITS = 64
"""One household or machine has at least so many IPv6 addresses: the first half of their bits names it."""


def holder_of(caller: Caller, peer: str) -> str:
    """Return whose share a call takes from: its tenant's, or its address's where nobody is asked for more.

    Args:
        caller: who makes the call.
        peer: the other end of its connection, as gRPC writes it.
    """
    return f"tenant {caller.tenant}" if caller.tenant else f"address {_address(peer)}"


def _address(peer: str) -> str:
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind
    bare = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ip_address(bare)
    except ValueError:
        return bare
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    network = int(address) >> _NETWORK_BITS << _NETWORK_BITS
    return f"{IPv6Address(network)}/{_NETWORK_BITS}"


class Shares:
    """How much of one thing everybody holds."""

    def __init__(self, limit: int, share: float) -> None:
        """Start with nothing held.

        Args:
            limit: what may be held in all.
            share: of what the others leave, what one holder may have; 1 for all of it.
        """
        self.limit = limit
        self._share = share
        self._held: Counter[str] = Counter()
        self.total = 0

    def of(self, holder: str) -> int:
        """Return what one holds."""
        return self._held[holder]

    def allowed(self, holder: str, own: int | None = None) -> int:
        """Return what one may hold now, at most; `own` is a limit of its own, in place of the share."""
        left = self.limit - (self.total - self._held[holder])
        return min(left, own) if own is not None else int(self._share * left)

    def fits(self, holder: str, amount: int, own: int | None = None) -> bool:
        """Tell whether one may hold so much more."""
        return self._held[holder] + amount <= self.allowed(holder, own)

    def add(self, holder: str, amount: int) -> None:
        """Count an amount that one holds from now on; negative: that it gives back."""
        self._held[holder] += amount
        self.total += amount
        if not self._held[holder]:
            del self._held[holder]


class Admission:
    """The calls that are open."""

    def __init__(self, calls: int, share: float) -> None:
        """Admit so many calls in all; `share` as in `Shares`."""
        self._open = Shares(calls, share)
        self._none = asyncio.Event()
        self._none.set()

    @contextmanager
    def admit(self, holder: str, own: int | None = None) -> Iterator[None]:
        """Let a call in, for as long as the context lasts; `own` is the holder's own limit of calls.

        Raises:
            TryLater: it would be one too many.
        """
        if not self._open.fits(holder, 1, own):
            held, allowed = self._open.of(holder), self._open.allowed(holder, own)
            raise TryLater(
                f"{held} calls of this {holder.partition(' ')[0]} are open, {self._open.total} in all; it "
                f"may have {allowed} now: close those that are not needed, send many evaluations over one "
                "EvaluateStream, or try again later",
                "concurrent_rpcs" if own is None else "calls",
                allowed,
                held + 1,
                _AGAIN_SECONDS,
            )
        self._open.add(holder, 1)
        self._none.clear()
        try:
            yield
        finally:
            self._open.add(holder, -1)
            if not self._open.total:
                self._none.set()

    async def ended(self) -> None:
        """Wait until no call is open."""
        await self._none.wait()
