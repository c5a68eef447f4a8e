"""Reductions over sliding windows."""

from __future__ import annotations

import math

import numpy as np

from gradwire.frontends.jax.dtypes import is_float
from gradwire.frontends.jax.registry import Call, rule
from gradwire.frontends.jax.rules.shapes import dilated, padded
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import GraphValue

_SPATIAL_AXES = 3


def _fill(name: str) -> float:
    return {"reduce_window_max": -math.inf, "reduce_window_min": math.inf}.get(name, 0.0)


@rule("reduce_window_sum", "reduce_window_max", "reduce_window_min")
def reduce_windows(call: Call, x: GraphValue) -> GraphValue:
    """Return a pooling over the axes that the windows extend along; the others become its batch."""
    params = call.params
    sizes, strides, spacing, gaps = (
        [int(item) for item in params[key]]
        for key in ("window_dimensions", "window_strides", "window_dilation", "base_dilation")
    )
    work = x if is_float(x.dtype) else ops.cast(x, ops.FLOAT64)
    fill = ops.constant_like(work, _fill(call.name))
    for axis, gap in enumerate(gaps):
        work = dilated(work, axis, gap - 1, fill)
    work = padded(work, [(int(low), int(high)) for low, high in params["padding"]], fill)
    space = [axis for axis in range(x.ndim) if sizes[axis] != 1 or strides[axis] != 1]
    if not space:
        return ops.cast(work, call.dtype)
    # Windows of a maximum or a sum come apart into windows along single axes.
    for start in range(0, len(space), _SPATIAL_AXES):
        axes = space[start : start + _SPATIAL_AXES]
        work = _pooled(
            call.name, work, axes, *([part[a] for a in axes] for part in (sizes, strides, spacing))
        )
    return ops.cast(work, call.dtype)


def _pooled(
    name: str,
    x: GraphValue,
    axes: list[int],
    sizes: list[int],
    strides: list[int],
    spacing: list[int],
) -> GraphValue:
    """Return the windows along up to three axes, as a pooling of images with one channel.

    Args:
        name: the primitive's name.
        x: a floating-point array.
        axes: along which windows extend.
        sizes: of a window on each of them.
        strides: between windows on each of them.
        spacing: between the elements of a window on each of them.
    """
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    images = ops.transpose(x, rest + axes)
    batch, space = images.shape[: len(rest)], images.shape[len(rest) :]
    images = ops.reshape(images, (math.prod(batch), 1, *space))
    reach = [(size - 1) * step + 1 for size, step in zip(sizes, spacing, strict=True)]
    outputs = tuple((n - r) // s + 1 for n, r, s in zip(space, reach, strides, strict=True))
    shape = (math.prod(batch), 1, *outputs)
    if name == "reduce_window_min":
        images = ops.unary("Neg", images)
    pooled = x.graph.one(
        "AveragePool" if name == "reduce_window_sum" else "MaxPool",
        [images],
        shape,
        x.dtype,
        kernel_shape=sizes,
        strides=strides,
        dilations=spacing,
    )
    if name == "reduce_window_min":
        pooled = ops.unary("Neg", pooled)
    if name == "reduce_window_sum":
        pooled = ops.binary("Mul", pooled, ops.constant_like(x, math.prod(sizes)))
    moved = ops.reshape(pooled, (*batch, *outputs))
    return ops.transpose(moved, np.argsort(rest + axes).tolist())
