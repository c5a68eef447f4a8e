"""Gaussian process regression: the posterior's mean and standard deviation."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.sklearn.kernels import cross, diagonal
from gradwire.frontends.sklearn.nodes import Nodes


def process(scope: Any, operator: Any, container: Any) -> None:
    """GaussianProcessRegressor (Rasmussen and Williams, 2006, algorithm 2.1)."""
    g = Nodes(scope, operator, container)
    model = g.estimator
    points = np.asarray(model.X_train_, np.float64)
    weights = np.asarray(model.alpha_, np.float64).reshape(len(points), -1)
    scale, offset = np.atleast_1d(model._y_train_std), np.atleast_1d(model._y_train_mean)
    covariance = cross(g, model.kernel_, g.x, points)
    g("Add", g("Mul", g("MatMul", covariance, weights), scale), offset, output=0)
    if g.outputs == 1:
        return
    # The variance is k(x, x) less the squares of L^-1 k(points, x).
    inverse = np.linalg.solve(model.L_, np.eye(len(points)))
    solved = g("MatMul", covariance, inverse.T)
    left = g("Sub", diagonal(g, model.kernel_, g.x), g.total(g("Mul", solved, solved), 1))
    deviation = g("Unsqueeze", g("Sqrt", g("Max", left, 0.0)), np.array([1]))
    g("Mul", deviation, scale, output=1)
