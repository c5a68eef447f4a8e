"""Pad, CenterCropPad and Col2Im against NumPy, with derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from gradwire_engine.errors import InvalidGraph
from tests.engine.lowering.derivative_checks import check_op, run

X = np.random.default_rng(5).normal(size=(3, 4))


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("pads", [(1, 0, 2, 3), (0, 5, 4, 0)])
def test_pad_is_numpy_s_pad(mode: str, pads: tuple[int, ...]) -> None:
    widths = [(pads[0], pads[2]), (pads[1], pads[3])]
    np.testing.assert_array_equal(run("Pad", X, i64(*pads), mode=mode), np.pad(X, widths, mode))
    check_op("Pad", X, i64(*pads), mode=mode)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_negative_pads_crop_before_the_rest_is_padded(mode: str) -> None:
    expected = np.pad(X[1:, :-2], [(0, 1), (1, 0)], mode)
    np.testing.assert_array_equal(run("Pad", X, i64(-1, 1, 1, -2), mode=mode), expected)
    check_op("Pad", X, i64(-1, 1, 1, -2), mode=mode)


def test_pad_value_has_a_derivative() -> None:
    jacobian = check_op("Pad", X, i64(1, 0, 0, 1), np.array(2.5))
    # 4 + 4 - 1 cells of the 4 x 5 result hold the value.
    assert jacobian[:, -1].sum() == 8


def test_pad_takes_axes_and_a_value() -> None:
    result = run("Pad", X, i64(1, 2), np.array(7.0), i64(-2))
    np.testing.assert_array_equal(result, np.pad(X, [(1, 2), (0, 0)], constant_values=7.0))


def test_pad_takes_attributes_before_opset_11() -> None:
    result = run("Pad", X, pads=[0, 1, 0, 1], value=0.5, opset=10)
    np.testing.assert_array_equal(result, np.pad(X, [(0, 0), (1, 1)], constant_values=0.5))


def test_pad_with_the_wrong_number_of_pads_is_refused() -> None:
    with pytest.raises(InvalidGraph, match="pads has 2 entries, 4 are needed for 2 axes"):
        run("Pad", X, i64(1, 1))


def test_center_crop_pad_crops_one_axis_and_pads_the_other() -> None:
    expected = np.zeros((2, 7))
    expected[:, 1:5] = X[:2]
    np.testing.assert_array_equal(run("CenterCropPad", X, i64(2, 7)), expected)
    check_op("CenterCropPad", X, i64(2, 7))


@pytest.mark.parametrize(
    "options", [{}, {"pads": [1, 0, 1, 1]}, {"strides": [2, 1]}, {"dilations": [2, 1], "pads": [1, 1, 1, 1]}]
)
def test_col2im_is_the_adjoint_of_taking_patches(options: dict[str, list[int]]) -> None:
    image, block = (5, 4), (2, 3)
    pads = options.get("pads", [0] * 4)
    strides, dilations = options.get("strides", [1, 1]), options.get("dilations", [1, 1])
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 3, *image))
    padded = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])])
    counts = [(padded.shape[2 + k] - dilations[k] * (block[k] - 1) - 1) // strides[k] + 1 for k in range(2)]
    columns = np.stack(
        [
            padded[
                :,
                :,
                i * dilations[0] : i * dilations[0] + strides[0] * (counts[0] - 1) + 1 : strides[0],
                j * dilations[1] : j * dilations[1] + strides[1] * (counts[1] - 1) + 1 : strides[1],
            ].reshape(2, 3, -1)
            for i in range(block[0])
            for j in range(block[1])
        ],
        axis=2,
    ).reshape(2, 18, -1)
    w = rng.normal(size=columns.shape)
    folded = run("Col2Im", w, i64(*image), i64(*block), **options)
    assert folded.shape == x.shape
    np.testing.assert_allclose(np.vdot(folded, x), np.vdot(w, columns), rtol=1e-12)
    check_op("Col2Im", w[:1, :6], i64(*image), i64(*block), **options)
