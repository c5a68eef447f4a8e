"""Rules for indexing, gathering and scattering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray, wrap
from gradwire.frontends.torch.lowering import Array, Call, rule
from gradwire.frontends.torch.rules.creation import of_dtype


def _key(indices: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(slice(None) if index is None else index for index in indices)


@rule("index", "_unsafe_index")
def index(call: Call, x: Array, indices: Sequence[Any]) -> Any:
    return _traced(call, x, *indices)[_key(indices)]


def _traced(call: Call, x: Any, *others: Any) -> Any:
    """Make `x` a traced array if one of the others is: a NumPy array cannot be indexed with those."""
    return wrap(call.value(x)) if any(isinstance(other, TracedArray) for other in others) else x


@rule("index_put", "_unsafe_index_put", "_index_put_impl")
def index_put(
    call: Call, x: Array, indices: Sequence[Any], values: Any, accumulate: bool = False, unsafe: bool = False
) -> Any:
    result = _traced(call, x, values, *indices).copy()
    mask = indices[0] if len(indices) == 1 else None
    if isinstance(mask, TracedArray) and mask.dtype == np.bool_ and values.size == 1 and not accumulate:
        result[mask] = values
    elif accumulate:
        np.add.at(result, _key(indices), np.broadcast_to(values, _shape_at(result, indices)))
    else:
        result[_key(indices)] = values
    return result


def _shape_at(x: Any, indices: Sequence[Any]) -> tuple[int, ...]:
    return tuple(x[_key(indices)].shape)


@rule("gather")
def gather(call: Call, x: Array, dim: int, indices: Any, sparse_grad: bool = False) -> Any:
    if not x.ndim:
        return np.broadcast_to(x, call.shape)
    # The index may be shorter than the tensor on the other axes.
    kept = tuple(
        slice(None) if axis == dim % x.ndim else slice(0, extent) for axis, extent in enumerate(indices.shape)
    )
    return np.take_along_axis(_traced(call, x[kept], indices), indices, dim)


@rule("take_along_dim")
def take_along_dim(call: Call, x: Array, indices: Any, dim: int) -> Any:
    return np.take_along_axis(x, indices, dim)


@rule("index_select")
def index_select(call: Call, x: Array, dim: int, indices: Any) -> Any:
    if not x.ndim:
        return x.reshape(call.shape)
    return _traced(call, x, indices)[(slice(None),) * (dim % x.ndim) + (indices.reshape(-1),)]


@rule("embedding")
def embedding(
    call: Call, weight: Array, indices: Any, padding: int = -1, scale: bool = False, *_: Any
) -> Any:
    """Give the row at `padding` no gradient, and with `scale` divide the others by their frequency."""
    rows = _traced(call, weight, indices)[indices]
    factor = _factor(indices, padding, scale, call.dtype)
    if factor is None:
        return rows
    kept = call.frozen(rows)
    return kept + (rows - kept) * factor


def _factor(indices: Any, padding: int, scale: bool, dtype: np.dtype[Any]) -> Any:
    """Return what the gradient of each row that is looked up is multiplied by; None for 1."""
    factor: Any = None
    if scale:
        flat = indices.reshape(-1)
        counts = np.sum(np.equal(flat[:, None], flat[None, :]).astype(dtype), axis=1)
        factor = (1 / counts).reshape((*indices.shape, 1))
    if padding >= 0:
        kept = np.not_equal(indices, padding).astype(dtype)[..., None]
        factor = kept if factor is None else factor * kept
    return factor


@rule("take")
def take(call: Call, x: Array, indices: Any) -> Any:
    return _traced(call, x, indices).reshape(-1)[indices]


_REDUCTIONS = {"sum": "add", "add": "add", "prod": "mul", "multiply": "mul", "amax": "max", "amin": "min"}


def _scatter(call: Call, x: Any, dim: int, indices: Any, source: Any, reduction: str) -> Any:
    if not x.ndim:
        one = source.reshape(())
        return (
            {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduction](x, one)
            if reduction != "none"
            else one
        )
    if not np.prod(indices.shape):
        return x.copy()
    source = np.broadcast_to(of_dtype(source, call.dtype), source.shape or indices.shape)
    kept = source[tuple(slice(0, extent) for extent in indices.shape)]
    target, positions = call.value(x), call.value(indices, np.dtype(np.int64))
    attributes: dict[str, Any] = {} if reduction == "none" else {"reduction": reduction}
    return call.emit(
        "ScatterElements",
        target,
        positions,
        call.value(kept, call.dtype),
        axis=dim % x.ndim,
        **attributes,
    )


@rule("scatter")
def scatter(call: Call, x: Array, dim: int, indices: Any, source: Any, *, reduce: str | None = None) -> Any:
    if isinstance(source, bool | int | float):
        source = np.full(indices.shape, source, call.dtype)
    return _scatter(call, x, dim, indices, source, _REDUCTIONS[reduce] if reduce else "none")


@rule("scatter_add")
def scatter_add(call: Call, x: Array, dim: int, indices: Any, source: Any) -> Any:
    return _scatter(call, x, dim, indices, source, "add")


_NEUTRAL = {"sum": 0.0, "prod": 1.0, "mean": 0.0, "amax": -np.inf, "amin": np.inf}


@rule("scatter_reduce")
def scatter_reduce(
    call: Call, x: Array, dim: int, indices: Any, source: Any, reduce: str, *, include_self: bool = True
) -> Any:
    if not include_self:
        if reduce in ("amax", "amin") and call.dtype.kind != "f":
            raise call.refuse(f"of integers with reduce={reduce!r}, include_self=False", "use floats")
        neutral = np.full(indices.shape, _NEUTRAL[reduce], call.dtype)
        x = _scatter(call, x, dim, indices, neutral, "none")
    if reduce != "mean":
        return _scatter(call, x, dim, indices, source, _REDUCTIONS[reduce])
    start = wrap(call.graph.constant(np.full(call.shape, float(include_self), call.dtype)))
    ones = np.ones(indices.shape, call.dtype)
    counts = np.maximum(_scatter(call, start, dim, indices, ones, "add"), 1)
    return _scatter(call, x, dim, indices, source, "add") / counts


@rule("masked_scatter")
def masked_scatter(call: Call, x: Array, mask: Any, source: Array) -> Any:
    """Put the elements of `source`, in order, where the mask is true."""
    x, mask = np.broadcast_to(x, call.shape), np.broadcast_to(mask, call.shape)
    places = np.cumsum(mask.reshape(-1).astype(np.int64)) - 1
    places = np.minimum(np.maximum(places, 0), source.size - 1).reshape(call.shape)
    return np.where(mask, source.reshape(-1)[places], x)


@rule("searchsorted")
def searchsorted(
    call: Call, boundaries: Array, x: Any, *, right: bool = False, side: str | None = None, **options: Any
) -> Any:
    if options.get("sorter") is not None:
        raise call.refuse("with sorter=", "sort the sequence first")
    values = np.asarray(x, boundaries.dtype) if isinstance(x, int | float) else x
    below = np.less_equal if right or side == "right" else np.less
    found = below(boundaries[..., None, :], values[..., None] if values.ndim else values)
    return np.sum(found.astype(call.dtype), axis=-1).reshape(call.shape)


@rule("_pack_padded_sequence")
def pack_padded_sequence(call: Call, x: Array, lengths: Any, batch_first: bool) -> Any:
    if isinstance(lengths, TracedArray):
        raise call.refuse("with lengths that are arguments", "close over the lengths")
    sizes = np.array([int(np.sum(lengths > step)) for step in range(int(max(lengths)))])
    steps = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.concatenate([np.arange(size) for size in sizes])
    return (x[rows, steps] if batch_first else x[steps, rows]), sizes


@rule("index_add")
def index_add(call: Call, x: Array, dim: int, indices: Any, source: Any, *, alpha: Any = 1) -> Any:
    result = _traced(call, x, source, indices).copy()
    np.add.at(result, (slice(None),) * (dim % max(x.ndim, 1)) + (indices,), source * alpha)
    return result


@rule("index_copy")
def index_copy(call: Call, x: Array, dim: int, indices: Any, source: Any) -> Any:
    result = _traced(call, x, source, indices).copy()
    result[(slice(None),) * (dim % max(x.ndim, 1)) + (indices,)] = source
    return result


@rule("index_fill")
def index_fill(call: Call, x: Array, dim: int, indices: Any, number: Any) -> Any:
    result = _traced(call, x, number, indices).copy()
    result[(slice(None),) * (dim % max(x.ndim, 1)) + (indices,)] = number
    return result


@rule("embedding_dense_backward")
def embedding_dense_backward(
    call: Call, cotangent: Array, indices: Any, count: int, padding: int, scale: bool
) -> Any:
    result = wrap(call.graph.constant(np.zeros(call.shape, call.dtype)))
    factor = _factor(indices, padding, scale, call.dtype)
    updates = cotangent if factor is None else cotangent * factor
    np.add.at(result, indices.reshape(-1), updates.reshape((-1, call.shape[-1])))
    return result
