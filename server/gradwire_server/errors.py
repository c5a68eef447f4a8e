"""Errors of the service, in addition to the engine's."""

from __future__ import annotations


class ServiceError(Exception):
    """Base of the errors that the service raises on purpose."""


class UnknownId(ServiceError):
    """The server holds no graph or tensor with this id; sending it again helps."""

    def __init__(self, kind: str, identifier: str) -> None:
        """Say which id is unknown; `kind` is "graph" or "tensor"."""
        super().__init__(f"no {kind} with id {identifier or '(empty)'} is held here; send it again")
        self.kind = kind
        self.identifier = identifier


class Unauthenticated(ServiceError):
    """A call shows no token, or one that is not valid."""


class Forbidden(ServiceError):
    """The caller is known and may not do this."""


class PlanChanged(ServiceError):
    """A request named blocks of a plan other than the one this server makes."""


class NotBuilt(ServiceError):
    """A request asks for something that the protocol names and this server does not do."""

    def __init__(self, what: str, field: str) -> None:
        """Say what, and by which field of the request it was asked for."""
        super().__init__(f"this server does not do this yet: {what} ({field})")
        self.field = field


class Unavailable(ServiceError):
    """The server is draining or has no workers; another attempt may succeed."""


class Stalled(Unavailable):
    """The client stopped to send or to read, and its call was ended; it may ask again."""


class DataLost(Unavailable):
    """Graphs were lost with the node that held them; sending them again helps."""


class TimeLimit(ServiceError):
    """A computation took longer than it may."""


class WorkerLost(ServiceError):
    """The process that ran a task died."""


class Overloaded(ServiceError):
    """A request is over a limit of the service (the engine has limits of its own)."""

    def __init__(self, message: str, limit: str, allowed: int, requested: int) -> None:
        """Say which limit was exceeded, and by how much.

        Args:
            message: for people.
            limit: name of the limit.
            allowed, requested: what the limit allows and what was asked for.
        """
        super().__init__(message)
        self.limit = limit
        self.allowed = allowed
        self.requested = requested


class TryLater(Overloaded):
    """A request is over a limit for now: it may succeed after some seconds."""

    def __init__(self, message: str, limit: str, allowed: int, requested: int, seconds: float) -> None:
        """Say which limit was exceeded, by how much, and when another attempt makes sense.

        Args:
            message: for people.
            limit: name of the limit.
            allowed, requested: what the limit allows and what was asked for.
            seconds: after which to try again.
        """
        super().__init__(message, limit, allowed, requested)
        self.seconds = seconds
