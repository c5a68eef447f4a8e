"""A pattern is drawn with the right cells and colors, and what it says of itself is true."""

from __future__ import annotations

import builtins

import matplotlib
import numpy as np
import pytest
import scipy.sparse as sp
from matplotlib import pyplot

import gradwire as gw
from gradwire.pictures.pattern import pattern_of
from gradwire.pictures.sparsity import binned, palette

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


def _tridiagonal(n):
    return sp.diags_array([np.ones(n)] * 3, offsets=(-1, 0, 1), shape=(n, n))


def _image(ax):
    return np.asarray(ax.get_images()[0].get_array())


def test_cells_have_the_color_of_their_column_and_the_rest_is_white():
    ax = gw.spy(_tridiagonal(9))
    image = _image(ax)
    assert ((image != 1).any(axis=2) == (_tridiagonal(9).toarray() != 0)).all()
    for column in range(9):
        paints = {tuple(image[row, column]) for row in range(9) if (image[row, column] != 1).any()}
        assert len(paints) == 1
    assert len({tuple(image[i, i]) for i in range(9)}) == 3
    assert "9 × 9, 25 nonzeros, density 0.31" in ax.get_title()
    assert "3 column colors for 9 columns" in ax.get_title()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["3 columns"] * 3


def test_rows_own_the_colors_when_rows_are_colored():
    matrix = np.eye(5)
    matrix[:, 0] = 1
    image = _image(gw.spy(matrix, "row"))
    np.testing.assert_array_equal(image[4, 0], image[4, 4])
    assert (image[0, 0] != image[1, 0]).any()


def test_given_colors_are_shown_and_none_is_one_color():
    given = gw.spy(np.ones((2, 3)), np.array([7, 7, 2]))
    assert "2 column colors" in given.get_title()
    np.testing.assert_array_equal(_image(given)[0, 0], _image(given)[0, 1])
    assert "3 row colors" in gw.spy(np.ones((3, 2)), [0, 1, 2]).get_title()
    plain = gw.spy(np.eye(3), None)
    assert "color" not in plain.get_title()


def test_a_jacobian_is_flattened_to_outputs_by_inputs():
    jacobian = np.einsum("ik,jl->ijkl", np.eye(2), np.eye(3))
    assert "6 × 6, 6 nonzeros" in gw.spy(jacobian).get_title()
    narrow = np.zeros((5, 2, 3))
    narrow[4, 1, 2] = 1
    assert "5 × 6, 1 nonzero," in gw.spy(narrow, row_axes=1).get_title()
    assert pattern_of(narrow, 1).columns.tolist() == [5]
    with pytest.raises(ValueError, match="row_axes="):
        gw.spy(narrow)
    assert "1 × 4" in gw.spy(np.ones(4)).get_title(), "a gradient is one row"


def test_a_pattern_of_a_million_columns_is_counted_into_cells():
    n = 10**6
    matrix = sp.coo_array((np.ones(n), (np.arange(n), np.arange(n))), shape=(n, n))
    ax = gw.spy(matrix)
    counts = _image(ax)
    assert counts.shape == (300, 300)
    assert counts.sum() == n
    assert (np.diag(counts) == counts.sum(axis=1)).all()
    assert "1 column color for 1,000,000 columns" in ax.get_title()


def test_counting_into_cells_is_a_histogram():
    matrix = np.random.default_rng(0).random((70, 45)) < 0.2
    rows, columns = np.nonzero(matrix)
    edges = [np.ceil(np.arange(9) * 70 / 8), np.ceil(np.arange(9) * 45 / 8)]
    expected, *_ = np.histogram2d(rows, columns, bins=edges)
    np.testing.assert_array_equal(binned(pattern_of(matrix), 8), expected)


def test_stored_zeros_and_nan_are_entries_and_duplicates_are_one():
    stored = sp.coo_array(([0.0, 1.0, 2.0], ([0, 1, 1], [0, 1, 1])), shape=(2, 2))
    assert pattern_of(stored).nnz == 2
    assert pattern_of(np.array([[np.nan, 0.0]])).nnz == 1


def test_many_colors_are_all_different():
    assert len({tuple(paint) for paint in palette(200).round(3)}) == 200


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (1, 1)])
def test_the_smallest_patterns_are_drawn(shape):
    ax = gw.spy(np.ones(shape))
    ax.figure.canvas.draw()
    assert f"{shape[0]} × {shape[1]}" in ax.get_title()


def test_axes_of_the_users_own_are_drawn_on():
    _, ax = pyplot.subplots()
    assert gw.spy(np.eye(2), ax=ax) is ax


@pytest.mark.parametrize("wrong", ["diagonal", [0, 1], np.array([0.5, 1.0, 2.0])])
def test_colors_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match=r"color"):
        gw.spy(np.eye(3), wrong)


def test_an_order_of_another_name_is_refused():
    with pytest.raises(ValueError, match=r"order='biggest': use 'largest_first' or 'natural'"):
        gw.spy(np.eye(3), order="biggest")


@pytest.mark.parametrize("wrong", [None, "jacobian.npz", np.array([[None, 1]])])
def test_what_has_no_numbers_is_no_pattern(wrong):
    with pytest.raises(TypeError, match=r"no matrix of numbers: pass a sparse matrix or an array"):
        gw.spy(wrong)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ModuleNotFoundError, match=r"gradwire\[plot\]"):
        gw.spy(np.eye(2))
