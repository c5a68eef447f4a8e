"""Every exception the SDK raises on purpose.

`GradwireError` catches them all. Those that come from a server are `ServerError`s and carry what it said:
the message, the fields it found wrong and the machine-readable reason. Each also derives from the built-in
exception that fits, so that `except ValueError` or `except TimeoutError` work as one expects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


class GradwireError(Exception):
    """The base of every error of this package."""


class TraceError(GradwireError, TypeError):
    """A Python function cannot become a graph; the message says which operation and what to write instead."""


class GraphWarning(UserWarning):
    """What a server noticed about a graph that a user should know before trusting numbers."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with one field of a request, such as `inputs["x"]`."""

    field: str
    description: str


class ServerError(GradwireError):
    """A call failed.

    Attributes:
        message: what the server said.
        code: the gRPC status code's name, such as "INTERNAL".
        violations: the fields at fault.
        reason: a constant that programs may compare with, or "".
        metadata: facts that go with the reason, such as a limit and its figure.
    """

    code: str = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        violations: Sequence[Violation] = (),
        reason: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.violations = tuple(violations)
        self.reason = reason
        self.metadata = dict(metadata)

    def __str__(self) -> str:
        news = [f"{v.field}: {v.description}" for v in self.violations if v.description not in self.message]
        return f"{self.message} ({'; '.join(news)})" if news else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.__dict__)


def _rebuild(kind: type[ServerError], message: str, state: dict[str, object]) -> ServerError:
    error = kind(message)
    error.__dict__.update(state)
    return error


class InvalidArgumentError(ServerError, ValueError):
    """A graph, input, name, shape, dtype or option does not fit; found by the SDK or by the server."""

    code = "INVALID_ARGUMENT"


class NotFoundError(ServerError, LookupError):
    """The server does not know a graph or tensor, and sending it again did not help."""

    code = "NOT_FOUND"


class PreconditionError(ServerError):
    """What was asked for does not go with the state of things, such as a plan that has changed."""

    code = "FAILED_PRECONDITION"


class NotDifferentiableError(PreconditionError):
    """The derivative does not exist in the mode asked for; the message says what would work."""


class LimitError(ServerError):
    """The request is over one of the server's limits."""

    code = "RESOURCE_EXHAUSTED"

    @property
    def limit(self) -> str:
        """The limit's name, such as "graph_bytes"; "" when the server did not say."""
        return self.metadata.get("limit", "")

    @property
    def allowed(self) -> float | None:
        """What the limit allows."""
        return _figure(self.metadata.get("allowed"))

    @property
    def requested(self) -> float | None:
        """What the request asked for."""
        return _figure(self.metadata.get("requested"))


def _figure(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


class UnauthenticatedError(ServerError):
    """The server wants a token, and got none or one it does not know."""

    code = "UNAUTHENTICATED"


class PermissionDeniedError(ServerError, PermissionError):
    """The token does not allow this."""

    code = "PERMISSION_DENIED"

    def __str__(self) -> str:  # OSError's own would win otherwise
        return ServerError.__str__(self)


class DeadlineError(ServerError, TimeoutError):
    """The call took longer than its timeout, and its work was stopped."""

    code = "DEADLINE_EXCEEDED"

    def __str__(self) -> str:
        return ServerError.__str__(self)


class CancelledError(ServerError):
    """The server stopped the call, because it was asked to or because it went away."""

    code = "CANCELLED"


class UnavailableError(ServerError, ConnectionError):
    """The server cannot be reached, is starting or is draining; retries did not help."""

    code = "UNAVAILABLE"

    def __str__(self) -> str:
        return ServerError.__str__(self)


class InternalError(ServerError):
    """The server failed; the message has an id that is in its log too."""

    code = "INTERNAL"


#: Which exception a gRPC status code becomes; any other code becomes a plain `ServerError`.
BY_CODE: Mapping[str, type[ServerError]] = MappingProxyType(
    {
        kind.code: kind
        for kind in (
            InvalidArgumentError,
            NotFoundError,
            NotDifferentiableError,
            LimitError,
            UnauthenticatedError,
            PermissionDeniedError,
            DeadlineError,
            CancelledError,
            UnavailableError,
            InternalError,
        )
    }
    | {"OUT_OF_RANGE": InvalidArgumentError}
)
