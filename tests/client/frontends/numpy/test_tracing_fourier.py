"""Fourier transforms and complex arithmetic: NumPy's numbers, and derivatives that differences confirm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec
from gradwire_engine.lowering import evaluate
from tests.client.frontends.numpy.cases.case import check_derivative, check_value
from tests.client.frontends.numpy.cases.fourier import CASES, HOLOMORPHIC, RNG, V, W, parts
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
    agree(lambda x: parts(x.astype(np.complex64)), V, rtol=1e-6)
    agree(lambda x: parts(x * np.complex128(1j)), V.astype(np.float32), rtol=1e-6)


def test_integers_are_transformed_in_double() -> None:
    agree(lambda x: parts(np.fft.fft(x)), np.arange(6), rtol=1e-12, atol=1e-12)


def test_quotients_of_huge_numbers_do_not_overflow() -> None:
    agree(lambda v, w: parts(((v + 1j * w) * 1e200) / ((w + 1j * v) * 1e200)), V, W)


_AXES = ((4.0, 0.0), (-4.0, 0.0), (0.5, 0.0), (-0.5, 0.0), (0.0, 2.0), (0.0, -2.0), (0.0, 0.5), (0.0, -0.5))
_HOLOMORPHIC: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(np, name) for name in HOLOMORPHIC},
    **{f"power {w}": partial(lambda w, z: z**w, w) for w in (-2, 0.5, 3, 1.3, 1 + 2j)},
    "base 2": lambda z: 2**z,
    "quotient": lambda z: (1 + 2j) / z,
    "itself": lambda z: z**z,
}


@pytest.mark.parametrize("side", ["upper", "lower"])
def test_on_the_axes_derivatives_obey_the_equations_of_cauchy_and_riemann(side: str) -> None:
    """Against a difference along the axis, which crosses no cut; conjugates lie on the lower side."""

    def at(z: Any) -> list[Any]:
        z = z if side == "upper" else np.conjugate(z)
        return [function(z) for function in _HOLOMORPHIC.values()]

    model = trace(lambda v: [part for w in at(v[0] + 1j * v[1]) for part in parts(w)], [spec(2)])
    jacobian = jax.jit(jax.jacfwd(lambda v: jnp.stack(evaluate(model, {"v": v}))))
    step = 5e-3
    for point in _AXES:
        z, direction = complex(*point), 1 if point[0] else 1j
        values = np.array([at(np.complex128(z + count * step * direction)) for count in range(-3, 4)])
        slopes = np.array([-1, 9, -45, 0, 45, -9, 1]) @ values / (60 * step) / direction
        found = np.reshape(jacobian(np.array(point)), (len(_HOLOMORPHIC), 2, 2))
        for name, slope, matrix in zip(_HOLOMORPHIC, slopes, found, strict=True):
            by_real, by_imag = (slope, 1j * slope) if side == "upper" else _conjugated(slope, direction)
            expected = [[by_real.real, by_imag.real], [by_real.imag, by_imag.imag]]
            np.testing.assert_allclose(
                matrix, expected, rtol=1e-8, atol=1e-8 * abs(slope), err_msg=f"{name} at {z}"
            )


def _conjugated(along: complex, direction: complex) -> tuple[complex, complex]:
    """The derivatives of f(conj z) by the parts of z, from one along an axis, divided by its direction."""
    slope = along if direction == 1 else -along
    return slope, -1j * slope


@pytest.mark.parametrize(
    "made_complex",
    [
        lambda x: x.astype(complex),
        lambda x: x.astype(complex) * 1,
        lambda x: x * (1 + 0j),
        lambda x: x / (1 + 0j),
        lambda x: x + 0j,
        lambda x: x - 0j,
        lambda x: np.stack([x, x * 1j])[0],
    ],
    ids=["astype", "astype-times", "product", "quotient", "sum", "difference", "stack"],
)
def test_real_numbers_made_complex_are_on_the_upper_side_of_cuts(made_complex: Any) -> None:
    def fn(x: Any) -> Any:
        z = made_complex(x)
        return parts(np.sqrt(z)) + parts(np.log(z)) + parts(z**0.3)

    agree(fn, np.array([-4.0, 4.0, -0.25]))


def test_a_root_on_the_real_axis_moves_with_its_imaginary_part() -> None:
    model = trace(lambda v: np.sqrt(v[0] + 1j * v[1]).imag, [spec(2)])
    slope = jax.jacrev(lambda v: evaluate(model, {"v": v})[0])(np.array([4.0, 0.0]))
    np.testing.assert_allclose(slope, [0, 0.25], rtol=1e-14)


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
