"""Acyclic coloring of symmetric patterns: any two colors span trees, whose entries follow from one another.

The algorithm is the one of Gebremedhin, Tarafdar, Manne and Pothen, "New acyclic and star coloring
algorithms with application to computing Hessians" (2007): the trees of two colors are disjoint sets of
edges, and a vertex may not take a color that would join one tree with itself. Beyond the paper, trees that
are no stars are bounded: the error of an entry grows with its tree.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from gradwire_engine.sparsity.coloring.results import AcyclicColoring
from gradwire_engine.sparsity.coloring.search import best_of_orders
from gradwire_engine.sparsity.coloring.star import listed
from gradwire_engine.sparsity.compiled import compiled, loop_arrays, mirror_images
from gradwire_engine.sparsity.pattern import SparsityPattern

Array = np.ndarray[Any, Any]

# Neighbors differ in color.
FEWEST = 2
# The most edges of a tree unless said otherwise.
LARGEST = 64
# The hub of a tree of one edge, and that of a tree that is no star.
ANY_END, NONE = -1, -2


def color_acyclic(pattern: SparsityPattern, largest: int = LARGEST) -> AcyclicColoring:
    """Color the columns of a symmetric pattern so that all entries follow by substitution.

    Args:
        pattern: what to color.
        largest: the most edges of a tree in two colors, stars apart. It bounds how many compressed values are
            added up for an entry (see `substitution`): in few colors, trees on a mesh grow to thousands of
            edges if they may, and as many rounding errors add up.
    """
    indptr, indices = loop_arrays(pattern.indptr, pattern.indices)
    return AcyclicColoring(
        *best_of_orders(partial(acyclic_fit, indptr, indices, largest), indptr, indices, FEWEST)
    )


@compiled
def root_of(parent: Array, edge: int) -> int:
    """Return the edge that names the tree of an edge, and halve the way to it."""
    while parent[edge] != edge:
        parent[edge] = parent[parent[edge]]
        edge = parent[edge]
    return edge


@compiled
def join(parent: Array, size: Array, hub: Array, one: int, other: int, center: int) -> None:
    """Make one tree of two, given by their names, around a center."""
    parent[one] = other
    size[other] += size[one]
    hub[other] = center


@compiled
def acyclic_fit(indptr: Array, indices: Array, largest: int, order: Array) -> tuple[Array, int]:
    """Give each vertex in turn the first color that closes no cycle of two colors and makes no large tree."""
    vertices = len(indptr) - 1
    colors = np.full(vertices, -1, np.int32)
    # An edge has one number at both of its entries. Trees are named by one of their edges, and know how many
    # they have and which vertex is on all of them.
    edge_of = np.empty(len(indices), np.int32)
    mirrors = mirror_images(indptr, indices)
    edges = 0
    for k in range(len(indices)):
        if mirrors[k] < k:
            edge_of[k] = edge_of[mirrors[k]]
        else:
            edge_of[k] = edges
            edges += 1
    parent = np.arange(edges).astype(np.int32)
    size, hub = np.ones(edges, np.int32), np.full(edges, ANY_END, np.int32)
    # For each vertex, in its part of the entries, and their number: an entry with a neighbor of each color.
    # The edges of a vertex to neighbors of one color are in one tree, so that one stands for all.
    near, nears = np.empty(len(indices), np.int64), np.zeros(vertices, np.int32)
    # By tree: the vertex that came upon it last, and the neighbor through which it did.
    visitor, through = np.full(edges, -1, np.int32), np.empty(edges, np.int32)
    # By color: the vertex that has seen it last, how many neighbors of that color it has, and its edge to
    # one; the vertex that would make a tree of it last, and how many edges that has.
    seen_by, alike_near = np.full(vertices + 1, -1, np.int32), np.empty(vertices + 1, np.int32)
    first_edge = np.empty(vertices + 1, np.int32)
    grown_by, growth = np.full(vertices + 1, -1, np.int32), np.empty(vertices + 1, np.int64)
    forbidden = np.full(vertices + 1, -1, np.int32)
    count = 0
    for v in order:
        start, end = indptr[v], indptr[v + 1]
        for k in range(start, end):
            w = indices[k]
            color = colors[w]
            if w != v and color >= 0:
                forbidden[color] = v
                if seen_by[color] != v:
                    seen_by[color] = v
                    alike_near[color] = 0
                alike_near[color] += 1
                first_edge[color] = edge_of[k]
        for k in range(start, end):
            w = indices[k]
            if w == v or colors[w] < 0:
                continue
            for at in range(indptr[w], indptr[w] + nears[w]):
                m = near[at]
                x = indices[m]
                if forbidden[colors[x]] == v:
                    continue
                tree = root_of(parent, edge_of[m])
                if visitor[tree] != v:
                    visitor[tree] = v
                    through[tree] = w
                    if alike_near[colors[w]] > 1 or (hub[tree] != w and hub[tree] != ANY_END):
                        # A star would become a tree: its entries are sums of many cells.
                        color = colors[x]
                        if grown_by[color] != v:
                            grown_by[color] = v
                            growth[color] = end - start
                        growth[color] += size[tree]
                        if growth[color] > largest:
                            forbidden[color] = v
                elif through[tree] != w:
                    forbidden[colors[x]] = v
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
            one, other = root_of(parent, edge_of[k]), root_of(parent, first_edge[color])
            if one != other:
                star = size[other] == 1 or hub[other] == v
                join(parent, size, hub, one, other, v if star else NONE)
            if alike:
                one, other = root_of(parent, edge_of[k]), root_of(parent, edge_of[near[place]])
                star = size[one] == 1 and (size[other] == 1 or hub[other] == w)
                join(parent, size, hub, one, other, w if star else NONE)
    return colors, count
