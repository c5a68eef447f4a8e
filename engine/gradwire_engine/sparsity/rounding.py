"""Arithmetic of values that are known up to rounding.

A compiled program may round otherwise than NumPy does: it fuses products with sums, and leaves conversions
out. Whether 3 * 0.1 - 0.3 is zero, and whether its floor is 0 or -1, is then not known before the program
runs. So a value has beside it how far from it the program's own may be, by running error analysis (N. J.
Higham, "Accuracy and stability of numerical algorithms", 2002, section 3.3); a choice is made by a value only
where that is far enough from where it would turn over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

Array = np.ndarray[Any, Any]

_SPLIT = {np.dtype(np.float32): np.float32(2**12 + 1), np.dtype(np.float64): np.float64(2**27 + 1)}
"""Multipliers that split a number into a high and a low half (T. J. Dekker, Numer. Math. 18, 1971)."""


@dataclass(frozen=True, eq=False)
class Rounded:
    """A value and how far that of the program may be from it.

    Attributes:
        array: the value.
        slack: for each element the largest distance; None where all of them are exact.
    """

    array: Array
    slack: Array | None = None

    @property
    def distance(self) -> Array:
        """The slack as an array."""
        zero = np.zeros((), self.array.real.dtype)
        return np.broadcast_to(zero, self.array.shape) if self.slack is None else self.slack

    @property
    def surely_zero(self) -> Array:
        """Return the value with NaN, which is not zero, where it is zero and the program's may not be."""
        if self.slack is None:
            return self.array
        doubtful = (self.array == 0) & (self.slack != 0)
        return np.where(doubtful, np.asarray(np.nan, self.array.dtype), self.array)


def rounded(array: Array, slack: Any) -> Rounded:
    """Return a value with its slack; without where that is zero throughout."""
    if not np.any(slack != 0):
        return Rounded(array)
    return Rounded(array, np.broadcast_to(np.where(np.isnan(slack), np.inf, slack), array.shape))


def is_exact_kind(dtype: Any) -> bool:
    """Return whether arithmetic of a dtype never rounds: booleans and integers."""
    return np.dtype(dtype).kind in "biu"


def added(a: Rounded, b: Rounded) -> Rounded:
    """Add; sums whose rounding error is zero stay exact."""
    first, second = a.array, b.array
    result = first + second
    error = np.where(_sum_is_exact(first, second, result), 0, _unit(result))
    return rounded(result, a.distance + b.distance + error)


def multiplied(a: Rounded, b: Rounded) -> Rounded:
    """Multiply; products whose rounding error is zero stay exact, those with zero too."""
    first, second = a.array, b.array
    result = first * second
    error = np.where(_product_is_exact(first, second, result), 0, _unit(result))
    return rounded(
        result,
        error + np.abs(first) * b.distance + np.abs(second) * a.distance + a.distance * b.distance,
    )


def divided(a: Rounded, b: Rounded) -> Rounded:
    """Divide; quotients by powers of two stay exact. By others a program multiplies with the reciprocal."""
    first, second = a.array, b.array
    result = first / second
    error = np.where(((first == 0) & (second != 0)) | _is_power_of_two(second, result), 0, _unit(result))
    least = np.abs(second) - b.distance
    carried = (a.distance + np.abs(result) * b.distance) / np.where(least > 0, least, 0)
    return rounded(result, error + np.where(a.distance + b.distance == 0, 0, carried))


def extreme(function: Callable[..., Any]) -> Callable[[Rounded, Rounded], Rounded]:
    """Return the larger or the smaller of two values: it moves no more than they do, or as the one does."""

    def apply(a: Rounded, b: Rounded) -> Rounded:
        result = np.asarray(function(a.array, b.array))
        slack = np.maximum(a.distance, b.distance)
        apart = np.abs(a.array - b.array) > a.distance + b.distance
        return rounded(result, np.where(apart, np.where(result == a.array, a.distance, b.distance), slack))

    return apply


def stepped(function: Callable[..., Any]) -> Callable[[Rounded], Rounded]:
    """Return a monotonic function with steps: exact where no step is near."""

    def apply(a: Rounded) -> Rounded:
        result = np.asarray(function(a.array))
        above, below = function(a.array + a.distance), function(a.array - a.distance)
        return rounded(result, np.where(a.distance == 0, 0, np.abs(above - below)))

    return apply


def compared(function: Callable[..., Any], a: Rounded, b: Rounded) -> Array | None:
    """Compare; None where some elements are too near to each other."""
    if a.slack is None and b.slack is None:
        return np.asarray(function(a.array, b.array))
    slack = a.distance + b.distance
    if np.any((slack != 0) & ~(np.abs(a.array - b.array) > slack)):
        return None
    return np.asarray(function(a.array, b.array))


def converted(a: Rounded, result: Array) -> Rounded:
    """Take a conversion to another floating type, which the program may leave out."""
    change = np.abs(result.astype(a.array.dtype) - a.array)
    return rounded(result, (a.distance + 2 * np.where(result == a.array, 0, change)).astype(result.dtype))


def summed(result: Array, magnitude: Array, spread: Array, count: int, whole: bool) -> Rounded:
    """Take sums or products of many numbers.

    Args:
        result: of the numbers.
        magnitude: what their absolute values give.
        spread: what their slacks give.
        count: at most so many in each.
        whole: whether all are exact and whole, so that small results are exact in any order.
    """
    error = 2 * (count + 1) * _limits(result.dtype).eps * magnitude
    if whole:
        error = np.where(magnitude < _limits(result.dtype).whole, 0, error)
    return rounded(result, spread + error)


def is_whole(a: Rounded) -> bool:
    """Return whether all elements are exact and whole."""
    return a.slack is None and (is_exact_kind(a.array.dtype) or bool(np.all(np.rint(a.array) == a.array)))


def _unit(result: Array) -> Array:
    """Return more than twice the rounding error that one operation makes at most."""
    limits = _limits(result.dtype)
    return 3 * limits.eps * np.abs(result) + 2 * limits.tiny


def _sum_is_exact(first: Array, second: Array, result: Array) -> Any:
    if result.dtype.kind == "c":
        return False
    if result.dtype not in _SPLIT:
        return first.astype(float) + second.astype(float) == result.astype(float)
    part = result - first
    return (first - (result - part)) + (second - part) == 0


def _product_is_exact(first: Array, second: Array, result: Array) -> Any:
    zero = ((first == 0) & np.isfinite(second)) | ((second == 0) & np.isfinite(first))
    if result.dtype.kind == "c":
        return zero
    if result.dtype not in _SPLIT:
        return zero | (first.astype(float) * second.astype(float) == result.astype(float))
    high, low = _halves(first)
    other_high, other_low = _halves(second)
    error = ((high * other_high - result) + high * other_low + low * other_high) + low * other_low
    # Below, the error itself would underflow.
    return zero | ((error == 0) & (np.abs(result) > _limits(result.dtype).tiny ** 0.5))


def _is_power_of_two(second: Array, result: Array) -> Any:
    if second.dtype.kind == "c":
        return False
    fraction, _ = np.frexp(second.astype(float))
    return (np.abs(fraction) == 0.5) & (np.abs(result) > 2 * _limits(result.dtype).tiny)


def _halves(array: Array) -> tuple[Array, Array]:
    scaled = array * _SPLIT[array.dtype]
    high = scaled - (scaled - array)
    return high, array - high


class _Limits(NamedTuple):
    """Of a floating type: the distance from 1 to the next number, the least normal one, the whole ones."""

    eps: float
    tiny: float
    whole: float


def _limits(dtype: Any) -> _Limits:
    info = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    return _Limits(float(info.eps), float(info.tiny), float(2**info.nmant))
