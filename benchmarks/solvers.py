"""SciPy's solvers with derivatives from the service, against finite differences here and against two trips.

python -m benchmarks.solvers

Every problem is solved in full, linear algebra of the solver included, after a first call that compiles.
Finite differences run the same function in NumPy in this process, where an evaluation costs no trip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares, minimize

import gradwire as gw
from benchmarks.report import Figure, interleaved, table

ROUNDS, MANY = 3, 15  # of solves that take seconds, and of those that take milliseconds
CELLS = 200
DIFFUSION = 0.02 * (CELLS + 1) ** 2
DIMENSIONS = 100

Array = np.ndarray[Any, Any]


def _cooled(u: Array) -> Array:
    """Temperatures of a bar after 60 explicit steps of conduction and radiation."""
    for _ in range(60):
        left, right = np.concatenate([u[:1], u[:-1]]), np.concatenate([u[1:], u[-1:]])
        u = u + 0.4 * (left - 2 * u + right) - 2e-3 * (u**4 - 1)
    return u


_MEASURED = _cooled(1.5 + 0.4 * np.sin(2 * np.pi * np.linspace(0, 1, CELLS)))


def _residuals(u: Array) -> Array:
    """Return residuals of the bar's temperatures, with a pull towards the expected ones."""
    return np.concatenate([_cooled(u) - _MEASURED, 1e-3 * (u - 1.5)])


def _rosenbrock(x: Array) -> Any:
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def _brusselator(t: float, y: Array) -> Array:
    """Reaction and diffusion of two substances on a line, stiff."""
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


def _figure(
    name: str,
    against: str,
    target: float,
    exact: Callable[[], object],
    other: Callable[[], object],
    rounds: int = MANY,
) -> Figure:
    exact(), other()
    seconds, compared = interleaved(rounds, exact, other)
    return Figure(
        name,
        f"{seconds * 1e3:.0f} ms",
        f"{against}, {compared * 1e3:.0f} ms",
        compared / seconds,
        f"at least {target:g}",
        compared >= target * seconds,
    )


def _fit(client: gw.Client) -> Figure:
    start = np.ones(CELLS)
    c = client.function(_residuals, gw.spec(CELLS)).callbacks()
    return _figure(
        f"least_squares, {CELLS} parameters",
        "2-point differences in NumPy",
        2.0,
        lambda: least_squares(c.value, start, jac=c.jacobian),
        lambda: least_squares(_residuals, start, jac="2-point"),
        ROUNDS,
    )


def _stiff(client: gw.Client) -> Figure:
    x = np.linspace(0, 1, CELLS + 2)[1:-1]
    start = np.concatenate([1 + np.sin(2 * np.pi * x), np.full(CELLS, 3.0)])
    c = client.function(_brusselator, gw.spec(()), gw.spec(2 * CELLS)).callbacks(wrt="y", along="nothing")

    def solved(jacobian: Any) -> object:
        return solve_ivp(_brusselator, (0, 2), start, "Radau", rtol=1e-6, atol=1e-8, jac=jacobian)

    return _figure(
        f"solve_ivp Radau, {2 * CELLS} equations, values here",
        "differences in NumPy",
        1.0,
        lambda: solved(c.jacobian),
        lambda: solved(None),
        ROUNDS,
    )


def _newton(client: gw.Client) -> list[Figure]:
    start = np.full(DIMENSIONS, 1.3)
    f = client.function(_rosenbrock, gw.spec(DIMENSIONS))
    one, whole = f.callbacks(), f.callbacks(along="hessian")
    quasi: dict[str, Any] = {"method": "L-BFGS-B"}
    return [
        _figure(
            f"minimize L-BFGS-B, {DIMENSIONS} dimensions",
            "2-point differences in NumPy",
            1.0,
            lambda: minimize(one.value, start, jac=one.grad, **quasi),
            lambda: minimize(_rosenbrock, start, **quasi),
        ),
        _figure(
            f"minimize L-BFGS-B, {DIMENSIONS} dimensions, one trip a point",
            "value and gradient in a trip each",
            1.4,
            lambda: minimize(one.value, start, jac=one.grad, **quasi),
            lambda: minimize(f, start, jac=f.grad, **quasi),
        ),
        _figure(
            f"minimize trust-exact, {DIMENSIONS} dimensions, one trip a point",
            "value, gradient and Hessian in a trip each",
            1.1,
            lambda: minimize(whole.value, start, jac=whole.grad, hess=whole.hessian, method="trust-exact"),
            lambda: minimize(f, start, jac=f.grad, hess=f.hessian, method="trust-exact"),
        ),
    ]


def _pair(client: gw.Client) -> Figure:
    f = client.function(_residuals, gw.spec(CELLS))
    x = np.full(CELLS, 1.4)

    def apart() -> None:
        f(x), f.jacobian(x)

    return _figure(
        f"value_and_jacobian, {2 * CELLS} by {CELLS}",
        "value, then jacobian",
        1.0,
        lambda: f.value_and_jacobian(x),
        apart,
    )


def figures() -> list[Figure]:
    """Six rows."""
    with gw.local(workers=2) as client:
        client.wait_ready()
        return [_fit(client), _stiff(client), *_newton(client), _pair(client)]


if __name__ == "__main__":
    print(table(figures()))
