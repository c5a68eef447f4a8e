"""The structure of a sparse derivative: its pattern, the colors of its columns and rows, where values lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire_engine.abstract import abstract, abstract_argument
from gradwire_engine.errors import InvalidInput
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.limits import Limits
from gradwire_engine.planning import compressed, derivatives
from gradwire_engine.planning.function import TracedFunction
from gradwire_engine.planning.plan import PATTERN_COLUMNS, PATTERN_ROWS
from gradwire_engine.refusals import refusals
from gradwire_engine.sparsity.coloring.choice import choose
from gradwire_engine.sparsity.coloring.costs import Costs
from gradwire_engine.sparsity.coloring.problem import Partition
from gradwire_engine.sparsity.coloring.problem import Structure as Kind
from gradwire_engine.sparsity.coloring.recovery import DirectColoring, Recovery, direct_recovery
from gradwire_engine.sparsity.coloring.results import AcyclicColoring
from gradwire_engine.sparsity.detection import Detected, detect, linear_program
from gradwire_engine.sparsity.pattern import SparsityPattern
from gradwire_engine.values import ArrayType

Array = np.ndarray[Any, Any]


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
    coloring: DirectColoring
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


def given_pattern(known: Mapping[str, Array], shape: tuple[int, int], symmetric: bool) -> Detected:
    """Read a pattern of the client's own.

    Args:
        known: holds its coordinates.
        shape: of the joint matrix.
        symmetric: whether one triangle stands for both.

    Raises:
        InvalidInput: the coordinates are not integers, differ in number, or lie outside of the matrix.
    """
    rows, columns = known[PATTERN_ROWS], known[PATTERN_COLUMNS]
    for name, index in (("rows", rows), ("columns", columns)):
        if index.dtype.kind not in "iu":
            raise InvalidInput(
                f"the pattern's {name} are {index.dtype.name}: coordinates are integers", "options.pattern"
            )
    if symmetric:
        rows, columns = np.concatenate([rows, columns]), np.concatenate([columns, rows])
    try:
        pattern = SparsityPattern.of_coordinates(rows, columns, shape)
    except ValueError as error:
        raise InvalidInput(str(error), "options.pattern") from None
    return Detected(pattern, ())


def color_pattern(
    pattern: SparsityPattern, symmetric: bool, modes: tuple[str, ...], weights: Mapping[str, float]
) -> DirectColoring:
    """Color the pattern of a derivative, so that its seeds take little work.

    Args:
        pattern: of the joint matrix.
        symmetric: whether the matrix is: an entry may then be read in place of its mirror image.
        modes: those that are possible.
        weights: operations of one seed, by mode.
    """
    if symmetric and pattern.is_symmetric:
        coloring = choose(pattern, Kind.SYMMETRIC)
    else:
        columns = [Partition.COLUMN] if modes[0] != derivatives.REVERSE else []
        rows = [Partition.ROW] if derivatives.REVERSE in modes else []
        costs = Costs(weights[modes[0]], weights[modes[-1]])
        coloring = choose(pattern, costs=costs, sides=columns + rows)
    assert not isinstance(coloring, AcyclicColoring), "substitution was not asked for"
    return coloring


def ordered(pattern: SparsityPattern, coloring: DirectColoring, triangle: bool) -> ColoredPattern:
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


def pattern_id_of(colored: ColoredPattern) -> str:
    """Return the SHA-256 of shape and coordinates, in the order in which values travel."""
    digest = hashlib.sha256(repr(colored.pattern.shape).encode())
    digest.update(np.ascontiguousarray(colored.rows).data)
    digest.update(np.ascontiguousarray(colored.columns).data)
    return digest.hexdigest()
