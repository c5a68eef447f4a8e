"""Gather and scatter along one axis, which every indexing rule reduces to.

Operators that index several axes at once first turn their indices into row numbers of a reshaped
array; what remains is a single XLA gather or scatter with derivatives in both modes. Static
indices are checked against the array and stay NumPy.

Traced indices are known only when the graph runs. One rule holds for all operators that read or write at
such an index, class labels of losses included (`marked`): where it lies outside, the value and its
derivatives are NaN. A gather gives NaN in the elements that it would have read; a scatter gives NaN
everywhere, since the update could belong anywhere. Forward mode makes every derivative of a NaN element NaN;
reverse mode at least one of them, and may make more of them NaN, never fewer. Integers have no NaN: a gather
reads the lowest value, a scatter drops the update.
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
    """Return `numpy` when every value is static and a result of `shape` is small, else `jax.numpy`.

    For operators whose result can be far larger than their inputs: a large result is traced, so that
    the limit on arrays is checked on its shape before anything is allocated.
    """
    return np if is_static(*values) and prod(shape) <= STATIC_ELEMENTS else jnp


def axis_of(node: Node, axis: int, rank: int) -> int:
    """Return an axis counted from the front.

    Raises:
        InvalidGraph: the axis is outside an array of this rank.
    """
    if not -rank <= axis < rank:
        raise node.fail(f"axis {axis} is outside an array of {rank} dimensions")
    return axis % rank if rank else 0


def wrap_index(node: Node, index: Value, size: int, negative: bool = True) -> Value:
    """Count negative indices into an axis from its end.

    Args:
        node: named in the error.
        index: integers of any shape, static or traced.
        size: size of the axis.
        negative: whether negative indices are allowed.

    Returns:
        Indices of the same shape. Static ones are int32, or int64 where the axis needs it; traced
        ones keep their dtype and may still lie outside the axis.

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
    """Compute row numbers in C order from one index per axis.

    Args:
        node: named in the error.
        components: for each axis integers, broadcast against one another; negative ones count from the end.
        sizes: size of each axis.

    Returns:
        int64 row numbers of the broadcast shape; `prod(sizes)` where a traced index is outside.

    Raises:
        InvalidGraph: a static index is out of range.
    """
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


def has_nan(array: Value) -> bool:
    """Return whether an array's dtype has NaN and arithmetic: floats of 4 and 8 bits lack one of them."""
    return bool(jnp.issubdtype(array.dtype, jnp.floating)) and np.dtype(array.dtype).itemsize > 1


def marked(values: Value, inside: Value) -> Value:
    """Make values, and their derivatives, NaN where an index was outside; integers are left as they are.

    A product carries NaN into derivatives; a selection would give them 0 there.

    Args:
        values: an array.
        inside: booleans that broadcast to its shape.
    """
    if not has_nan(values):
        return values
    factor = jnp.where(inside, 1, np.nan).astype(values.dtype)
    return lax.mul(jnp.asarray(values), jnp.broadcast_to(factor, values.shape))


def take(array: Value, index: Value, axis: int, trusted: bool = False) -> Value:
    """Read `array` at `index` along one axis.

    Args:
        array: any array.
        index: non-negative integers of any shape.
        axis: the axis, counted from the front; the axes of `index` take its place in the result.
        trusted: whether traced indices are known to lie inside; they are then not checked.

    Raises:
        IndexError: the axis is empty and the index is not.
    """
    xp = namespace(array, index)
    if (
        xp is np
        and array.size
        and prod(array.shape[:axis] + array.shape[axis + 1 :]) * index.size <= STATIC_ELEMENTS
    ):
        return np.take(array, index, axis)
    trusted = trusted or is_static(index)
    if not trusted and array.shape[axis] and has_nan(array):
        inside = (index >= 0) & (index < array.shape[axis])
        found = take(array, jnp.where(inside, index, 0), axis, trusted=True)
        return marked(found, inside.reshape((*inside.shape, *(1 for _ in array.shape[axis + 1 :]))))
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
    """Read rows of an array (along its first axis)."""
    return take(rows, index, 0)


def write_rows(rows: Value, index: Value, updates: Value, reduction: str) -> Value:
    """Write updates into rows as `scatter_rows` does; NaN everywhere if an index lies outside."""
    if is_static(index) or not index.size or not updates.size:
        return scatter_rows(rows, index, updates, reduction)
    inside = jnp.all(index < rows.shape[0])
    # What is overwritten or dropped gives its NaN on to derivatives as well.
    written = scatter_rows(marked(rows, inside), index, marked(updates, inside), reduction)
    return marked(written, inside)


def scatter_rows(rows: Value, index: Value, updates: Value, reduction: str) -> Value:
    """Write updates into rows, or combine them with what is there.

    Where "max" or "min" meets equal values they share the derivative equally. Of several "none" writes
    to one row the last remains, and only it has a derivative.

    Args:
        rows: (rows, ...) array.
        index: (updates,) non-negative integers; traced ones outside the array are dropped.
        updates: (updates, ...) array of the dtype of `rows`.
        reduction: "none", "add", "mul", "max" or "min".

    Returns:
        An array like `rows`.
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
    """Combine updates into one per row, their product; unused entries point past the last row.

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
    ordered = take(index, order, 0, trusted=True)
    changes = ordered[1:] != ordered[:-1]
    edge = jnp.ones(1, bool)
    products = _segmented_products(
        jnp.concatenate([edge, changes]), take(jnp.asarray(updates), order, 0, trusted=True)
    )
    return jnp.where(jnp.concatenate([changes, edge]), ordered, rows), products


def _segmented_products(starts: Value, values: Value) -> Value:
    """Compute running products along the first axis that restart where `starts` is true."""
    starts = jnp.broadcast_to(starts.reshape((-1,) + (1,) * (values.ndim - 1)), values.shape)

    def combine(left: tuple[Value, Value], right: tuple[Value, Value]) -> tuple[Value, Value]:
        return left[0] | right[0], lax.select(right[0], right[1], left[1] * right[1])

    products: Value = lax.associative_scan(combine, (starts, values))[1]
    return products
