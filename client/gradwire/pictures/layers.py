"""Computes a layered layout of boxes and arrows, from top to bottom.

The method is that of K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of hierarchical
system structures" (1981): layers from longest paths, dummy items where an arrow passes a layer, orders from
barycenters; and coordinates close to those of the neighbors, for each layer as an isotonic regression.

It is written here because the established libraries that pip alone installs ignore the sizes of boxes
(igraph, fast-sugiyama), draw long arrows worse (grandalf), or take a hundred megabytes (pygraphviz).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Size = tuple[float, float]
Point = tuple[float, float]

_SWEEPS = 12

# The weight of an arrow's dummy items, relative to that of boxes, when coordinates are fitted.
_STRAIGHT = 6.0


@dataclass(frozen=True)
class Layout:
    """The coordinates of boxes and arrows.

    Attributes:
        size: width and height of the whole.
        corners: the upper left corner of each box.
        routes: the points that each arrow passes, from the lower side of a box to the upper side of another.
    """

    size: Size
    corners: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]


@dataclass
class _Item:
    """A box, or a dummy item where an arrow passes a layer; `x` is its center."""

    width: float
    height: float
    real: bool
    x: float = 0.0


def arrange(
    sizes: Sequence[Size], arrows: Sequence[tuple[int, int]], across: float = 22.0, down: float = 34.0
) -> Layout:
    """Place boxes so that every arrow points down.

    Args:
        sizes: width and height of each box, in a topological order.
        arrows: positions of the source and target of each arrow in `sizes`; the source comes first.
        across: the least distance between boxes of a layer.
        down: the distance between layers.
    """
    depth = _depths(len(sizes), arrows)
    items = [_Item(width, height, True) for width, height in sizes]
    layers: list[list[int]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for box, layer in enumerate(depth):
        layers[layer].append(box)
    chains = []
    for source, target in arrows:
        chain = [source]
        for layer in range(depth[source] + 1, depth[target]):
            chain.append(len(items))
            layers[layer].append(len(items))
            items.append(_Item(4.0, 0.0, False))
        chains.append([*chain, target])
    above, below = _neighbors(len(items), chains)
    layers = _ordered(layers, above, below)
    _spread(layers, items, above, below, across)
    return _placed(layers, items, chains, len(sizes), down)


def _depths(count: int, arrows: Sequence[tuple[int, int]]) -> list[int]:
    """Return the layer of each box: the length of the longest path to it."""
    depth = [0] * count
    for source, target in sorted(arrows, key=lambda arrow: arrow[1]):
        depth[target] = max(depth[target], depth[source] + 1)
    # A box without arrows into it moves down to the layer above its first use.
    fed = {target for _, target in arrows}
    for box in range(count):
        users = [depth[target] for source, target in arrows if source == box]
        if box not in fed and users:
            depth[box] = min(users) - 1
    return depth


def _neighbors(count: int, chains: Sequence[Sequence[int]]) -> tuple[list[list[int]], list[list[int]]]:
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for chain in chains:
        for upper, lower in pairwise(chain):
            above[lower].append(upper)
            below[upper].append(lower)
    return above, below


def _ordered(layers: list[list[int]], above: list[list[int]], below: list[list[int]]) -> list[list[int]]:
    """Order layers by barycenters, in sweeps down and up; return the orders with the fewest crossings."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers, below)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        downward = sweep % 2 == 0
        place: dict[int, float] = {}
        for layer in layers if downward else reversed(layers):
            place.update((item, index) for index, item in enumerate(layer))
            around = above if downward else below
            center = {
                item: sum(place[one] for one in around[item]) / len(around[item])
                if around[item]
                else place[item]
                for item in layer
            }
            layer.sort(key=center.__getitem__)
            place.update((item, index) for index, item in enumerate(layer))
        crossings = _crossings(layers, below)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def _crossings(layers: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> int:
    total = 0
    for upper, lower in pairwise(layers):
        place = {item: index for index, item in enumerate(lower)}
        ends = [end for item in upper for end in sorted(place[one] for one in below[item])]
        total += sum(one > other for index, one in enumerate(ends) for other in ends[index + 1 :])
    return total


def _spread(
    layers: Sequence[Sequence[int]],
    items: Sequence[_Item],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
    across: float,
) -> None:
    """Set the centers of all items: sweeps move each towards the mean of its neighbors."""
    for layer in layers:
        _settle(layer, items, [0.0] * len(layer), across)
    for sweep in range(_SWEEPS):
        last = sweep >= _SWEEPS - 2
        downward = sweep % 2 == 0
        for layer in layers if downward else reversed(layers):
            wanted = []
            for item in layer:
                around = [*above[item], *below[item]] if last else (above if downward else below)[item]
                centers = [items[one].x for one in around]
                wanted.append(sum(centers) / len(centers) if centers else items[item].x)
            _settle(layer, items, wanted, across)


def _settle(layer: Sequence[int], items: Sequence[_Item], wanted: Sequence[float], across: float) -> None:
    """Move the items of a layer as near to the wanted centers as their order and distance allow.

    In the weighted least-squares sense, by the pool-adjacent-violators algorithm for isotonic regression.
    """
    offsets = [0.0]
    for left, right in pairwise(layer):
        offsets.append(offsets[-1] + (items[left].width + items[right].width) / 2 + across)
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for item, wish, offset in zip(layer, wanted, offsets, strict=True):
        mean, weight, length = wish - offset, 1.0 if items[item].real else _STRAIGHT, 1
        while pools and pools[-1][0] > mean:
            other, heavy, long = pools.pop()
            mean = (mean * weight + other * heavy) / (weight + heavy)
            weight, length = weight + heavy, length + long
        pools.append((mean, weight, length))
    means = [mean for mean, _, length in pools for _ in range(length)]
    for item, mean, offset in zip(layer, means, offsets, strict=True):
        items[item].x = mean + offset


def _placed(
    layers: Sequence[Sequence[int]],
    items: Sequence[_Item],
    chains: Sequence[Sequence[int]],
    boxes: int,
    down: float,
) -> Layout:
    left = min((item.x - item.width / 2 for item in items), default=0.0)
    right = max((item.x + item.width / 2 for item in items), default=0.0)
    top: list[float] = [0.0] * len(items)
    y = 0.0
    for layer in layers:
        height = max(items[item].height for item in layer)
        for item in layer:
            top[item] = y + (height - items[item].height) / 2 if items[item].real else y
            if not items[item].real:
                items[item].height = height  # the arrow runs vertically beside the boxes
        y += height + down
    corners = tuple((items[box].x - items[box].width / 2 - left, top[box]) for box in range(boxes))
    ports = _ports(chains, items)
    routes = []
    for place, chain in enumerate(chains):
        points = [(items[chain[0]].x - left, top[chain[0]] + items[chain[0]].height)]
        for item in chain[1:-1]:
            x = items[item].x - left
            points += [(x, top[item]), (x, top[item] + items[item].height)]
        routes.append((*points, (ports[place] - left, top[chain[-1]])))
    return Layout((right - left, max(0.0, y - down)), corners, tuple(routes))


def _ports(chains: Sequence[Sequence[int]], items: Sequence[_Item]) -> list[float]:
    """Return where each arrow meets its target: side by side, in the order of their sources."""
    arriving: dict[int, list[int]] = {}
    for place, chain in enumerate(chains):
        arriving.setdefault(chain[-1], []).append(place)
    ports = [0.0] * len(chains)
    for target, places in arriving.items():
        places.sort(key=lambda place: items[chains[place][-2]].x)
        step = min(16.0, items[target].width / (len(places) + 1))
        for index, place in enumerate(places):
            ports[place] = items[target].x + (index - (len(places) - 1) / 2) * step
    return ports
