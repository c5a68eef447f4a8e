"""Fit 200 parameters with scipy.optimize.least_squares and a Jacobian computed by the service.

A bar of 200 cells cools by conduction and radiation; its initial temperatures are estimated from the final
ones. Without a Jacobian, SciPy runs the model once for each parameter at every step. With one, the residuals
and their Jacobian at a point come from a single request.
"""

import time
from collections import Counter

import numpy as np
from scipy.optimize import least_squares

import gradwire as gw

CELLS, STEPS = 200, 60
START = np.full(CELLS, 1.0)
WEIGHT = 1e-3  # of the prior, without which short waves are undetermined


def cooled(u):
    """Temperatures after STEPS explicit steps of conduction and radiation; no heat flows through the ends."""
    for _ in range(STEPS):
        left, right = np.concatenate([u[:1], u[:-1]]), np.concatenate([u[1:], u[-1:]])
        u = u + 0.4 * (left - 2 * u + right) - 2e-3 * (u**4 - 1)
    return u


positions = np.linspace(0, 1, CELLS)
truth = 1.5 + 0.4 * np.sin(2 * np.pi * positions) + 0.3 * np.exp(-(((positions - 0.7) / 0.1) ** 2))
measured = cooled(truth)
runs = Counter()


def residuals(u):
    """Differences between model and measurement, and between parameters and prior."""
    runs["model"] += 1
    return np.concatenate([cooled(u) - measured, WEIGHT * (u - 1.5)])


with gw.local(workers=2) as client:
    c = client.function(residuals, gw.spec(CELLS)).callbacks()
    c.value(START)  # the first call compiles

    started = time.perf_counter()
    exact = least_squares(c.value, START, jac=c.jacobian)
    here = time.perf_counter() - started

    runs.clear()
    started = time.perf_counter()
    differences = least_squares(residuals, START, jac="2-point")  # NumPy on this machine
    there = time.perf_counter() - started

np.testing.assert_allclose(exact.x, differences.x, rtol=1e-4)
assert np.abs(cooled(exact.x) - measured).max() < 1e-3
assert exact.optimality < 1e-6
print(f"largest error of the initial temperatures: {np.abs(exact.x - truth).max():.3f}")
print(f"exact Jacobian:     {exact.nfev:5d} requests, {here:.2f} s, cost {exact.cost:.3e}")
print(f"finite differences: {runs['model']:5d} runs of the model, {there:.2f} s, cost {differences.cost:.3e}")
print(f"evaluations: {runs['model'] / exact.nfev:.0f} times fewer; time: {there / here:.1f} times less")
