"""The coloring of least cost is chosen, on the side or sides that it takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire_engine.sparsity.coloring.acyclic import color_acyclic
from gradwire_engine.sparsity.coloring.choice import choose, color
from gradwire_engine.sparsity.coloring.costs import Costs
from gradwire_engine.sparsity.coloring.distance2 import color_columns, color_rows
from gradwire_engine.sparsity.coloring.problem import ColoringProblem, Partition, Structure
from gradwire_engine.sparsity.coloring.recovery import direct_recovery
from gradwire_engine.sparsity.coloring.results import (
    AcyclicColoring,
    BidirectionalColoring,
    ColumnColoring,
    RowColoring,
    StarColoring,
)
from gradwire_engine.sparsity.coloring.star import color_star
from gradwire_engine.sparsity.coloring.substitution import substitution
from gradwire_engine.sparsity.pattern import SparsityPattern
from tests.engine.sparsity.coloring import patterns
from tests.engine.sparsity.coloring.checker import check_direct

SYMMETRIC = Structure.SYMMETRIC
HIGH = patterns.of_dense(np.ones((40, 3)))


@pytest.mark.parametrize(
    ("problem", "result"),
    [
        (ColoringProblem(patterns.arrow(5)), ColumnColoring),
        (ColoringProblem(patterns.arrow(5), partition=Partition.ROW), RowColoring),
        (ColoringProblem(patterns.arrow(5), partition=Partition.BIDIRECTIONAL), BidirectionalColoring),
        (ColoringProblem(patterns.arrow(5), SYMMETRIC), StarColoring),
        (ColoringProblem(patterns.arrow(5), SYMMETRIC, substitution=True), AcyclicColoring),
    ],
)
def test_each_problem_has_its_kind_of_result(problem: ColoringProblem, result: type) -> None:
    assert isinstance(color(problem), result)


@pytest.mark.parametrize(
    ("pattern", "costs", "result", "cost"),
    [
        (HIGH, Costs(), ColumnColoring, 3),
        (HIGH.transposed, Costs(), RowColoring, 3),
        (HIGH, Costs(jvp=100), RowColoring, 40),
        (patterns.banded(50, 1, 1), Costs(jvp=1, vjp=2.5), ColumnColoring, 3),
        (patterns.banded(50, 1, 1), Costs(jvp=2.5, vjp=1), RowColoring, 3),
        (patterns.frame(200), Costs(jvp=1, vjp=3), BidirectionalColoring, 9),
        (patterns.arrow(200), Costs(), BidirectionalColoring, 3),
        (SparsityPattern.of_coordinates([], [], (2, 3)), Costs(), ColumnColoring, 0),
    ],
)
def test_the_side_of_least_cost_is_taken(
    pattern: SparsityPattern, costs: Costs, result: type, cost: float
) -> None:
    coloring = choose(pattern, costs=costs)
    assert isinstance(coloring, result)
    assert costs.of(coloring) == cost


@settings(max_examples=60, deadline=None)
@given(patterns.any_pattern(), st.sampled_from([0.2, 1.0, 4.0]))
def test_the_choice_costs_no_more_than_either_side(pattern: SparsityPattern, vjp: float) -> None:
    costs = Costs(vjp=vjp)
    chosen = choose(pattern, costs=costs)
    check_direct(chosen, pattern)
    assert costs.of(chosen) <= min(costs.of(color_columns(pattern)), costs.of(color_rows(pattern)))


@pytest.mark.parametrize("pattern", [patterns.frame(30), HIGH, HIGH.transposed])
def test_only_the_sides_that_can_be_computed_are_chosen(pattern: SparsityPattern) -> None:
    assert isinstance(choose(pattern, sides=[Partition.COLUMN]), ColumnColoring)
    assert isinstance(choose(pattern, sides=[Partition.ROW]), RowColoring)
    for sides in ([], [Partition.COLUMN, Partition.BIDIRECTIONAL]):
        with pytest.raises(ValueError, match="columns, rows or both"):
            choose(pattern, sides=sides)


def test_hubs_of_many_neighbors_cost_no_more_than_their_entries() -> None:
    pattern = patterns.arrow(300_000)  # whose pairs of leaves would take minutes
    assert choose(pattern).count == 3
    assert choose(pattern, SYMMETRIC, substitution=True).count == 2


def test_substitution_is_chosen_where_it_is_allowed_and_saves_a_third() -> None:
    line = np.abs(np.arange(30)[:, None] - np.arange(30)) <= 1
    mesh = patterns.of_dense(np.kron(line, line))
    assert isinstance(choose(mesh, SYMMETRIC), StarColoring)
    # Nine points a row: 9 colors by stars, 6 by substitution.
    assert 3 * color_acyclic(mesh, 10**6).count <= 2 * color_star(mesh).count
    grid = patterns.grid(30, 30)
    assert isinstance(choose(grid, SYMMETRIC, substitution=True), StarColoring)
    chosen = choose(patterns.banded(300, 7, 7), SYMMETRIC, substitution=True)
    assert isinstance(chosen, AcyclicColoring)
    assert 3 * chosen.count <= 2 * 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((HIGH, SYMMETRIC), "not symmetric"),
        ((patterns.banded(5, 1, 0), SYMMETRIC), "not symmetric"),
        ((patterns.banded(5, 1, 1), SYMMETRIC, Partition.ROW), "by columns, not by row"),
        ((HIGH, Structure.NONSYMMETRIC, Partition.COLUMN, True), "substitution needs a symmetric matrix"),
    ],
)
def test_a_problem_that_contradicts_itself_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ColoringProblem(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "pattern", [HIGH, HIGH.transposed, patterns.banded(9, 1, 0), patterns.banded(9, 0, 2)]
)
def test_what_needs_a_symmetric_pattern_refuses_another(pattern: SparsityPattern) -> None:
    columns = pattern.shape[1]
    no_star = StarColoring(np.arange(columns, dtype=np.int32), columns)
    no_tree = AcyclicColoring(np.arange(columns, dtype=np.int32), columns)
    for attempt in (
        lambda: color_star(pattern),
        lambda: color_acyclic(pattern),
        lambda: direct_recovery(no_star, pattern),
        lambda: substitution(no_tree, pattern),
    ):
        with pytest.raises(ValueError, match="not symmetric"):
            attempt()
