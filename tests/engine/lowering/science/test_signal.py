"""Transforms against numpy.fft and SciPy's windows; they are linear, so derivatives are exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import get_window

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_op, one_node, run

rng = np.random.default_rng(9)


def _pairs(z: np.ndarray) -> np.ndarray:
    return np.stack([z.real, z.imag], -1)


def _signal(parts: int) -> tuple[np.ndarray, np.ndarray]:
    """A signal as the operator has it and as complex numbers, transformed axis 1 of two."""
    x = rng.standard_normal((2, 6, 3, parts))
    return x, x[..., 0] if parts == 1 else x[..., 0] + 1j * x[..., 1]


@pytest.mark.parametrize("length", [None, 4, 9])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("opset", [17, 20])
def test_dft_matches_numpy_in_both_directions(opset: int, parts: int, length: int | None) -> None:
    x, z = _signal(parts)
    given = None if length is None else np.int64(length)
    axis: dict[str, Any] = {"axis": 1} if opset == 17 else {}
    more = [] if opset == 17 else [np.int64(1)]
    n = length or 6
    y = run("DFT", x, given, *more, opset=opset, **axis)
    np.testing.assert_allclose(y, _pairs(np.fft.fft(z, n, 1)), atol=1e-13)
    y = run("DFT", x, given, *more, opset=opset, inverse=1, **axis)
    np.testing.assert_allclose(y, _pairs(np.fft.ifft(z, n, 1)), atol=1e-13)
    y = run("DFT", x, given, *more, opset=opset, onesided=1, **axis)
    np.testing.assert_allclose(y, _pairs(np.fft.fft(z, n, 1)[:, : n // 2 + 1]), atol=1e-13)


def test_the_default_axis_is_the_second_before_opset_20_and_the_last_of_the_signal_after() -> None:
    x, z = _signal(1)
    np.testing.assert_allclose(run("DFT", x, opset=17), _pairs(np.fft.fft(z, axis=1)), atol=1e-13)
    np.testing.assert_allclose(run("DFT", x, opset=20), _pairs(np.fft.fft(z, axis=2)), atol=1e-13)


def test_the_inverse_of_a_onesided_spectrum_is_real() -> None:
    x, z = _signal(1)
    spectrum = _pairs(np.fft.rfft(z, axis=1))
    y = run("DFT", spectrum, np.int64(6), np.int64(1), inverse=1, onesided=1)
    np.testing.assert_allclose(y, x, atol=1e-13)


def test_zero_bins_of_a_single_precision_spectrum_stay_near_zero() -> None:
    x = np.arange(100, dtype=np.float32).reshape(10, 10, 1)
    y = run("DFT", x, None, np.int64(0))
    assert y.dtype == np.float32
    np.testing.assert_allclose(
        y, _pairs(np.fft.fft(x[..., 0].astype(np.float64), axis=0)), rtol=1e-6, atol=1e-10
    )


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("options", [{}, {"inverse": 1}, {"onesided": 1}])
def test_dft_differentiates(parts: int, options: dict) -> None:
    x = rng.standard_normal((1, 5, parts))
    check_op("DFT", x, None, np.int64(1), **options)


def test_the_inverse_onesided_dft_differentiates() -> None:
    check_op("DFT", rng.standard_normal((1, 4, 2)), np.int64(7), np.int64(1), inverse=1, onesided=1)


def test_the_axis_of_parts_cannot_be_transformed() -> None:
    with pytest.raises(InvalidGraph, match="last axis holds"):
        run("DFT", rng.standard_normal((1, 4, 2)), None, np.int64(-1))


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("parts", [1, 2])
def test_stft_transforms_each_windowed_frame(parts: int, onesided: int) -> None:
    x = rng.standard_normal((2, 11, parts))
    window = rng.uniform(0.5, 1, 4)
    z = x[..., 0] if parts == 1 else x[..., 0] + 1j * x[..., 1]
    bins = 3 if onesided else 4
    expected = np.stack([np.fft.fft(z[:, s : s + 4] * window)[:, :bins] for s in (0, 3, 6)], 1)
    y = run("STFT", x, np.int64(3), window, np.int64(4), onesided=onesided)
    np.testing.assert_allclose(y, _pairs(expected), atol=1e-13)
    check_op("STFT", x, np.int64(3), window, np.int64(4), onesided=onesided)


@pytest.mark.parametrize(
    ("op", "name"),
    [("HannWindow", "hann"), ("HammingWindow", ("general_hamming", 25 / 46)), ("BlackmanWindow", "blackman")],
)
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows_are_scipys_to_double_precision(op: str, name: Any, periodic: int) -> None:
    y = run(op, np.int64(9), periodic=periodic, output_datatype=11)
    np.testing.assert_allclose(y, get_window(name, 9, fftbins=bool(periodic)), atol=1e-15)
    assert run(op, np.int64(9)).dtype == np.float32


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
def test_a_symmetric_window_of_one_sample_is_one(op: str) -> None:
    np.testing.assert_array_equal(run(op, np.int64(1), periodic=0), [1])


def test_every_mel_filter_peaks_at_one_and_falls_to_zero_at_its_edges() -> None:
    sizes = [np.int64(8), np.int64(256), np.int64(8192), np.float32(0), np.float32(4096)]
    model = one_node("MelWeightMatrix", *sizes, output_datatype=11)
    (y,) = evaluate(model, {f"x{index}": np.asarray(size) for index, size in enumerate(sizes)})
    assert y.shape == (129, 8)
    np.testing.assert_array_equal(y.max(axis=0), 1)
    peaks = y.argmax(axis=0)
    for band in range(1, 7):
        assert y[peaks[band - 1], band] == 0
        assert y[peaks[band + 1], band] == 0
        assert np.all(np.diff(y[peaks[band - 1] : peaks[band] + 1, band]) > 0)
