"""Solves coloring problems, and chooses the problem whose solution costs least."""

from __future__ import annotations

from collections.abc import Collection

from gradwire_engine.sparsity.coloring.acyclic import color_acyclic
from gradwire_engine.sparsity.coloring.bidirectional import color_bidirectional
from gradwire_engine.sparsity.coloring.costs import Costs
from gradwire_engine.sparsity.coloring.distance2 import color_columns, color_rows, largest_row
from gradwire_engine.sparsity.coloring.problem import ColoringProblem, Partition, Structure
from gradwire_engine.sparsity.coloring.results import AcyclicColoring, Coloring, StarColoring
from gradwire_engine.sparsity.coloring.star import color_star
from gradwire_engine.sparsity.pattern import SparsityPattern

# Both sides are tried where they may cost this part of one, by the entries that a color can hold.
BOTH_SIDES = 0.5
# Substitution costs accuracy, and pays from a third of the colors on.
SUBSTITUTION = 2 / 3
# Any edge takes two colors.
FEWEST_ACYCLIC = 2


def color(problem: ColoringProblem, costs: Costs | None = None) -> Coloring:
    """Color a pattern as the problem says; costs weigh the sides of a bidirectional coloring."""
    pattern = problem.pattern
    if problem.structure is Structure.SYMMETRIC:
        return color_acyclic(pattern) if problem.substitution else color_star(pattern)
    match problem.partition:
        case Partition.COLUMN:
            return color_columns(pattern)
        case Partition.ROW:
            return color_rows(pattern)
    return color_bidirectional(pattern, costs)


def choose(
    pattern: SparsityPattern,
    structure: Structure = Structure.NONSYMMETRIC,
    costs: Costs | None = None,
    sides: Collection[Partition] = (Partition.COLUMN, Partition.ROW),
    substitution: bool = False,
) -> Coloring:
    """Return the coloring of least cost.

    Args:
        pattern: what to color.
        structure: what is known of the matrix. A symmetric one is colored by stars.
        costs: what a color costs; the same on both sides unless said.
        sides: columns, rows or both: the products that can be computed of a matrix that is not symmetric.
        Both
            together take a program each, and are tried where they may save half.
        substitution: whether a symmetric matrix may be colored for substitution (see `acyclic_instead`).

    Raises:
        ValueError: the pattern of a symmetric matrix is not symmetric, or no side is given.
    """
    costs = costs or Costs()
    if structure is Structure.SYMMETRIC:
        star = color_star(pattern)
        return (acyclic_instead(star, pattern, costs) if substitution else None) or star
    if not sides or Partition.BIDIRECTIONAL in sides:
        raise ValueError("the sides of a matrix are columns, rows or both")
    if len(set(sides)) == 1:
        return color(ColoringProblem(pattern, partition=next(iter(sides))))
    # No coloring has fewer colors than the longest row, or column, has entries.
    bounds = {
        Partition.COLUMN: costs.jvp * largest_row(pattern),
        Partition.ROW: costs.vjp * largest_row(pattern.transposed),
    }
    first, second = sorted(bounds, key=bounds.__getitem__)
    best = color(ColoringProblem(pattern, partition=first))
    if bounds[second] < costs.of(best):
        best = min(best, color(ColoringProblem(pattern, partition=second)), key=costs.of)
    # A column color holds an entry a row at most, and a row color one a column.
    fewest = pattern.nonzeros * min(
        costs.jvp / max(1, pattern.shape[0]), costs.vjp / max(1, pattern.shape[1])
    )
    if fewest < BOTH_SIDES * costs.of(best):
        best = min(best, color_bidirectional(pattern, costs), key=costs.of)
    return best


def acyclic_instead(star: StarColoring, pattern: SparsityPattern, costs: Costs) -> AcyclicColoring | None:
    """Return an acyclic coloring that saves a third of the colors, and more work than substitution takes.

    None where none is found.

    Args:
        star, pattern: a star coloring, and what it colors.
        costs: of a product, and of an entry that follows by substitution.
    """
    spared = costs.entry * pattern.nonzeros / costs.jvp
    most = min(SUBSTITUTION * star.count, star.count - spared)
    if most < FEWEST_ACYCLIC:
        return None
    acyclic = color_acyclic(pattern)
    return acyclic if acyclic.count <= most else None
