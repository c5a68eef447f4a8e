"""Errors of the engine.

Each class is one row of the error table; the service maps classes to gRPC statuses and needs no other
property of them. Messages name the node, op, input or limit and say what to do.
"""

from __future__ import annotations

NO_REVERSE_MODE = "Reverse-mode differentiation"
"""What JAX's error says where reverse mode is impossible."""


class EngineError(Exception):
    """Base class of the errors that the engine raises on purpose."""


class InvalidGraph(EngineError):
    """The graph is not a model, fails the checker, or uses an op that is not known."""


class ValueNeeded(InvalidGraph):
    """A node needs the value of an array before evaluation, and it depends on an input of the graph."""


class InvalidInput(EngineError):
    """A name, shape, dtype or option does not fit the function's signature.

    `field` names the offending request field, for example `inputs["x"]`.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class NotDifferentiable(EngineError):
    """The derivative asked for does not exist, or not in the mode asked for."""


class LimitExceeded(EngineError):
    """A limit was hit.

    Args:
        message: for people.
        limit: name of the limit.
        allowed, requested: what the limit allows and what was asked for, in its unit.
    """

    def __init__(self, message: str, limit: str, allowed: int, requested: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.allowed = allowed
        self.requested = requested

    def __reduce__(self) -> tuple[type[LimitExceeded], tuple[str, str, int, int]]:
        return type(self), (str(self), self.limit, self.allowed, self.requested)


def one_line(error: BaseException, lines: int = 2) -> str:
    """Join the first lines of an error's message to one line of at most 500 characters."""
    found = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(found[:lines])[:500] or type(error).__name__
