"""Compares patterns found on the linearized program with dense derivatives at random points."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradwire_engine.abstract import abstract
from gradwire_engine.sparsity.detection import Detected, detect, linear_program
from gradwire_engine.sparsity.pattern import SparsityPattern

Array = np.ndarray[Any, Any]
Function = Callable[[Any], Any]
"""From vector to vector."""

DENSE_ENTRIES = 200 * 400
"""Entries up to which whole matrices are formed; of larger ones some columns."""

SAMPLED = 12
"""Columns that are formed of larger matrices."""

OPINION_NONZEROS = 100_000
"""Non-zeros up to which asdex is asked too, whose time and room grow faster than ours."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        shape: of the matrix.
        nonzeros: entries of our pattern.
        measured: entries that are not zero at some of the points, in the columns that were formed.
        missed: those of them that our pattern lacks.
        extra: entries of our pattern that are zero at all points, in the columns that were formed.
        dense_primitives: what was taken for dense, for want of a rule.
        seconds: of our detection.
        opinion: entries of asdex's pattern; None where it has none.
        opinion_missed: entries that are not zero and asdex lacks.
        fewer: entries of our pattern that asdex lacks and that are zero at all points.
    """

    shape: tuple[int, int]
    nonzeros: int
    measured: int
    missed: int
    extra: int
    dense_primitives: tuple[str, ...]
    seconds: float
    opinion: int | None = None
    opinion_missed: int = 0
    fewer: int = 0


def pattern_of(function: Function, size: int) -> Detected:
    """Find the pattern of a function's Jacobian."""
    x = abstract((size,), float)

    def push(point: Any, tangent: Any) -> list[Any]:
        return [jax.linearize(function, point)[1](tangent)]

    return detect(linear_program(push, [x], [x], {}))


def compare(function: Function, points: Sequence[Array], opinion: bool = False) -> Comparison:
    """Compare a function's pattern with its derivative.

    Args:
        function: from vector to vector.
        points: the first is in its domain; others count where the function is finite.
        opinion: whether to ask asdex too.
    """
    size = len(points[0])
    start = time.perf_counter()
    detected = pattern_of(function, size)
    seconds = time.perf_counter() - start
    pattern = detected.pattern
    columns = chosen_columns(pattern)
    measured = nonzeros_at(function, points, columns)
    found = columns_of(pattern, columns)
    other = _opinion(function, points[0]) if opinion and pattern.nonzeros <= OPINION_NONZEROS else None
    given: dict[str, Any] = {}
    if other is not None:
        entries = columns_of(other, columns)
        given = {
            "opinion": other.nonzeros,
            "opinion_missed": int(np.sum(measured & ~entries)),
            "fewer": int(np.sum(found & ~entries & ~measured)),
        }
    return Comparison(
        pattern.shape,
        pattern.nonzeros,
        int(measured.sum()),
        int(np.sum(measured & ~found)),
        int(np.sum(found & ~measured)),
        detected.dense_primitives,
        seconds,
        **given,
    )


def chosen_columns(pattern: SparsityPattern) -> Array:
    """Return all columns of a small matrix, of a large one the first, the last and some between."""
    rows, columns = pattern.shape
    if rows * columns <= DENSE_ENTRIES or columns <= SAMPLED:
        return np.arange(columns)
    drawn = np.random.default_rng(columns).choice(columns, SAMPLED - 2, replace=False)
    return np.unique([0, columns - 1, *drawn])


def nonzeros_at(function: Function, points: Sequence[Array], columns: Array) -> Array:
    """Return where columns of the dense Jacobian are not zero at any of the points; NaN is not."""

    @jax.jit
    def formed(x: Any) -> Any:
        def column(index: Any) -> Any:
            seed = (jnp.arange(len(points[0])) == index).astype(x.dtype)
            return jax.jvp(function, (x,), (seed,))[1]

        return jax.lax.map(column, jnp.asarray(columns), batch_size=16), function(x)

    total: Any = None
    for point in points:
        matrix, value = map(np.asarray, formed(point))
        if total is None or np.all(np.isfinite(value)):
            total = (matrix != 0) if total is None else total | (matrix != 0)
    return np.asarray(total).reshape(len(columns), -1).T


def columns_of(pattern: SparsityPattern, columns: Array) -> Array:
    """Return columns of a pattern as a boolean matrix."""
    place = np.full(pattern.shape[1], -1)
    place[columns] = np.arange(len(columns))
    at = place[pattern.indices]
    matrix = np.zeros((pattern.shape[0], len(columns)), bool)
    matrix[pattern.rows[at >= 0], at[at >= 0]] = True
    return matrix


def _opinion(function: Function, x: Array) -> SparsityPattern | None:
    import asdex

    try:
        found = asdex.jacobian_sparsity(function, jnp.asarray(x))
    except Exception:  # it has no rule, or no room
        return None
    return SparsityPattern.of_coordinates(np.asarray(found.rows), np.asarray(found.cols), found.shape)
