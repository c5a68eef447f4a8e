"""Colorings are valid for every pattern, and as small as theory says where it says it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire.pictures.coloring import coloring
from gradwire.pictures.pattern import pattern_of

ORDERS = ("natural", "largest_first")


def _band(n, offsets):
    return sp.diags_array([np.ones(n)] * len(offsets), offsets=offsets, shape=(n, n))


def _is_valid(matrix, colors, partition):
    """Whether no row meets a color twice, by the definition: columns of one color, summed, stay 0 or 1."""
    dense = (np.asarray(matrix) != 0).astype(int)
    dense = dense if partition == "column" else dense.T
    seeds = np.eye(colors.max(initial=0) + 1, dtype=int)[colors]
    return bool((dense @ seeds <= 1).all())


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 0.8), st.integers(0, 99), st.sampled_from(ORDERS))
def test_no_row_meets_a_color_twice(rows, columns, density, seed, order):
    matrix = np.random.default_rng(seed).random((rows, columns)) < density
    for partition in ("column", "row"):
        colors = coloring(pattern_of(matrix), partition, order)
        assert len(colors) == (columns if partition == "column" else rows)
        assert _is_valid(matrix, colors, partition)
        assert set(colors) == set(range(colors.max() + 1)), "no color is left out"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("offsets", [(0,), (-1, 0, 1), (-2, -1, 0, 1, 2), (0, 1)])
def test_a_band_needs_as_many_colors_as_it_is_wide(offsets, order):
    colors = coloring(pattern_of(_band(200, offsets)), "column", order)
    assert colors.max() + 1 == len(offsets)


def test_an_arrow_needs_two_row_colors_without_its_full_column_and_all_with_it():
    arrow = np.eye(30)
    arrow[0, :] = 1
    assert coloring(pattern_of(arrow), "column").max() + 1 == 30, "columns all meet in the full row"
    assert coloring(pattern_of(arrow), "row").max() + 1 == 2, "the full row apart, the others together"
    arrow[:, 0] = 1
    assert coloring(pattern_of(arrow), "row").max() + 1 == 30


def test_largest_first_needs_two_colors_where_the_natural_order_needs_many():
    # A crown: columns u_i and v_j meet unless i = j. Colored in pairs, each pair takes a new color;
    # a column that meets all u_i makes those the largest, which then share one.
    n = 6
    edges = [(i, n + j) for i in range(n) for j in range(n) if i != j]
    rows = np.zeros((len(edges) + n, 2 * n + n))
    for row, (left, right) in enumerate(edges):
        rows[row, [2 * left, 2 * (right - n) + 1]] = 1
    for i in range(n):  # one more neighbor for each u_i
        rows[len(edges) + i, [2 * i, 2 * n + i]] = 1
    pattern = pattern_of(rows)
    assert coloring(pattern, "column", "natural").max() + 1 == n
    assert coloring(pattern, "column", "largest_first").max() + 1 == 2


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 3)])
def test_an_empty_pattern_has_one_color_at_most(shape):
    colors = coloring(pattern_of(np.zeros(shape)))
    assert len(colors) == shape[1]
    assert not colors.any()


def test_colors_make_a_jacobian_recoverable_from_compressed_columns():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(40, 60)) * (rng.random((40, 60)) < 0.08)
    pattern = pattern_of(matrix)
    colors = coloring(pattern, "column", "largest_first")
    compressed = matrix @ np.eye(colors.max() + 1)[colors]
    recovered = np.zeros_like(matrix)
    recovered[pattern.rows, pattern.columns] = compressed[pattern.rows, colors[pattern.columns]]
    np.testing.assert_array_equal(recovered, matrix)
    assert colors.max() + 1 < 60
