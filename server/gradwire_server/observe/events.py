"""The record of what a server does, from which metrics, traces and timelines are made.

An event says what happened, when, and for which request: the one whose call runs in the current context.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field

_REQUEST_ID = "x-request-id"
_TRACE = "traceparent"
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


_numbers = itertools.count()


@dataclass(frozen=True)
class Request:
    """A call of a client.

    Attributes:
        id: in logs, errors and traces; the client's own where it sent one.
        call: the method's name, such as "Differentiate".
        tenant: who makes it; "" where nobody is asked.
        peer: where from.
        holder: whose share of what is held it takes from.
        traceparent: the trace that it belongs to, as W3C's header has it; "" for none.
        number: tells it from others in this process, whatever ids clients choose.
    """

    id: str
    call: str
    tenant: str = ""
    peer: str = ""
    traceparent: str = ""
    number: int = field(default_factory=_numbers.__next__)
    holder: str = ""

    @property
    def origin(self) -> str:
        """The tenant, or where nobody is asked the address, without its port."""
        address = self.peer.rpartition(":")[0] if self.peer.startswith("ipv") else self.peer
        return f"tenant {self.tenant}" if self.tenant else address


_current: ContextVar[Request | None] = ContextVar("request", default=None)


def current_request() -> Request | None:
    """Return the request that the running code serves; None where it serves none."""
    return _current.get()


def serve(request: Request) -> None:
    """Make `request` the one that the current task, and those it starts, serve."""
    _current.set(request)


def request_of(call: str, metadata: Iterable[tuple[str, str | bytes]], peer: str) -> Request:
    """Describe a call that has come in.

    Its id is the one in its metadata `x-request-id`, or a new one.
    """
    texts = {key: value for key, value in metadata if isinstance(value, str)}
    given = texts.get(_REQUEST_ID, "")
    identifier = given if _ID.fullmatch(given) else secrets.token_hex(8)
    return Request(identifier, call, peer=peer, traceparent=texts.get(_TRACE, "")[:128])


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        at: when, on the clock `time.monotonic`, in seconds.
        request: for which request; None for the server's own doings.
    """

    at: float = field(default_factory=time.monotonic)
    request: Request | None = field(default_factory=current_request)


@dataclass(frozen=True)
class CallBegun(Event):
    """A call arrived and was let in."""


@dataclass(frozen=True)
class CallEnded(Event):
    """A call was answered, or ended with an error, after `seconds`.

    `code` is the name of its gRPC status, and `admitted` says whether a `CallBegun` came before.
    """

    call: str
    code: str
    seconds: float
    admitted: bool = True


@dataclass(frozen=True)
class BytesReceived(Event):
    """A part of an upload or an array of a request came in."""

    size: int


@dataclass(frozen=True)
class BytesSent(Event):
    """A message with results went out."""

    size: int


@dataclass(frozen=True)
class TaskSubmitted(Event):
    """A call to a worker, called `task` and of kind `name`, waits for one."""

    task: int
    name: str


@dataclass(frozen=True)
class TaskBegun(Event):
    """A task was handed to a worker after `waited` seconds."""

    task: int
    name: str
    worker: str
    waited: float


@dataclass(frozen=True)
class TaskEnded(Event):
    """A task came back from a worker after `seconds`; `outcome`: done, failed, abandoned, lost or late."""

    task: int
    name: str
    worker: str
    seconds: float
    outcome: str


@dataclass(frozen=True)
class WorkerReady(Event):
    """A worker takes tasks, `seconds` after it was wanted."""

    worker: str
    seconds: float


@dataclass(frozen=True)
class WorkerGone(Event):
    """A worker went; `reason`: died, frozen, or busy (stopped, for nobody waits for what it does)."""

    worker: str
    reason: str


@dataclass(frozen=True)
class BlockSent(Event):
    """A block of a derivative was computed by `worker`, in `seconds`, and sent."""

    index: int
    worker: str
    seconds: float


@dataclass(frozen=True)
class Looked(Event):
    """A cache was asked; `found`: memory, disk or nowhere."""

    cache: str
    found: str


Listener = Callable[[Event], None]


class Events:
    """Passes events on to those who listen."""

    def __init__(self) -> None:
        """Start with nobody listening."""
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Have `listener` called with every event, on the event loop: it must be quick."""
        self._listeners.append(listener)

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        for listener in self._listeners:
            listener(event)


def unheard(event: Event) -> None:
    """Drop an event."""
