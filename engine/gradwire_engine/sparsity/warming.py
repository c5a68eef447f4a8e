"""Compiles the loops of detection and coloring ahead of the first sparse derivative.

Their machine code is left in numba's cache, where other processes find it.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from gradwire_engine.abstract import abstract
from gradwire_engine.sparsity.coloring.bidirectional import color_bidirectional
from gradwire_engine.sparsity.coloring.choice import choose
from gradwire_engine.sparsity.coloring.distance2 import color_columns, color_rows
from gradwire_engine.sparsity.coloring.problem import Structure
from gradwire_engine.sparsity.coloring.recovery import DirectColoring, direct_recovery
from gradwire_engine.sparsity.coloring.results import AcyclicColoring
from gradwire_engine.sparsity.detection import detect, linear_program
from gradwire_engine.sparsity.pattern import SparsityPattern

_SIZE = 24


def compile_loops() -> None:
    """Call every loop that plans of sparse derivatives call, with small arrays of the same types."""
    band = detect(linear_program(_band, [], [abstract((_SIZE,), np.float64)], {}), 1 << 28).pattern
    colorings: list[tuple[SparsityPattern, DirectColoring]] = [
        (band, color_columns(band)),
        (band, color_rows(band)),
    ]
    edge, own, first = np.arange(_SIZE), np.arange(_SIZE), np.zeros(_SIZE, np.int64)
    rows, columns = np.concatenate([edge, own, first]), np.concatenate([edge, first, own])
    arrow = SparsityPattern.of_coordinates(rows, columns, (_SIZE, _SIZE))
    colorings.append((arrow, color_bidirectional(arrow, None)))
    draw = np.random.default_rng(0)  # irregular: the first order of columns is not the best
    rows, columns = draw.integers(0, 60, (2, 400))
    scattered = SparsityPattern.of_coordinates(rows, columns, (60, 60))
    colorings.append((scattered, color_columns(scattered)))
    both = np.concatenate([rows, columns]), np.concatenate([columns, rows])
    for symmetric in (arrow, SparsityPattern.of_coordinates(both[0], both[1], (60, 60))):
        assert symmetric.is_symmetric
        star = choose(symmetric, Structure.SYMMETRIC)
        assert not isinstance(star, AcyclicColoring)
        colorings.append((symmetric, star))
    for pattern, coloring in colorings:
        direct_recovery(coloring, pattern)


def _band(x: object) -> list[object]:
    """Return what each element makes together with its neighbors, and what all make together."""
    shifted = jnp.roll(x, 1) - 4 * x + jnp.roll(x, -1)  # type: ignore[arg-type,operator]
    return [shifted, x[::2] + shifted[1::2], jnp.sum(x)]  # type: ignore[index,arg-type]
