"""Partial distance-2 coloring: vertices that share a net differ in color."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire_engine.sparsity.coloring.orders import (
    Order,
    by_classes,
    incidence_degree,
    largest_first,
    link,
    smallest_last,
    unlink,
)
from gradwire_engine.sparsity.coloring.results import ColumnColoring, RowColoring
from gradwire_engine.sparsity.compiled import compiled, loop_arrays
from gradwire_engine.sparsity.pattern import SparsityPattern

Array = np.ndarray[Any, Any]

# Work is counted, not timed, so that a coloring depends on its pattern alone: pairs of neighbors that an
# order may visit, and entries that the recoloring of all colorings and of the best one may visit. A second of
# one core is some 10^8 pairs or 2 * 10^8 entries.
SATURATION_PAIRS = 40_000_000
ORDER_PAIRS = 10_000_000
ENTRIES_OF_ALL = 5_000_000
ENTRIES_OF_BEST = 20_000_000
# A few rounds are worth their time on any pattern that takes few colors.
ROUNDS = 4
# So many rounds in a row that find nothing end the recoloring.
FRUITLESS = 1_000
ORDERS: tuple[Order, ...] = (largest_first, smallest_last, incidence_degree)


def color_columns(pattern: SparsityPattern) -> ColumnColoring:
    """Color columns so that those of one color have no row in common; empty columns are neutral."""
    return ColumnColoring(*color_vertices(pattern.transposed, pattern))


def color_rows(pattern: SparsityPattern) -> RowColoring:
    """Color rows so that those of one color have no column in common; empty rows are neutral."""
    return RowColoring(*color_vertices(pattern, pattern.transposed))


def largest_row(pattern: SparsityPattern) -> int:
    """Return the most entries that a row has: no coloring by columns has fewer colors."""
    return int(np.diff(pattern.indptr).max(initial=0))


def color_vertices(vertices: SparsityPattern, nets: SparsityPattern) -> tuple[Array, int]:
    """Color the rows of `vertices`, whose transposed pattern is `nets`; return the colors and their number.

    The first fit in natural order stands if it takes as many colors as the largest net has vertices, for no
    coloring takes fewer. Otherwise other orders are tried, all are recolored by classes as far as the budget
    of work goes, and the best is kept.
    """
    ptr, idx = loop_arrays(vertices.indptr, vertices.indices)
    net_ptr, net_idx = loop_arrays(nets.indptr, nets.indices)
    natural = np.flatnonzero(np.diff(ptr)).astype(np.int32)
    least = largest_row(nets)
    if least == len(natural):  # a net holds them all
        colors = np.full(len(ptr) - 1, -1, np.int32)
        colors[natural] = np.arange(least, dtype=np.int32)
        return colors, least
    found = [first_fit(ptr, idx, net_ptr, natural)]
    sizes = np.diff(net_ptr)
    pairs = int(sizes @ sizes)
    if found[0][1] > least and pairs <= SATURATION_PAIRS:
        found.append(saturation_fit(ptr, idx, net_ptr, net_idx))
    for order in ORDERS[: ORDER_PAIRS // max(1, pairs)]:
        if min(count for _, count in found) > least:
            found.append(first_fit(ptr, idx, net_ptr, order(ptr, idx, net_ptr, net_idx)))
    best = min(found, key=number)
    # A fit visits the entries of the columns that are left once for each 64 colors.
    visits = len(idx) * (1 + best[1] // 128)
    few = ROUNDS if best[1] <= 128 else 0
    rounds = min(max(ENTRIES_OF_ALL // (len(found) * visits), few), FRUITLESS)
    for colors, count in found:
        if best[1] > least:
            best = min(best, recolored(ptr, idx, net_ptr, colors, count, least, rounds), key=number)
    return recolored(ptr, idx, net_ptr, *best, least, min(ENTRIES_OF_BEST // visits, FRUITLESS))


def number(coloring: tuple[Array, int]) -> int:
    """Return how many colors a coloring has."""
    return coloring[1]


@compiled
def bit_number(bit: np.uint64) -> int:
    """Return the place of the one bit that is set."""
    place = 0
    for half in (32, 16, 8, 4, 2, 1):
        if bit >= np.uint64(1) << np.uint64(half):
            bit >>= np.uint64(half)
            place += half
    return place


@compiled
def first_fit(ptr: Array, idx: Array, net_ptr: Array, order: Array) -> tuple[Array, int]:
    """Give each vertex in turn the first color that no vertex of its nets has.

    Colors are tried 64 at a time: each net holds a word of those its vertices have, and vertices that none of
    the 64 fits wait for the next. This visits entries, not pairs of neighbors.
    """
    colors = np.full(len(ptr) - 1, -1, np.int32)
    used = np.zeros(len(net_ptr) - 1, np.uint64)
    waiting = order.copy()
    left, base, count = len(waiting), 0, 0
    full = ~np.uint64(0)
    while left > 0:
        kept = 0
        for place in range(left):
            v = waiting[place]
            taken = np.uint64(0)
            for k in range(ptr[v], ptr[v + 1]):
                taken |= used[idx[k]]
                if taken == full:
                    break
            if taken == full:
                waiting[kept] = v
                kept += 1
            else:
                bit = ~taken & (taken + np.uint64(1))
                for k in range(ptr[v], ptr[v + 1]):
                    used[idx[k]] |= bit
                colors[v] = base + bit_number(bit)
                count = max(count, colors[v] + 1)
        for place in range(kept):
            v = waiting[place]
            for k in range(ptr[v], ptr[v + 1]):
                used[idx[k]] = np.uint64(0)
        left = kept
        base += 64
    return colors, count


@compiled
def saturation_fit(ptr: Array, idx: Array, net_ptr: Array, net_idx: Array) -> tuple[Array, int]:
    """Color next the vertex whose neighbors have the most colors (Brélaz).

    On stencils of regular meshes all but the first colors are forced then, and the coloring is often perfect.
    A pattern that takes more than 64 colors is colored in natural order.
    """
    vertices = len(ptr) - 1
    colors = np.full(vertices, -1, np.int32)
    near = np.zeros(vertices, np.uint64)
    seen = np.zeros(vertices, np.int32)
    first = np.full(65, -1, np.int32)
    after, before = np.empty(vertices, np.int32), np.empty(vertices, np.int32)
    left = 0
    for v in range(vertices - 1, -1, -1):
        if ptr[v + 1] > ptr[v]:
            link(first, after, before, 0, v)
            left += 1
    count, top = 0, 0
    while left > 0:
        while first[top] < 0:
            top -= 1
        if top == 64:
            return first_fit(ptr, idx, net_ptr, np.arange(vertices).astype(np.int32))
        v = first[top]
        unlink(first, after, before, top, v)
        left -= 1
        bit = ~near[v] & (near[v] + np.uint64(1))
        colors[v] = bit_number(bit)
        count = max(count, colors[v] + 1)
        for k in range(ptr[v], ptr[v + 1]):
            for m in range(net_ptr[idx[k]], net_ptr[idx[k] + 1]):
                u = net_idx[m]
                if colors[u] < 0 and not near[u] & bit:
                    unlink(first, after, before, seen[u], u)
                    near[u] |= bit
                    seen[u] += 1
                    link(first, after, before, seen[u], u)
                    top = max(top, seen[u])
    return colors, count


@compiled
def recolored(
    ptr: Array, idx: Array, net_ptr: Array, colors: Array, count: int, least: int, fruitless: int
) -> tuple[Array, int]:
    """Fit again class by class until `fruitless` rounds in a row save nothing; it never takes more colors.

    Classes are taken last first, largest first, and shuffled, in turns (Culberson's iterated greedy).
    """
    left, turn, state = fruitless, 0, np.uint64(88172645463325252)
    while left > 0 and count > least:
        rank = np.empty(count, np.int32)
        if turn % 3 == 0:
            for color in range(count):
                rank[color] = count - 1 - color
        elif turn % 3 == 1:
            sizes = np.zeros(count, np.int64)
            for v in range(len(colors)):
                if colors[v] >= 0:
                    sizes[colors[v]] += 1
            # Sorted by counting: how many colors are larger.
            larger = np.zeros(len(colors) + 2, np.int64)
            for color in range(count):
                larger[sizes[color]] += 1
            for size in range(len(colors), -1, -1):
                larger[size] += larger[size + 1]
            for color in range(count):
                rank[color] = larger[sizes[color] + 1]
                larger[sizes[color] + 1] += 1
        else:
            for color in range(count):
                rank[color] = color
            for color in range(count - 1, 0, -1):
                # Marsaglia's xorshift64.
                state ^= state << np.uint64(13)
                state ^= state >> np.uint64(7)
                state ^= state << np.uint64(17)
                other = np.int64(state % np.uint64(color + 1))
                rank[color], rank[other] = rank[other], rank[color]
        colors, found = first_fit(ptr, idx, net_ptr, by_classes(colors, rank))
        left = fruitless if found < count else left - 1
        count = found
        turn += 1
    return colors, count
