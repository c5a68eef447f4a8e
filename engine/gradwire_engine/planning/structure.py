"""The structure of a sparse derivative: its pattern, the colors of its columns and rows, where values lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire_engine.abstract import abstract, abstract_argument
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.limits import Limits
from gradwire_engine.planning import compressed, derivatives
from gradwire_engine.planning.function import TracedFunction
from gradwire_engine.refusals import refusals
from gradwire_engine.sparsity.coloring.bidirectional import color_bidirectional
from gradwire_engine.sparsity.coloring.costs import Costs
from gradwire_engine.sparsity.coloring.distance2 import color_columns, color_rows, largest_row
from gradwire_engine.sparsity.coloring.recovery import Recovery, direct_recovery
from gradwire_engine.sparsity.coloring.results import (
    BidirectionalColoring,
    ColumnColoring,
    RowColoring,
    StarColoring,
)
from gradwire_engine.sparsity.coloring.star import color_star
from gradwire_engine.sparsity.detection import Detected, detect, linear_program
from gradwire_engine.sparsity.pattern import SparsityPattern
from gradwire_engine.values import ArrayType

Array = np.ndarray[Any, Any]
Coloring = ColumnColoring | RowColoring | BidirectionalColoring | StarColoring


@dataclass(frozen=True, eq=False)
class ColoredPattern:
    """A pattern, a coloring of it, and the order in which values travel: by color, then by place.

    Attributes:
        pattern: of the joint matrix: rows of all outputs, columns of all inputs, in order.
        coloring: which columns or rows share a seed.
        order: for each value, in the order of travel, its index in the pattern.
        colors: of each value.
        places: for each value its place in the vector of its color.
    """

    pattern: SparsityPattern
    coloring: Coloring
    order: Array
    colors: Array
    places: Array

    @property
    def rows(self) -> Array:
        """The row of each value, int32."""
        return self.pattern.rows[self.order]

    @property
    def columns(self) -> Array:
        """The column of each value, int32."""
        return self.pattern.indices[self.order]


def detect_pattern(
    graph: Graph,
    function: TracedFunction,
    mode: str,
    wrt: tuple[str, ...],
    of: tuple[str, ...],
    seeded: Sequence[ArrayType],
    known: Mapping[str, Array],
    limits: Limits,
) -> Detected:
    """Find the pattern of a derivative, all inputs and outputs joined.

    Args:
        graph: the function's.
        function: traced for the shapes of the inputs.
        mode: whose linear part is followed: a pullback gives the transposed pattern, which is turned.
        wrt, of: inputs and outputs chosen.
        seeded: types of the arrays that have tangents, in reverse mode cotangents.
        known: inputs whose values are part of the pattern's key: indices and masks.
        limits: of memory.

    Raises:
        LimitExceeded: the pattern takes too much memory.
        NotDifferentiable, InvalidGraph: the function cannot be linearized.
    """
    weights = sorted(graph.weights)
    names = [name for name, _ in function.arguments]
    constants = [abstract(graph.weights[name].shape, graph.weights[name].dtype) for name in weights]
    constants += [abstract_argument(value) for _, value in function.arguments]
    values = {k: graph.weights[name] for k, name in enumerate(weights)}
    values |= {len(weights) + names.index(name): value for name, value in known.items()}

    def push(*arguments: Any) -> list[Any]:
        given, tangents = arguments[: len(constants)], arguments[len(constants) :]
        bound = function.bind(dict(zip(weights, given, strict=False)))
        point = dict(zip(names, given[len(weights) :], strict=True))
        linear, _ = compressed.linear_part(bound, mode, wrt, of, point)
        return linear(list(tangents))

    with refusals("the function cannot be differentiated"):
        tangents = [abstract_argument(value) for value in seeded]
        program = linear_program(push, constants, tangents, values)
    found = detect(program, limits.detection_bytes)
    if mode == derivatives.REVERSE:
        return Detected(found.pattern.transposed, found.dense_primitives)
    return found


OTHER_SIDE_FROM = 1.5
"""How much cheaper the other side must be at best for its coloring to be tried too."""

BIDIRECTIONAL_FROM = 12
"""Colors of one side from which on it is worth while to look for a coloring of both."""


def color_pattern(
    pattern: SparsityPattern, symmetric: bool, modes: tuple[str, ...], weights: Mapping[str, float]
) -> Coloring:
    """Color the pattern of a derivative, so that its seeds take little work.

    Args:
        pattern: of the joint matrix.
        symmetric: whether the matrix is: an entry may then be read in place of its mirror image.
        modes: those that are possible.
        weights: operations of one seed, by mode.
    """
    if symmetric and pattern.is_symmetric:
        return color_star(pattern)
    forward, reverse = derivatives.FORWARD, derivatives.REVERSE
    if reverse not in modes:
        return color_columns(pattern)
    if forward not in modes:
        return color_rows(pattern)
    costs = Costs(weights[forward], weights[reverse])
    # No coloring has fewer colors than the longest row, or column, has entries.
    columns_at_best = largest_row(pattern) * costs.jvp
    rows_at_best = largest_row(pattern.transposed) * costs.vjp
    best: Coloring
    if columns_at_best <= rows_at_best:
        best = color_columns(pattern)
        if costs.of(best) > OTHER_SIDE_FROM * rows_at_best:
            best = min(best, color_rows(pattern), key=costs.of)
    else:
        best = color_rows(pattern)
        if costs.of(best) > OTHER_SIDE_FROM * columns_at_best:
            best = min(best, color_columns(pattern), key=costs.of)
    if best.count >= BIDIRECTIONAL_FROM:
        best = min(best, color_bidirectional(pattern, costs), key=costs.of)
    return best


def ordered(pattern: SparsityPattern, coloring: Coloring, triangle: bool) -> ColoredPattern:
    """Put the entries of a pattern in the order in which values travel.

    Args:
        pattern, coloring: of the matrix.
        triangle: keep the entries on and below the diagonal alone.
    """
    recovery: Recovery = direct_recovery(coloring, pattern)
    kept = np.flatnonzero(pattern.rows >= pattern.indices) if triangle else np.arange(pattern.nonzeros)
    # By color, then by place, so that a block is one range and its gather reads forwards. The pattern's own
    # order has ascending rows: a stable sort by color keeps them.
    order = kept[np.argsort(recovery.colors[kept], kind="stable")]
    return ColoredPattern(pattern, coloring, order, recovery.colors[order], recovery.positions[order])


@dataclass(frozen=True, eq=False)
class Structure:
    """What the server keeps of a sparse derivative beside its plan.

    Attributes:
        pattern_id: names it.
        rows, columns: int32, of each value, in the order in which values travel.
        inputs: what kernels take beside the point, by name: the colors of columns and rows, and for each
            value its place in the compressed vectors of its block.
    """

    pattern_id: str
    rows: Array
    columns: Array
    inputs: dict[str, Array]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return self.rows.nbytes + self.columns.nbytes + sum(array.nbytes for array in self.inputs.values())


def pattern_id_of(colored: ColoredPattern) -> str:
    """Return the SHA-256 of shape and coordinates, in the order in which values travel."""
    digest = hashlib.sha256(repr(colored.pattern.shape).encode())
    digest.update(np.ascontiguousarray(colored.rows).data)
    digest.update(np.ascontiguousarray(colored.columns).data)
    return digest.hexdigest()
