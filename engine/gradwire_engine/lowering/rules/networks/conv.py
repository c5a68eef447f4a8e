"""Convolutions: plain, transposed, deformable, causal, and on quantised integers."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering import smooth
from gradwire_engine.lowering.registry import Node, Value, rule
from gradwire_engine.lowering.rules.networks.depthwise import convolve
from gradwire_engine.lowering.rules.networks.spatial import declared_pads, per_axis, windows_of

_EXACT = lax.Precision.HIGHEST


def _add_bias(y: Value, bias: Value | None) -> Value:
    return y if bias is None else y + bias.reshape((1, -1) + (1,) * (y.ndim - 2))


def _check_channels(node: Node, x: Value, w: Value) -> int:
    group = int(node.attr("group", 1))
    if x.ndim != w.ndim or x.ndim < 3:
        raise node.fail(f"input has rank {x.ndim} and weights {w.ndim}; both need batch, channels and space")
    if x.shape[1] != w.shape[1] * group or w.shape[0] % group:
        raise node.fail(f"weights {w.shape} with group {group} do not fit {x.shape[1]} input channels")
    return group


def _convolve(node: Node, x: Value, w: Value) -> Value:
    group = _check_channels(node, x, w)
    windows = windows_of(node, x.shape[2:], w.shape[2:])
    return convolve(x, w, windows.strides, windows.padding, group, kernel_dilation=windows.dilations)


@rule("Conv")
def conv(node: Node, x: Value, w: Value, bias: Value | None = None) -> Value:
    """Conv: grouped, strided, dilated, over any number of spatial axes."""
    return _add_bias(_convolve(node, x, w), bias)


@rule("ConvTranspose")
def conv_transpose(node: Node, x: Value, w: Value, bias: Value | None = None) -> Value:
    """ConvTranspose: the transpose of Conv, as a convolution of the input dilated by its strides."""
    group = int(node.attr("group", 1))
    rank = x.ndim - 2
    if x.ndim != w.ndim or x.shape[1] != w.shape[0] or x.shape[1] % group:
        raise node.fail(f"weights {w.shape} with group {group} do not fit an input of shape {x.shape}")
    kernel = w.shape[2:]
    strides, dilations = per_axis(node, "strides", rank), per_axis(node, "dilations", rank)
    extra = per_axis(node, "output_padding", rank, 0)
    spans = [(kernel[axis] - 1) * dilations[axis] + 1 for axis in range(rank)]
    low, high = declared_pads(node, rank)
    mode = node.attr("auto_pad", "NOTSET")
    shape = node.attr("output_shape")
    if not shape and mode in ("SAME_UPPER", "SAME_LOWER"):
        shape = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if shape:
        total = [
            strides[axis] * (x.shape[2 + axis] - 1) + extra[axis] + spans[axis] - shape[axis - rank]
            for axis in range(rank)
        ]
        half = [size // 2 for size in total]
        rest = [size - part for size, part in zip(total, half, strict=True)]
        low, high = (tuple(half), tuple(rest)) if mode == "SAME_UPPER" else (tuple(rest), tuple(half))
    elif mode == "VALID":
        low = high = (0,) * rank
    per_group = w.shape[1]
    flipped = lax.rev(jnp.asarray(w), tuple(range(2, w.ndim)))
    flipped = flipped.reshape(group, x.shape[1] // group, per_group, *kernel).swapaxes(1, 2)
    y = convolve(
        x,
        flipped.reshape(group * per_group, x.shape[1] // group, *kernel),
        (1,) * rank,
        [(spans[i] - 1 - low[i], spans[i] - 1 - high[i] + extra[i]) for i in range(rank)],
        group,
        input_dilation=strides,
        kernel_dilation=dilations,
    )
    return _add_bias(y, bias)


def _shifted(values: Value, zero: Value | None, axis_of_channels: int | None) -> Value:
    """Subtract the zero point of quantised values, exact in float64 (sums stay far below 2**53)."""
    wide = jnp.asarray(values, jnp.float64)
    if zero is None:
        return wide
    offset = jnp.asarray(zero, jnp.float64)
    if offset.size == 1:
        return wide - offset.reshape(())
    if axis_of_channels is None:
        raise ValueError(f"the zero point of x must be one number, not {offset.size}")
    return wide - offset.reshape((-1,) + (1,) * (wide.ndim - 1))


@rule("ConvInteger", since=10, derivative="none")
def conv_integer(
    node: Node, x: Value, w: Value, x_zero: Value | None = None, w_zero: Value | None = None
) -> Value:
    """ConvInteger: of 8-bit integers with 32-bit sums."""
    return _convolve(node, _shifted(x, x_zero, None), _shifted(w, w_zero, 0)).astype(jnp.int32)


@rule("QLinearConv", since=10, derivative="none")
def qlinear_conv(
    node: Node,
    x: Value,
    x_scale: Value,
    x_zero: Value,
    w: Value,
    w_scale: Value,
    w_zero: Value,
    y_scale: Value,
    y_zero: Value,
    bias: Value | None = None,
) -> Value:
    """QLinearConv: accumulates exactly, rounds halves to even and saturates.

    Args:
        node: the node.
        x: (batch, channels, ...) 8-bit integers.
        x_scale: one number.
        x_zero: zero point, one number.
        w: (outputs, channels / group, ...) 8-bit integers.
        w_scale: one number, or one for each output channel.
        w_zero: zero point, likewise.
        y_scale: one number.
        y_zero: zero point, one number; its dtype is that of the result.
        bias: (outputs,) int32, in units of x_scale * w_scale.

    Returns:
        (batch, outputs, ...) integers.
    """
    total = _add_bias(_convolve(node, _shifted(x, x_zero, None), _shifted(w, w_zero, 0)), bias)
    scale = jnp.asarray(x_scale) * jnp.asarray(w_scale) / jnp.asarray(y_scale)
    if scale.size > 1:
        scale = scale.reshape((1, -1) + (1,) * (total.ndim - 2))
    limits = np.iinfo(y_zero.dtype)
    scaled = jnp.round(total.astype(scale.dtype) * scale) + jnp.asarray(y_zero).astype(scale.dtype)
    return jnp.clip(scaled, limits.min, limits.max).astype(y_zero.dtype)


@rule("DeformConv", since=19)
def deform_conv(
    node: Node, x: Value, w: Value, offset: Value, bias: Value | None = None, mask: Value | None = None
) -> Value:
    """DeformConv: samples its input at learned offsets (Dai et al., 2017; Zhu et al., 2019).

    Samples are linear between grid points and zero outside the input. Where an offset puts a
    sample exactly on a grid line, the derivative is the one from above.

    Args:
        node: the node.
        x: (batch, channels, ...) input.
        w: (outputs, channels / group, ...) weights.
        offset: (batch, offset_group * taps * rank, ...) shifts of each tap at each output.
        bias: (outputs,), or None.
        mask: (batch, offset_group * taps, ...) factor of each sample, or None.

    Returns:
        (batch, outputs, ...) array.
    """
    group = _check_channels(node, x, w)
    windows = windows_of(node, x.shape[2:], w.shape[2:])
    rank, sizes, outputs = windows.rank, windows.sizes, windows.outputs
    batch, channels = x.shape[:2]
    parts = int(node.attr("offset_group", 1))
    taps, sites = math.prod(windows.kernel), math.prod(outputs)
    expected = (batch, parts * taps * rank, *outputs)
    if offset.shape != expected or channels % parts:
        raise node.fail(f"offset has shape {offset.shape}; kernel and offset_group ask for {expected}")
    shifts = offset.reshape(batch, parts, taps, rank, sites)
    points = [shifts[:, :, :, axis] + _grid(windows, axis).astype(x.dtype) for axis in range(rank)]
    floors = [lax.floor(point) for point in points]
    fractions = [point - floor for point, floor in zip(points, floors, strict=True)]
    source = x.reshape(batch, parts, channels // parts, math.prod(sizes))
    sampled: Any = 0
    for corner in product((0, 1), repeat=rank):
        weight: Any = 1
        inside: Any = True
        flat: Any = 0
        for axis, upper in enumerate(corner):
            index = floors[axis].astype(jnp.int32) + upper
            weight = weight * (fractions[axis] if upper else 1 - fractions[axis])
            inside = inside & (index >= 0) & (index < sizes[axis])
            flat = flat * sizes[axis] + jnp.clip(index, 0, sizes[axis] - 1)
        picked = jnp.take_along_axis(source, flat.reshape(batch, parts, 1, taps * sites), -1)
        sampled = sampled + picked * jnp.where(inside, weight, 0).reshape(batch, parts, 1, taps * sites)
    if mask is not None:
        sampled = sampled * mask.reshape(batch, parts, 1, taps * sites)
    sampled = sampled.reshape(batch, group, channels // group * taps, sites)
    weights = w.reshape(group, w.shape[0] // group, channels // group * taps)
    y = jnp.einsum("ngks,gmk->ngms", sampled, weights, precision=_EXACT)
    return _add_bias(y.reshape(batch, w.shape[0], *outputs), bias)


def _grid(windows: Any, axis: int) -> np.ndarray[Any, Any]:
    """Return the undeformed sampling positions along an axis, shape (taps, sites)."""
    rank = windows.rank
    shape = [1] * (2 * rank)
    shape[axis], shape[rank + axis] = windows.kernel[axis], windows.outputs[axis]
    full = np.broadcast_to(windows.positions(axis).T.reshape(shape), (*windows.kernel, *windows.outputs))
    return full.reshape(math.prod(windows.kernel), -1)


@rule("CausalConvWithState", since=27)
def causal_conv_with_state(
    node: Node, x: Value, w: Value, bias: Value | None = None, past: Value | None = None
) -> tuple[Value, Value]:
    """CausalConvWithState: depthwise, over the past; returns the last kernel - 1 values as the state."""
    batch, channels, _ = x.shape
    keep = w.shape[2] - 1
    front = jnp.zeros((batch, channels, keep), x.dtype) if past is None else past
    history = jnp.concatenate([front, x], axis=2)
    y = convolve(history, w, (1,), [(0, 0)], channels)
    y = _add_bias(y, bias)
    activation = node.attr("activation", "none")
    if activation in ("silu", "swish"):
        y = y * smooth.logistic(y)
    elif activation != "none":
        raise node.fail(f"activation {activation!r} is not none, silu or swish")
    return y, history[:, :, history.shape[2] - keep :]
