"""Norms of vectors and matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradwire.frontends.numpy.axes import all_axes
from gradwire.frontends.numpy.dispatch import implements


@implements("linalg.norm")
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    x = x if x.dtype.kind == "f" else x.astype(np.float64)
    if axis is None and (ord is None or (ord in ("f", "fro") and x.ndim == 2) or (ord == 2 and x.ndim == 1)):
        result = np.sqrt(np.square(np.ravel(x)).sum())
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
        return np.sqrt(np.square(x).sum(axes, keepdims=keepdims))
    if isinstance(ord, str):
        raise ValueError(f"Invalid norm order '{ord}' for vectors")
    return (np.abs(x) ** ord).sum(axes, keepdims=keepdims) ** (1.0 / ord)


def _matrix_norm(x: Any, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if ord in ("fro", "f"):
        return np.sqrt(np.square(x).sum(axes, keepdims=keepdims))
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
