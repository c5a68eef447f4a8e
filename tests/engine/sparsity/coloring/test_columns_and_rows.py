"""Column and row colorings: every entry comes back, and as few colors as the literature knows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from gradwire_engine.sparsity.coloring import distance2
from gradwire_engine.sparsity.coloring.distance2 import color_columns, color_rows, first_fit, saturation_fit
from gradwire_engine.sparsity.coloring.recovery import direct_recovery
from gradwire_engine.sparsity.coloring.results import ColumnColoring
from gradwire_engine.sparsity.pattern import SparsityPattern
from tests.engine.sparsity.coloring import patterns
from tests.engine.sparsity.coloring.checker import check_direct


@settings(max_examples=150, deadline=None)
@given(patterns.any_pattern())
def test_every_entry_is_alone_in_its_place(pattern: SparsityPattern) -> None:
    for coloring in (color_columns(pattern), color_rows(pattern)):
        check_direct(coloring, pattern)


@settings(max_examples=50, deadline=None)
@given(patterns.any_pattern())
def test_rows_are_columns_of_the_transposed(pattern: SparsityPattern) -> None:
    assert np.array_equal(color_rows(pattern).row_colors, color_columns(pattern.transposed).column_colors)


@pytest.mark.parametrize(
    ("pattern", "colors"),
    [
        (patterns.banded(50, 0, 0), 1),
        (patterns.banded(500, 1, 1), 3),
        (patterns.banded(500, 2, 2), 5),
        (patterns.frame(1000), 1000),
        (patterns.blocks(np.random.default_rng(5), 30, 1), 1),
        (patterns.grid(9, 13), 5),
        (patterns.torus(5, 5), 5),
        (patterns.torus(10, 20), 5),
        (patterns.torus(100, 100), 5),
        # A class holds at most 7 of the 36 cells (7 * 5 <= 36), and 5 classes of 7 leave one.
        (patterns.torus(6, 6), 6),
    ],
)
def test_known_patterns_take_the_fewest_colors(pattern: SparsityPattern, colors: int) -> None:
    assert color_columns(pattern).count == colors
    assert color_rows(pattern).count == colors


@pytest.mark.parametrize("extent", [5, 6, 10, 32, 100, 300])
def test_a_brusselator_takes_at_most_ten_colors(extent: int) -> None:
    pattern = patterns.torus(extent, extent, species=2)
    coloring = color_columns(pattern)
    assert coloring.count <= 10
    found = direct_recovery(coloring, pattern)
    places = found.colors.astype(np.int64) * len(coloring.column_colors) + found.positions
    assert len(np.unique(places)) == pattern.nonzeros


def test_empty_columns_are_neutral() -> None:
    coloring = color_columns(SparsityPattern.of_coordinates([0, 1, 1], [1, 1, 3], (2, 5)))
    assert coloring.column_colors.tolist() == [-1, 0, -1, 1, -1]
    assert coloring.count == 2


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 2)])
def test_a_pattern_without_entries_has_no_colors(shape: tuple[int, int]) -> None:
    pattern = SparsityPattern.of_coordinates([], [], shape)
    for coloring in (color_columns(pattern), color_rows(pattern)):
        assert coloring.count == 0
        check_direct(coloring, pattern)


def test_more_colors_than_a_word_has_bits() -> None:
    generator = np.random.default_rng(3)
    pattern = patterns.of_dense(generator.random((90, 300)) < 0.6)
    coloring = color_columns(pattern)
    assert coloring.count > 128
    check_direct(coloring, pattern)


def test_all_orders_give_first_fits_of_the_same_graph() -> None:
    pattern = patterns.dense_rows(np.random.default_rng(7), 20, 90, 0.05)
    down, across = pattern.transposed, pattern
    arrays = (down.indptr, down.indices, across.indptr, across.indices)
    by_saturation = saturation_fit(*arrays)
    check_direct(ColumnColoring(*by_saturation), pattern)
    for order in distance2.ORDERS:
        ordered = order(*arrays)
        assert np.array_equal(np.sort(ordered), np.arange(90))
        check_direct(ColumnColoring(*first_fit(*arrays[:3], ordered)), pattern)


def test_a_pattern_that_cannot_be_written_is_colored_like_its_copy() -> None:
    pattern = patterns.grid(7, 8)
    frozen = SparsityPattern(pattern.shape, pattern.indptr.copy(), pattern.indices.copy())
    frozen.indptr.flags.writeable = frozen.indices.flags.writeable = False
    assert np.array_equal(color_columns(frozen).column_colors, color_columns(pattern).column_colors)


def test_a_coloring_of_another_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="of 50 columns, but the pattern has 7"):
        direct_recovery(color_columns(patterns.banded(50, 1, 1)), patterns.banded(7, 1, 1))


@settings(max_examples=50, deadline=None)
@given(patterns.any_pattern())
def test_transposing_agrees_with_numpy(pattern: SparsityPattern) -> None:
    assert np.array_equal(pattern.transposed.dense(), pattern.dense().T)
    assert np.array_equal(pattern.transposed.transposed.indices, pattern.indices)
