"""Kernels between the rows of an input and fixed points, as nodes of a graph.

Differences are taken before squares, so that a row that is one of the points has distance zero exactly; where
a kernel is a function of the distance, whose derivative does not exist there, its Taylor polynomial in the
squared distance takes over: first and second derivatives hold at the points too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.gaussian_process import kernels

from gradwire.errors import InvalidArgumentError
from gradwire.frontends.sklearn.nodes import Nodes

Points = npt.NDArray[np.float64]

# Squared distance, in length scales, below which the next term of a Matérn kernel is lost in rounding.
_NEAR = 1e-18


def squared_distances(g: Nodes, x: str, points: Points) -> str:
    """The squared distance of every row of `x` to every point, (rows, points)."""
    difference = g("Sub", g("Unsqueeze", x, np.array([1])), points)
    return g.total(g("Mul", difference, difference), 2)


def products(g: Nodes, x: str, points: Points) -> str:
    """The inner product of every row of `x` with every point, (rows, points)."""
    return g("MatMul", x, points.T)


def cross(g: Nodes, kernel: Any, x: str, points: Points) -> str:
    """k(x, points), (rows, points), for a kernel of scikit-learn.

    Raises `InvalidArgumentError` for a kernel that has no elementary form.
    """
    if isinstance(kernel, kernels.KernelOperator):
        op = "Add" if isinstance(kernel, kernels.Sum) else "Mul"
        return g(op, cross(g, kernel.k1, x, points), cross(g, kernel.k2, x, points))
    if isinstance(kernel, kernels.Exponentiation):
        return g("Pow", cross(g, kernel.kernel, x, points), float(kernel.exponent))
    rule = _RULES.get(type(kernel))
    if rule is None:
        raise InvalidArgumentError(
            f"there is no graph for the kernel {kernel!r}: use sums, products and powers of "
            + ", ".join(sorted(known.__name__ for known in _RULES))
        )
    return rule(g, kernel, x, points)


def diagonal(g: Nodes, kernel: Any, x: str) -> str:
    """k(x, x) of each row, (rows,)."""
    if isinstance(kernel, kernels.KernelOperator):
        op = "Add" if isinstance(kernel, kernels.Sum) else "Mul"
        return g(op, diagonal(g, kernel.k1, x), diagonal(g, kernel.k2, x))
    if isinstance(kernel, kernels.Exponentiation):
        return g("Pow", diagonal(g, kernel.kernel, x), float(kernel.exponent))
    if isinstance(kernel, kernels.DotProduct):
        return g("Add", g.total(g("Mul", x, x), 1), float(kernel.sigma_0) ** 2)
    level = {kernels.ConstantKernel: "constant_value", kernels.WhiteKernel: "noise_level"}.get(type(kernel))
    return g.filled(x, 1.0 if level is None else float(getattr(kernel, level)))


def _scaled(g: Nodes, x: str, points: Points, length_scale: Any) -> str:
    scale = np.asarray(length_scale, np.float64)
    return squared_distances(g, g("Div", x, scale), points / scale)


def _rbf(g: Nodes, kernel: Any, x: str, points: Points) -> str:
    return g("Exp", g("Mul", _scaled(g, x, points, kernel.length_scale), -0.5))


def _rational_quadratic(g: Nodes, kernel: Any, x: str, points: Points) -> str:
    squared = _scaled(g, x, points, kernel.length_scale)
    base = g("Add", g("Mul", squared, 0.5 / float(kernel.alpha)), 1.0)
    return g("Pow", base, -float(kernel.alpha))


def _constant(g: Nodes, kernel: Any, x: str, points: Points) -> str:
    return g.filled(x, float(kernel.constant_value), len(points))


def _white(g: Nodes, kernel: Any, x: str, points: Points) -> str:
    return g.filled(x, 0.0, len(points))


def _dot_product(g: Nodes, kernel: Any, x: str, points: Points) -> str:
    return g("Add", products(g, x, points), float(kernel.sigma_0) ** 2)


def _matern(g: Nodes, kernel: Any, x: str, points: Points) -> str:
    """Half-integer smoothness: a polynomial times an exponential (Rasmussen and Williams, 2006, eq. 4.17)."""
    nu = float(kernel.nu)
    squared = _scaled(g, x, points, kernel.length_scale)
    if nu == np.inf:
        return g("Exp", g("Mul", squared, -0.5))
    if nu not in (0.5, 1.5, 2.5):
        raise InvalidArgumentError(
            f"Matern with nu={nu:g} needs a Bessel function, for which there is no operator: "
            "fit with nu 0.5, 1.5, 2.5 or inf"
        )
    near = g("Less", squared, _NEAR)
    root = g("Sqrt", g("Where", near, 1.0, squared))
    scaled = g("Mul", root, np.sqrt(2 * nu))
    decay = g("Exp", g("Neg", scaled))
    if nu == 0.5:
        return g("Where", near, 1.0, decay)
    polynomial = g("Add", scaled, 1.0)
    if nu == 2.5:
        polynomial = g("Add", polynomial, g("Mul", g("Mul", scaled, scaled), 1 / 3))
    slope = -1.5 if nu == 1.5 else -5 / 6
    return g("Where", near, g("Add", g("Mul", squared, slope), 1.0), g("Mul", polynomial, decay))


def _sine_squared(g: Nodes, kernel: Any, x: str, points: Points) -> str:
    """exp(-2 sin(pi r / p)^2 / l^2), smooth in the squared distance."""
    squared = squared_distances(g, x, points)
    near = g("Less", squared, _NEAR)
    angle = g("Mul", g("Sqrt", g("Where", near, 1.0, squared)), np.pi / float(kernel.periodicity))
    sine = g("Sin", angle)
    close = g("Mul", squared, (np.pi / float(kernel.periodicity)) ** 2)
    square = g("Where", near, close, g("Mul", sine, sine))
    return g("Exp", g("Mul", square, -2 / float(kernel.length_scale) ** 2))


_RULES: dict[type, Callable[[Nodes, Any, str, Points], str]] = {
    kernels.RBF: _rbf,
    kernels.Matern: _matern,
    kernels.RationalQuadratic: _rational_quadratic,
    kernels.ExpSineSquared: _sine_squared,
    kernels.ConstantKernel: _constant,
    kernels.WhiteKernel: _white,
    kernels.DotProduct: _dot_product,
}
