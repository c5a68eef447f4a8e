"""Star colorings of symmetric patterns: an entry or its mirror image is alone in its row."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire_engine.sparsity.coloring.distance2 import color_columns
from gradwire_engine.sparsity.coloring.recovery import direct_recovery
from gradwire_engine.sparsity.coloring.results import StarColoring
from gradwire_engine.sparsity.coloring.star import color_star, star_fit
from gradwire_engine.sparsity.pattern import SparsityPattern
from tests.engine.sparsity.coloring import patterns
from tests.engine.sparsity.coloring.checker import check_direct


@settings(max_examples=150, deadline=None)
@given(patterns.any_pattern(), st.sampled_from([True, False, "some"]))
def test_every_entry_is_read_once_with_its_mirror_image(pattern: SparsityPattern, diagonal: object) -> None:
    inside = np.arange(min(pattern.shape)) % 3 == 0 if diagonal == "some" else diagonal
    whole = patterns.symmetric(pattern, inside)
    check_direct(color_star(whole), whole, symmetric=True)


@settings(max_examples=50, deadline=None)
@given(patterns.any_pattern())
def test_a_bipartite_pattern_has_no_diagonal_to_read(pattern: SparsityPattern) -> None:
    whole = patterns.bipartite(pattern)
    check_direct(color_star(whole), whole, symmetric=True)


@settings(max_examples=100, deadline=None)
@given(patterns.any_pattern(), st.randoms(use_true_random=False))
def test_no_path_of_four_is_in_two_colors_in_any_order(pattern: SparsityPattern, random: Random) -> None:
    whole = patterns.symmetric(pattern)
    order = np.arange(whole.shape[0], dtype=np.int32)
    random.shuffle(order)
    colors, count = star_fit(whole.indptr, whole.indices, order)
    near = whole.dense() & ~np.eye(len(order), dtype=bool)
    for a, b in zip(*np.nonzero(near), strict=True):
        assert colors[a] != colors[b]
        # a - b - c and b - a - d with the colors of a and b again.
        again = (near[b] & (colors == colors[a]) & (np.arange(len(order)) != a)).any()
        assert not (again and (near[a] & (colors == colors[b]) & (np.arange(len(order)) != b)).any())
    check_direct(StarColoring(colors, count), whole, symmetric=True)


def ring(n: int) -> SparsityPattern:
    each = np.arange(n)
    return patterns.joined([(each, each), (each, (each + 1) % n), (each, (each - 1) % n)], n)


@pytest.mark.parametrize(
    ("pattern", "colors"),
    [
        (patterns.banded(20, 0, 0), 1),
        (patterns.banded(1000, 1, 1), 3),
        (patterns.banded(1000, 2, 2), 5),
        # The graph of an arrow is a star: its hub in one color, all leaves in another.
        (patterns.arrow(2000), 2),
        (patterns.frame(1000), 3),
        (ring(4), 3),
        (ring(5), 4),
        (ring(21), 3),
        (patterns.blocks(np.random.default_rng(1), 1, 9), 5),
        (patterns.torus(10, 10), 5),
    ],
)
def test_known_patterns_take_the_fewest_colors(pattern: SparsityPattern, colors: int) -> None:
    assert color_star(pattern).count == colors


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_stars_alone_take_two_colors_in_any_order(leaves: list[int], random: Random) -> None:
    """So three colors are the fewest where natural order finds three."""
    hubs = np.cumsum([0, *(count + 1 for count in leaves)])
    names = list(range(int(hubs[-1])))
    random.shuffle(names)
    each = np.arange(hubs[-1])
    own = np.repeat(hubs[:-1], np.diff(hubs))
    ends = np.array(names)[np.stack([each, own])]
    pattern = patterns.joined([(each, each), (ends[0], ends[1]), (ends[1], ends[0])], int(hubs[-1]))
    assert color_star(pattern).count == (2 if any(leaves) else 1)


def test_colors_that_no_entry_needs_are_dropped() -> None:
    without_diagonal = patterns.symmetric(patterns.arrow(50), diagonal=False)
    coloring = color_star(without_diagonal)
    assert coloring.count == 1
    assert (coloring.column_colors[1:] == -1).all()
    check_direct(coloring, without_diagonal, symmetric=True)


def test_both_triangles_are_read_from_the_same_places() -> None:
    pattern = patterns.symmetric(patterns.power_grid(np.random.default_rng(0), 200))
    found = direct_recovery(color_star(pattern), pattern)
    place = np.full(pattern.shape, -1, np.int64)
    place[pattern.rows, pattern.indices] = found.colors * 1000 + found.positions
    assert np.array_equal(place, place.T)


def test_a_star_coloring_never_takes_more_than_columns_that_share_no_row() -> None:
    for pattern in (patterns.torus(13, 17), patterns.grid(11, 12), patterns.banded(60, 3, 3)):
        assert color_star(pattern).count <= color_columns(pattern).count
