"""Kernels of Gaussian processes and support vector machines, between the rows of an input and fixed points.

Distances are computed from differences, not from inner products, so that a row that equals a point is at
distance zero exactly. The distance has no derivative there; a kernel that is a function of it uses its Taylor
polynomial in the squared distance near zero, so that its first and second derivatives hold at the points too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.gaussian_process import kernels

from gradwire.errors import InvalidArgumentError
from gradwire.frontends.numpy.arrays.array import TracedArray
from gradwire.frontends.sklearn.formulas import column_axis

Points = npt.NDArray[np.float64]

# Squared distance in units of the length scale below which the next Taylor term is less than rounding.
_NEAR = 1e-18


def squared_distances(x: TracedArray, points: Points) -> Any:
    """Return the squared distance of every row of `x` to every point, (rows, points)."""
    difference = column_axis(x) - points.astype(x.dtype)
    return np.sum(difference * difference, axis=2)


def products(x: TracedArray, points: Points) -> Any:
    """Return the inner product of every row of `x` with every point, (rows, points)."""
    return x @ points.T.astype(x.dtype)


def cross(kernel: Any, x: TracedArray, points: Points) -> Any:
    """Return k(x, points), (rows, points), for a kernel of scikit-learn; a float if it is constant.

    Raises:
        InvalidArgumentError: the kernel has no elementary form.
    """
    if isinstance(kernel, kernels.Sum):
        return cross(kernel.k1, x, points) + cross(kernel.k2, x, points)
    if isinstance(kernel, kernels.Product):
        return cross(kernel.k1, x, points) * cross(kernel.k2, x, points)
    if isinstance(kernel, kernels.Exponentiation):
        return cross(kernel.kernel, x, points) ** float(kernel.exponent)
    formula = _FORMULAS.get(type(kernel))
    if formula is None:
        raise InvalidArgumentError(
            f"there is no graph for the kernel {kernel!r}: use sums, products and powers of "
            + ", ".join(sorted(known.__name__ for known in _FORMULAS))
        )
    return formula(kernel, x, points)


def diagonal(kernel: Any, x: TracedArray) -> Any:
    """Return k(x, x) for each row, (rows, 1); a float if it is constant."""
    if isinstance(kernel, kernels.Sum):
        return diagonal(kernel.k1, x) + diagonal(kernel.k2, x)
    if isinstance(kernel, kernels.Product):
        return diagonal(kernel.k1, x) * diagonal(kernel.k2, x)
    if isinstance(kernel, kernels.Exponentiation):
        return diagonal(kernel.kernel, x) ** float(kernel.exponent)
    if isinstance(kernel, kernels.DotProduct):
        return np.sum(x * x, axis=1, keepdims=True) + float(kernel.sigma_0) ** 2
    level = {kernels.ConstantKernel: "constant_value", kernels.WhiteKernel: "noise_level"}.get(type(kernel))
    return 1.0 if level is None else float(getattr(kernel, level))


def _scaled(x: TracedArray, points: Points, length_scale: Any) -> Any:
    scale = np.asarray(length_scale, np.float64)
    return squared_distances(x / scale.astype(x.dtype), points / scale)


def _rbf(kernel: Any, x: TracedArray, points: Points) -> Any:
    return np.exp(-0.5 * _scaled(x, points, kernel.length_scale))


def _rational_quadratic(kernel: Any, x: TracedArray, points: Points) -> Any:
    alpha = float(kernel.alpha)
    return (0.5 / alpha * _scaled(x, points, kernel.length_scale) + 1.0) ** -alpha


def _constant(kernel: Any, x: TracedArray, points: Points) -> Any:
    return float(kernel.constant_value)


def _white(kernel: Any, x: TracedArray, points: Points) -> Any:
    return 0.0


def _dot_product(kernel: Any, x: TracedArray, points: Points) -> Any:
    return products(x, points) + float(kernel.sigma_0) ** 2


def _matern(kernel: Any, x: TracedArray, points: Points) -> Any:
    """Half-integer smoothness: a polynomial times an exponential (Rasmussen and Williams, 2006, eq. 4.17)."""
    nu = float(kernel.nu)
    squared = _scaled(x, points, kernel.length_scale)
    if nu == np.inf:
        return np.exp(-0.5 * squared)
    if nu not in (0.5, 1.5, 2.5):
        raise InvalidArgumentError(
            f"Matern with nu={nu:g} needs a Bessel function, for which there is no operator: "
            "fit with nu 0.5, 1.5, 2.5 or inf"
        )
    near = squared < _NEAR
    scaled = float(np.sqrt(2 * nu)) * np.sqrt(np.where(near, 1.0, squared))
    decay = np.exp(-scaled)
    if nu == 0.5:
        return np.where(near, 1.0, decay)
    polynomial = scaled + 1.0
    if nu == 2.5:
        polynomial = polynomial + scaled * scaled * (1 / 3)
    slope = -1.5 if nu == 1.5 else -5 / 6
    return np.where(near, slope * squared + 1.0, polynomial * decay)


def _sine_squared(kernel: Any, x: TracedArray, points: Points) -> Any:
    """Return exp(-2 sin(pi r / p)^2 / l^2), smooth in the squared distance."""
    frequency = np.pi / float(kernel.periodicity)
    squared = squared_distances(x, points)
    near = squared < _NEAR
    sine = np.sin(frequency * np.sqrt(np.where(near, 1.0, squared)))
    square = np.where(near, frequency**2 * squared, sine * sine)
    return np.exp(-2 / float(kernel.length_scale) ** 2 * square)


_FORMULAS: dict[type, Callable[[Any, TracedArray, Points], Any]] = {
    kernels.RBF: _rbf,
    kernels.Matern: _matern,
    kernels.RationalQuadratic: _rational_quadratic,
    kernels.ExpSineSquared: _sine_squared,
    kernels.ConstantKernel: _constant,
    kernels.WhiteKernel: _white,
    kernels.DotProduct: _dot_product,
}
