"""Minimize in 100 dimensions with scipy.optimize.minimize and derivatives computed by the service.

Value and gradient at a point come from a single request (`callbacks`), and each product with the Hessian from
another. Constraints have Jacobians and Hessians from the service too.
"""

import time
from collections import Counter

import numpy as np
from scipy.optimize import NonlinearConstraint, minimize

import gradwire as gw

SIZE = 100
START = np.full(SIZE, 1.3)
TARGET, RADIUS = np.linspace(-2, 2, SIZE), 7.0
runs = Counter()


def rosenbrock(x):
    """Evaluate the chained Rosenbrock function: 0 at (1, ..., 1)."""
    runs["value"] += 1
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def valley(x):
    """Evaluate a function with its minimum at TARGET, which lies outside the ball."""
    runs["value"] += 1
    return np.sum(np.cosh(x - TARGET))


def room(x):
    """Evaluate the constraint of a ball: not negative inside it."""
    return RADIUS**2 - np.sum(x**2)


def timed(solve):
    """Return a solver's seconds, its local evaluations, and its result."""
    runs.clear()
    started = time.perf_counter()
    found = solve()
    return time.perf_counter() - started, runs["value"], found


def compare(method, exact, plain):
    """Run a solver with derivatives from the service and with differences, and print a comparison."""
    exact_seconds, _, found = timed(exact)
    seconds, evaluations, other = timed(plain)
    assert found.fun <= other.fun + 1e-6
    print(
        f"{method:10} exact: {found.nfev} points, {exact_seconds:.2f} s; "
        f"differences: {evaluations} evaluations, {seconds:.2f} s; "
        f"ratios {evaluations / found.nfev:.0f} and {seconds / exact_seconds:.1f}"
    )
    return found


with gw.local(workers=2) as client:
    f = client.function(rosenbrock, gw.spec(SIZE))
    c = f.callbacks()
    g = client.function(valley, gw.spec(SIZE)).callbacks()
    ball = client.function(room, gw.spec(SIZE)).callbacks()
    for one in (c, g, ball):  # the first call of each compiles
        one.value(START), one.hessian(START)
    c.hvp(START, START), ball.jacobian(START), ball.weighted_hessian(START, np.ones(1))

    for method in ("BFGS", "L-BFGS-B"):
        options = {"maxiter": 10_000} | ({"maxfun": 10**6} if method == "L-BFGS-B" else {})
        settings = {"method": method, "options": options}
        found = compare(
            method,
            lambda s=settings: minimize(c.value, START, jac=c.grad, **s),
            lambda s=settings: minimize(rosenbrock, START, **s),
        )
        np.testing.assert_allclose(found.x, 1, atol=2e-2)

    # Newton-CG computes its step from products with the Hessian, which is never formed.
    seconds, _, newton = timed(
        lambda: minimize(c.value, START, jac=c.grad, hessp=c.hvp, method="Newton-CG", options={"xtol": 1e-10})
    )
    np.testing.assert_allclose(newton.x, 1, atol=1e-6)
    print(f"Newton-CG    {newton.nfev} points, {newton.nhev} products, {seconds:.2f} s, f = {newton.fun:.1e}")

    # With the whole Hessian, from the same request as value and gradient.
    whole = f.callbacks(along="hessian")
    whole.value(START)
    seconds, _, exact = timed(
        lambda: minimize(whole.value, START, jac=whole.grad, hess=whole.hessian, method="trust-exact")
    )
    np.testing.assert_allclose(exact.x, 1, atol=1e-6)
    print(f"trust-exact  {exact.nfev} points, {seconds:.2f} s, f = {exact.fun:.1e}")

    # Constrained to a ball that does not contain the minimum.
    zero = np.zeros(SIZE)
    slsqp = compare(
        "SLSQP",
        lambda: minimize(
            g.value,
            zero,
            jac=g.grad,
            method="SLSQP",
            constraints={"type": "ineq", "fun": ball.value, "jac": ball.grad},
        ),
        lambda: minimize(valley, zero, method="SLSQP", constraints={"type": "ineq", "fun": room}),
    )
    inside = NonlinearConstraint(ball.value, 0, np.inf, jac=ball.jacobian, hess=ball.weighted_hessian)
    seconds, _, trust = timed(
        lambda: minimize(g.value, zero, jac=g.grad, hess=g.hessian, method="trust-constr", constraints=inside)
    )
    print(f"trust-constr {trust.nfev} points, {seconds:.2f} s, on the sphere as SLSQP is")
    for solution in (slsqp.x, trust.x):  # the gradients of function and constraint are parallel
        np.testing.assert_allclose(np.linalg.norm(solution), RADIUS, rtol=1e-5)
        slope = g.grad(solution)
        np.testing.assert_allclose(slope, solution * (slope @ solution) / RADIUS**2, atol=1e-2)
