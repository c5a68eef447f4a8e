"""Recovers the values of a block by substitution, beside the kernel that takes the cells of its images.

Substitution would spread an infinity or NaN, and lose small entries beside large ones. At points where it
does, the same executable runs again, on the colors of a star coloring, whose cells are single entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire_engine.sparsity.coloring.subtraction import Steps, accurate, subtracted
from gradwire_engine.values import Arguments

Array = np.ndarray[Any, Any]

SOURCES = "\0sources"
STEPS = tuple(f"\0{name}" for name in Steps._fields)
DIRECT_COLORS, DIRECT_PLACES, DIRECT_OFFSETS = "\0direct_colors", "\0direct_places", "\0direct_offsets"
DIRECT_SOURCES = "\0direct_sources"
"""Names of what substitution takes among a kernel's inputs; no input of a function is called so."""


@dataclass(frozen=True)
class Substituting:
    """What follows a kernel whose cells are those of an acyclic coloring.

    Attributes:
        direct_seeds: colors of the star coloring.
        terms: the most cells that make one value.
        structure: types of the arrays that substitution takes, and of the star coloring's.
    """

    direct_seeds: int
    terms: int
    structure: Arguments


def values_of(
    cells_of: Callable[[Mapping[str, Any], int], Array],
    substituting: Substituting,
    names: tuple[str, str, str],
    width: int,
    inputs: Mapping[str, Any],
) -> Array:
    """Compute the values of the one block of a plan.

    Args:
        cells_of: runs the executable, at inputs and a first color.
        substituting: of the kernel's spec.
        names: of the colors, places and offsets that the executable takes.
        width: colors of one run.
        inputs: of the kernel, all of its structure's arrays included.
    """
    arrays = {name: np.asarray(inputs[name]) for name, _ in substituting.structure}
    steps = Steps(*(arrays[name] for name in STEPS))
    entries = subtracted(cells_of(inputs, 0), steps)
    if accurate(entries, steps, substituting.terms):
        return _frozen(entries.values[arrays[SOURCES]])
    direct = (DIRECT_COLORS, DIRECT_PLACES, DIRECT_OFFSETS)
    turned = {**inputs, **{name: inputs[other] for name, other in zip(names, direct, strict=True)}}
    seeds, offsets = substituting.direct_seeds, arrays[DIRECT_OFFSETS]
    parts = [
        cells_of(turned, start)[: offsets[min(seeds, start + width)] - offsets[start]]
        for start in range(0, seeds, width)
    ]
    return _frozen(np.concatenate(parts)[arrays[DIRECT_SOURCES]])


def _frozen(values: Array) -> Array:
    values.flags.writeable = False
    return values
