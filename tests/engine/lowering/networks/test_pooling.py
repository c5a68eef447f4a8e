"""Pooling against PyTorch's definition by hand, and derivatives in both modes."""

from __future__ import annotations

import numpy as np
import pytest

from gradwire_engine.errors import InvalidGraph
from tests.engine.lowering.derivative_checks import check_op, gradient_of, run

rng = np.random.default_rng(11)


def _distinct(*shape: int) -> np.ndarray:
    """Values at least 0.1 apart, so that no window is near a tie."""
    return rng.permutation(np.prod(shape)).reshape(shape) * 0.1 - 1.0


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 2, 7), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
        ((1, 1, 6, 7), {"kernel_shape": [2, 3], "dilations": [2, 3], "strides": [1, 2]}),
        ((1, 1, 7, 6), {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
        ((1, 1, 5, 5), {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
        ((1, 1, 4, 3, 5), {"kernel_shape": [2, 2, 2], "dilations": [1, 2, 3], "pads": [1, 1, 1, 0, 1, 1]}),
    ],
)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_window_pools_differentiate_forward_and_reverse(op: str, shape: tuple, options: dict) -> None:
    # LpPool's windows must not come near all zeros.
    x = _distinct(*shape) + (3.0 if op == "LpPool" else 0.03)
    check_op(op, x, check={"order": 2 if op == "LpPool" else 1}, **options)


def test_max_pool_passes_the_derivative_of_a_tie_to_the_first_element() -> None:
    x = np.array([[[[1.0, 2.0], [2.0, 2.0]]]])
    forward, reverse = gradient_of("MaxPool", x, kernel_shape=[2, 2])
    np.testing.assert_array_equal(forward, [[0, 1, 0, 0]])
    np.testing.assert_array_equal(reverse, forward)


def test_max_pool_index_of_a_tie_is_the_first_in_row_major_order() -> None:
    x = np.zeros((1, 2, 3, 3))
    _, indices = run("MaxPool", x, kernel_shape=[2, 2], outputs=2)
    np.testing.assert_array_equal(indices, np.array([[0, 1, 3, 4], [9, 10, 12, 13]]).reshape(1, 2, 2, 2))


def test_max_pool_indices_count_columns_first_under_storage_order_1() -> None:
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    y, rows = run("MaxPool", x, kernel_shape=[1, 2], outputs=2)
    _, columns = run("MaxPool", x, kernel_shape=[1, 2], outputs=2, storage_order=1)
    np.testing.assert_array_equal(y.ravel(), [1, 2, 4, 5])
    np.testing.assert_array_equal(rows.ravel(), [1, 2, 4, 5])
    np.testing.assert_array_equal(columns.ravel(), [2, 4, 3, 5])
    assert rows.dtype == np.int64


def test_max_pool_never_points_into_the_padding() -> None:
    x = np.zeros((1, 1, 3), np.uint8)
    y, indices = run("MaxPool", x, kernel_shape=[3], pads=[2, 2], outputs=2)
    assert y.dtype == np.uint8
    np.testing.assert_array_equal(indices.ravel(), [0, 0, 0, 1, 2])


def test_max_pool_lets_nan_and_infinity_through() -> None:
    x = np.array([[[np.nan, 1.0, -np.inf, -np.inf]]])
    np.testing.assert_array_equal(run("MaxPool", x, kernel_shape=[2], strides=[2]), [[[np.nan, -np.inf]]])


def test_average_pool_counts_padding_only_where_declared() -> None:
    x = np.array([[[2.0, 4.0, 6.0]]])
    options = {"kernel_shape": [2], "strides": [2], "pads": [1, 1], "ceil_mode": 1}
    np.testing.assert_allclose(run("AveragePool", x, **options), [[[2, 5]]])
    np.testing.assert_allclose(run("AveragePool", x, count_include_pad=1, **options), [[[1, 5]]])
    # The window that ceil_mode adds reaches past the declared padding, which does not count.
    wide = {"kernel_shape": [3], "strides": [2], "pads": [0, 0], "ceil_mode": 1, "count_include_pad": 1}
    np.testing.assert_allclose(run("AveragePool", np.array([[[1.0, 2, 3, 9]]]), **wide), [[[2, 6]]])


@pytest.mark.parametrize("p", [1, 2, 3])
def test_global_lp_pool_is_the_norm_of_each_channel(p: int) -> None:
    x = rng.standard_normal((2, 3, 4, 5))
    expected = np.linalg.norm(x.reshape(2, 3, -1), p, axis=2).reshape(2, 3, 1, 1)
    np.testing.assert_allclose(run("GlobalLpPool", x, p=p), expected, rtol=1e-12)


@pytest.mark.parametrize("op", ["GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"])
def test_global_pools_differentiate(op: str) -> None:
    check_op(op, _distinct(2, 2, 3, 2) + 0.03)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_lp_pool_of_zeros_has_derivative_zero(p: int) -> None:
    forward, reverse = gradient_of("LpPool", np.zeros((1, 1, 4)), kernel_shape=[2], p=p)
    np.testing.assert_array_equal(forward, 0)
    np.testing.assert_array_equal(reverse, 0)


def test_max_unpool_puts_values_back_and_differentiates() -> None:
    x = _distinct(1, 2, 4, 4)
    y, indices = run("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], outputs=2)
    options = {"kernel_shape": [2, 2], "strides": [2, 2]}
    back = run("MaxUnpool", y, indices, **options)
    np.testing.assert_array_equal(back.ravel()[indices.ravel()], y.ravel())
    assert np.count_nonzero(back) == y.size
    check_op("MaxUnpool", y, indices, **options)


def test_max_roi_pool_matches_a_loop_over_cells() -> None:
    x = _distinct(2, 2, 8, 9)
    rois = np.array([[0, 1, 2, 6, 7], [1, 0.4, 0.6, 3.5, 20], [1, 5, 5, 5, 5]])
    expected = np.zeros((3, 2, 3, 2))
    for r, (batch, *corners) in enumerate(rois):
        x1, y1, x2, y2 = np.floor(np.array(corners) * 0.5 + 0.5)
        height, width = max(y2 - y1 + 1, 1) / 3, max(x2 - x1 + 1, 1) / 2
        for i in range(3):
            for j in range(2):
                rows = slice(int(np.floor(i * height) + y1), int(np.ceil((i + 1) * height) + y1))
                columns = slice(int(np.floor(j * width) + x1), int(np.ceil((j + 1) * width) + x1))
                cell = x[int(batch), :, rows, columns]
                expected[r, :, i, j] = cell.max(axis=(1, 2)) if cell.size else 0
    options = {"pooled_shape": [3, 2], "spatial_scale": 0.5}
    np.testing.assert_array_equal(run("MaxRoiPool", x, rois, **options), expected)
    check_op("MaxRoiPool", x, rois, wrt=[0], **options)


def test_a_window_larger_than_the_padded_input_is_refused() -> None:
    with pytest.raises(InvalidGraph, match="more than the 3"):
        run("MaxPool", np.zeros((1, 1, 3)), kernel_shape=[4])


@pytest.mark.parametrize("op", ["GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"])
def test_an_empty_batch_gives_an_empty_result(op: str) -> None:
    assert run(op, np.zeros((0, 2, 5))).shape == (0, 2, 1)
