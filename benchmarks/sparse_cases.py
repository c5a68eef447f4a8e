"""Functions with sparse derivatives, written once for NumPy and JAX, and some of them for CasADi."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """A derivative to compute.

    Attributes:
        name: of the rows.
        kind: "jacobian" or "hessian".
        function: makes the function for an array module, NumPy or `jax.numpy`.
        point: where to differentiate: one array for each argument.
        casadi: makes the function of one symbolic vector, for CasADi's module; None without.
    """

    name: str
    kind: str
    function: Callable[[Any], Function]
    point: tuple[Array, ...]
    casadi: Callable[[Any, Any], Any] | None = None


def brusselator(size: int) -> Case:
    """Return the right-hand side of a reaction and diffusion on a torus of size x size cells."""
    draw = np.random.default_rng(0)
    cells = np.arange(size * size).reshape(size, size)

    def make(xp: Any) -> Function:
        def spread(z: Any) -> Any:
            return xp.roll(z, 1, 0) + xp.roll(z, -1, 0) + xp.roll(z, 1, 1) + xp.roll(z, -1, 1) - 4 * z

        def rates(u: Any) -> Any:
            a, b = u[0], u[1]
            return xp.stack(
                [1 + a * a * b - 4.4 * a + 0.1 * spread(a), 3.4 * a - a * a * b + 0.1 * spread(b)]
            )

        return rates

    def symbolic(ca: Any, u: Any) -> Any:
        a, b = u[: size * size], u[size * size :]
        shifts = [np.roll(cells, *shift).ravel().tolist() for shift in ((1, 0), (-1, 0), (1, 1), (-1, 1))]

        def spread(z: Any) -> Any:
            return z[shifts[0]] + z[shifts[1]] + z[shifts[2]] + z[shifts[3]] - 4 * z

        return ca.vertcat(1 + a * a * b - 4.4 * a + 0.1 * spread(a), 3.4 * a - a * a * b + 0.1 * spread(b))

    point = (draw.random((2, size, size)),)
    return Case(f"Brusselator, n = {2 * size * size:,}", "jacobian", make, point, symbolic)


def rosenbrock(size: int) -> Case:
    """Return the extended Rosenbrock function, whose Hessian is tridiagonal."""

    def make(xp: Any) -> Function:
        def value(x: Any) -> Any:
            return xp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

        return value

    def symbolic(ca: Any, x: Any) -> Any:
        return ca.sum1(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    point = (np.random.default_rng(1).random(size),)
    return Case(f"Rosenbrock Hessian, n = {size:,}", "hessian", make, point, symbolic)


def minimal_surface(size: int) -> Case:
    """Return the area of a surface over size x size nodes, by triangles."""

    def make(xp: Any) -> Function:
        def area(u: Any) -> Any:
            a, b, c, d = u[:-1, :-1], u[1:, :-1], u[:-1, 1:], u[1:, 1:]
            steps = (size - 1.0) ** 2
            lower = xp.sqrt(1 + steps * ((b - a) ** 2 + (c - a) ** 2))
            upper = xp.sqrt(1 + steps * ((d - b) ** 2 + (d - c) ** 2))
            return xp.sum(lower + upper) / (2 * steps)

        return area

    point = (np.random.default_rng(2).random((size, size)),)
    return Case(f"minimal surface Hessian, n = {size * size:,}", "hessian", make, point)


def bundle_adjustment(cameras: int = 49, points: int = 7776, observations: int = 31843) -> Case:
    """Return residuals of cameras that see points: 3 rows an observation, 11 columns a camera.

    The sizes are those of problem 1 of ADBench (F. Srajer, Z. Kukelova, A. Fitzgibbon, "A benchmark of
    selected algorithmic differentiation tools", Optim. Methods Softw. 33, 2018); who sees what is drawn.
    """
    draw = np.random.default_rng(3)
    camera, point = draw.integers(0, cameras, observations), draw.integers(0, points, observations)
    seen = draw.random((observations, 2))

    def make(xp: Any) -> Function:
        def residuals(cams: Any, places: Any, weights: Any) -> Any:
            c, x = cams[camera], places[point]
            turn, centre, focal, middle, radial = c[:, :3], c[:, 3:6], c[:, 6], c[:, 7:9], c[:, 9:11]
            moved = x - centre
            square = xp.sum(turn * turn, axis=1)
            angle = xp.sqrt(square)
            axis = turn / angle[:, None]
            sine, cosine = xp.sin(angle)[:, None], xp.cos(angle)[:, None]
            cross = xp.stack(
                [
                    axis[:, 1] * moved[:, 2] - axis[:, 2] * moved[:, 1],
                    axis[:, 2] * moved[:, 0] - axis[:, 0] * moved[:, 2],
                    axis[:, 0] * moved[:, 1] - axis[:, 1] * moved[:, 0],
                ],
                axis=1,
            )
            along = xp.sum(axis * moved, axis=1)[:, None] * (1 - cosine)
            turned = moved * cosine + cross * sine + axis * along
            flat = turned[:, :2] / turned[:, 2:3]
            distance = xp.sum(flat * flat, axis=1)
            bent = flat * (1 + radial[:, 0] * distance + radial[:, 1] * distance**2)[:, None]
            image = bent * focal[:, None] + middle
            off = weights[:, None] * (image - seen)
            return xp.concatenate([off, (1 - weights**2)[:, None]], axis=1)

        return residuals

    at = (
        draw.random((cameras, 11)) * 0.1 + 0.1,
        draw.random((points, 3)) + np.array([0.0, 0.0, 3.0]),
        draw.random(observations),
    )
    return Case("bundle adjustment, 95,529 x 55,710", "jacobian", make, at)
