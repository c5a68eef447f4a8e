"""Solve 300 equations with scipy.optimize.root and a Jacobian computed by the service.

Chandrasekhar's H-equation describes light scattered by an atmosphere. Each equation involves every unknown:
the Jacobian is dense, and finite differences take 300 evaluations of all equations.
"""

import time
from collections import Counter

import numpy as np
from scipy.optimize import fsolve, root

import gradwire as gw

SIZE, ALBEDO = 300, 0.99
# Gauss-Legendre nodes and weights on [0, 1]
nodes, weights = np.polynomial.legendre.leggauss(SIZE)
nodes, weights = (nodes + 1) / 2, weights / 2
KERNEL = 0.5 * ALBEDO * nodes[:, None] / (nodes[:, None] + nodes) * weights
START = np.ones(SIZE)
runs = Counter()


def equations(h):
    """Return the residuals of the equations, zero at the solution."""
    runs["all"] += 1
    return h - 1 / (1 - KERNEL @ h)


def timed(solve):
    """Return a solver's seconds, its local evaluations of the equations, and its result."""
    runs.clear()
    started = time.perf_counter()
    found = solve()
    return time.perf_counter() - started, runs["all"], found


with gw.local(workers=2) as client:
    f = client.function(equations, gw.spec(SIZE))
    f.value_and_jacobian(START)  # the first call compiles
    f(START)

    for method in ("hybr", "lm"):
        exact_seconds, _, exact = timed(lambda method=method: root(f, START, jac=f.jacobian, method=method))
        seconds, evaluations, plain = timed(lambda method=method: root(equations, START, method=method))
        np.testing.assert_allclose(exact.x, plain.x, rtol=1e-6)
        # The integral of H is known in closed form.
        np.testing.assert_allclose(weights @ exact.x, 2 / ALBEDO * (1 - np.sqrt(1 - ALBEDO)), rtol=1e-7)
        requests = exact.nfev + exact.njev
        print(
            f"{method:4}  exact: {requests:3d} requests, {exact_seconds:.3f} s;  finite differences: "
            f"{evaluations} evaluations, {seconds:.3f} s;  ratios {evaluations / requests:.0f} and "
            f"{seconds / exact_seconds:.1f}"
        )

    # root takes value and Jacobian as one function, fsolve as two.
    both = root(f.value_and_jacobian, START, jac=True)
    np.testing.assert_allclose(both.x, exact.x, rtol=1e-9)
    np.testing.assert_allclose(fsolve(f, START, fprime=f.jacobian), exact.x, rtol=1e-9)
    print(f"H(1) = {exact.x[-1]:.6f} at albedo {ALBEDO}")
