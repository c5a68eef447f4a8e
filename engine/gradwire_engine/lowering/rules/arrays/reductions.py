"""Reductions, positions of extremes, the k largest, and running sums and products.

Where a reduction has a kink, its derivative there is:

- `ReduceMax`, `ReduceMin`: shared equally among the equal extremes;
- `ReduceL1`: 0 for an element that is 0;
- `ReduceL2`: 0 at the zero vector;
- `TopK`: that of the elements chosen, which are the first of equal ones.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.arrays import axis_of
from gradwire_engine.lowering.numeric import (
    axes_of,
    cast,
    constant,
    guarded,
    is_floating,
    magnitude,
    select,
    widened,
)
from gradwire_engine.lowering.registry import Node, Value, namespace, rule

Axes = tuple[int, ...]
Reduction = Callable[[Value, Axes], Value]


def _sum(x: Value, axes: Axes) -> Value:
    return lax.reduce_sum(x, axes)


def _mean(x: Value, axes: Axes) -> Value:
    count = prod(x.shape[axis] for axis in axes)
    return lax.div(lax.reduce_sum(x, axes), constant(count, x))


def _l1(x: Value, axes: Axes) -> Value:
    return lax.reduce_sum(magnitude(x), axes)


def _sum_square(x: Value, axes: Axes) -> Value:
    return lax.reduce_sum(lax.square(x), axes)


def _l2(x: Value, axes: Axes) -> Value:
    total = _sum_square(x, axes)
    return guarded(lax.ne(total, constant(0, total)), lax.sqrt, total, 1.0, constant(0, total))


def _log_sum(x: Value, axes: Axes) -> Value:
    return lax.log(lax.reduce_sum(x, axes))


def _log_sum_exp(x: Value, axes: Axes) -> Value:
    largest = lax.stop_gradient(lax.reduce_max(x, axes))
    # An infinite largest element (or none) is not subtracted, as inf - inf is NaN.
    shift = select(jnp.isfinite(largest), largest, constant(0, x))
    spread = jnp.broadcast_to(lax.expand_dims(shift, axes), x.shape)
    total = lax.reduce_sum(lax.exp(lax.sub(x, spread)), axes)
    logarithm = guarded(lax.ne(total, constant(0, x)), lax.log, total, 1.0, constant(-np.inf, x))
    return lax.add(logarithm, shift)


def _extreme(
    operation: Callable[..., Any], empty: Callable[..., Any], logical: Callable[..., Any]
) -> Reduction:
    """Return the reduction to an extreme.

    `empty` gives the extreme of no elements for a dtype; `logical` is the reduction of booleans.
    """

    def reduce(x: Value, axes: Axes) -> Value:
        if x.dtype == np.bool_:
            return logical(x, axes)
        if not all(x.shape[axis] for axis in axes):
            # The derivative of the primitive divides by the number of extremes, which is 0 here.
            shape = [size for axis, size in enumerate(x.shape) if axis not in axes]
            return jnp.full(shape, empty(x.dtype), x.dtype)
        return operation(x, axes)

    return reduce


def _lowest(dtype: Any) -> Any:
    return -np.inf if jnp.issubdtype(dtype, jnp.floating) else int(jnp.iinfo(dtype).min)  # type: ignore[no-untyped-call]


def _highest(dtype: Any) -> Any:
    return np.inf if jnp.issubdtype(dtype, jnp.floating) else int(jnp.iinfo(dtype).max)  # type: ignore[no-untyped-call]


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": _sum,
    "ReduceMean": _mean,
    "ReduceProd": lambda x, axes: lax.reduce_prod(x, axes),
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceSumSquare": _sum_square,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _extreme(lax.reduce_max, _lowest, lax.reduce_or),
    "ReduceMin": _extreme(lax.reduce_min, _highest, lax.reduce_and),
}

_STATIC_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": np.sum,
    "ReduceProd": np.prod,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
}
"""Reductions used in shape arithmetic, computed by NumPy on static values."""

_IN_FLOATING_POINT = {"ReduceL2", "ReduceLogSum", "ReduceLogSumExp"}
_SELECTING = {"ReduceMax", "ReduceMin"}


@rule(*_REDUCTIONS, since=1)
def reduce(node: Node, x: Value, axes: Value = None) -> Value:
    """Reduce*: `axes` is an attribute before opset 18 (13 for ReduceSum), then an input."""
    named = node.attr("axes") if axes is None else node.ints(axes, "the list of axes")
    if not named:
        named = () if node.attr("noop_with_empty_axes", 0) else range(x.ndim)
    reduced = axes_of(node, tuple(named), x.ndim)
    keepdims = bool(node.attr("keepdims", 1))
    if node.op in _STATIC_REDUCTIONS and namespace(x) is np and x.size and x.dtype != np.bool_:
        return np.asarray(_STATIC_REDUCTIONS[node.op](x, axis=reduced, keepdims=keepdims), x.dtype)
    wide = jnp.asarray(x) if node.op in _SELECTING else widened(jnp.asarray(x))
    if node.op in _IN_FLOATING_POINT and not is_floating(x):
        wide = cast(wide, np.float64)
    result = cast(_REDUCTIONS[node.op](wide, reduced), x.dtype)
    return lax.expand_dims(result, reduced) if keepdims else result


@rule("ArgMax", "ArgMin", since=1)
def position_of_extreme(node: Node, x: Value) -> Value:
    """ArgMax, ArgMin: index of the first extreme along an axis; `select_last_index` gives the last."""
    axis = axis_of(node, node.attr("axis", 0), x.ndim)
    last = bool(node.attr("select_last_index", 0))
    find = lax.argmax if node.op == "ArgMax" else lax.argmin
    x = jnp.asarray(x)
    index = find(lax.rev(x, (axis,)) if last else x, axis, np.int64)
    if last:
        index = lax.sub(constant(x.shape[axis] - 1, index), index)
    return lax.expand_dims(index, (axis,)) if node.attr("keepdims", 1) else index


def _order(x: Value, largest: bool) -> Value:
    """Returns keys in whose descending order TopK takes elements, equal ones side by side.

    XLA orders by bits, which tells -0 from 0 and NaN from NaN. The ascending order is that of negated keys,
    or for integers of all bits flipped, which keeps equal ones in place.
    """
    if not is_floating(x):
        return x if largest else lax.bitwise_not(x)
    numbers = select(lax.eq(x, constant(0, x)), jnp.zeros_like(x), x)
    keys = select(lax.ne(x, x), jnp.full_like(x, np.nan), numbers)
    if largest:
        return keys
    return select(lax.eq(keys, constant(0, keys)), keys, lax.neg(keys))


def _top_k(node: Node, x: Value, k: int) -> tuple[Value, Value]:
    axis = axis_of(node, node.attr("axis", -1), x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise node.fail(f"k is {k}, but axis {axis} has {x.shape[axis]} elements")
    x = jnp.moveaxis(jnp.asarray(x), axis, -1)
    keys = lax.stop_gradient(_order(x, bool(node.attr("largest", 1))))
    indices = lax.top_k(keys, k)[1]
    values = jnp.take_along_axis(x, indices, -1, mode="promise_in_bounds")
    return jnp.moveaxis(values, -1, axis), jnp.moveaxis(cast(indices, np.int64), -1, axis)


@rule("TopK", since=1)
def top_k_by_attribute(node: Node, x: Value) -> tuple[Value, Value]:
    """TopK before opset 10: k is an attribute."""
    return _top_k(node, x, node.attr("k"))


@rule("TopK", since=10)
def top_k(node: Node, x: Value, k: Value) -> tuple[Value, Value]:
    """TopK: the k largest (or smallest) along an axis in order, equal ones by index; and their indices."""
    (count,) = node.ints(k, "the number k")
    return _top_k(node, x, count)


def _running(node: Node, x: Value, axis: Value, operation: Callable[..., Any], neutral: int) -> Value:
    """Apply a cumulative operation along a static axis, in reverse or without its own element."""
    (given,) = node.ints(axis, "the axis")
    dimension = axis_of(node, given, x.ndim)
    reverse = bool(node.attr("reverse", 0))
    wide = widened(jnp.asarray(x))
    if node.attr("exclusive", 0):
        # Shifts by one neutral element, so that nothing is subtracted or divided afterwards.
        edges = [(0, 0, 0)] * x.ndim
        edges[dimension] = (-1, 1, 0) if reverse else (1, -1, 0)
        wide = lax.pad(wide, constant(neutral, wide), edges)
    return cast(operation(wide, axis=dimension, reverse=reverse), x.dtype)


@rule("CumSum", since=11)
def cumulative_sum(node: Node, x: Value, axis: Value) -> Value:
    """CumSum: running sums along a static axis."""
    return _running(node, x, axis, lax.cumsum, 0)


@rule("CumProd", since=26)
def cumulative_product(node: Node, x: Value, axis: Value) -> Value:
    """CumProd: running products along a static axis."""
    return _running(node, x, axis, lax.cumprod, 1)
