"""A layered layout of boxes and arrows, from top to bottom.

After K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of hierarchical system structures"
(1981): layers by longest paths, stand-ins where an arrow passes a layer, orders by barycenters, and
coordinates that bring neighbors above each other, found layer by layer as an isotonic regression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Size = tuple[float, float]
Point = tuple[float, float]

_SWEEPS = 12

# How much straighter an arrow is kept where it passes a layer than where it ends.
_STRAIGHT = 6.0


@dataclass(frozen=True)
class Layout:
    """Where everything is.

    Attributes:
        size: width and height of all.
        corners: the left upper corner of each box.
        routes: the points that each arrow passes, from the lower side of a box to the upper of another.
    """

    size: Size
    corners: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]


@dataclass
class _Item:
    """A box, or a stand-in for an arrow that passes a layer."""

    width: float
    height: float
    real: bool
    x: float = 0.0


def arrange(
    sizes: Sequence[Size], arrows: Sequence[tuple[int, int]], across: float = 22.0, down: float = 34.0
) -> Layout:
    """Place boxes so that every arrow goes down; boxes must be in an order in which arrows go forward.

    Args:
        sizes: width and height of each box.
        arrows: pairs of boxes.
        across, down: the least distance between boxes of a layer, and between layers.
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
    depth = [0] * count
    for source, target in sorted(arrows, key=lambda arrow: arrow[1]):
        depth[target] = max(depth[target], depth[source] + 1)
    # What has nothing above it moves down to where it is needed.
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
    """Layers in the order with the fewest crossings that sweeps of barycenters find."""
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
    """Set the centers of all items: sweeps bring each near the mean of its neighbors, in order and apart."""
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
    """The centers nearest to those wanted, in order and `across` apart: pool adjacent violators."""
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
                items[item].height = height  # the arrow goes straight down beside the boxes
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
    """Where each arrow meets its target: side by side, in the order that they come from."""
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
