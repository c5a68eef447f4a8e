"""Bidirectional coloring: some entries are read by column colors, the others by row colors.

A full row costs every column a color of its own, and a full column every row; read the row by a row color and
the column by a column color, and one color does for each. Which side reads an entry is settled first: rows
with few entries left are taken away, to be read by columns, and columns with few entries left, to be read by
rows, until nothing is left. Columns then conflict where they share a row in which one of them is read (and
rows likewise), and those that read nothing are neutral.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from gradwire_engine.sparsity.coloring.costs import Costs
from gradwire_engine.sparsity.coloring.distance2 import bit_number
from gradwire_engine.sparsity.coloring.orders import link, unlink
from gradwire_engine.sparsity.coloring.recovery import alone_in_row
from gradwire_engine.sparsity.coloring.results import BidirectionalColoring
from gradwire_engine.sparsity.coloring.search import compact, recolored
from gradwire_engine.sparsity.compiled import compiled, loop_arrays
from gradwire_engine.sparsity.pattern import SparsityPattern

Array = np.ndarray[Any, Any]

# The numbers of row colors that are aimed at, and the entries that trying them and recoloring may visit.
TARGETS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)
ENTRIES = 20_000_000
# Few enough to stay cheap on any pattern.
TRIES = 2


def color_bidirectional(pattern: SparsityPattern, costs: Costs | None = None) -> BidirectionalColoring:
    """Color columns and rows so that each entry is alone in its place on one of the sides.

    Args:
        pattern: what to color.
        costs: what a color of each side costs; the same unless said.
    """
    costs = costs or Costs()
    tries = max(TRIES, ENTRIES // (4 * max(1, pattern.nonzeros)))
    best: tuple[float, BidirectionalColoring] | None = None
    for bound, aim, least in _aims(pattern, costs)[:tries]:
        if best is None or bound < best[0]:
            coloring = _colored(pattern, aim, least, tries)
            if best is None or costs.of(coloring) < best[0]:
                best = costs.of(coloring), coloring
    assert best is not None
    return best[1]


def _aims(pattern: SparsityPattern, costs: Costs) -> list[tuple[float, int, int]]:
    """Return bounds on the cost, the row colors aimed at and the column colors then, cheapest first."""
    rows, columns = _both(pattern)
    most = int(np.diff(columns[0]).max(initial=0))
    tries = max(2 * TRIES, ENTRIES // max(1, pattern.nonzeros))
    found = []
    for aim in (*[target for target in TARGETS if target < most][:tries], most):
        least = taken_away(*rows, *columns, aim, 0)[2]
        found.append((costs.jvp * least + costs.vjp * aim, aim, least))
    return sorted(found)


def _colored(pattern: SparsityPattern, aim: int, least: int, rounds: int) -> BidirectionalColoring:
    """Color both sides, as many of the entries read by columns as fit in `least` colors."""
    rows, columns = _both(pattern)
    row_place, column_place, _ = taken_away(*rows, *columns, aim, least)
    found = []
    for side, nets, own, other, fewest in (
        (columns, rows, column_place, row_place, least),
        (rows, columns, row_place, column_place, aim),
    ):
        fit = partial(reading_fit, *side, nets[0], own, other)
        natural = np.arange(len(own), dtype=np.int32)
        found.append(recolored(fit, fit(natural), fewest, rounds)[0])
    return _without_needless(pattern, *found)


def _both(pattern: SparsityPattern) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    down = pattern.transposed
    return loop_arrays(pattern.indptr, pattern.indices), loop_arrays(down.indptr, down.indices)


def _without_needless(pattern: SparsityPattern, by_column: Array, by_row: Array) -> BidirectionalColoring:
    """Make neutral the rows that columns read in full, and then the columns that rows read in full."""
    by_column, by_row = by_column.copy(), by_row.copy()
    for one, read, other in ((pattern, by_column, by_row), (pattern.transposed, by_row, by_column)):
        indptr, indices = loop_arrays(one.indptr, one.indices)
        alone = alone_in_row(indptr, indices, read, int(read.max(initial=-1)) + 1)
        needed = np.zeros(len(other), bool)
        needed[one.rows[~alone]] = True
        other[~needed] = -1
    (column_colors, column_count), (row_colors, row_count) = compact(by_column), compact(by_row)
    return BidirectionalColoring(column_colors, row_colors, column_count, row_count)


@compiled
def taken_away(
    indptr: Array, indices: Array, column_ptr: Array, column_idx: Array, aim: int, least: int
) -> tuple[Array, Array, int]:
    """Take away rows and columns until no entry is left; return when each went, and the most a row had left.

    A column can go when it has at most `aim` entries left; when none can, the row with the fewest goes, so
    that in no other order the most is less. An entry is read by its column's color if its row goes first, by
    its row's color if its column does. An entry that is read by a column holds off all columns of its row. So
    whole rows of at most `least` entries go before columns, and rows that lost entries to columns after them.
    """
    rows, columns = len(indptr) - 1, len(column_ptr) - 1
    row_left, column_left = indptr[1:] - indptr[:-1], column_ptr[1:] - column_ptr[:-1]
    row_place = np.full(rows, rows + columns, np.int64)
    column_place = np.full(columns, rows + columns, np.int64)
    most = 0
    for i in range(rows):
        most = max(most, row_left[i])
    # Whole rows by their entries, and behind them pieces of rows.
    pieces = most + 1
    first = np.full(2 * pieces, -1, np.int32)
    whole = np.ones(rows, np.bool_)
    after, before = np.empty(rows, np.int32), np.empty(rows, np.int32)
    for i in range(rows - 1, -1, -1):
        link(first, after, before, row_left[i], i)
    ready = np.empty(columns, np.int32)
    waiting = 0
    for j in range(columns):
        if column_left[j] <= aim:
            ready[waiting] = j
            waiting += 1
    place, left, lowest, lowest_piece = 0, rows, 0, most
    while left > 0:
        while lowest <= most and first[lowest] < 0:
            lowest += 1
        if waiting > 0 and lowest > least:
            waiting -= 1
            j = ready[waiting]
            column_place[j] = place
            for m in range(column_ptr[j], column_ptr[j + 1]):
                i = column_idx[m]
                if row_place[i] > place:
                    unlink(first, after, before, row_left[i] + (0 if whole[i] else pieces), i)
                    row_left[i] -= 1
                    whole[i] = False
                    link(first, after, before, row_left[i] + pieces, i)
                    lowest_piece = min(lowest_piece, row_left[i])
        else:
            while lowest_piece < most and first[lowest_piece + pieces] < 0:
                lowest_piece += 1
            bucket = lowest
            is_piece = first[lowest_piece + pieces] >= 0
            if lowest > most or (is_piece and least < lowest and lowest_piece < lowest):
                bucket = lowest_piece + pieces
            i = first[bucket]
            unlink(first, after, before, bucket, i)
            left -= 1
            least = max(least, row_left[i])
            row_place[i] = place
            for k in range(indptr[i], indptr[i + 1]):
                j = indices[k]
                if column_place[j] > place:
                    column_left[j] -= 1
                    if column_left[j] == aim:
                        ready[waiting] = j
                        waiting += 1
        place += 1
    return row_place, column_place, least


@compiled
def reading_fit(
    ptr: Array, idx: Array, net_ptr: Array, own: Array, other: Array, order: Array
) -> tuple[Array, int]:
    """Give each vertex in turn the first color that fits; one that reads nothing stays neutral.

    A vertex reads its entry in a net if the net went first. Colors are tried 64 at a time: each net holds a
    word of those that its vertices have, and one of those that are read in it.
    """
    colors = np.full(len(ptr) - 1, -1, np.int32)
    present = np.zeros(len(net_ptr) - 1, np.uint64)
    read = np.zeros(len(net_ptr) - 1, np.uint64)
    waiting = order.copy()
    left = 0
    for v in order:
        for k in range(ptr[v], ptr[v + 1]):
            if other[idx[k]] < own[v]:
                waiting[left] = v
                left += 1
                break
    base, count = 0, 0
    full = ~np.uint64(0)
    while left > 0:
        kept = 0
        for at in range(left):
            v = waiting[at]
            taken = np.uint64(0)
            for k in range(ptr[v], ptr[v + 1]):
                net = idx[k]
                taken |= present[net] if other[net] < own[v] else read[net]
                if taken == full:
                    break
            if taken == full:
                waiting[kept] = v
                kept += 1
            else:
                bit = ~taken & (taken + np.uint64(1))
                for k in range(ptr[v], ptr[v + 1]):
                    net = idx[k]
                    present[net] |= bit
                    if other[net] < own[v]:
                        read[net] |= bit
                colors[v] = base + bit_number(bit)
                count = max(count, colors[v] + 1)
        for at in range(kept):
            v = waiting[at]
            for k in range(ptr[v], ptr[v + 1]):
                present[idx[k]] = np.uint64(0)
                read[idx[k]] = np.uint64(0)
        left = kept
        base += 64
    return colors, count
