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
from gradwire_engine.sparsity.coloring.results import AcyclicColoring, Coloring, StarColoring
from gradwire_engine.sparsity.coloring.substitution import substitution
from gradwire_engine.sparsity.coloring.subtraction import Steps
from gradwire_engine.sparsity.compiled import loop_arrays, mirror_images
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
        colors: of each cell that is read: of each value, unless they follow by substitution.
        places: for each cell its place in the vector of its color.
        substituted: how values follow from cells; None where each is one.
    """

    pattern: SparsityPattern
    coloring: Coloring
    order: Array
    colors: Array
    places: Array
    substituted: Substituted | None = None

    @property
    def rows(self) -> Array:
        """The row of each value, int32."""
        return self.pattern.rows[self.order]

    @property
    def columns(self) -> Array:
        """The column of each value, int32."""
        return self.pattern.indices[self.order]


@dataclass(frozen=True, eq=False)
class Substituted:
    """How the values of a symmetric matrix follow from cells, and where they are found directly.

    Attributes:
        sources: int32, for each value the number of its cell.
        steps: what is subtracted from what.
        terms: the most cells that make one value.
        star: a coloring by which entries are read directly.
        direct: one triangle, in that coloring.
        direct_sources: int32, for each value its number, or that of its mirror image, in that triangle.
    """

    sources: Array
    steps: Steps
    terms: int
    star: StarColoring
    direct: ColoredPattern
    direct_sources: Array


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
) -> Coloring:
    """Color the pattern of a derivative, so that its seeds take little work.

    Args:
        pattern: of the joint matrix.
        symmetric: whether the matrix is: an entry may then be read in place of its mirror image.
        modes: those that are possible.
        weights: operations of one seed, by mode.
    """
    if symmetric and pattern.is_symmetric:
        return choose(pattern, Kind.SYMMETRIC)
    columns = [Partition.COLUMN] if modes[0] != derivatives.REVERSE else []
    rows = [Partition.ROW] if derivatives.REVERSE in modes else []
    costs = Costs(weights[modes[0]], weights[modes[-1]])
    return choose(pattern, costs=costs, sides=columns + rows)


def ordered(pattern: SparsityPattern, coloring: DirectColoring, triangle: bool) -> ColoredPattern:
    """Put the entries of a pattern in the order in which values travel.

    Args:
        pattern, coloring: of the matrix.
        triangle: keep the entries on and below the diagonal alone.
    """
    recovery: Recovery = direct_recovery(coloring, pattern)
    kept = _kept(pattern, triangle)
    # By color, then by place, so that a block is one range and its gather reads forwards. The pattern's own
    # order has ascending rows: a stable sort by color keeps them.
    order = kept[np.argsort(recovery.colors[kept], kind="stable")]
    return ColoredPattern(pattern, coloring, order, recovery.colors[order], recovery.positions[order])


def substitution_ordered(
    pattern: SparsityPattern, coloring: AcyclicColoring, star: StarColoring, triangle: bool
) -> ColoredPattern:
    """Put the entries of a symmetric pattern in the order of their cells, from which they follow.

    Args:
        pattern, coloring: of the matrix.
        star: a coloring by which entries are read directly, at points where they do not follow accurately.
        triangle: keep the entries on and below the diagonal alone.
    """
    found = substitution(coloring, pattern)
    kept = _kept(pattern, triangle)
    order = kept[np.argsort(found.sources[kept], kind="stable")]
    direct = ordered(pattern, star, triangle=True)
    # The number of each entry in the triangle, and of its mirror image.
    numbers = np.empty(pattern.nonzeros, np.int32)
    numbers[mirror_images(*loop_arrays(pattern.indptr, pattern.indices))[direct.order]] = np.arange(
        len(direct.order)
    )
    numbers[direct.order] = np.arange(len(direct.order))
    rows = pattern.shape[0]
    return ColoredPattern(
        pattern,
        coloring,
        order,
        (found.cells // rows).astype(np.int32),
        (found.cells % rows).astype(np.int32),
        Substituted(found.sources[order], found.steps, found.terms, star, direct, numbers[order]),
    )


def _kept(pattern: SparsityPattern, triangle: bool) -> Array:
    return np.flatnonzero(pattern.rows >= pattern.indices) if triangle else np.arange(pattern.nonzeros)


def pattern_id_of(colored: ColoredPattern) -> str:
    """Return the SHA-256 of shape and coordinates, in the order in which values travel."""
    digest = hashlib.sha256(repr(colored.pattern.shape).encode())
    digest.update(np.ascontiguousarray(colored.rows).data)
    digest.update(np.ascontiguousarray(colored.columns).data)
    return digest.hexdigest()
