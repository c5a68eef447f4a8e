"""The sides of a sparse derivative, colors of columns and of rows, and what the kernels of each take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from gradwire_engine.jaxprs.cost import Cost
from gradwire_engine.planning import derivatives, sizing
from gradwire_engine.planning.compressed import TOGETHER, Form
from gradwire_engine.planning.kernels import COLUMN_COLORS, OFFSETS, PLACES, ROW_COLORS
from gradwire_engine.planning.structure import ColoredPattern
from gradwire_engine.planning.substituting import (
    DIRECT_COLORS,
    DIRECT_OFFSETS,
    DIRECT_PLACES,
    DIRECT_SOURCES,
    SOURCES,
    STEPS,
)
from gradwire_engine.sparsity.coloring.results import BidirectionalColoring, Coloring, RowColoring
from gradwire_engine.values import Block, Blocks

Array = np.ndarray[Any, Any]

WORTH_BYTES = 4 << 20
"""Values of a block below which it costs more to hand out than to compute: a color takes little work."""

BATCH_BYTES = 256 << 10
"""Working set of colors that are evaluated together although they share nothing: it saves steps of a loop."""

WRITTEN_OUT_COLORS = 8
"""Colors of a block up to which their images are written out: with 9 or more a loop is faster to run, compile
and load."""

WRITTEN_OUT = 1_200
"""Equations up to which the images of all colors are written out: compiling them takes its time."""


@dataclass(frozen=True, eq=False)
class Side:
    """The colors of the columns, or of the rows, and what their seeds take.

    Attributes:
        mode: of its kernel.
        name: of the array of its colors.
        colors: of each column or row, from 0.
        first: the number of its first color among those of both sides.
        count: how many colors it has.
        vector: elements of the image of a seed.
        width, batch: colors of a block, and evaluated together.
    """

    mode: str
    name: str
    colors: Array
    first: int
    count: int
    vector: int
    width: int = 0
    batch: int = 1


@dataclass(frozen=True)
class Work:
    """What one seed over all arrays takes: of the linear part alone.

    Attributes:
        cost: of it.
        contracts: whether it multiplies matrices or convolves: seeds that are evaluated together share the
            reading of what they are multiplied with.
    """

    cost: Cost
    contracts: bool


def sides_of(coloring: Coloring, modes: tuple[str, ...], shape: tuple[int, int]) -> list[Side]:
    """Return the sides that a coloring seeds, not yet cut to blocks.

    Args:
        coloring: of a pattern of that shape.
        modes: those that are possible.
        shape: rows and columns.
    """
    rows, columns = shape
    match coloring:
        case RowColoring(row_colors=colors):
            sides = [Side(derivatives.REVERSE, ROW_COLORS, colors, 0, coloring.count, columns)]
        case BidirectionalColoring(column_colors=by_column, row_colors=by_row, column_count=first):
            sides = [
                Side(derivatives.FORWARD, COLUMN_COLORS, by_column, 0, first, rows),
                Side(derivatives.REVERSE, ROW_COLORS, by_row, first, coloring.row_count, columns),
            ]
        case _:
            sides = [Side(modes[0], COLUMN_COLORS, coloring.column_colors, 0, coloring.count, rows)]
    return [side for side in sides if side.count]


def fitting(side: Side, work: Work, result: int, block_width: int) -> Side:
    """Choose how many colors a block and a batch hold; blocks are as even as can be.

    Args:
        side: with at least one color.
        work: of a seed.
        result: bytes of the values of a color.
        block_width: colors a block, or 0 to choose.
    """
    cost = work.cost
    batch = max(1, (sizing.CACHE_BYTES if work.contracts else BATCH_BYTES) // cost.memory_bytes)
    width = block_width or sizing.width_for(side.count, result, cost.flops, WORTH_BYTES)
    width = min(width, side.count)
    width = ceil(side.count / ceil(side.count / width))
    return replace(side, width=width, batch=min(width, batch))


def narrowed(side: Side) -> Side:
    """Halve what is evaluated together first, then the block; one color is the least."""
    if side.batch > 1:
        return replace(side, batch=side.batch // 2)
    return replace(side, width=side.width // 2) if side.width > 1 else side


def blocks_of(colored: ColoredPattern, sides: Sequence[Side]) -> Blocks:
    """Cut the colors of all sides to blocks, and the cells with them."""
    blocks: list[Block] = []
    for array, side in enumerate(sides):
        starts = list(range(0, side.count, side.width))
        bounds = np.searchsorted(colored.colors, np.array([*starts, side.count]) + side.first)
        blocks += [
            Block(
                len(blocks) + k,
                array,
                start,
                min(side.count, start + side.width),
                int(bounds[k]),
                int(bounds[k + 1]),
            )
            for k, start in enumerate(starts)
        ]
    return Blocks(blocks)


@dataclass(frozen=True, eq=False)
class Structured:
    """What the kernels of a sparse plan take beside the point.

    Attributes:
        inputs: arrays by name.
        forms: of the blocks of each side.
    """

    inputs: dict[str, Array]
    forms: tuple[Form, ...]


def structured(
    colored: ColoredPattern, blocks: Sequence[Block], sides: Sequence[Side], equations: int
) -> Structured:
    """Return what kernels take beside the point, and the form of each side's blocks.

    Args:
        colored, blocks, sides: of the plan; the ranges of its blocks are of cells.
        equations: length of the function's program.
    """
    places, offsets, forms = _places(colored, blocks, sides, equations)
    inputs = {side.name: side.colors for side in sides}
    return Structured({**inputs, **_padded(places, offsets, forms, len(offsets))}, forms)


def structured_twice(
    colored: ColoredPattern, blocks: Sequence[Block], side: Side, equations: int
) -> tuple[Structured, dict[str, Array]]:
    """Return what a kernel takes whose values follow by substitution, and what substitution takes.

    The same executable has to serve for the direct coloring, some colors at a time: its arrays have the same
    types.

    Args:
        colored, blocks, side: of the plan; the range of its one block is of cells.
        equations: length of the function's program.
    """
    substituted = colored.substituted
    assert substituted is not None
    direct, star = substituted.direct, substituted.star
    turned = replace(side, colors=star.column_colors, count=star.count)
    places, offsets, (form,) = _places(colored, blocks, [side], equations)
    others, bounds, (other,) = _places(direct, blocks_of(direct, [turned]), [turned], equations)
    forms = (
        replace(form, entries=max(form.entries, other.entries), longest=max(form.longest, other.longest)),
    )
    length, count = max(len(places), len(others)), max(len(offsets), len(bounds))
    places, others = (np.pad(each, (0, length - len(each))) for each in (places, others))
    taken = _padded(places, offsets, forms, count)
    again = _padded(others, bounds, forms, count)
    further = {
        SOURCES: substituted.sources,
        **dict(zip(STEPS, substituted.steps, strict=True)),
        DIRECT_COLORS: star.column_colors,
        DIRECT_PLACES: again[PLACES],
        DIRECT_OFFSETS: again[OFFSETS],
        DIRECT_SOURCES: substituted.direct_sources,
    }
    return Structured({side.name: side.colors, **taken}, forms), further


def _places(
    colored: ColoredPattern, blocks: Sequence[Block], sides: Sequence[Side], equations: int
) -> tuple[Array, Array, tuple[Form, ...]]:
    """Return the place of each cell, where the cells of each color begin, and the form of each side."""
    colors = sum(side.count for side in sides)
    offsets = np.searchsorted(colored.colors, np.arange(colors + 1))
    places = colored.places.astype(np.int32)
    forms: list[Form] = []
    for array, side in enumerate(sides):
        own = [block for block in blocks if block.array == array]
        entries = max(block.last_value - block.first_value for block in own)
        together = (
            side.width <= WRITTEN_OUT_COLORS
            and side.width * side.vector <= TOGETHER
            and side.width * equations <= WRITTEN_OUT
        )
        lengths = np.diff(offsets[side.first : side.first + side.count + 1])
        longest = int(lengths.max(initial=1))
        forms.append(
            Form(side.width, 1, entries, 0) if together else Form(side.width, side.batch, entries, longest)
        )
        for block in own if together else ():
            cells = slice(block.first_value, block.last_value)
            number = colored.colors[cells] - (side.first + block.start)
            places[cells] += number.astype(np.int32) * np.int32(side.vector)
    return places, offsets, tuple(forms)


def _padded(places: Array, offsets: Array, forms: Sequence[Form], count: int) -> dict[str, Array]:
    """Return places and offsets so long that a slice fits behind the first cell of the last block, or color.

    Args:
        places, offsets, forms: of all sides.
        count: offsets to have before those that no color begins at.
    """
    beyond = max((max(form.entries, form.longest) for form in forms), default=0)
    further = max((form.width + form.batch for form in forms), default=0) + count - len(offsets)
    return {
        PLACES: np.concatenate([places, np.zeros(beyond, np.int32)]),
        OFFSETS: np.concatenate([offsets, np.full(further, offsets[-1])]).astype(np.int64),
    }
