"""Acyclic colorings: entries follow by substitution, and what is not finite stays in its entry."""

from __future__ import annotations

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
from gradwire_engine.sparsity.coloring.substitution import Substituted, substitute, substitution
from gradwire_engine.sparsity.pattern import SparsityPattern
from tests.engine.sparsity.coloring import patterns
from tests.engine.sparsity.coloring.checker import check_numbers, compressed, matrix_of

Array = np.ndarray[Any, Any]
UNBOUNDED = 10**6
EPS = np.finfo(float).eps


def recovered(
    coloring: AcyclicColoring, pattern: SparsityPattern, matrix: np.ndarray[Any, Any]
) -> Substituted:
    vectors = np.array(compressed(coloring, matrix)).reshape(coloring.count, pattern.shape[0])
    return substitute(substitution(coloring, pattern), vectors)


@settings(max_examples=150, deadline=None)
@given(patterns.any_pattern(), st.booleans())
def test_every_entry_follows_by_substitution(pattern: SparsityPattern, diagonal: bool) -> None:
    whole = patterns.symmetric(pattern, diagonal)
    coloring = color_acyclic(whole)
    check_numbers(coloring)
    # Small whole numbers add up without rounding: entries come back to the bit.
    matrix = np.rint(8 * matrix_of(whole, symmetric=True))
    found = recovered(coloring, whole, matrix)
    assert found.unresolved.size == 0
    assert np.array_equal(found.values, matrix[whole.rows, whole.indices])


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


@pytest.mark.parametrize(
    "pattern",
    [patterns.banded(400, 1, 1), patterns.grid(20, 20), patterns.power_grid(np.random.default_rng(2), 300)],
)
def test_the_error_is_within_its_bound(pattern: SparsityPattern) -> None:
    matrix = matrix_of(pattern, symmetric=True) * np.exp(6 * matrix_of(pattern, symmetric=True, seed=1))
    coloring = color_acyclic(pattern, UNBOUNDED)
    cells = np.array(compressed(coloring, matrix))
    plan = substitution(coloring, pattern)
    error = np.abs(substitute(plan, cells).values - matrix[pattern.rows, pattern.indices])
    # Each cell was summed with an error of its own; the largest sum of as many cells as an entry takes
    # bounds all.
    largest = np.sort(np.abs(cells).ravel())[-plan.terms :].sum()
    assert error.max() <= 2 * plan.terms * EPS * largest


def test_a_bound_of_one_term_means_that_all_entries_are_direct() -> None:
    pattern = patterns.arrow(50)
    plan = substitution(color_acyclic(pattern), pattern)
    assert plan.terms == 1
    matrix = matrix_of(pattern, symmetric=True)
    found = substitute(plan, np.array(compressed(plan.coloring, matrix)))
    assert np.array_equal(found.values, matrix[pattern.rows, pattern.indices])


def spoiled(pattern: SparsityPattern, at: list[tuple[int, int]], value: float) -> tuple[Array, Substituted]:
    """A matrix with a value at some entries, and what is recovered of it from large trees."""
    matrix = np.rint(8 * matrix_of(pattern, symmetric=True)) + 3 * pattern.dense()
    for i, j in at:
        matrix[i, j] = matrix[j, i] = value
    with np.errstate(invalid="ignore"):
        return matrix, recovered(color_acyclic(pattern, UNBOUNDED), pattern, matrix)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@settings(max_examples=60, deadline=None)
@given(pattern=patterns.any_pattern(), random=st.randoms(use_true_random=False), count=st.integers(1, 3))
def test_what_is_not_finite_stays_in_its_entry(
    value: float, pattern: SparsityPattern, random: Random, count: int
) -> None:
    whole = patterns.symmetric(pattern)
    entries = list(zip(whole.rows.tolist(), whole.indices.tolist(), strict=True))
    matrix, found = spoiled(whole, random.choices(entries, k=count), value)
    resolved = np.ones(whole.nonzeros, bool)
    resolved[found.unresolved] = False
    truth = matrix[whole.rows, whole.indices]
    assert np.array_equal(found.values[resolved], truth[resolved], equal_nan=True)
    assert np.isnan(found.values[found.unresolved]).all()


def test_one_entry_that_is_not_finite_hides_no_other() -> None:
    pattern = patterns.banded(101, 1, 1)
    for at in range(100):
        matrix, found = spoiled(pattern, [(at, at + 1)], np.nan)
        hidden = {tuple(sorted((pattern.rows[k], pattern.indices[k]))) for k in found.unresolved}
        assert hidden <= {(at, at + 1)}
        finite = np.isfinite(matrix[pattern.rows, pattern.indices])
        assert np.array_equal(found.values[finite], matrix[pattern.rows, pattern.indices][finite])


def test_entries_between_two_that_are_not_finite_are_named() -> None:
    pattern = patterns.banded(101, 1, 1)
    _, found = spoiled(pattern, [(40, 41), (60, 61)], np.nan)
    hidden = {tuple(sorted((pattern.rows[k], pattern.indices[k]))) for k in found.unresolved}
    assert hidden == {(k, k + 1) for k in range(40, 61)}


def test_an_overflow_on_the_way_is_named() -> None:
    pattern = patterns.banded(4, 1, 1)
    coloring = AcyclicColoring(np.array([0, 1, 0, 1], np.int32), 2)
    cells = np.array([[1.0, -1e308, 1.0, 1e308], [1e308, 1.0, -1e308, 1.0]])
    plan = substitution(coloring, pattern)
    found = substitute(plan, cells)
    assert np.isfinite(np.delete(found.values, found.unresolved)).all()
    assert {(int(pattern.rows[k]), int(pattern.indices[k])) for k in found.unresolved} == {(1, 2), (2, 1)}


def test_single_precision_is_subtracted_in_double() -> None:
    pattern = patterns.banded(200, 1, 1)
    matrix = matrix_of(pattern, symmetric=True).astype(np.float32)
    coloring = color_acyclic(pattern)
    cells = np.array(compressed(coloring, matrix.astype(float)))
    found = substitute(substitution(coloring, pattern), cells.astype(np.float32))
    assert found.values.dtype == np.float32
    assert np.allclose(found.values, matrix[pattern.rows, pattern.indices], atol=2e-5)


def test_a_coloring_with_a_cycle_is_refused() -> None:
    pattern = patterns.torus(4, 4)
    colors = (np.arange(16) // 4 + np.arange(16)) % 2
    with pytest.raises(ValueError, match="span a cycle"):
        substitution(AcyclicColoring(colors.astype(np.int32), 2), pattern)
    with pytest.raises(ValueError, match="of 2 columns, but the pattern has 16"):
        substitution(AcyclicColoring(np.zeros(2, np.int32), 1), pattern)


def test_compressed_vectors_of_another_coloring_are_refused() -> None:
    pattern = patterns.banded(9, 1, 1)
    plan = substitution(color_acyclic(pattern, UNBOUNDED), pattern)
    with pytest.raises(ValueError, match=r"shape \(3, 9\), but the coloring needs \(2, 9\)"):
        substitute(plan, np.zeros((3, 9)))
