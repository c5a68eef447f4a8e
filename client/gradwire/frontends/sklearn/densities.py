"""Logarithms of densities and of probabilities, which hold far from the data too."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gradwire.errors import InvalidArgumentError
from gradwire.frontends.numpy.arrays.array import TracedArray
from gradwire.frontends.sklearn.kernels import squared_distances


def _total(logarithms: Any) -> Any:
    """Return the logarithm of the sum of each row, (rows, 1)."""
    largest = np.max(logarithms, axis=1, keepdims=True)
    return largest + np.log(np.sum(np.exp(logarithms - largest), axis=1, keepdims=True))


def _weighted(model: Any, x: TracedArray) -> Any:
    """Return the logarithm of each component's weight times its density, (rows, components)."""
    means = np.asarray(model.means_, np.float64)
    features = means.shape[1]
    parts = []
    for mean, factor, weight in zip(means, _factors(model, features), model.weights_, strict=True):
        scaled = x @ factor.astype(x.dtype) - (mean @ factor).astype(x.dtype)
        _, size = np.linalg.slogdet(factor)
        level = math.log(weight) + float(size) - 0.5 * features * math.log(2 * math.pi)
        parts.append(level - 0.5 * np.sum(scaled * scaled, axis=1, keepdims=True))
    return np.concatenate(parts, axis=1)


def _factors(model: Any, features: int) -> Any:
    """Return the Cholesky factors of the components' precisions."""
    given = np.asarray(model.precisions_cholesky_, np.float64)
    count = len(model.weights_)
    match model.covariance_type:
        case "full":
            return given
        case "tied":
            return [given] * count
        case "diag":
            return [np.diag(row) for row in given]
        case _:
            return [np.eye(features) * number for number in given]


def mixture(model: Any, x: TracedArray) -> Iterator[Any]:
    """GaussianMixture: the logarithm of the density."""
    yield _total(_weighted(model, x))


def mixture_probabilities(model: Any, x: TracedArray) -> Iterator[Any]:
    """GaussianMixture: the probability of each component."""
    parts = _weighted(model, x)
    yield np.exp(parts - _total(parts))


def mixture_labels(model: Any, x: TracedArray) -> Iterator[Any]:
    """GaussianMixture: the most probable component."""
    yield np.argmax(_weighted(model, x), axis=1)


def naive_bayes(model: Any, x: TracedArray) -> Iterator[Any]:
    """GaussianNB: the logarithm of the probability of each class."""
    parts = []
    for mean, variance, prior in zip(model.theta_, model.var_, model.class_prior_, strict=True):
        scaled = (x - mean.astype(x.dtype)) / np.sqrt(variance).astype(x.dtype)
        level = math.log(prior) - 0.5 * float(np.sum(np.log(2 * np.pi * variance)))
        parts.append(level - 0.5 * np.sum(scaled * scaled, axis=1, keepdims=True))
    joint = np.concatenate(parts, axis=1)
    yield joint - _total(joint)


def kernel_density(model: Any, x: TracedArray) -> Iterator[Any]:
    """KernelDensity with Gaussian kernels: the logarithm of the density.

    Raises:
        InvalidArgumentError: the kernel or the metric is another, or points have weights.
    """
    points = np.asarray(model.tree_.data, np.float64)
    plain = model.kernel == "gaussian" and model.metric == "euclidean"
    if not plain or model.tree_.sum_weight != len(points):
        raise InvalidArgumentError(
            "KernelDensity has a graph with kernel='gaussian' and metric='euclidean', without weights: fit "
            "it so, or write the density in NumPy"
        )
    width = float(model.bandwidth_)
    level = -math.log(len(points)) - points.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(width))
    yield _total(squared_distances(x, points) * (-0.5 / width**2)) + level
