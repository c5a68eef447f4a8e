"""Fourier transforms and complex arithmetic: NumPy's numbers, and derivatives that differences confirm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.client.frontends.numpy.case import check_derivative, check_value
from tests.client.frontends.numpy.cases_fourier import CASES, RNG, V, W, parts
from tests.client.frontends.numpy.oracle import agree, operators

SLOPES = [name for name, case in CASES.items() if case.slope_rtol is not None]


@pytest.mark.parametrize("name", CASES)
def test_values_are_numpys(name: str) -> None:
    check_value(CASES[name])


@pytest.mark.parametrize("name", SLOPES)
def test_derivatives_are_those_of_differences(name: str) -> None:
    check_derivative(CASES[name])


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 12, 97])
def test_spectra_of_any_length_keep_parsevals_energy(length: int) -> None:
    signal = RNG.normal(size=length)
    model = agree(lambda x: np.sum(np.abs(np.fft.fft(x, norm="ortho")) ** 2), signal, rtol=1e-12)
    assert operators(model).count("DFT") == 1
    agree(lambda x: np.fft.irfft(np.fft.rfft(x), length), signal, rtol=1e-12)


def test_single_precision_stays_single() -> None:
    agree(lambda x: parts(np.fft.rfft(x)), V.astype(np.float32), rtol=1e-5, atol=1e-5)
    agree(lambda x: parts(x * (1 + 2j)), V.astype(np.float32), rtol=1e-6)
    agree(lambda x: parts(x * np.complex128(1j)), V.astype(np.float32), rtol=1e-6)


def test_integers_are_transformed_in_double() -> None:
    agree(lambda x: parts(np.fft.fft(x)), np.arange(6), rtol=1e-12, atol=1e-12)


def test_quotients_of_huge_numbers_do_not_overflow() -> None:
    agree(lambda v, w: parts(((v + 1j * w) * 1e200) / ((w + 1j * v) * 1e200)), V, W)


def test_a_real_array_does_not_become_complex_in_place() -> None:
    def fn(x: Any) -> Any:
        x *= 1j
        return x

    with pytest.raises(TypeError, match=r"cannot cast|Cannot cast"):
        agree(fn, V)


def test_lengths_and_norms_that_mean_nothing_are_refused_as_numpy_does() -> None:
    with pytest.raises(ValueError, match="FFT data points"):
        agree(lambda x: np.fft.rfft(x, 0).real, V)
    with pytest.raises(ValueError, match="norm"):
        agree(lambda x: np.fft.rfft(x, norm="half").real, V)
