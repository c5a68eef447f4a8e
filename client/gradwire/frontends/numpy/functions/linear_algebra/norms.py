"""Norms of vectors and matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import wrap
from gradwire.frontends.numpy.axes import all_axes
from gradwire.frontends.numpy.dispatch import implements
from gradwire.graphs import operators as ops


@implements("linalg.norm")
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    if axis is None and (ord is None or (ord in ("f", "fro") and x.ndim == 2) or (ord == 2 and x.ndim == 1)):
        result = _euclidean(np.ravel(x), (0,), False)
        return np.reshape(result, (1,) * x.ndim) if keepdims else result
    axes = all_axes(axis, x.ndim)
    if len(axes) == 1:
        return _vector_norm(x, 2 if ord is None else ord, axes, keepdims)
    if len(axes) == 2:
        return _matrix_norm(x, "fro" if ord is None else ord, axes, keepdims)
    raise ValueError("Improper number of dimensions to norm.")


def _vector_norm(x: Any, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if ord == np.inf:
        return np.abs(x).max(axes, keepdims=keepdims)
    if ord == -np.inf:
        return np.abs(x).min(axes, keepdims=keepdims)
    if ord == 0:
        return (x != 0).astype(x.dtype).sum(axes, keepdims=keepdims)
    if ord == 1:
        return np.abs(x).sum(axes, keepdims=keepdims)
    if ord == 2:
        return _euclidean(x, axes, keepdims)
    if isinstance(ord, str):
        raise ValueError(f"Invalid norm order '{ord}' for vectors")
    total = (np.abs(x) ** ord).sum(axes, keepdims=keepdims)
    if ord < 0:
        return total ** (1.0 / ord)
    # At the zero vector the derivative is 0, not the root's infinite slope times 0.
    nothing = total == 0
    return np.where(nothing, 0.0, np.where(nothing, 1.0, total) ** (1.0 / ord))


def _euclidean(x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """Take the root of the sum of squares, by an operator with derivative 0 at the zero vector."""
    return wrap(ops.reduce("ReduceL2", x.value, axes, bool(keepdims)))


def _matrix_norm(x: Any, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if ord in ("fro", "f"):
        return _euclidean(x, axes, keepdims)
    rows, columns = axes
    if ord in (1, -1, np.inf, -np.inf):
        summed, searched = (rows, columns) if abs(ord) == 1 else (columns, rows)
        sums = np.abs(x).sum(summed, keepdims=True)
        result = sums.max(searched, keepdims=True) if ord > 0 else sums.min(searched, keepdims=True)
    elif ord in (2, -2, "nuc"):
        values = np.linalg.svd(np.moveaxis(x, axes, (-2, -1)), compute_uv=False)
        result = values.sum(-1) if ord == "nuc" else values.max(-1) if ord == 2 else values.min(-1)
        result = np.expand_dims(result, tuple(sorted(axes)))
    else:
        raise ValueError(f"Invalid norm order {ord!r} for matrices.")
    return result if keepdims else np.squeeze(result, axis=axes)


@implements("linalg.vector_norm")
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    return _vector_norm(x, ord, all_axes(axis, x.ndim), keepdims)


@implements("linalg.matrix_norm")
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    return norm(x, ord, (-2, -1), keepdims)
