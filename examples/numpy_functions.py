"""Gradients of functions of NumPy and SciPy: spectra, eigenvalues, Gaussian processes.

    python examples/numpy_functions.py

Functions of `np.fft`, `np.linalg` and `scipy.special` are traced as they are, and the service returns exact
derivatives. Each gradient is checked against central differences of the function, evaluated locally.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import gammaln

import gradwire as gw

RNG = np.random.default_rng(0)
TIME = np.linspace(0, 1, 64, endpoint=False)
HEARD = np.sin(2 * np.pi * 5 * TIME) + 0.5 * np.sin(2 * np.pi * 12 * TIME + 1) + 0.1 * RNG.normal(size=64)
PLACES = np.sort(RNG.uniform(0, 4, size=20))
COUNTS = RNG.poisson(np.exp(1 + np.sin(PLACES)))


def spectral_loss(signal):
    """Return the distance between the power spectrum and that of HEARD; a shift in time does not matter."""
    power = np.abs(np.fft.rfft(signal, norm="ortho")) ** 2
    target = np.abs(np.fft.rfft(HEARD, norm="ortho")) ** 2
    return np.mean((np.log1p(power) - np.log1p(target)) ** 2)


def lowest_frequency(stiffness):
    """Return the lowest frequency of a chain of masses and springs, from an eigenvalue of its matrix."""
    chain = (
        np.diag(stiffness[:-1] + stiffness[1:]) - np.diag(stiffness[1:-1], 1) - np.diag(stiffness[1:-1], -1)
    )
    return np.sqrt(np.linalg.eigvalsh(chain)[0])


def log_posterior(rates, width):
    """Return the log posterior of Poisson log rates, with a Gaussian process prior over PLACES."""
    kernel = np.exp(-0.5 * ((PLACES[:, None] - PLACES) / width) ** 2) + 1e-3 * np.eye(20)
    factor = np.linalg.cholesky(kernel)
    white = np.linalg.solve(factor, rates)
    prior = -0.5 * white @ white - 0.5 * np.linalg.slogdet(kernel).logabsdet - 10 * np.log(2 * np.pi)
    return prior + np.sum(COUNTS * rates - np.exp(rates) - gammaln(COUNTS + 1.0))


def difference(function: Callable[[np.ndarray], float], x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Return central differences, with two evaluations for each coordinate."""
    steps = step * np.eye(x.size)
    return np.array([(function(x + e) - function(x - e)) / (2 * step) for e in steps])


def main(client: gw.Client) -> None:
    """Check each gradient against differences, and descend along it."""
    signal = RNG.normal(size=64)
    loss = client.function(spectral_loss, gw.spec(64))
    slope = loss.grad(signal)
    np.testing.assert_allclose(slope, difference(spectral_loss, signal), atol=1e-8)
    for _ in range(200):
        signal = signal - 2.0 * loss.grad(signal)
    print(f"spectral loss: gradient of {slope.size} samples; {loss(signal):.2e} after 200 steps")
    assert loss(signal) < 1e-2

    stiffness = RNG.uniform(1, 2, size=9)
    frequency = client.function(lowest_frequency, gw.spec(9))
    slope = frequency.grad(stiffness)
    np.testing.assert_allclose(slope, difference(lowest_frequency, stiffness), atol=1e-8)
    # Euler: the frequency is homogeneous of degree 1/2 in the stiffnesses.
    np.testing.assert_allclose(slope @ stiffness, 0.5 * lowest_frequency(stiffness), rtol=1e-12)
    print(f"lowest frequency {frequency(stiffness):.4f}; spring {np.argmax(slope)} matters most to it")

    rates, width = np.log(COUNTS + 0.5), np.array(0.7)
    posterior = client.function(log_posterior, gw.spec(20), gw.spec(()))
    by_rates, by_width = posterior.grad(rates, width)
    local = difference(lambda rates: log_posterior(rates, 0.7), rates)
    np.testing.assert_allclose(by_rates, local, rtol=1e-5, atol=1e-5)
    local = (log_posterior(rates, 0.7 + 1e-5) - log_posterior(rates, 0.7 - 1e-5)) / 2e-5
    np.testing.assert_allclose(by_width, local, rtol=1e-5)
    # Newton's method: the Hessian is exact too.
    for _ in range(12):
        curvature = posterior.hessian(rates, width, wrt="rates")
        rates = rates - np.linalg.solve(curvature, posterior.grad(rates, width, wrt="rates"))
    size = np.abs(posterior.grad(rates, width, wrt="rates")).max()
    print(f"Gaussian process: gradient {size:.1e} at the mode, found by Newton's method")
    assert size < 1e-8


if __name__ == "__main__":
    with gw.local(workers=2) as client:
        main(client)
