"""Finds repeated equation runs in a jaxpr: unrolled loops, equal layers, repeated calls.

Two equations are alike when they apply the same primitive with the same parameters to arrays of the same
types. A run of equations repeats with a period when equations one period apart are alike and take their
operands from the same places, counted in periods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend import core as jex

MIN_COUNT = 6
"""Fewer repetitions are not worth a loop, since the first and the last stay outside of it."""

MAX_LAG = 3
"""How many repetitions back an operand may come from."""

CANDIDATES = 16
"""How many periods are tried."""

MAX_WINDOW = 2048
"""Equations of the longest window that is compared."""


@dataclass(frozen=True)
class Repetition:
    """A repeated run: `count` repetitions of `period` equations, from equation `start` on.

    `lag` is the largest number of repetitions between an operand's use and the equation that makes it.
    """

    start: int
    period: int
    count: int
    lag: int

    @property
    def stop(self) -> int:
        """The first equation after the run."""
        return self.start + self.period * self.count


def find(equations: Sequence[Any]) -> Repetition | None:
    """Find the repeated run that covers most equations; None if none is worth a loop."""
    tokens = _tokens(equations)
    makers = makers_of(equations)
    best: Repetition | None = None
    for period in _periods(tokens):
        for start, stop in _runs(tokens, period):
            if best is not None and stop - start <= best.period * best.count:
                continue
            found = _verified(equations, makers, start, period, (stop - start) // period)
            if found is not None and (best is None or found.period * found.count > best.period * best.count):
                best = found
    return best


def _tokens(equations: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Assign a number to each equation, the same to those that are alike."""
    keys = Keys()
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(keys.equation(item), len(numbers)) for item in equations], np.int64)


def _periods(tokens: np.ndarray[Any, Any]) -> list[int]:
    """List likely periods: distances between equal windows of equations, for windows of growing length.

    A short window may occur several times within a period; a long one only once.
    """
    window, found, length = tokens, Counter[int](), 1
    while True:
        order = np.argsort(window, kind="stable")
        steps = np.diff(order)[np.diff(window[order]) == 0]
        values, counts = np.unique(steps, return_counts=True)
        for place in np.argsort(counts)[::-1][:CANDIDATES]:
            found[int(values[place])] += int(counts[place])
        if length > MAX_WINDOW or 2 * length * MIN_COUNT > len(tokens) or not len(steps):
            return [distance for distance, _ in found.most_common(CANDIDATES)]
        # Windows of twice the length are pairs of windows.
        pairs = window[:-length] * (int(window.max()) + 1) + window[length:]
        _, window = np.unique(pairs, return_inverse=True)
        length *= 2


def _runs(tokens: np.ndarray[Any, Any], period: int) -> list[tuple[int, int]]:
    """List runs [start, stop) of alike equations with the period, of at least `MIN_COUNT` periods."""
    alike = np.concatenate(([False], tokens[:-period] == tokens[period:], [False]))
    edges = np.flatnonzero(np.diff(alike.astype(np.int8)))
    return [
        (int(start), int(stop) + period)
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
        if int(stop) - int(start) + period >= MIN_COUNT * period
    ]


def makers_of(equations: Sequence[Any]) -> dict[Any, tuple[int, int]]:
    """Map each variable to the equation that makes it and its position among the results."""
    return {
        variable: (index, place)
        for index, equation in enumerate(equations)
        for place, variable in enumerate(equation.outvars)
    }


def _verified(
    equations: Sequence[Any], makers: dict[Any, tuple[int, int]], start: int, period: int, count: int
) -> Repetition | None:
    """Find the longest part of a run in which operands come from the same places, counted in periods."""
    numbers: dict[Hashable, int] = {}
    wirings = [_wiring(equations, makers, start, start + index * period, period) for index in range(count)]
    alike = [numbers.setdefault(wiring, len(numbers)) for wiring in wirings]
    first, begin, length = 0, 0, 0
    for index in range(count):
        first = first if index and alike[index] == alike[index - 1] else index
        if index - first >= length:
            begin, length = first, index - first + 1
    lag = max(1, *(source.lag for source in wirings[begin] if source), 1)
    found = Repetition(start + begin * period, period, length, lag)
    return found if length >= MIN_COUNT + lag and _closed(equations, makers, found) else None


@dataclass(frozen=True)
class Producer:
    """The equation of the period that makes an operand, `lag` repetitions before."""

    lag: int
    equation: int
    place: int


def wiring(
    equations: Sequence[Any], makers: dict[Any, tuple[int, int]], found: Repetition, index: int
) -> tuple[Producer | None, ...]:
    """List where the operands of one repetition come from.

    Args:
        equations: of the jaxpr that the run was found in.
        makers: as `makers_of` gives them for these equations.
        found: the run.
        index: number of the repetition in it.

    Returns:
        For each operand of each equation of the repetition, in order, the equation of the period that makes
        it; None for literals, and for operands from outside the run or from too many repetitions before.
    """
    return _wiring(equations, makers, found.start, found.start + index * found.period, found.period)


def _wiring(
    equations: Sequence[Any], makers: dict[Any, tuple[int, int]], start: int, begin: int, period: int
) -> tuple[Producer | None, ...]:
    sources: list[Producer | None] = []
    for equation in equations[begin : begin + period]:
        for operand in equation.invars:
            maker = None if isinstance(operand, jex.Literal) else makers.get(operand)
            source = None
            if maker is not None and maker[0] >= start:
                back, place = divmod(maker[0] - start, period)
                lag = (begin - start) // period - back
                source = Producer(lag, place, maker[1]) if lag <= MAX_LAG else None
            sources.append(source)
    return tuple(sources)


def _closed(equations: Sequence[Any], makers: dict[Any, tuple[int, int]], found: Repetition) -> bool:
    """Return whether every operand from outside the run is made before it begins."""
    loop = range(found.start + found.lag * found.period, found.stop)
    for begin in range(loop.start, loop.stop, found.period):
        sources = iter(_wiring(equations, makers, found.start, begin, found.period))
        for equation in equations[begin : begin + found.period]:
            for operand, source in zip(equation.invars, sources, strict=False):
                if source is None and not isinstance(operand, jex.Literal):
                    maker = makers.get(operand)
                    if maker is not None and maker[0] in loop:
                        return False
    return True


class Keys:
    """Hashable descriptions of equations; equations of equal descriptions compute the same function."""

    def __init__(self) -> None:
        # Jaxprs are kept, so that no other takes an id over.
        self._jaxprs: dict[int, tuple[Any, Hashable]] = {}

    def equation(self, equation: Any) -> Hashable:
        """Primitive, parameters, and the types of operands and results."""
        return (
            equation.primitive.name,
            self._value(equation.params),
            tuple(map(_type, equation.invars)),
            tuple(map(_type, equation.outvars)),
        )

    def _value(self, value: Any) -> Hashable:
        if isinstance(value, jex.ClosedJaxpr):
            return ("closed", self._jaxpr(value.jaxpr), tuple(map(self._value, value.consts)))
        if isinstance(value, jex.Jaxpr):
            return self._jaxpr(value)
        if isinstance(value, dict):
            return tuple((key, self._value(item)) for key, item in sorted(value.items()))
        if isinstance(value, tuple | list):
            return (type(value).__name__, *map(self._value, value))
        if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
            return (value.dtype.str, value.shape, value.tobytes())
        try:
            hash(value)
        except TypeError:
            return ("object", id(value))
        return (type(value).__name__, value)

    def _jaxpr(self, jaxpr: Any) -> Hashable:
        known = self._jaxprs.get(id(jaxpr))
        if known is None:
            known = self._jaxprs[id(jaxpr)] = (jaxpr, self._describe(jaxpr))
        return known[1]

    def _describe(self, jaxpr: Any) -> Hashable:
        numbers: dict[Any, int] = {}

        def name(atom: Any) -> Hashable:
            if isinstance(atom, jex.Literal):
                return ("literal", self._value(np.asarray(atom.val)))
            return numbers.setdefault(atom, len(numbers))

        inputs = tuple((name(variable), _type(variable)) for variable in (*jaxpr.constvars, *jaxpr.invars))
        equations = tuple(
            (self.equation(item), tuple(map(name, item.invars)), tuple(map(name, item.outvars)))
            for item in jaxpr.eqns
        )
        return ("jaxpr", inputs, equations, tuple(map(name, jaxpr.outvars)))


def _type(atom: Any) -> Hashable:
    aval = atom.aval
    if not hasattr(aval, "shape"):
        return str(aval)
    return (str(aval.dtype), tuple(aval.shape), bool(getattr(aval, "weak_type", False)))
