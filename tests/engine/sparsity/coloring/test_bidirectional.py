"""Bidirectional colorings: a dense row and a dense column cost a color each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire_engine.sparsity.coloring.bidirectional import color_bidirectional, taken_away
from gradwire_engine.sparsity.coloring.costs import Costs
from gradwire_engine.sparsity.coloring.distance2 import color_columns, color_rows
from gradwire_engine.sparsity.pattern import SparsityPattern
from tests.engine.sparsity.coloring import patterns
from tests.engine.sparsity.coloring.checker import check_direct


@settings(max_examples=200, deadline=None)
@given(patterns.any_pattern(), st.sampled_from([0.01, 0.5, 1.0, 3.0, 100.0]))
def test_every_entry_is_alone_on_one_side(pattern: SparsityPattern, vjp: float) -> None:
    check_direct(color_bidirectional(pattern, Costs(vjp=vjp)), pattern)


@pytest.mark.parametrize(
    ("pattern", "by_column", "by_row"),
    [
        (patterns.frame(1000), 3, 2),
        (patterns.arrow(2000), 2, 1),
        (patterns.banded(100, 0, 0), 1, 0),
        (patterns.banded(300, 1, 1), 3, 0),
        # Twenty rows of a long matrix beside twenty columns of a high one.
        (patterns.of_dense(np.kron(np.eye(2), np.ones((20, 20)))[:, :20]), 20, 0),
        (SparsityPattern.of_coordinates([], [], (3, 4)), 0, 0),
    ],
)
def test_known_patterns_take_the_fewest_colors(pattern: SparsityPattern, by_column: int, by_row: int) -> None:
    coloring = color_bidirectional(pattern)
    assert (coloring.column_count, coloring.row_count) == (by_column, by_row)


def test_a_frame_takes_all_colors_from_either_side_alone() -> None:
    pattern = patterns.frame(1000)
    assert color_columns(pattern).count == color_rows(pattern).count == 1000


def test_neutral_rows_and_columns_have_no_seed() -> None:
    coloring = color_bidirectional(patterns.frame(50))
    assert (coloring.row_colors[1:-1] == -1).all()
    assert (coloring.column_colors >= 0).all()


def test_a_long_block_is_read_by_rows_and_a_high_one_by_columns() -> None:
    mask = np.zeros((205, 207), bool)
    mask[:5, :200] = True
    mask[5:, 200:] = True
    coloring = color_bidirectional(patterns.of_dense(mask))
    assert (coloring.column_count, coloring.row_count) == (7, 5)
    check_direct(coloring, patterns.of_dense(mask))


def test_the_dear_side_is_avoided() -> None:
    pattern = patterns.arrow(30)
    assert color_bidirectional(pattern, Costs(jvp=1, vjp=100)).row_count == 0
    assert color_bidirectional(pattern, Costs(jvp=100, vjp=1)).column_count == 0


@settings(max_examples=60, deadline=None)
@given(patterns.any_pattern(), st.integers(0, 6))
def test_taking_away_leaves_rows_with_as_few_entries_as_any_order(pattern: SparsityPattern, aim: int) -> None:
    mask = pattern.dense()

    def empties(least: int) -> bool:
        """Whether taking away rows of at most `least` and columns of at most `aim` takes all entries."""
        left = mask.copy()
        while True:
            before = left.sum()
            left[left.sum(axis=1) <= least] = False
            left[:, left.sum(axis=0) <= aim] = False
            if left.sum() == before:
                return not left.any()

    down = pattern.transposed
    arrays = (pattern.indptr, pattern.indices, down.indptr, down.indices)
    found = taken_away(*arrays, aim, 0)[2]
    assert found == next(least for least in range(mask.shape[1] + 1) if empties(least))
    row_place, column_place, again = taken_away(*arrays, aim, found)
    assert again == found
    by_column = mask & (row_place[:, None] < column_place)
    assert by_column.sum(axis=1).max(initial=0) <= found
    assert (mask & ~by_column).sum(axis=0).max(initial=0) <= aim


def test_full_rows_cost_little_more_than_what_is_beside_them() -> None:
    generator = np.random.default_rng(0)
    mask = generator.random((300, 300)) < 0.02
    beside = color_columns(patterns.of_dense(mask)).count
    mask[[7, 200]] = True
    assert color_bidirectional(patterns.of_dense(mask)).count <= beside + 4
