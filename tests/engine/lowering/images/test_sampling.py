"""GridSample, AffineGrid and RoiAlign: values against the definition, derivatives in data and positions."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch

from gradwire_engine.errors import ValueNeeded
from tests.engine.lowering.derivative_checks import check_op, function_of, one_node, run

RNG = np.random.default_rng(4)
IMAGE = RNG.normal(size=(2, 2, 4, 5))
VOLUME = RNG.normal(size=(1, 2, 3, 4, 3))


def grid(shape: tuple[int, ...], reach: float = 0.9) -> np.ndarray:
    """Positions whose distance from any element, border or edge between them is not tiny."""
    return np.random.default_rng(8).uniform(-reach, reach, size=shape)


def bilinear(image: np.ndarray, row: float, column: float) -> np.ndarray:
    """The definition, for one point of (C, H, W); zero outside."""
    low_row, low_column = int(np.floor(row)), int(np.floor(column))
    total = np.zeros(image.shape[0])
    for i in (low_row, low_row + 1):
        for j in (low_column, low_column + 1):
            if 0 <= i < image.shape[1] and 0 <= j < image.shape[2]:
                total += (1 - abs(row - i)) * (1 - abs(column - j)) * image[:, i, j]
    return total


@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample_interpolates_between_four_elements(align: int) -> None:
    places = grid((2, 3, 3, 2), 1.3)
    result = run("GridSample", IMAGE, places, align_corners=align)
    for n in range(2):
        for i in range(3):
            for j in range(3):
                x, y = places[n, i, j]
                if align:
                    row, column = (y + 1) / 2 * 3, (x + 1) / 2 * 4
                else:
                    row, column = ((y + 1) * 4 - 1) / 2, ((x + 1) * 5 - 1) / 2
                np.testing.assert_allclose(result[n, :, i, j], bilinear(IMAGE[n], row, column), atol=1e-13)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_grid_sample_has_both_derivatives_in_data_and_grid(mode: str, padding: str, align: int) -> None:
    places = grid((2, 2, 2, 2), 1.15)
    check_op(
        "GridSample",
        IMAGE,
        places,
        mode=mode,
        padding_mode=padding,
        align_corners=align,
        check={"step": 1e-4, "rtol": 1e-5 if mode == "cubic" else 1e-6},
    )


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample_at_the_elements_themselves_is_the_identity(mode: str, padding: str) -> None:
    along = [np.linspace(-1, 1, size) for size in VOLUME.shape[2:]]
    z, y, x = np.meshgrid(*along, indexing="ij")
    places = np.stack([x, y, z], axis=-1)[None]
    result = run("GridSample", VOLUME, places, mode=mode, padding_mode=padding, align_corners=1)
    np.testing.assert_allclose(result, VOLUME, atol=1e-13)


def test_grid_sample_of_a_volume_has_both_derivatives() -> None:
    check_op("GridSample", VOLUME, grid((1, 1, 2, 2, 3)), check={"step": 1e-4})


def test_grid_sample_reflects_far_positions_again_and_again() -> None:
    image = np.arange(4.0).reshape(1, 1, 1, 4)
    columns = np.array([-9.0, -4.0, -1.0, 0.0, 3.0, 5.0, 11.0])
    places = np.stack([columns / 1.5 - 1, np.zeros(7)], axis=-1)[None, None]
    result = run("GridSample", image, places, padding_mode="reflection", align_corners=1)
    np.testing.assert_allclose(result.ravel(), [3, 2, 1, 0, 3, 1, 1], atol=1e-12)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_grid_sample_has_the_pullback_of_torch_in_and_outside_the_image(
    mode: str, padding: str, align: int
) -> None:
    random = np.random.default_rng(11)
    data, grid = random.normal(size=(1, 2, 4, 6)), random.uniform(-2.2, 2.2, (1, 5, 4, 2))
    weights = random.normal(size=(1, 2, 5, 4))
    points = [torch.tensor(array, requires_grad=True) for array in (data, grid)]
    names = {"linear": "bilinear", "cubic": "bicubic"}
    sampled = torch.nn.functional.grid_sample(
        *points, mode=names[mode], padding_mode=padding, align_corners=bool(align)
    )
    expected = torch.autograd.grad(sampled, points, torch.tensor(weights))
    model = one_node("GridSample", data, grid, mode=mode, padding_mode=padding, align_corners=align)
    value, pull = jax.vjp(function_of(model, (data, grid)), data, grid)
    np.testing.assert_allclose(value[0], sampled.detach(), rtol=0, atol=1e-12)
    for ours, theirs in zip(pull((jax.numpy.asarray(weights),)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def test_grid_sample_names_of_opset_16_still_hold() -> None:
    places = grid((2, 2, 2, 2))
    for old, new in (("bilinear", "linear"), ("bicubic", "cubic")):
        np.testing.assert_array_equal(
            run("GridSample", IMAGE, places, mode=old, opset=16), run("GridSample", IMAGE, places, mode=new)
        )


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("space", [(3, 4), (2, 3, 4)])
def test_the_identity_transform_gives_the_grid_that_reproduces_the_data(
    space: tuple[int, ...], align: int
) -> None:
    rank = len(space)
    data = RNG.normal(size=(1, 1, *space))
    theta = np.eye(rank, rank + 1)[None]
    size = np.array([1, 1, *space])
    places = run("AffineGrid", theta, size, align_corners=align)
    np.testing.assert_allclose(run("GridSample", data, places, align_corners=align), data, atol=1e-13)
    check_op("AffineGrid", theta + 0.1, size, align_corners=align)


REGIONS = np.array([[0.6, 0.3, 3.3, 2.7], [-0.4, 0.7, 2.9, 3.2]])
OWNERS = np.array([1, 0])


def roi_average(
    data: np.ndarray, region: np.ndarray, bins: int, samples: tuple[int, int], shift: float
) -> np.ndarray:
    """Mean of bilinear samples in every bin, by the definition."""
    x0, y0, x1, y1 = region - shift
    result = np.zeros((data.shape[0], bins, bins))
    for i in range(bins):
        for j in range(bins):
            for a in range(samples[0]):
                for b in range(samples[1]):
                    row = y0 + (i + (a + 0.5) / samples[0]) * (y1 - y0) / bins
                    column = x0 + (j + (b + 0.5) / samples[1]) * (x1 - x0) / bins
                    row, column = max(row, 0), max(column, 0)
                    result[:, i, j] += bilinear(data, row, column) / (samples[0] * samples[1])
    return result


def test_roi_align_averages_bilinear_samples() -> None:
    result = run("RoiAlign", IMAGE, REGIONS, OWNERS, output_height=2, output_width=2, sampling_ratio=3)
    for k, (region, owner) in enumerate(zip(REGIONS, OWNERS, strict=True)):
        expected = roi_average(IMAGE[owner], region, 2, (3, 3), 0.5)
        np.testing.assert_allclose(result[k], expected, rtol=1e-12)


def test_roi_align_before_opset_16_does_not_shift() -> None:
    result = run(
        "RoiAlign", IMAGE, REGIONS, OWNERS, output_height=2, output_width=2, sampling_ratio=2, opset=10
    )
    np.testing.assert_allclose(result[0], roi_average(IMAGE[1], REGIONS[0], 2, (2, 2), 0.0), rtol=1e-12)


def test_roi_align_adapts_its_samples_to_each_static_region() -> None:
    from gradwire_engine.lowering import evaluate
    from tests.engine.lowering.derivative_checks import one_node

    regions = np.array([[0.5, 0.5, 3.5, 1.5], [0.5, 0.5, 1.5, 3.5]])
    model = one_node("RoiAlign", IMAGE, regions, OWNERS, output_height=1, output_width=1)
    result = np.asarray(evaluate(model, {"x0": IMAGE, "x1": regions, "x2": OWNERS})[0])
    for k, samples in enumerate([(1, 3), (3, 1)]):
        expected = roi_average(IMAGE[OWNERS[k]], regions[k], 1, samples, 0.5)
        np.testing.assert_allclose(result[k], expected, rtol=1e-12)


def test_roi_align_with_adaptive_samples_of_traced_regions_is_refused_by_name() -> None:
    with pytest.raises(ValueNeeded, match="sampling_ratio 0 adapts it"):
        run("RoiAlign", IMAGE, REGIONS, OWNERS)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_has_both_derivatives_in_data_and_regions(mode: str) -> None:
    check_op(
        "RoiAlign",
        IMAGE,
        REGIONS,
        OWNERS,
        mode=mode,
        output_height=2,
        output_width=2,
        sampling_ratio=2,
        check={"step": 1e-4},
    )
