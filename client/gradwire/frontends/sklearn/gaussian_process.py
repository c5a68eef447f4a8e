"""Gaussian process regression: the posterior's mean and standard deviation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray
from gradwire.frontends.sklearn.formulas import filled
from gradwire.frontends.sklearn.kernels import cross, diagonal


def process(model: Any, x: TracedArray) -> Iterator[Any]:
    """GaussianProcessRegressor (Rasmussen and Williams, 2006, algorithm 2.1)."""
    points = np.asarray(model.X_train_, np.float64)
    weights = np.asarray(model.alpha_, x.dtype).reshape(len(points), -1)
    scale, offset = (np.atleast_1d(one).astype(x.dtype) for one in (model._y_train_std, model._y_train_mean))
    covariance = cross(model.kernel_, x, points)
    if isinstance(covariance, float):
        covariance = filled(x, covariance, len(points))
    yield covariance @ weights * scale + offset
    # The variance is k(x, x) less the squares of L^-1 k(points, x).
    inverse = np.linalg.solve(model.L_, np.eye(len(points)))
    solved = covariance @ inverse.T.astype(x.dtype)
    variance = diagonal(model.kernel_, x) - np.sum(solved * solved, axis=1, keepdims=True)
    yield np.sqrt(np.maximum(variance, 0.0)) * scale
