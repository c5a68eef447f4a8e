"""Primitives that move elements about: the pattern's rows move with them."""

from __future__ import annotations

import numpy as np

from gradwire_engine.sparsity import known
from gradwire_engine.sparsity.index_sets import EMPTY
from gradwire_engine.sparsity.walking import Array, Reach, Visit, rule


@rule("reshape", "squeeze", "expand_dims")
def reshaped(visit: Visit) -> list[Reach]:
    """Keep the order of the rows."""
    return [known.reshaped(visit.equation, visit.ids(0))]


@rule("broadcast_in_dim")
def broadcast_in_dim(visit: Visit) -> list[Reach]:
    """Repeat rows."""
    return [known.broadcast(visit.params, visit.ids(0))]


@rule("transpose")
def transposed(visit: Visit) -> list[Reach]:
    """Permute rows."""
    return [visit.ids(0).transpose(visit.params["permutation"])]


@rule("rev")
def reversed_along(visit: Visit) -> list[Reach]:
    """Reverse the rows along axes."""
    return [np.flip(visit.ids(0), visit.params["dimensions"])]


@rule("slice")
def slice_of(visit: Visit) -> list[Reach]:
    """Select rows."""
    return [known.sliced(visit.params, visit.ids(0))]


@rule("concatenate")
def concatenated(visit: Visit) -> list[Reach]:
    """Stack rows; those of an operand that no seed reaches are empty."""
    return [np.concatenate([visit.ids(k) for k in range(len(visit.reached))], visit.params["dimension"])]


@rule("stack")
def stacked(visit: Visit) -> list[Reach]:
    """Stack rows along a new axis."""
    return [np.stack([visit.ids(k) for k in range(len(visit.reached))], visit.params["axis"])]


@rule("unstack")
def unstacked(visit: Visit) -> list[Reach]:
    """Part rows along an axis, which is dropped."""
    return list(np.moveaxis(visit.ids(0), visit.params["axis"], 0))


@rule("tile")
def tiled(visit: Visit) -> list[Reach]:
    """Repeat rows, all in order."""
    return [np.tile(visit.ids(0), visit.params["reps"])]


@rule("split")
def parted(visit: Visit) -> list[Reach]:
    """Part rows."""
    return list(known.split(visit.params, visit.ids(0)))


@rule("pad")
def padded(visit: Visit) -> list[Reach]:
    """Insert rows of the padding value, between others too; negative padding drops rows."""
    ids = visit.ids(0)
    filler = EMPTY if visit.reached[1] is None else int(visit.reached[1][()])
    for axis, (low, high, interior) in enumerate(visit.params["padding_config"]):
        ids = _padded_along(ids, axis, int(low), int(high), int(interior), filler)
    return [ids]


def _padded_along(ids: Array, axis: int, low: int, high: int, interior: int, filler: int) -> Array:
    moved = np.moveaxis(ids, axis, 0)
    extent = len(moved) + interior * max(0, len(moved) - 1)
    whole = np.full((max(0, low) + extent + max(0, high), *moved.shape[1:]), filler, np.int32)
    whole[max(0, low) : max(0, low) + extent : interior + 1] = moved
    cut = whole[max(0, -low) : len(whole) - max(0, -high)]
    return np.moveaxis(cut, 0, axis)
