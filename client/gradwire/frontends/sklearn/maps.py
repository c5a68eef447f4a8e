"""Maps of features: kernels to points, random features, discriminants, powers, networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradwire.errors import InvalidArgumentError
from gradwire.frontends.numpy.arrays.array import TracedArray
from gradwire.frontends.sklearn.formulas import column_axis
from gradwire.frontends.sklearn.kernels import Points, products, squared_distances


def _pairwise(model: Any, x: TracedArray, points: Points) -> Any:
    """Return the kernel of `sklearn.metrics.pairwise` between every row and every point.

    Raises:
        InvalidArgumentError: there is no formula for the kernel.
    """
    gamma = 1.0 / points.shape[1] if model.gamma is None else float(model.gamma)
    offset = 1.0 if model.coef0 is None else float(model.coef0)
    degree = 3.0 if model.degree is None else float(model.degree)
    match model.kernel:
        case "linear":
            return products(x, points)
        case "rbf":
            return np.exp(-gamma * squared_distances(x, points))
        case "laplacian":
            difference = column_axis(x) - points.astype(x.dtype)
            return np.exp(-gamma * np.sum(np.abs(difference), axis=2))
        case "poly" | "polynomial":
            return (gamma * products(x, points) + offset) ** degree
        case "sigmoid":
            return np.tanh(gamma * products(x, points) + offset)
        case "cosine":
            lengths = np.linalg.norm(points, axis=1, keepdims=True)
            sides = points / np.where(lengths == 0, 1.0, lengths)
            return products(x, sides) / np.sqrt(np.sum(x * x, axis=1, keepdims=True))
        case other:
            raise InvalidArgumentError(
                f"{type(model).__name__} with kernel={other!r} has no graph: fit with 'linear', 'rbf', "
                "'laplacian', 'poly', 'sigmoid' or 'cosine'"
            )


def kernel_ridge(model: Any, x: TracedArray) -> Iterator[Any]:
    """KernelRidge: a weighted sum of kernels."""
    points = np.asarray(model.X_fit_, np.float64)
    yield _pairwise(model, x, points) @ np.asarray(model.dual_coef_, x.dtype).reshape(len(points), -1)


def nystroem(model: Any, x: TracedArray) -> Iterator[Any]:
    """Nystroem: kernels with some of the training points, normalized.

    Raises:
        InvalidArgumentError: the kernel is one of the user's own.
    """
    if model.kernel_params:
        raise InvalidArgumentError("Nystroem with kernel_params= has no graph: give gamma, coef0 and degree")
    embedded = _pairwise(model, x, np.asarray(model.components_, np.float64))
    yield embedded @ np.asarray(model.normalization_, x.dtype).T


def fourier_features(model: Any, x: TracedArray) -> Iterator[Any]:
    """RBFSampler: cosines of random projections."""
    weights, offset = (np.asarray(one, x.dtype) for one in (model.random_weights_, model.random_offset_))
    yield np.cos(x @ weights + offset) * float(np.sqrt(2.0 / weights.shape[1]))


def discriminant(model: Any, x: TracedArray) -> Iterator[Any]:
    """LinearDiscriminantAnalysis: the projection that separates classes best."""
    directions = np.asarray(model.scalings_, np.float64)[:, : model._max_components]
    offset = model.xbar_ @ directions if model.solver == "svd" else np.zeros(directions.shape[1])
    yield x @ directions.astype(x.dtype) - offset.astype(x.dtype)


_ACTIVATIONS: dict[str, Any] = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "logistic": lambda x: 1.0 / (np.exp(-x) + 1.0),
}


def network(model: Any, x: TracedArray) -> Iterator[Any]:
    """MLPRegressor of several targets.

    Raises:
        InvalidArgumentError: the last layer is none of a plain regression.
    """
    if model.out_activation_ not in ("identity",):
        raise InvalidArgumentError(
            f"MLPRegressor of several targets with out_activation_={model.out_activation_!r} has no graph: "
            "fit it with loss='squared_error'"
        )
    values: Any = x
    layers = list(zip(model.coefs_, model.intercepts_, strict=True))
    for place, (weights, offset) in enumerate(layers, 1):
        values = values @ weights.astype(x.dtype) + offset.astype(x.dtype)
        if place < len(layers):
            values = _ACTIVATIONS[model.activation](values)
    yield values


def power(model: Any, x: TracedArray) -> Iterator[Any]:
    """PowerTransformer: Yeo and Johnson's, or Box and Cox's, then standardized."""
    exponents = np.asarray(model.lambdas_, np.float64)
    if model.method == "box-cox":
        values = _raised(x, exponents)
    else:
        positive = x >= 0.0
        above = _raised(np.where(positive, x, 0.0) + 1.0, exponents)
        below = _raised(1.0 - np.where(positive, 0.0, x), 2.0 - exponents)
        values = np.where(positive, above, -below)
    if model.standardize:
        scaler = model._scaler
        values = (values - np.asarray(scaler.mean_, x.dtype)) / np.asarray(scaler.scale_, x.dtype)
    yield values


def _raised(base: Any, exponents: Any) -> Any:
    """Return (base ** p - 1) / p for an exponent p of each column; the logarithm where it is zero."""
    flat = np.abs(exponents) < np.finfo(np.float64).eps
    safe = np.where(flat, 1.0, exponents).astype(base.dtype)
    return np.where(flat, np.log(base), (base**safe - 1.0) / safe)
