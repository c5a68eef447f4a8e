"""What can go wrong on the service's side of a request, beside the engine's refusals."""

from __future__ import annotations


class ServiceError(Exception):
    """Base of every refusal the service makes on purpose."""


class UnknownId(ServiceError):
    """The server holds no graph or tensor of this id; sending it again helps."""

    def __init__(self, kind: str, identifier: str) -> None:
        super().__init__(f"no {kind} with id {identifier or '(empty)'} is held here; send it again")
        self.kind = kind
        self.identifier = identifier


class PlanChanged(ServiceError):
    """Blocks were named of a plan that this server would not make."""


class Unavailable(ServiceError):
    """The server drains, or has no workers; another attempt may succeed."""


class DataLost(Unavailable):
    """Graphs were lost with the node that held them; sending them again helps."""


class TimeLimit(ServiceError):
    """A computation ran out of the time it had."""


class WorkerLost(ServiceError):
    """The process that ran a piece of work died under it."""


class Overloaded(ServiceError):
    """A limit of the service, rather than of the engine, was hit."""

    def __init__(self, message: str, limit: str, allowed: int, requested: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.allowed = allowed
        self.requested = requested
