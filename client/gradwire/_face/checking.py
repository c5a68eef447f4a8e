"""Checks a function at a point: its values and derivatives are computed in several ways, which must agree."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

import gradwire_wire as wire
from gradwire._face.flat import FlatFunction
from gradwire._face.threads import in_thread
from gradwire._face.verification import run_quietly
from gradwire.errors import CheckError, NotDifferentiableError
from gradwire.graphs.comparison import width_of
from gradwire.graphs.reference import Reference
from gradwire.results import CheckReport, CheckRow

Arrays = Sequence[wire.Array]

_WHOLE_ELEMENTS = 1 << 20
"""Larger Jacobians are not computed in both modes."""

_SEED = 20


@dataclass(frozen=True, slots=True)
class Tolerances:
    """Relative differences that are rounding's, for one precision.

    Attributes:
        step: of differences, relative to the point: the fifth root of the precision, where the truncation
            and rounding errors of a five-point formula are equal.
        differences: between a derivative and a difference quotient.
        identities: between two derivatives.
    """

    step: float
    differences: float
    identities: float


_TOLERANCES = {
    8: Tolerances(1e-3, 1e-6, 1e-9),
    4: Tolerances(4e-2, 2e-2, 1e-3),
    2: Tolerances(0.3, 0.3, 5e-2),
}


async def check(function: FlatFunction, point: Arrays, reference: Reference | None) -> CheckReport:
    """Compute values and derivatives of a function in several ways.

    Args:
        function: the function on the server.
        point: one array for each of its inputs.
        reference: the Python function that it was traced from, if there is one.

    Returns:
        One row each for: the value against the Python function; J v against differences of the Python
        function (of the graph, if there is none) by a five-point formula; the adjoint identity
        <w, J v> = <J'w, v>; the Jacobian in forward against reverse mode; the symmetry u'H v = v'H u of the
        Hessian of <w, f>. Directions are random, and the same at every call. The rows are printed.

    Raises:
        CheckError: two ways differ by more than rounding explains.
    """
    values = await function.values(point)
    width = width_of((*point, *values))
    probe = _Probe(function, point, values, _TOLERANCES[width])
    rows = [await probe.row("value: graph and function", partial(probe.value, reference))]
    rows.append(await probe.row("J v: graph and differences", partial(probe.differences, reference)))
    rows.append(await probe.row("<w, J v> and <J'w, v>", probe.adjoint))
    rows.append(await probe.row("J: forward and reverse mode", probe.modes))
    rows.append(await probe.row("u'H v and v'H u", probe.symmetry))
    report = CheckReport(tuple(rows))
    print(report)
    if not report.passed:
        raise CheckError(f"the function does not pass its check:\n{report}")
    return report


class _Skip(Exception):
    """Says why a comparison is not made."""


class _Probe:
    """A point with random directions, and the comparisons there."""

    def __init__(self, function: FlatFunction, point: Arrays, values: Arrays, tolerances: Tolerances) -> None:
        self._function, self._point, self._values, self._tolerances = function, point, values, tolerances
        random = np.random.default_rng(_SEED)
        signature = function.signature
        self._varied = [i for i, value in enumerate(signature.inputs) if value.floating]
        self._differentiated = [i for i, value in enumerate(signature.outputs) if value.floating]
        self._u, self._v = ([_like(random, point[i]) for i in self._varied] for _ in range(2))
        self._w = [_like(random, values[i]) for i in self._differentiated]

    async def row(self, name: str, compare: Callable[[], Awaitable[tuple[float, float]]]) -> CheckRow:
        """Make one comparison; one that the function has no derivative for is skipped."""
        try:
            difference, allowed = await compare()
        except (_Skip, NotDifferentiableError) as error:
            return CheckRow(name, skipped=str(error).partition(";")[0])
        return CheckRow(name, difference, allowed)

    async def value(self, reference: Reference | None) -> tuple[float, float]:
        """Compare the values of the graph and of the Python function."""
        if reference is None:
            raise _Skip("a model has no function beside it")
        expected = await in_thread(partial(run_quietly, reference.values, self._point))
        return _relative(expected, self._values), self._tolerances.identities

    async def differences(self, reference: Reference | None) -> tuple[float, float]:
        """Compare J v with the five-point formula, and allow for the formula's own error."""
        self._need_derivatives()
        found = await self._function.tangents(self._point, self._v)
        largest = max((float(np.abs(self._point[i]).max(initial=0.0)) for i in self._varied), default=0.0)
        step = self._tolerances.step * max(largest, 1.0) / max(_largest(self._v), 1.0)
        at = [await self._outputs(reference, k * step) for k in (-2, -1, 1, 2)]
        quotients, errors = [], 0.0
        for far_below, below, above, far_above in zip(*at, strict=True):
            near, far = (above - below) / (2 * step), (far_above - far_below) / (4 * step)
            quotients.append((4 * near - far) / 3)
            errors = max(errors, _largest([near - far]))
        size = max(_largest(quotients), _largest(found), np.finfo(np.float64).tiny)
        return _relative(quotients, found), self._tolerances.differences + errors / size

    async def _outputs(self, reference: Reference | None, step: float) -> list[wire.Array]:
        """Return the floating-point outputs at the point moved by a step along v."""
        moved = list(self._point)
        for i, direction in zip(self._varied, self._v, strict=True):
            moved[i] = np.asarray(self._point[i] + step * direction).astype(self._point[i].dtype)
        if reference is None:
            values = await self._function.values(moved)
        else:
            values = list(await in_thread(partial(run_quietly, reference.values, moved)))
        return [np.asarray(values[i], np.float64) for i in self._differentiated]

    async def adjoint(self) -> tuple[float, float]:
        """Compare <w, J v> with <J'w, v>."""
        self._need_derivatives()
        tangents = await self._function.tangents(self._point, self._v)
        products = await self._function.products(self._point, self._w)
        return _identity((self._w, tangents), (products, self._v)), self._tolerances.identities

    async def modes(self) -> tuple[float, float]:
        """Compare the whole Jacobian in both modes."""
        self._need_derivatives()
        elements = sum(self._point[i].size for i in self._varied)
        elements *= sum(self._values[i].size for i in self._differentiated)
        if elements > _WHOLE_ELEMENTS:
            raise _Skip(f"{elements:,} elements")
        forward = await self._function.jacobians(self._point, "forward")
        reverse = await self._function.jacobians(self._point, "reverse")
        return _relative(forward, reverse), self._tolerances.identities

    async def symmetry(self) -> tuple[float, float]:
        """Compare u'H v with v'H u, for the Hessian of <w, f>."""
        self._need_derivatives()
        by_v = await self._function.curvatures(self._point, self._w, self._v)
        by_u = await self._function.curvatures(self._point, self._w, self._u)
        return _identity((self._u, by_v), (self._v, by_u)), self._tolerances.identities

    def _need_derivatives(self) -> None:
        if not self._varied or not self._differentiated:
            raise _Skip("no floating-point input or output")


def _like(random: np.random.Generator, array: wire.Array) -> wire.Array:
    return np.asarray(random.standard_normal(array.shape)).astype(array.dtype)


def _largest(arrays: Arrays) -> float:
    """Return the largest finite size of an element."""
    sizes = [np.abs(np.asarray(array, np.float64)) for array in arrays]
    return max((float(size[np.isfinite(size)].max(initial=0.0)) for size in sizes), default=0.0)


def _relative(expected: Arrays, found: Arrays) -> float:
    """Return the largest difference, relative to the largest element; infinite where only one is finite."""
    size = max(_largest(expected), _largest(found), np.finfo(np.float64).tiny)
    worst = 0.0
    for want, got in zip(expected, found, strict=True):
        a, b = np.asarray(want, np.float64), np.asarray(got, np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(all="ignore"):
            apart = np.where(same, 0.0, np.abs(a - b))
        worst = max(worst, float(np.where(np.isfinite(apart), apart, np.inf).max(initial=0.0)))
    return worst / size


def _identity(left: tuple[Arrays, Arrays], right: tuple[Arrays, Arrays]) -> float:
    """Return the difference of two inner products, relative to what they add up."""
    sums, sizes = [], []
    for pair in (left, right):
        terms = [np.asarray(a, np.float64) * np.asarray(b, np.float64) for a, b in zip(*pair, strict=True)]
        with np.errstate(invalid="ignore"):
            sums.append(sum(float(term.sum()) for term in terms))
            sizes.append(sum(float(np.abs(term).sum()) for term in terms))
    if not np.isfinite(sums).all():
        return 0.0 if np.array_equal(*np.isnan(sums).reshape(2, 1)) else float("inf")
    return abs(sums[0] - sums[1]) / max(*sizes, np.finfo(np.float64).tiny)
