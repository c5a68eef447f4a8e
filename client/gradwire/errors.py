"""The exceptions that the SDK raises.

`GradwireError` is the base of all. Errors from a server are `ServerError`s with the server's message, the
fields it refused and a machine-readable reason. Each also derives from the built-in exception that fits, so
that `except ValueError` or `except TimeoutError` catch it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


class GradwireError(Exception):
    """The base of every error of this package."""


class TraceError(GradwireError, TypeError):
    """A Python function cannot become a graph; the message says which operation and what to write instead."""


class CheckError(GradwireError):
    """Two ways to compute the same differ by more than rounding; the message has both numbers."""


class TraceMismatchError(CheckError):
    """A graph gives other numbers than the function that it was traced from."""


class ResultMemoryError(GradwireError, MemoryError):
    """A whole result does not fit into this process's memory; the message says how to take it otherwise."""


class GraphWarning(UserWarning):
    """A property of a graph, found by the server, that affects how far its numbers can be trusted."""


@dataclass(frozen=True, slots=True)
class Violation:
    """An error in one field of a request, such as `inputs["x"]`."""

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
        request_id: the id of the call in the server's log, or "" where the error was found by the SDK.
        retry_after: seconds after which another attempt may succeed; None where the server does not say.
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
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.violations = tuple(violations)
        self.reason = reason
        self.metadata = dict(metadata)
        self.request_id = request_id
        self.retry_after = retry_after
        self.final = False
        """Whether retries are used up, or could not help."""

    @property
    def passing(self) -> bool:
        """Whether the same call may succeed soon: the server is away, or refuses it for now."""
        return False

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
    """The state of the server does not allow the request, for example because a plan has changed."""

    code = "FAILED_PRECONDITION"


class NotDifferentiableError(PreconditionError):
    """The derivative does not exist in the requested mode; the message says what would work."""


class LimitError(ServerError):
    """The request is over one of the server's limits."""

    code = "RESOURCE_EXHAUSTED"

    @property
    def passing(self) -> bool:
        """Whether the server says when to try again."""
        return self.retry_after is not None

    @property
    def limit(self) -> str:
        """The limit's name, such as "graph_bytes"; "" when the server did not state it."""
        return self.metadata.get("limit", "")

    @property
    def allowed(self) -> float | None:
        """The figure that the limit allows; None when the server did not state it."""
        return _figure(self.metadata.get("allowed"))

    @property
    def requested(self) -> float | None:
        """The figure that the request needs; None when the server did not state it."""
        return _figure(self.metadata.get("requested"))


def _figure(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


class UnauthenticatedError(ServerError):
    """The server requires a token, and got none or an unknown one."""

    code = "UNAUTHENTICATED"


class PermissionDeniedError(ServerError, PermissionError):
    """The token does not allow this."""

    code = "PERMISSION_DENIED"

    def __str__(self) -> str:  # instead of OSError.__str__
        return ServerError.__str__(self)


class DeadlineError(ServerError, TimeoutError):
    """The call took longer than its timeout, and its work was stopped."""

    code = "DEADLINE_EXCEEDED"

    def __str__(self) -> str:
        return ServerError.__str__(self)


class CancelledError(ServerError):
    """The call was cancelled, by the client or because the server shut down."""

    code = "CANCELLED"


class UnavailableError(ServerError, ConnectionError):
    """The server cannot be reached, is starting or is draining; retries did not help."""

    code = "UNAVAILABLE"

    @property
    def passing(self) -> bool:
        """Whether the server may be back soon."""
        return True

    def __str__(self) -> str:
        return ServerError.__str__(self)


class InternalError(ServerError):
    """The server failed; the message has an id that its log has too."""

    code = "INTERNAL"


# The exception for each gRPC status code; any other code becomes a plain `ServerError`.
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
