"""Retries while the server cannot be reached: exponential backoff with full jitter, bounded in time.

https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ describes the method.
"""

import asyncio
import random
import time
from dataclasses import dataclass
from numbers import Real

from gradwire.errors import InvalidArgumentError, LimitError, ServerError, UnavailableError

# The errors that may pass: see `ServerError.passing`.
PASSING = (UnavailableError, LimitError)


@dataclass(frozen=True, slots=True)
class Retry:
    """How calls are retried after UNAVAILABLE, and after a refusal that says when to come again.

    Attributes:
        seconds: how long to go on trying, within the call's timeout. The time is counted anew whenever
            something of the answer has arrived; 0 never retries.
        first_wait: the upper bound of the first wait in seconds; it doubles with each attempt. Waits are
            random between zero and the bound, so that many clients do not reconnect at once.
        longest_wait: the largest bound, in seconds.
        attempts: a bound on attempts too, counted anew likewise; 1 never retries, None sets no bound.
    """

    seconds: float = 30.0
    first_wait: float = 0.1
    longest_wait: float = 2.0
    attempts: int | None = None

    def __post_init__(self) -> None:
        few = self.attempts is not None and self.attempts < 1
        if few or not min(self.seconds, self.first_wait, self.longest_wait) >= 0:
            raise ValueError(f"a Retry has at least one attempt and no negative time, unlike {self}")


# What a last attempt needs of the time before the deadline; later, the error says more than the deadline.
_LAST_ATTEMPT_SECONDS = 0.05

_MOST_DOUBLINGS = 30

# Longer timeouts than ten years are none: the wire's durations end at ten thousand.
_LONGEST_SECONDS = 3.2e8


def seconds_of(timeout: float | None) -> float | None:
    """Return the seconds of a `timeout=` argument; None for no limit, which infinity means too.

    Raises:
        InvalidArgumentError: it is no positive number.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, Real) or not timeout > 0:
        raise InvalidArgumentError(
            f"timeout is a positive number of seconds, or None for no limit, not {timeout!r}"
        )
    return float(timeout) if timeout < _LONGEST_SECONDS else None


class Deadline:
    """When a call must be over, whatever number of attempts it takes; `timeout` is in seconds."""

    __slots__ = ("_at", "timeout")

    def __init__(self, timeout: float | None) -> None:
        self.timeout = seconds_of(timeout)
        self._at = None if self.timeout is None else time.monotonic() + self.timeout

    def remaining(self) -> float | None:
        """Return the seconds left, never negative; None when there is no deadline."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())


class Backoff:
    """The waits between the attempts of one call."""

    def __init__(self, retry: Retry, deadline: Deadline) -> None:
        self._retry, self._deadline = retry, deadline
        self._failures = self._done = 0
        self._since = 0.0

    async def pause(self, error: ServerError, done: int = 0) -> None:
        """Wait before the next attempt, or raise `error` when no attempt is left.

        `done` counts what has arrived of the answer; attempts and their time are counted anew when it has
        grown.
        """
        if error.final:
            raise error
        now = time.monotonic()
        if done > self._done:
            self._failures, self._done = 0, done
        if not self._failures:
            self._since = now
        self._failures += 1
        left = self._since + self._retry.seconds - now
        remaining = self._deadline.remaining()
        if remaining is not None:
            left = min(left, remaining - _LAST_ATTEMPT_SECONDS)
        asked = error.retry_after or 0.0
        if left <= 0 or asked > left or self._failures == self._retry.attempts:
            error.final = True
            raise error
        doublings = min(self._failures - 1, _MOST_DOUBLINGS)
        bound = min(self._retry.longest_wait, self._retry.first_wait * 2**doublings)
        wait = asked + random.uniform(0.0, bound)  # noqa: S311  (spreads retries, guards nothing)
        await asyncio.sleep(min(wait, left))
