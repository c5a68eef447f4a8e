"""Convolutions against SciPy and direct sums, and their derivatives."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import onnx
import pytest
from scipy import signal

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_op, one_node, run

rng = np.random.default_rng(7)


def _normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def test_conv_is_the_correlation_of_every_channel_summed() -> None:
    x, w, b = _normal(2, 3, 6, 7), _normal(4, 3, 3, 2), _normal(4)
    expected = np.zeros((2, 4, 4, 6))
    for n in range(2):
        for m in range(4):
            expected[n, m] = b[m] + sum(signal.correlate(x[n, c], w[m, c], "valid") for c in range(3))
    np.testing.assert_allclose(run("Conv", x, w, b), expected, rtol=1e-12)


def test_conv_keeps_half_precision() -> None:
    x, w = _normal(1, 1, 5).astype(np.float16), _normal(1, 1, 2).astype(np.float16)
    assert run("Conv", x, w).dtype == np.float16


@pytest.mark.parametrize(
    ("shape", "weights", "options"),
    [
        ((1, 2, 7), (3, 2, 3), {"pads": [1, 2], "strides": [2], "dilations": [2]}),
        ((2, 4, 5, 4), (4, 2, 2, 3), {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 1]}),
        ((1, 3, 5, 4), (3, 1, 2, 2), {"group": 3, "auto_pad": "SAME_LOWER"}),
        ((1, 2, 3, 4, 3), (2, 2, 2, 2, 2), {"pads": [1, 0, 0, 0, 1, 1], "auto_pad": "NOTSET"}),
        ((1, 1, 5), (1, 1, 3), {"auto_pad": "VALID"}),
    ],
)
def test_conv_differentiates(shape: tuple, weights: tuple, options: dict) -> None:
    check_op("Conv", _normal(*shape), _normal(*weights), _normal(weights[0]), check={"order": 2}, **options)


@pytest.mark.parametrize(
    ("shape", "weights", "options"),
    [
        ((1, 2, 4), (2, 3, 3), {"strides": [2], "output_padding": [1]}),
        ((1, 4, 3, 3), (4, 2, 2, 3), {"group": 2, "pads": [1, 0, 0, 1], "dilations": [2, 1]}),
        ((1, 2, 3, 3), (2, 1, 3, 3), {"strides": [3, 2], "output_shape": [10, 8]}),
        ((1, 1, 3, 3), (1, 2, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ],
)
def test_conv_transpose_differentiates(shape: tuple, weights: tuple, options: dict) -> None:
    bias = _normal(weights[1] * options.get("group", 1))
    check_op("ConvTranspose", _normal(*shape), _normal(*weights), bias, check={"order": 2}, **options)


def test_conv_transpose_is_the_adjoint_of_conv() -> None:
    options = {"strides": [2, 3], "dilations": [2, 1], "pads": [1, 0, 2, 1], "group": 2}
    x, w = _normal(1, 4, 9, 9), _normal(6, 2, 2, 3)
    y = run("Conv", x, w, **options)
    z = _normal(*y.shape)
    # The elements that the strides leave over at the end are given as output_padding.
    plain = run("ConvTranspose", z, w, **options)
    extra = [x.shape[2] - plain.shape[2], x.shape[3] - plain.shape[3]]
    back = run("ConvTranspose", z, w, output_padding=extra, **options)
    np.testing.assert_allclose(np.sum(y * z), np.sum(x * back), rtol=1e-12)


def test_same_padding_of_conv_transpose_gives_input_times_stride() -> None:
    assert run(
        "ConvTranspose", _normal(1, 1, 5), _normal(1, 1, 3), strides=[2], auto_pad="SAME_LOWER"
    ).shape == (
        1,
        1,
        10,
    )


def test_deform_conv_without_offsets_is_conv() -> None:
    x, w, b = _normal(2, 4, 5, 6), _normal(4, 2, 2, 3), _normal(4)
    options = {"pads": [1, 0, 0, 1], "strides": [1, 2], "dilations": [2, 1], "group": 2}
    expected = run("Conv", x, w, b, **options)
    offset = np.zeros((2, 2 * 2 * 3 * 2, *expected.shape[2:]))
    np.testing.assert_allclose(
        run("DeformConv", x, w, offset, b, offset_group=2, **options), expected, rtol=1e-12
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_deform_conv_differentiates_in_every_input(rank: int) -> None:
    extent = 4 if rank < 3 else 3
    x, w = _normal(1, 2, *(extent,) * rank), _normal(2, 2, *(2,) * rank)
    taps, sites = 2**rank, (extent - 1,) * rank
    # Fractions of 0.2 to 0.4 keep every sample away from grid lines.
    offset = rng.integers(-1, 2, (1, taps * rank, *sites)) + rng.uniform(0.2, 0.4, (1, taps * rank, *sites))
    mask = rng.uniform(0.5, 1, (1, taps, *sites))
    check_op("DeformConv", x, w, offset, _normal(2), mask)


def test_conv_integer_subtracts_zero_points_and_sums_in_32_bits() -> None:
    x = rng.integers(0, 256, (1, 2, 4, 4)).astype(np.uint8)
    w = rng.integers(-128, 128, (2, 2, 2, 2)).astype(np.int8)
    y = run("ConvInteger", x, w, np.uint8(100), np.array([3, -4], np.int8), opset=10)
    expected = run("Conv", x.astype(float) - 100, w - np.array([3.0, -4.0]).reshape(2, 1, 1, 1))
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y, expected)


def test_qlinear_conv_rounds_half_to_even_and_saturates() -> None:
    x = np.array([[[1, 3, 5, 255]]], np.uint8)
    one = np.array([[[1]]], np.uint8)
    half, zero = np.float32(0.5), np.uint8(0)
    y = run("QLinearConv", x, half, zero, one, np.float32(1), zero, np.float32(1), np.uint8(200))
    np.testing.assert_array_equal(y, [[[200, 202, 202, 255]]])


def test_causal_conv_in_two_parts_equals_the_whole() -> None:
    x, w, b = _normal(1, 2, 7), _normal(2, 1, 3), _normal(2)
    options = {"activation": "silu", "opset": 27, "outputs": 2}
    whole, end = run("CausalConvWithState", x, w, b, **options)
    first, state = run("CausalConvWithState", x[..., :1], w, b, **options)
    second, last = run("CausalConvWithState", x[..., 1:], w, b, state, **options)
    np.testing.assert_allclose(np.concatenate([first, second], 2), whole, rtol=1e-12)
    np.testing.assert_allclose(last, end)


def test_causal_conv_differentiates() -> None:
    check_op(
        "CausalConvWithState",
        *(_normal(1, 2, 4), _normal(2, 1, 3), _normal(2), _normal(1, 2, 2)),
        outputs=2,
        opset=27,
        activation="silu",
        check={"order": 2},
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_shape": [2]}, "kernel_shape"),
        ({"strides": [1, 1]}, "strides has 2 entries"),
        ({"dilations": [9]}, "more than"),
        ({"group": 2}, "group 2"),
        ({"auto_pad": "SAME"}, "auto_pad"),
    ],
)
def test_conv_refuses_attributes_that_do_not_fit(options: dict, message: str) -> None:
    with pytest.raises(InvalidGraph, match=message):
        run("Conv", _normal(1, 1, 5), _normal(1, 1, 3), **options)


def test_models_of_opset_1_run_without_conversion() -> None:
    x, w = _normal(1, 1, 4), _normal(1, 1, 2)
    assert onnx.defs.has("Conv", 1)
    np.testing.assert_array_equal(run("Conv", x, w, opset=1), run("Conv", x, w))


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "DeformConv"])
def test_an_empty_batch_gives_an_empty_result(op: str) -> None:
    offsets = [np.zeros((0, 2, 4))] if op == "DeformConv" else []
    assert run(op, np.zeros((0, 1, 5)), np.ones((1, 1, 2)), *offsets).shape[0] == 0


DEPTHWISE = [
    ((5, 6), (3, 2), {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}),
    ((7,), (3,), {"auto_pad": "SAME_UPPER", "strides": [2]}),
    ((3, 4, 3), (2, 2, 2), {}),
]


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize(("shape", "kernel", "options"), DEPTHWISE)
def test_a_channel_with_kernels_of_its_own_is_convolved_as_by_itself(
    shape: tuple[int, ...], kernel: tuple[int, ...], options: dict[str, Any], multiplier: int
) -> None:
    x, w = _normal(2, 3, *shape), _normal(3 * multiplier, 1, *kernel)
    alone = [run("Conv", x[:, [c]], w[c * multiplier : (c + 1) * multiplier], **options) for c in range(3)]
    found = run("Conv", x, w, group=3, **options)
    np.testing.assert_allclose(found, np.concatenate(alone, 1), rtol=1e-12, atol=1e-14)
    text = jax.jit(lambda x: evaluate(one_node("Conv", x, w, group=3, **options), {"x0": x, "x1": w}))
    assert "convolution" not in text.lower(x).as_text()


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_channel_with_kernels_of_its_own_differentiates(multiplier: int) -> None:
    x, w = _normal(1, 2, 4, 3), _normal(2 * multiplier, 1, 3, 2)
    check_op("Conv", x, w, group=2, strides=[2, 1], pads=[1, 0, 1, 1], check={"order": 2})
    check_op(
        "ConvTranspose", x, w.reshape(2, multiplier, 3, 2), group=2, strides=[2, 2], output_padding=[1, 0]
    )
