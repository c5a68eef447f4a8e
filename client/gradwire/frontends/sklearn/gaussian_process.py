"""Gaussian processes: the posterior's mean and standard deviation, and probabilities of classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.gaussian_process import _gpc

from gradwire.errors import InvalidArgumentError
from gradwire.frontends.numpy.arrays.array import TracedArray, wrap
from gradwire.frontends.sklearn.formulas import filled
from gradwire.frontends.sklearn.kernels import cross, diagonal
from gradwire.graphs import operators as ops


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


def _binary(model: Any, x: TracedArray) -> Any:
    """Return the probability of the second of two classes, (rows, 1).

    By Laplace's approximation (Rasmussen and Williams, 2006, algorithm 3.2), with the logistic function as a
    sum of error functions (Williams and Barber, 1998).
    """
    points = np.asarray(model.X_train_, np.float64)
    covariance = cross(model.kernel_, x, points)
    if isinstance(covariance, float):
        covariance = filled(x, covariance, len(points))
    residuals = np.asarray(model.y_train_ - model.pi_, x.dtype)
    mean = np.sum(covariance * residuals, axis=1, keepdims=True)
    root = np.asarray(model.W_sr_, np.float64)
    inverse = np.linalg.solve(model.L_, np.diag(root))
    solved = covariance @ inverse.T.astype(x.dtype)
    variance = diagonal(model.kernel_, x) - np.sum(solved * solved, axis=1, keepdims=True)
    rates, weights = _gpc.LAMBDAS.ravel(), _gpc.COEFS.ravel()
    scaled = mean * rates.astype(x.dtype) / np.sqrt(2.0 * variance * (rates**2).astype(x.dtype) + 1.0)
    errors = wrap(ops.unary("Erf", scaled.value))
    return 0.5 * np.sum((errors + 1.0) * weights.astype(x.dtype), axis=1, keepdims=True)


def probabilities(model: Any, x: TracedArray) -> Iterator[Any]:
    """GaussianProcessClassifier: of two classes, or one against the rest of several.

    Raises:
        InvalidArgumentError: classes are compared in pairs.
    """
    if len(model.classes_) == 2:
        second = _binary(model.base_estimator_, x)
        yield np.concatenate([1.0 - second, second], axis=1)
        return
    each = _one_against_rest(model, x)
    yield each / np.sum(each, axis=1, keepdims=True)


def _one_against_rest(model: Any, x: TracedArray) -> Any:
    if model.multi_class != "one_vs_rest":
        raise InvalidArgumentError(
            "GaussianProcessClassifier has a graph with multi_class='one_vs_rest': fit it so"
        )
    return np.concatenate([_binary(one, x) for one in model.base_estimator_.estimators_], axis=1)


def labels(model: Any, x: TracedArray) -> Iterator[Any]:
    """GaussianProcessClassifier: the most probable class.

    Raises:
        InvalidArgumentError: classes are text, or compared in pairs.
    """
    classes = np.asarray(model.classes_)
    if classes.dtype.kind in "UO":
        raise InvalidArgumentError(
            "the labels are text, which does not travel: fit with integers, or ask for predict_proba"
        )
    if len(classes) == 2:
        places = np.sum(_binary(model.base_estimator_, x) > 0.5, axis=1)
    else:
        places = np.argmax(_one_against_rest(model, x), axis=1)
    yield np.take(wrap(places.graph.constant(classes.astype(np.int64))), places)
