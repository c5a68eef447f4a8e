"""Normalisation: values in double against NumPy, derivatives, and the effect of stash_type."""

from __future__ import annotations

import numpy as np
import pytest

from gradwire_engine.errors import InvalidGraph
from tests.engine.lowering.derivative_checks import check_op, gradient_of, run

rng = np.random.default_rng(5)


def _normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def _standardized(
    x: np.ndarray, axes: tuple[int, ...], epsilon: float = float(np.float32(1e-5))
) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


@pytest.mark.parametrize("op", ["LayerNormalization", "RMSNormalization", "GroupNormalization"])
def test_float64_is_not_degraded_by_the_default_stash_type(op: str) -> None:
    # Deviations of 1e-3 around 1e3 keep one digit in float32.
    x = 1e3 + 1e-3 * _normal(1, 4, 3) if op != "RMSNormalization" else _normal(1, 4, 3)
    scale, bias, options = np.ones(3), [np.zeros(3)], {"epsilon": 0.0}
    if op == "RMSNormalization":
        bias, expected = [], x / np.sqrt((x * x).mean(-1, keepdims=True))
    elif op == "GroupNormalization":
        scale, bias, options["num_groups"] = np.ones(4), [np.zeros(4)], 2
        expected = _standardized(x.reshape(1, 2, -1), (2,), 0.0).reshape(x.shape)
    else:
        expected = _standardized(x, (2,), 0.0)
    y = run(op, x, scale, *bias, **options)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-8)


def test_layer_normalization_computes_half_precision_in_single() -> None:
    x = (1e3 + _normal(2, 64)).astype(np.float16)
    y, mean, inverse = run("LayerNormalization", x, np.ones(64, np.float16), outputs=3)
    assert (y.dtype, mean.dtype, inverse.dtype) == (np.float16, np.float32, np.float32)
    np.testing.assert_allclose(y, _standardized(x.astype(np.float64), (1,)), atol=2e-3)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_layer_normalization_differentiates(axis: int) -> None:
    x = _normal(2, 3, 2)
    tail = x.shape[axis % 3 :]
    check_op("LayerNormalization", x, _normal(*tail), _normal(*tail), axis=axis, check={"order": 2})


def test_rms_normalization_differentiates() -> None:
    check_op("RMSNormalization", _normal(2, 4), _normal(4), check={"order": 2})


def test_instance_normalization_differentiates() -> None:
    check_op("InstanceNormalization", _normal(2, 2, 3), _normal(2), _normal(2), check={"order": 2})


@pytest.mark.parametrize(("opset", "size"), [(18, 2), (21, 4)])
def test_group_normalization_scales_by_group_before_opset_21_and_by_channel_after(
    opset: int, size: int
) -> None:
    x, scale, bias = _normal(2, 4, 3), _normal(size), _normal(size)
    per_channel = [np.repeat(item, 4 // size).reshape(1, 4, 1) for item in (scale, bias)]
    expected = _standardized(x.reshape(2, 2, -1), (2,)).reshape(x.shape) * per_channel[0] + per_channel[1]
    np.testing.assert_allclose(
        run("GroupNormalization", x, scale, bias, num_groups=2, opset=opset), expected, rtol=1e-10
    )
    check_op("GroupNormalization", x, scale, bias, num_groups=2, opset=opset)


def _batch_inputs() -> tuple[np.ndarray, ...]:
    return _normal(3, 2, 2), _normal(2), _normal(2), _normal(2), rng.uniform(0.5, 2, 2)


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_normalization_differentiates_in_every_input(opset: int) -> None:
    check_op("BatchNormalization", *_batch_inputs(), opset=opset, check={"order": 2})


def test_batch_normalization_in_training_mode_differentiates_through_the_statistics() -> None:
    check_op("BatchNormalization", *_batch_inputs(), training_mode=1, outputs=3, check={"order": 2})


def test_batch_normalization_before_opset_14_trains_when_statistics_are_wanted() -> None:
    x, scale, bias, mean, var = _batch_inputs()
    old = run("BatchNormalization", x, scale, bias, mean, var, opset=9, outputs=5)
    new = run("BatchNormalization", x, scale, bias, mean, var, opset=15, outputs=3, training_mode=1)
    for before, after in zip(old, new, strict=False):
        np.testing.assert_allclose(before, after, rtol=1e-12)
    np.testing.assert_allclose(old[3], x.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(old[4], x.var((0, 2)), rtol=1e-12)


def test_batch_normalization_with_spatial_0_normalises_each_element() -> None:
    x, scale, bias, mean = (_normal(*shape) for shape in ((3, 2, 2), (2, 2), (2, 2), (2, 2)))
    var = rng.uniform(0.5, 2, (2, 2))
    expected = scale * (x - mean) / np.sqrt(var + float(np.float32(1e-5))) + bias
    y = run("BatchNormalization", x, scale, bias, mean, var, opset=7, spatial=0)
    np.testing.assert_allclose(y, expected, rtol=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization_divides_by_the_norm(p: int) -> None:
    x = _normal(3, 4)
    expected = x / np.linalg.norm(x, p, axis=0, keepdims=True)
    np.testing.assert_allclose(run("LpNormalization", x, p=p, axis=0), expected, rtol=1e-12)
    check_op("LpNormalization", x, p=p, axis=0, check={"order": 2})


@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization_of_zeros_is_zero_with_derivative_zero(p: int) -> None:
    forward, reverse = gradient_of("LpNormalization", np.zeros((1, 3)), p=p)
    np.testing.assert_array_equal(forward, 0)
    np.testing.assert_array_equal(reverse, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_lrn_sums_squares_of_neighbouring_channels(size: int) -> None:
    x = _normal(1, 4, 2)
    options = {"size": size, "alpha": 0.5, "beta": 0.75, "bias": 2.0}
    expected = np.empty_like(x)
    for c in range(4):
        near = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]
        expected[:, c] = x[:, c] / (2 + 0.5 / size * (near**2).sum(1)) ** 0.75
    np.testing.assert_allclose(run("LRN", x, **options), expected, rtol=1e-12)
    check_op("LRN", x, check={"order": 2}, **options)


def test_mean_variance_normalization_differentiates() -> None:
    check_op("MeanVarianceNormalization", _normal(2, 2, 2, 3), check={"order": 2})


def test_mean_variance_normalization_of_a_constant_has_a_finite_derivative() -> None:
    forward, reverse = gradient_of("MeanVarianceNormalization", np.ones((1, 1, 2, 2)))
    np.testing.assert_array_equal(forward, 0)
    np.testing.assert_array_equal(reverse, 0)


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(InvalidGraph, match="num_groups 3 does not divide 4"):
        run("GroupNormalization", _normal(1, 4, 2), _normal(4), _normal(4), num_groups=3)
