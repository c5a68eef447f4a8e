"""Retries when the server cannot be reached: bounded exponential backoff with full jitter.

https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ describes the method.
"""

import asyncio
import random
import time
from dataclasses import dataclass
from numbers import Real

from gradwire.errors import InvalidArgumentError, ServerError


@dataclass(frozen=True, slots=True)
class Retry:
    """How calls are retried after UNAVAILABLE.

    Attributes:
        attempts: attempts in all; 1 never retries. For a streamed derivative they are counted anew whenever
            another block has arrived.
        first_wait: the upper bound of the first wait in seconds; it doubles with each attempt. Waits are
            random between zero and the bound, so that many clients do not reconnect at once.
        longest_wait: the largest bound, in seconds.
    """

    attempts: int = 6
    first_wait: float = 0.1
    longest_wait: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait < 0 or self.longest_wait < 0:
            raise ValueError(f"a Retry has at least one attempt and no negative wait, unlike {self}")


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

    async def pause(self, error: ServerError, done: int = 0) -> None:
        """Wait before the next attempt, or raise `error` when no attempt is left.

        `done` counts what has arrived of the answer; attempts are counted anew when it has grown.
        """
        if done > self._done:
            self._failures, self._done = 0, done
        self._failures += 1
        if self._failures >= self._retry.attempts:
            raise error
        bound = min(self._retry.longest_wait, self._retry.first_wait * 2 ** (self._failures - 1))
        wait = random.uniform(0.0, bound)  # noqa: S311  (spreads retries, guards nothing)
        remaining = self._deadline.remaining()
        if remaining is not None and remaining <= wait:
            raise error
        await asyncio.sleep(wait)
