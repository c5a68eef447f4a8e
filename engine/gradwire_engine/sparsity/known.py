"""Values of a program that are known before it runs: indices, masks and trip counts made of constants.

A value is computed when a rule asks for it, never before: most programs never ask. It is the one that the
compiled program has on any device, up to rounding (see rounding.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from math import prod
from typing import Any

import numpy as np

from gradwire_engine.sparsity.folding import EVALUATED, evaluated
from gradwire_engine.sparsity.rounding import Rounded

Array = np.ndarray[Any, Any]

LARGEST = 1 << 27
"""Elements up to which a value is computed before the program runs."""

_DEEPEST = 48
"""Values that wait for one another before the last of them is computed, so that none recurses too deep."""

_CHEAP = 1 << 16
"""Elements up to which a value is computed without being asked for, when too many wait for it."""


class Known:
    """A value that is computed at its first use."""

    def __init__(self, compute: Callable[[], Rounded | None], depth: int = 0) -> None:
        """Keep the computation, and how many others wait for it in turn."""
        self._compute: Callable[[], Rounded | None] | None = compute
        self._depth = depth

    def at(self, step: int) -> Known:
        """Return an element along the first axis."""

        def element() -> Rounded | None:
            whole = self.value
            if whole is None or whole.slack is None:
                return None if whole is None else Rounded(whole.array[step])
            return Rounded(whole.array[step], whole.slack[step])

        return Known(element, self.depth + 1)

    @property
    def depth(self) -> int:
        """How many values have to be computed in turn for this one."""
        return 0 if self._compute is None else self._depth

    @cached_property
    def value(self) -> Rounded | None:
        """The value, known up to rounding; None where it turns out not to be."""
        compute, self._compute = self._compute, None
        assert compute is not None
        return compute()

    @property
    def array(self) -> Array | None:
        """The value, or None; NaN where it is zero and that of the program may be another number."""
        return None if self.value is None else self.value.surely_zero


class PartlyKnown(Known):
    """A concatenation of values of which some are known, such as index vectors of a counter and an input.

    As a whole it is not known.
    """

    def __init__(self, parts: Sequence[Known | None], sizes: Sequence[int], axis: int) -> None:
        """Keep the parts, their extents along the axis, and the axis."""
        super().__init__(lambda: None)
        self._parts, self._sizes, self._axis = parts, sizes, axis

    def along(self, axis: int, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Return an array, zero where it is not known, and for each place along an axis whether it is."""
        if axis != self._axis:
            return np.zeros(shape, np.int64), np.zeros(shape[axis], bool)
        arrays = [None if part is None else part.array for part in self._parts]
        sizes = [(*shape[:axis], size, *shape[axis + 1 :]) for size in self._sizes]
        filled = [
            np.zeros(size, np.int64) if array is None else array
            for array, size in zip(arrays, sizes, strict=True)
        ]
        return np.concatenate(filled, axis), np.repeat([array is not None for array in arrays], self._sizes)


def known(value: Any) -> Known:
    """Return a value at hand as a known one."""
    return Known(lambda: Rounded(np.asarray(value)))


def fold(equation: Any, operands: Sequence[Known | None]) -> list[Known | None]:
    """Return an equation's results where they follow from known operands, None for each otherwise."""
    results = equation.outvars
    unknown: list[Known | None] = [None] * len(results)
    name = equation.primitive.name
    size = max((prod(getattr(result.aval, "shape", ())) for result in results), default=0)
    if name not in EVALUATED or size > LARGEST:
        return unknown
    values = [operand for operand in operands if operand is not None]
    if len(values) < len(operands):
        if name == "concatenate" and values:
            axis = equation.params["dimension"]
            return [PartlyKnown(operands, [atom.aval.shape[axis] for atom in equation.invars], axis)]
        return unknown

    def compute() -> list[Rounded] | None:
        computed = [value.value for value in values]
        given = [value for value in computed if value is not None]
        if len(given) < len(computed):
            return None
        with np.errstate(all="ignore"):
            return evaluated(equation, given)

    depth = 1 + max((value.depth for value in values), default=0)
    made = _results(compute, len(results), depth)
    if depth > _DEEPEST:
        if size > _CHEAP:
            return unknown
        for value in made:
            _ = value.value
    return list(made)


def stacked(steps: Sequence[Known | None], shape: tuple[int, ...], dtype: Any) -> Known | None:
    """Return values stacked along a new axis; None where one of them is not known."""
    given = [step for step in steps if step is not None]
    if len(given) < len(steps):
        return None

    def whole() -> Rounded | None:
        computed = [step.value for step in given]
        values = [value for value in computed if value is not None]
        if len(values) < len(computed):
            return None
        if not values:
            return Rounded(np.empty(shape, dtype))
        array = np.stack([value.array for value in values])
        if all(value.slack is None for value in values):
            return Rounded(array)
        return Rounded(array, np.stack([value.distance for value in values]))

    return Known(whole, 1 + max((step.depth for step in given), default=0))


def _results(compute: Callable[[], list[Rounded] | None], count: int, depth: int) -> list[Known]:
    if count == 1:

        def single() -> Rounded | None:
            values = compute()
            return None if values is None else values[0]

        return [Known(single, depth)]
    whole = cache(compute)

    def result(k: int) -> Rounded | None:
        values = whole()
        return None if values is None else values[k]

    return [Known(partial(result, k), depth) for k in range(count)]
