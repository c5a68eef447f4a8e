"""Compares the results of a function and of the graph that was made from it, with regard to rounding.

Two programs that compute the same differ by rounding. Most results agree to many digits; where they do not,
the function's own sensitivity decides: rounding inside a program acts like a change of its input in the last
places, so a difference counts only if it is far larger than what such a change makes of the function itself
(backward error analysis; Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 1.5).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import gradwire_wire as wire

_SAMPLES = 6
_PLACES = 4.0
"""How far inputs are moved, in units of the last place."""

_AMPLIFICATION = 100.0
"""How much larger than the function's own changes a difference must be to count."""

_RELATIVE = {2: 2e-2, 4: 1e-4, 8: 1e-9}
"""Differences that are never looked into, by the bytes of the numbers that a program computes with."""

_EPSILON = {2: 2.0**-8, 4: 2.0**-23, 8: 2.0**-52}
"""Relative spacing of numbers by their bytes; bfloat16's for two bytes, the coarser of the two formats."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference between two results.

    Attributes:
        result: the position of the result that differs.
        place: the index of the element.
        expected: the function's number there.
        found: the graph's.
    """

    result: int
    place: tuple[int, ...]
    expected: float
    found: float

    @property
    def relative(self) -> float:
        """The difference divided by the expected number; infinite if that is 0 or one is not finite."""
        if not (self.expected and np.isfinite(self.expected) and np.isfinite(self.found)):
            return float("inf")
        with np.errstate(over="ignore"):
            return float(np.abs(np.float64(self.found) - self.expected) / abs(self.expected))


def worst_difference(
    expected: Sequence[wire.Array],
    found: Sequence[wire.Array],
    width: int,
    moved: Callable[[], Sequence[Sequence[wire.Array]]],
) -> Difference | None:
    """Return the largest difference that rounding does not explain, or None.

    Args:
        expected: the function's results.
        found: the graph's results, of the same shapes. NaN agrees with NaN.
        width: bytes of the shortest floating-point numbers that either computes with.
        moved: returns the function's results for inputs that are moved in the last places; it is called only
            where results differ by more than a relative 1e-9 (in float64; 1e-4 in float32).
    """
    suspect = [i for i, pair in enumerate(zip(expected, found, strict=True)) if _differs(*pair, width).any()]
    if not suspect:
        return None
    around = moved()
    worst: Difference | None = None
    for i in suspect:
        want, got = np.asarray(expected[i]), np.asarray(found[i])
        unexplained = _differs(want, got, width) & ~_explained(want, got, [one[i] for one in around])
        for place in np.argwhere(unexplained):
            index = tuple(int(k) for k in place)
            one = Difference(i, index, float(want[index]), float(got[index]))
            if worst is None or one.relative > worst.relative:
                worst = one
    return worst


def moved_inputs(inputs: Sequence[wire.Array], width: int, seed: int) -> list[list[wire.Array]]:
    """Return the inputs several times, their floating-point elements moved by a few units in the last place.

    Zeros move by the last places of the largest element: a function is tried on both sides of a kink at 0.
    """
    random = np.random.default_rng(seed)
    step = _PLACES * _EPSILON[width]

    def move(array: wire.Array) -> wire.Array:
        if not wire.is_float(array.dtype) or not array.size:
            return array
        wide = array.astype(np.float64)
        finite = np.isfinite(wide)
        largest = np.abs(wide[finite]).max(initial=0.0) or 1.0
        scale = np.where(finite, np.where(wide == 0, largest, wide), 0.0)
        moved: wire.Array = wide + step * scale * random.choice((-1.0, 1.0), wide.shape)
        return moved.astype(array.dtype)

    return [[move(array) for array in inputs] for _ in range(_SAMPLES)]


def width_of(arrays: Sequence[wire.Array]) -> int:
    """Return the bytes of the shortest floating-point numbers among these arrays; 8 if there are none."""
    return min((array.dtype.itemsize for array in arrays if wire.is_float(array.dtype)), default=8)


def _differs(want: wire.Array, got: wire.Array, width: int) -> wire.Array:
    """Where two arrays differ by more than what is never looked into."""
    want, got = np.asarray(want), np.asarray(got)
    if want.dtype.kind in "biu":
        return np.asarray(want != got)
    want, got = want.astype(np.float64), got.astype(np.float64)
    with np.errstate(all="ignore"):
        finite = np.abs(want[np.isfinite(want)]).max(initial=0.0)
        allowed = _RELATIVE[width] * np.abs(want) + _PLACES * _EPSILON[width] * finite
        near = (np.abs(got - want) <= allowed) & np.isfinite(want)
    return np.asarray(~(near | (want == got) | (np.isnan(want) & np.isnan(got))))


def _explained(want: wire.Array, got: wire.Array, around: Sequence[wire.Array]) -> wire.Array:
    """Where a difference is no larger than what the function itself makes of moved inputs."""
    if not around:
        return np.zeros(want.shape, bool)
    near = np.stack(around)
    if want.dtype.kind in "biu":
        return np.asarray((near == got).any(0))
    near, centre, found = near.astype(np.float64), want.astype(np.float64), got.astype(np.float64)
    with np.errstate(all="ignore"):
        spread = np.abs(near - centre).max(0)
        explained = (np.abs(found - centre) <= _AMPLIFICATION * spread) & np.isfinite(found)
    same = (np.isnan(found) & np.isnan(near).any(0)) | (near == found).any(0)
    return np.asarray(explained | same)
