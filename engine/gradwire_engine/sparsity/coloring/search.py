"""The search for few colors on symmetric patterns: greedy fits in several orders, recolored by classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradwire_engine.sparsity.coloring.orders import (
    Order,
    by_classes,
    incidence_degree,
    largest_first,
    smallest_last,
)

Array = np.ndarray[Any, Any]
Fit = Callable[[Array], tuple[Array, int]]

ORDERS: tuple[Order, ...] = (largest_first, smallest_last, incidence_degree)
# Work is counted in pairs of neighbors that orders visit: some 10^8 a second of one core.
PAIRS = 20_000_000
# So many rounds in a row that find nothing end the recoloring.
FRUITLESS = 30


def best_of_orders(fit: Fit, indptr: Array, indices: Array, fewest: int) -> tuple[Array, int]:
    """Color the vertices of a symmetric pattern in several orders; return the colors and number of the best.

    Natural order is always tried; the others, and recoloring class by class, as far as the budget goes and
    while there are more than the fewest colors that are worth a search.
    """
    sizes = np.diff(indptr)
    best = fit(np.flatnonzero(sizes).astype(np.int32))
    if best[1] <= fewest:
        return best
    for order in ORDERS[: passes_of(indptr) // 2]:
        ordered = order(indptr, indices, indptr, indices)
        best = min(best, fit(ordered[sizes[ordered] > 0]), key=number)
    # A fit visits at most the colors next to each neighbor.
    return recolored(fit, best, fewest, PAIRS // (len(indices) * best[1]))


def recolored(fit: Fit, best: tuple[Array, int], least: int, rounds: int) -> tuple[Array, int]:
    """Fit again class by class for some rounds, while they find something; return the best coloring."""
    colors, count = best
    fruitless = 0
    for turn in range(rounds):
        if fruitless == FRUITLESS or count <= least:
            break
        colors, count = fit(by_classes(colors, _ranks(colors, count, turn)))
        fruitless = 0 if count < best[1] else fruitless + 1
        best = min(best, (colors, count), key=number)
    return best


def passes_of(indptr: Array) -> int:
    """Return how often the budget allows to visit all pairs of neighbors of a pattern."""
    sizes = np.diff(indptr)
    return PAIRS // max(1, int(sizes @ sizes))


def number(coloring: tuple[Array, int]) -> int:
    """Return how many colors a coloring has."""
    return coloring[1]


def _ranks(colors: Array, count: int, turn: int) -> Array:
    """Rank the colors: last first, largest first, and shuffled, in turns."""
    match turn % 3:
        case 0:
            return np.arange(count - 1, -1, -1, dtype=np.int32)
        case 1:
            sizes = np.bincount(colors[colors >= 0], minlength=count)
            ordered = np.argsort(-sizes, kind="stable")
        case _:
            ordered = np.argsort(np.arange(count) * (2 * turn + 1) * 2654435761 % 2**32, kind="stable")
    rank = np.empty(count, np.int32)
    rank[ordered] = np.arange(count, dtype=np.int32)
    return rank


def compact(colors: Array) -> tuple[Array, int]:
    """Close the gaps in the numbers of colors; return the colors and their number."""
    count = int(colors.max(initial=-1)) + 1
    used = np.zeros(count + 1, bool)
    used[colors] = True  # neutral ones mark the last place, which is given up
    renumbered = np.cumsum(used[:count], dtype=np.int32) - 1
    renumbered = np.append(renumbered, -1).astype(np.int32)
    return renumbered[colors], int(used[:count].sum())
