"""Inverses of transformers that are affine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradwire.errors import InvalidArgumentError
from gradwire.frontends.numpy.arrays.array import TracedArray


def components(model: Any, x: TracedArray) -> Iterator[Any]:
    """PCA: from components to features."""
    rows = np.asarray(model.components_, np.float64)
    if model.whiten:
        rows = np.sqrt(np.asarray(model.explained_variance_))[:, np.newaxis] * rows
    yield x @ rows.astype(x.dtype) + np.asarray(model.mean_, x.dtype)


def standard(model: Any, x: TracedArray) -> Iterator[Any]:
    """StandardScaler."""
    yield _affine(x, model.scale_, model.mean_)


def robust(model: Any, x: TracedArray) -> Iterator[Any]:
    """RobustScaler."""
    center = model.center_ if model.with_centering else None
    yield _affine(x, model.scale_ if model.with_scaling else None, center)


def _affine(x: TracedArray, scale: Any, offset: Any) -> Any:
    result: Any = x
    if scale is not None:
        result = result * np.asarray(scale, x.dtype)
    return result if offset is None else result + np.asarray(offset, x.dtype)


def min_max(model: Any, x: TracedArray) -> Iterator[Any]:
    """MinMaxScaler.

    Raises:
        InvalidArgumentError: it clips.
    """
    if model.clip:
        raise InvalidArgumentError("MinMaxScaler(clip=True) has no inverse as a graph: fit it without clip")
    yield (x - np.asarray(model.min_, x.dtype)) / np.asarray(model.scale_, x.dtype)
