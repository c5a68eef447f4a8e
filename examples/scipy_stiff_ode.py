"""Integrate a stiff reaction-diffusion system with scipy.integrate.solve_ivp and Jacobians from the service.

The Brusselator on a line: two substances in 150 cells each, so 300 equations, whose Jacobian the implicit
methods (Radau, BDF) need repeatedly. By finite differences it costs 300 evaluations, and half of its digits
are wrong.
"""

import time
from collections import Counter

import numpy as np
from scipy.integrate import solve_ivp

import gradwire as gw

CELLS = 150
DIFFUSION = 0.02 * (CELLS + 1) ** 2
SPAN = (0.0, 2.0)
runs = Counter()


def brusselator(t, y):
    """Rates of change, with the ends held at (1, 3). SciPy passes the time, which is not used."""
    runs["here"] += 1
    u, v = y[:CELLS], y[CELLS:]
    left, right = np.ones(1), 3 * np.ones(1)
    uu, vv = np.concatenate([left, u, left]), np.concatenate([right, v, right])
    reaction = u**2 * v
    return np.concatenate(
        [
            1 + reaction - 4 * u + DIFFUSION * (uu[2:] - 2 * u + uu[:-2]),
            3 * u - reaction + DIFFUSION * (vv[2:] - 2 * v + vv[:-2]),
        ]
    )


x = np.linspace(0, 1, CELLS + 2)[1:-1]
START = np.concatenate([1 + np.sin(2 * np.pi * x), np.full(CELLS, 3.0)])


def timed(fun, **options):
    """Return an integration's seconds, its local evaluations, and its result."""
    runs.clear()
    started = time.perf_counter()
    found = solve_ivp(fun, SPAN, START, rtol=1e-6, atol=1e-8, **options)
    assert found.success
    return time.perf_counter() - started, runs["here"], found


with gw.local(workers=2) as client:
    f = client.function(brusselator, gw.spec(()), gw.spec(2 * CELLS))
    c = f.callbacks(wrt="y", along="nothing")  # solve_ivp needs far more values than Jacobians
    c.value(0, START), c.jacobian(0, START)  # the first call of each compiles

    for method in ("Radau", "BDF"):
        remote_seconds, _, remote = timed(c.value, method=method, jac=c.jacobian)
        mixed_seconds, mixed_runs, mixed = timed(brusselator, method=method, jac=c.jacobian)
        seconds, evaluations, plain = timed(brusselator, method=method)
        np.testing.assert_allclose(mixed.y[:, -1], plain.y[:, -1], rtol=1e-4)
        np.testing.assert_allclose(remote.y[:, -1], plain.y[:, -1], rtol=1e-4)
        print(f"{method}: {plain.nfev} values and {plain.njev} Jacobians of {2 * CELLS} x {2 * CELLS}")
        for what, took, count in (
            ("finite differences, local", seconds, evaluations),
            ("local values, Jacobians from the service", mixed_seconds, mixed_runs),
            ("values and Jacobians from the service", remote_seconds, 0),
        ):
            print(f"  {what:40} {count:6d} local evaluations, {took:.2f} s")
        fewer, quicker = evaluations / mixed_runs, seconds / mixed_seconds
        print(f"  ratios {fewer:.1f} in evaluations and {quicker:.1f} in time")
