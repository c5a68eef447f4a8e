"""Star coloring of symmetric patterns: an entry is read in its own row or in its mirror image's.

The algorithm is the one of Gebremedhin, Tarafdar, Manne and Pothen, "New acyclic and star coloring algorithms
with application to computing Hessians" (2007): edges of two colors are kept in stars, each with its hub, so
that a vertex sees the forbidden colors among its first and second neighbors.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from gradwire_engine.sparsity.coloring.distance2 import color_vertices, largest_row
from gradwire_engine.sparsity.coloring.recovery import alone_in_row
from gradwire_engine.sparsity.coloring.results import StarColoring
from gradwire_engine.sparsity.coloring.search import best_of_orders, compact, number, passes_of
from gradwire_engine.sparsity.compiled import compiled, loop_arrays, mirror_images
from gradwire_engine.sparsity.pattern import SparsityPattern

Array = np.ndarray[Any, Any]

# Graphs of stars alone take fewer colors, and any order finds these.
FEWEST = 3


def color_star(pattern: SparsityPattern) -> StarColoring:
    """Color the columns of a symmetric pattern so that each entry or its mirror image is alone in its row.

    A coloring of columns that share no row is one, too, and is taken where it has fewer colors. Colors that
    no entry needs are dropped: without a diagonal, one end of an edge may do for both.
    """
    indptr, indices = loop_arrays(pattern.indptr, pattern.indices)
    colors, count = best_of_orders(partial(star_fit, indptr, indices), indptr, indices, FEWEST)
    if largest_row(pattern) < count and passes_of(indptr):
        colors, count = min((colors, count), color_vertices(pattern, pattern), key=number)
    alone = alone_in_row(indptr, indices, colors, count)
    return StarColoring(*compact(without_needless(indptr, indices, alone, colors, count)))


@compiled
def listed(
    indptr: Array, indices: Array, near: Array, nears: Array, colors: Array, w: int, entry: int
) -> tuple[int, bool]:
    """List an entry of vertex w, unless one that leads to the same color is listed: one for each color.

    Return where the entry of that color stands in the list, and whether it stood there before.
    """
    place, color = indptr[w], colors[indices[entry]]
    end = indptr[w] + nears[w]
    while place < end and colors[indices[near[place]]] != color:
        place += 1
    if place < end:
        return place, True
    near[place] = entry
    nears[w] += 1
    return place, False


@compiled
def star_fit(indptr: Array, indices: Array, order: Array) -> tuple[Array, int]:
    """Give each vertex in turn the first color that leaves no path of four vertices in two colors."""
    vertices = len(indptr) - 1
    colors = np.full(vertices, -1, np.int32)
    mirrors = mirror_images(indptr, indices)
    # The star of each edge of two colored vertices, kept at both of its entries; the hub of each star, -1
    # while it is a single edge.
    star = np.full(len(indices), -1, np.int32)
    hub = np.full((len(indices) + 1) // 2 + 1, -1, np.int32)
    # For each vertex, in its part of the entries, and their number: an entry with a neighbor of each color,
    # and the colors of hubs whose leaf it is. A vertex of many neighbors has few colors next to it.
    near, nears = np.empty(len(indices), np.int64), np.zeros(vertices, np.int32)
    hubs_of, hubs = np.empty(len(indices), np.int32), np.zeros(vertices, np.int32)
    stars, count = 0, 0
    forbidden = np.full(vertices + 1, -1, np.int32)
    treated = np.full(vertices, -1, np.int32)
    # By color: the vertex that looked last, and its entry with a neighbor of that color.
    looked = np.full(vertices + 1, -1, np.int32)
    seen = np.empty(vertices + 1, np.int64)
    for v in order:
        start, end = indptr[v], indptr[v + 1]
        for k in range(start, end):
            w = indices[k]
            color = colors[w]
            if w == v or color < 0:
                continue
            forbidden[color] = v
            if looked[color] != v:
                looked[color] = v
                seen[color] = k
                # w is a leaf: v in the color of its hub would go on the path.
                for at in range(indptr[w], indptr[w] + hubs[w]):
                    forbidden[hubs_of[at]] = v
            else:
                # v becomes the hub of two neighbors of one color: neither may have another in the color of v.
                for q in (indices[seen[color]], w):
                    if treated[q] != v:
                        treated[q] = v
                        for at in range(indptr[q], indptr[q] + nears[q]):
                            forbidden[colors[indices[near[at]]]] = v
        mine = 0
        while forbidden[mine] == v:
            mine += 1
        colors[v] = mine
        count = max(count, mine + 1)
        for k in range(start, end):
            w = indices[k]
            color = colors[w]
            if w == v:
                continue
            place, alike = listed(indptr, indices, near, nears, colors, w, mirrors[k])
            if color < 0:
                continue
            if alike:
                joined = star[near[place]]
                if hub[joined] < 0:
                    hub[joined] = w
                    x = indices[near[place]]
                    hubs_of[indptr[x] + hubs[x]] = color
                    hubs[x] += 1
                hubs_of[start + hubs[v]] = color
                hubs[v] += 1
            elif seen[color] != k:
                joined = star[seen[color]]
                if hub[joined] < 0:
                    hub[joined] = v
                    q = indices[seen[color]]
                    hubs_of[indptr[q] + hubs[q]] = mine
                    hubs[q] += 1
                hubs_of[indptr[w] + hubs[w]] = mine
                hubs[w] += 1
            else:
                joined = np.int32(stars)
                stars += 1
            star[k] = joined
            star[mirrors[k]] = joined
    return colors, count


@compiled
def without_needless(indptr: Array, indices: Array, alone: Array, colors: Array, count: int) -> Array:
    """Return the colors without those that are read for no entry: last colors go first."""
    start = np.zeros(count + 1, np.int64)
    for v in range(len(colors)):
        if colors[v] >= 0:
            start[colors[v] + 1] += 1
    for color in range(count):
        start[color + 1] += start[color]
    members = np.empty(start[count], np.int32)
    place = start[:-1].copy()
    for v in range(len(colors)):
        if colors[v] >= 0:
            members[place[colors[v]]] = v
            place[colors[v]] += 1
    kept = colors.copy()
    for color in range(count - 1, -1, -1):
        needed = False
        for at in range(start[color], start[color + 1]):
            v = members[at]
            # Each entry of column v has to be read in row v, from a column whose color stays.
            for k in range(indptr[v], indptr[v + 1]):
                other = kept[indices[k]]
                if other < 0 or other == color or not alone[k]:
                    needed = True
                    break
            if needed:
                break
        if not needed:
            for at in range(start[color], start[color + 1]):
                kept[members[at]] = -1
    return kept
