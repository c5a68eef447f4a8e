"""Gather and scatter along one axis, which every indexing rule comes down to.

Operators that index several axes at once first turn their indices into row numbers of a reshaped
array; what remains is a single XLA gather or scatter with derivatives in both modes. Static
indices are checked against the array and stay NumPy; traced ones cannot be checked, so a gather
reads NaN (integers: the lowest value) where they point outside and a scatter leaves them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.registry import STATIC_ELEMENTS, Node, Value, is_static, namespace

_FILL = lax.GatherScatterMode.FILL_OR_DROP
_TRUSTED = lax.GatherScatterMode.PROMISE_IN_BOUNDS

_INT32_MAX = 2**31 - 1


def namespace_for(shape: Sequence[int], *values: Value) -> Any:
    """``numpy`` when every value is static and the result of ``shape`` is small, else ``jax.numpy``.

    For operators whose result can be far larger than their inputs: a big result is staged, so that
    the limit on arrays is checked on its shape before anything is allocated.
    """
    return np if is_static(*values) and prod(shape) <= STATIC_ELEMENTS else jnp


def axis_of(node: Node, axis: int, rank: int) -> int:
    """A non-negative axis.

    Raises:
        InvalidGraph: the axis is outside an array of this rank.
    """
    if not -rank <= axis < rank:
        raise node.fail(f"axis {axis} is outside an array of {rank} dimensions")
    return axis % rank if rank else 0


def wrap_index(node: Node, index: Value, size: int, negative: bool = True) -> Value:
    """Indices into an axis of ``size`` with negative ones counted from its end.

    Raises:
        InvalidGraph: a static index is out of range.
    """
    low = -size if negative else 0
    if is_static(index):
        index = np.asarray(index)
        if index.size and (index.min() < low or index.max() >= size):
            outside = index.max() if index.max() >= size else index.min()
            raise node.fail(f"index {outside} is outside an axis of size {size}")
        index = np.where(index < 0, index + size, index)
        return index.astype(np.int32 if size <= _INT32_MAX else np.int64)
    return lax.select(index < 0, index + size, index) if negative else index


def row_numbers(node: Node, components: Sequence[Value], sizes: Sequence[int]) -> Value:
    """Row numbers in C order from an index per axis; ``prod(sizes)`` where a traced index is outside."""
    wrapped = [wrap_index(node, item, size) for item, size in zip(components, sizes, strict=True)]
    rows: Any = 0
    for item, size in zip(wrapped, sizes, strict=True):
        rows = rows * size + (item.astype(np.int64) if size else item)
    traced = [
        (item, size) for item, size in zip(wrapped, sizes, strict=True) if not isinstance(item, np.ndarray)
    ]
    if not traced:
        return np.asarray(rows)
    inside = jnp.array(True)
    for item, size in traced:
        inside = inside & (item >= 0) & (item < size)
    return jnp.where(inside, rows, prod(sizes))


def take(array: Value, index: Value, axis: int, trusted: bool = False) -> Value:
    """``array`` at non-negative ``index`` (any shape) along ``axis``; ``trusted`` if surely inside."""
    xp = namespace(array, index)
    if (
        xp is np
        and array.size
        and prod(array.shape[:axis] + array.shape[axis + 1 :]) * index.size <= STATIC_ELEMENTS
    ):
        return np.take(array, index, axis)
    trusted = trusted or is_static(index)
    rank = array.ndim + index.ndim - 1
    dimensions = lax.GatherDimensionNumbers(
        offset_dims=(*range(axis), *range(axis + index.ndim, rank)),
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
    )
    sizes = (*array.shape[:axis], min(1, array.shape[axis]), *array.shape[axis + 1 :])
    if not array.shape[axis]:
        if index.size:
            raise IndexError("cannot read from an empty axis")
        shape = (*array.shape[:axis], *index.shape, *array.shape[axis + 1 :])
        return np.zeros(shape, array.dtype)
    return lax.gather(array, index[..., None], dimensions, sizes, mode=_TRUSTED if trusted else _FILL)


def take_rows(rows: Value, index: Value) -> Value:
    """Rows of an array (along its first axis)."""
    return take(rows, index, 0)


def scatter_rows(rows: Value, index: Value, updates: Value, reduction: str) -> Value:
    """``rows`` with ``updates`` written, or combined, at ``index`` (1-D, non-negative).

    Ties of "max" and "min" share the derivative equally among the equal values; several "none"
    writes to one row leave the last, and only it has a derivative.
    """
    if not index.size or not updates.size:
        return rows
    static = is_static(index)
    unique = static and np.unique(index).size == index.size
    if reduction == "mul" and not unique:
        index, updates = _grouped_products(index, updates, rows.shape[0])
        static, unique = is_static(index), True
    dimensions = lax.ScatterDimensionNumbers(
        update_window_dims=tuple(range(1, rows.ndim)),
        inserted_window_dims=(0,),
        scatter_dims_to_operand_dims=(0,),
    )
    scatter = _SCATTERS[reduction]
    return scatter(
        jnp.asarray(rows),
        jnp.asarray(index)[:, None],
        jnp.asarray(updates),
        dimensions,
        unique_indices=unique,
        mode=_TRUSTED if static else _FILL,
    )


_SCATTERS: dict[str, Any] = {
    "none": lax.scatter,
    "add": lax.scatter_add,
    "mul": lax.scatter_mul,
    "max": lax.scatter_max,
    "min": lax.scatter_min,
}


def _grouped_products(index: Value, updates: Value, rows: int) -> tuple[Value, Value]:
    """One update per row, the product of all of its updates; rows without any point past the end.

    XLA multiplies repeated updates itself, but that has no derivative. A segmented scan over the
    updates, sorted by row, has one, at zeros too.
    """
    if is_static(index):
        fixed = np.argsort(index, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(index[fixed])), index.size - 1)
        starts = np.zeros(index.size, bool)
        starts[np.append(0, ends[:-1] + 1)] = True
        products = _segmented_products(jnp.asarray(starts), take_rows(jnp.asarray(updates), fixed))
        return index[fixed][ends], take_rows(products, ends)
    order = jnp.argsort(index, stable=True)
    ordered = take_rows(index, order)
    changes = ordered[1:] != ordered[:-1]
    edge = jnp.ones(1, bool)
    products = _segmented_products(jnp.concatenate([edge, changes]), take_rows(jnp.asarray(updates), order))
    return jnp.where(jnp.concatenate([changes, edge]), ordered, rows), products


def _segmented_products(starts: Value, values: Value) -> Value:
    """Running products along the first axis that begin anew where ``starts`` is true."""
    starts = jnp.broadcast_to(starts.reshape((-1,) + (1,) * (values.ndim - 1)), values.shape)

    def combine(left: tuple[Value, Value], right: tuple[Value, Value]) -> tuple[Value, Value]:
        return left[0] | right[0], lax.select(right[0], right[1], left[1] * right[1])

    products: Value = lax.associative_scan(combine, (starts, values))[1]
    return products
