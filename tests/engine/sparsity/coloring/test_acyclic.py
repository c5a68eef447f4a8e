"""Acyclic colorings: entries follow by substitution, with an error within its bound."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from gradwire_engine.sparsity.coloring.acyclic import LARGEST, acyclic_fit, color_acyclic
from gradwire_engine.sparsity.coloring.results import AcyclicColoring
from gradwire_engine.sparsity.coloring.star import color_star
from gradwire_engine.sparsity.coloring.substitution import Substitution, substitution
from gradwire_engine.sparsity.coloring.subtraction import TOLERANCE, accurate, subtracted
from gradwire_engine.sparsity.pattern import SparsityPattern
from tests.engine.sparsity.coloring import patterns
from tests.engine.sparsity.coloring.checker import check_numbers, compressed, matrix_of

Array = np.ndarray[Any, Any]
UNBOUNDED = 10**6
EPS = np.finfo(float).eps


def substitute(plan: Substitution, vectors: Any) -> Array:
    """Return the entries that follow from compressed vectors, a row for each color."""
    cells = np.asarray(vectors, float).reshape(-1)[plan.cells]
    return subtracted(cells, plan.steps).values[plan.sources]


def recovered(coloring: AcyclicColoring, pattern: SparsityPattern, matrix: np.ndarray[Any, Any]) -> Array:
    return substitute(substitution(coloring, pattern), compressed(coloring, matrix))


@settings(max_examples=150, deadline=None)
@given(patterns.any_pattern(), st.booleans())
def test_every_entry_follows_by_substitution(pattern: SparsityPattern, diagonal: bool) -> None:
    whole = patterns.symmetric(pattern, diagonal)
    coloring = color_acyclic(whole)
    check_numbers(coloring)
    # Small whole numbers add up without rounding: entries come back to the bit.
    matrix = np.rint(8 * matrix_of(whole, symmetric=True))
    found = recovered(coloring, whole, matrix)
    assert np.array_equal(found, matrix[whole.rows, whole.indices])


@settings(max_examples=100, deadline=None)
@given(patterns.any_pattern(), st.randoms(use_true_random=False), st.sampled_from([1, 4, 9, UNBOUNDED]))
def test_two_colors_span_stars_and_small_trees_in_any_order(
    pattern: SparsityPattern, random: Random, largest: int
) -> None:
    whole = patterns.symmetric(pattern)
    order = np.arange(whole.shape[0], dtype=np.int32)
    random.shuffle(order)
    colors, count = acyclic_fit(whole.indptr, whole.indices, largest, order)
    near = whole.dense() & ~np.eye(len(order), dtype=bool)
    assert (colors[:, None] != colors)[near].all()
    for pair in combinations(range(count), 2):
        inside = np.isin(colors, pair)
        part = near & inside & inside[:, None]
        trees, tree_of = connected_components(csr_array(part), directed=False)
        for tree in range(trees):
            members = part[tree_of == tree]
            edges = members.sum() // 2
            assert edges == len(members) - 1
            assert edges <= largest or members.sum(axis=1).max() == edges
    coloring = AcyclicColoring(colors, count)
    check_numbers(coloring)
    assert substitution(coloring, whole).terms <= largest


@pytest.mark.parametrize(
    ("pattern", "colors"),
    [
        (patterns.banded(20, 0, 0), 1),
        (patterns.arrow(2000), 2),
        (patterns.banded(1000, 1, 1), 2),
        (patterns.banded(1000, 2, 2), 3),
        (patterns.blocks(np.random.default_rng(1), 1, 9), 5),
        # Three would do: then each two span a tree of a third of all edges, of no use in floating point.
        (patterns.grid(20, 30), 4),
        (patterns.torus(10, 10), 4),
    ],
)
def test_known_patterns_take_the_fewest_colors(pattern: SparsityPattern, colors: int) -> None:
    assert color_acyclic(pattern, UNBOUNDED).count == colors


def test_small_trees_save_most_of_the_colors_on_a_mesh() -> None:
    line = np.abs(np.arange(40)[:, None] - np.arange(40)) <= 1
    pattern = patterns.of_dense(np.kron(line, line))
    coloring = color_acyclic(pattern)
    assert color_star(pattern).count >= 9
    assert coloring.count <= 7
    assert substitution(coloring, pattern).terms <= LARGEST


@settings(max_examples=60, deadline=None)
@given(patterns.any_pattern())
def test_substitution_takes_no_more_colors_than_stars(pattern: SparsityPattern) -> None:
    whole = patterns.symmetric(pattern)
    assert color_acyclic(whole).count <= color_star(whole).count


@pytest.mark.parametrize("largest", [9, LARGEST, UNBOUNDED])
@pytest.mark.parametrize(
    "pattern",
    [
        patterns.banded(120, 1, 1),
        patterns.banded(60, 3, 3),
        patterns.grid(12, 12),
        patterns.power_grid(np.random.default_rng(2), 100),
    ],
)
def test_the_error_is_within_its_bound(pattern: SparsityPattern, largest: int) -> None:
    matrix = matrix_of(pattern, symmetric=True) * np.exp(9 * matrix_of(pattern, symmetric=True, seed=1))
    colors, count = acyclic_fit(
        pattern.indptr, pattern.indices, largest, np.arange(pattern.shape[0], dtype=np.int32)
    )
    coloring = AcyclicColoring(colors, count)
    plan = substitution(coloring, pattern)
    cells = np.array(compressed(coloring, matrix)).reshape(-1)[plan.cells]
    rows = np.array(compressed(coloring, np.abs(matrix))).reshape(-1)[plan.cells]
    assert 1 < plan.terms <= largest
    entries = subtracted(cells, plan.steps)
    found = entries.values[plan.sources]
    # The same subtractions without rounding; how much is added up, and from how many cells.
    exact = [Fraction(float(cell)) for cell in cells]
    magnitudes, members = np.abs(cells), np.ones(len(cells), int)
    for minuend, subtrahend in zip(plan.steps.minuends, plan.steps.subtrahends, strict=True):
        exact[minuend] -= exact[subtrahend]
        for each in (magnitudes, members, rows):
            each[minuend] += each[subtrahend]
    assert members.max() == plan.terms
    np.testing.assert_allclose(entries.magnitudes, magnitudes, rtol=1e-13)
    rounding = [abs(Fraction(float(value)) - exact[k]) for value, k in zip(found, plan.sources, strict=True)]
    allowed = 1.01 * (plan.terms - 1) * EPS / 2 * magnitudes[plan.sources]
    assert (np.array(rounding, float) <= allowed).all()
    # Beside it the rounding of the cells: each was summed up from the entries of a row.
    error = np.abs(found - matrix[pattern.rows, pattern.indices])
    assert (error <= allowed + np.diff(pattern.indptr).max() * EPS * rows[plan.sources]).all()


def test_a_bound_of_one_term_means_that_all_entries_are_direct() -> None:
    pattern = patterns.arrow(50)
    coloring = color_acyclic(pattern)
    plan = substitution(coloring, pattern)
    assert plan.terms == 1
    matrix = matrix_of(pattern, symmetric=True)
    found = substitute(plan, compressed(coloring, matrix))
    assert np.array_equal(found, matrix[pattern.rows, pattern.indices])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@settings(max_examples=60, deadline=None)
@given(pattern=patterns.any_pattern(), random=st.randoms(use_true_random=False), count=st.integers(1, 3))
def test_what_is_not_finite_never_comes_out_as_a_number(
    value: float, pattern: SparsityPattern, random: Random, count: int
) -> None:
    whole = patterns.symmetric(pattern)
    matrix = np.rint(8 * matrix_of(whole, symmetric=True)) + 3 * whole.dense()
    for at in random.choices(range(whole.nonzeros), k=count):
        i, j = whole.rows[at], whole.indices[at]
        matrix[i, j] = matrix[j, i] = value
    with np.errstate(invalid="ignore"):
        found = recovered(color_acyclic(whole, UNBOUNDED), whole, matrix)
    truth = matrix[whole.rows, whole.indices]
    assert not np.isfinite(found[~np.isfinite(truth)]).any()
    finite = np.isfinite(found)
    assert np.array_equal(found[finite], truth[finite])


@pytest.mark.parametrize(("scale", "expected"), [(1.0, True), (1e4, True), (1e12, False), (1e300, False)])
def test_entries_that_lost_their_digits_to_large_ones_are_noticed(scale: float, expected: bool) -> None:
    pattern = patterns.banded(100, 1, 1)
    matrix = matrix_of(pattern, symmetric=True)
    matrix[40, 41] = matrix[41, 40] = scale
    coloring = color_acyclic(pattern, UNBOUNDED)
    plan = substitution(coloring, pattern)
    cells = np.array(compressed(coloring, matrix)).reshape(-1)[plan.cells]
    entries = subtracted(cells, plan.steps)
    assert accurate(entries, plan.steps, plan.terms) == expected
    rows = np.abs(matrix).max(axis=1)
    error = np.abs(entries.values[plan.sources] - matrix[pattern.rows, pattern.indices])
    within = error <= TOLERANCE * np.minimum(rows[pattern.rows], rows[pattern.indices])
    assert within.all() or not expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_accurate(value: float) -> None:
    pattern = patterns.banded(30, 1, 1)
    plan = substitution(color_acyclic(pattern), pattern)
    for place in range(len(plan.cells)):
        cells = np.zeros(len(plan.cells))
        cells[place] = value
        assert not accurate(subtracted(cells, plan.steps), plan.steps, plan.terms)
    assert accurate(subtracted(np.zeros(len(plan.cells)), plan.steps), plan.steps, plan.terms)


def test_an_overflow_on_the_way_is_not_finite() -> None:
    pattern = patterns.banded(4, 1, 1)
    coloring = AcyclicColoring(np.array([0, 1, 0, 1], np.int32), 2)
    cells = np.array([[1.0, -1e308, 1.0, 1e308], [1e308, 1.0, -1e308, 1.0]])
    found = substitute(substitution(coloring, pattern), cells)
    off = {(int(pattern.rows[k]), int(pattern.indices[k])) for k in np.flatnonzero(~np.isfinite(found))}
    assert off == {(1, 2), (2, 1)}


def test_a_coloring_with_a_cycle_is_refused() -> None:
    pattern = patterns.torus(4, 4)
    colors = (np.arange(16) // 4 + np.arange(16)) % 2
    with pytest.raises(ValueError, match="span a cycle"):
        substitution(AcyclicColoring(colors.astype(np.int32), 2), pattern)
    with pytest.raises(ValueError, match="of 2 columns, but the pattern has 16"):
        substitution(AcyclicColoring(np.zeros(2, np.int32), 1), pattern)
