"""Orders in which greedy algorithms take columns; a good order takes fewer colors.

Columns are vertices here and rows are nets: two vertices are neighbors once for each net that both are in.
The arrays are those of both directions: `ptr`, `idx` the nets of each vertex, `net_ptr`, `net_idx` the
vertices of each net. Ties are broken by position, so that an order depends on the pattern alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradwire_engine.sparsity.compiled import compiled

Array = np.ndarray[Any, Any]
Order = Callable[[Array, Array, Array, Array], Array]


@compiled
def link(first: Array, after: Array, before: Array, bucket: int, vertex: int) -> None:
    """Put a vertex at the head of a bucket's list."""
    head = first[bucket]
    after[vertex] = head
    before[vertex] = -1
    if head >= 0:
        before[head] = vertex
    first[bucket] = vertex


@compiled
def unlink(first: Array, after: Array, before: Array, bucket: int, vertex: int) -> None:
    """Take a vertex out of its bucket's list."""
    behind, ahead = after[vertex], before[vertex]
    if ahead >= 0:
        after[ahead] = behind
    else:
        first[bucket] = behind
    if behind >= 0:
        before[behind] = ahead


@compiled
def degrees(ptr: Array, idx: Array, net_ptr: Array) -> Array:
    """Return how many neighbors each vertex has, int64: one for each net that is shared."""
    found = np.zeros(len(ptr) - 1, np.int64)
    for v in range(len(ptr) - 1):
        for k in range(ptr[v], ptr[v + 1]):
            net = idx[k]
            found[v] += net_ptr[net + 1] - net_ptr[net] - 1
    return found


def largest_first(ptr: Array, idx: Array, net_ptr: Array, net_idx: Array) -> Array:
    """Order by degree, descending."""
    return np.argsort(-degrees(ptr, idx, net_ptr), kind="stable").astype(np.int32)


def smallest_last(ptr: Array, idx: Array, net_ptr: Array, net_idx: Array) -> Array:
    """Put last the vertex of least degree, before it the one of least degree without it, and so on."""
    degree = degrees(ptr, idx, net_ptr)
    return _smallest_last(ptr, idx, net_ptr, net_idx, degree, int(degree.max(initial=0)))


@compiled
def _smallest_last(ptr: Array, idx: Array, net_ptr: Array, net_idx: Array, degree: Array, most: int) -> Array:
    count = len(degree)
    first = np.full(most + 1, -1, np.int32)
    after, before = np.empty(count, np.int32), np.empty(count, np.int32)
    for v in range(count):
        link(first, after, before, degree[v], v)
    order = np.empty(count, np.int32)
    least = 0
    for place in range(count - 1, -1, -1):
        while first[least] < 0:
            least += 1
        v = first[least]
        unlink(first, after, before, least, v)
        order[place] = v
        degree[v] = -1
        for k in range(ptr[v], ptr[v + 1]):
            for m in range(net_ptr[idx[k]], net_ptr[idx[k] + 1]):
                u = net_idx[m]
                if degree[u] > 0:
                    unlink(first, after, before, degree[u], u)
                    degree[u] -= 1
                    link(first, after, before, degree[u], u)
                    least = min(least, degree[u])
    return order


@compiled
def incidence_degree(ptr: Array, idx: Array, net_ptr: Array, net_idx: Array) -> Array:
    """Take next the vertex with the most neighbors that were taken."""
    count = len(ptr) - 1
    most = 0
    for v in range(count):
        total = 0
        for k in range(ptr[v], ptr[v + 1]):
            total += net_ptr[idx[k] + 1] - net_ptr[idx[k]] - 1
        most = max(most, total)
    first = np.full(most + 1, -1, np.int32)
    after, before = np.empty(count, np.int32), np.empty(count, np.int32)
    for v in range(count - 1, -1, -1):
        link(first, after, before, 0, v)
    taken = np.zeros(count, np.int64)
    order = np.empty(count, np.int32)
    top = 0
    for place in range(count):
        while first[top] < 0:
            top -= 1
        v = first[top]
        unlink(first, after, before, top, v)
        order[place] = v
        taken[v] = -1
        for k in range(ptr[v], ptr[v + 1]):
            for m in range(net_ptr[idx[k]], net_ptr[idx[k] + 1]):
                u = net_idx[m]
                if taken[u] >= 0:
                    unlink(first, after, before, taken[u], u)
                    taken[u] += 1
                    link(first, after, before, taken[u], u)
                    top = max(top, taken[u])
    return order


@compiled
def by_classes(colors: Array, rank: Array) -> Array:
    """Order colored vertices by the rank of their color, ascending, and by position within each color."""
    start = np.zeros(len(rank) + 1, np.int64)
    for v in range(len(colors)):
        if colors[v] >= 0:
            start[rank[colors[v]] + 1] += 1
    for place in range(len(rank)):
        start[place + 1] += start[place]
    order = np.empty(start[-1], np.int32)
    for v in range(len(colors)):
        if colors[v] >= 0:
            place = rank[colors[v]]
            order[start[place]] = v
            start[place] += 1
    return order
