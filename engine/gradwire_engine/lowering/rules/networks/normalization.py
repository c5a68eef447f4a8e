"""Normalisation: by batch, instance, layer, group, root mean square, p-norm and neighbouring channels.

Statistics are computed in the wider of the input's precision and `stash_type`: its default,
float32, raises half precision and must not lower double.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from onnx import helper

from gradwire_engine.lowering.registry import Node, Value, rule

_EPSILON = float(np.float32(1e-5))


def _stash_dtype(node: Node) -> Any:
    return helper.tensor_dtype_to_np_dtype(node.attr("stash_type", 1))


def _compute_dtype(node: Node, dtype: Any) -> Any:
    return jnp.promote_types(dtype, _stash_dtype(node))


def _at_least_float32(dtype: Any) -> Any:
    return jnp.promote_types(dtype, jnp.float32)


def _epsilon(node: Node) -> float:
    return float(node.attr("epsilon", _EPSILON))


def standardize(x: Value, axes: Sequence[int], epsilon: float) -> tuple[Value, Value, Value]:
    """Return (x - mean) / sqrt(variance + epsilon), the mean, and the inverse deviation."""
    mean = jnp.mean(x, axis=tuple(axes), keepdims=True)
    centred = x - mean
    inverse = lax.rsqrt(jnp.mean(centred * centred, axis=tuple(axes), keepdims=True) + epsilon)
    return centred * inverse, mean, inverse


def _along_channels(values: Value, rank: int, dtype: Any) -> Value:
    """Reshape a value per channel for broadcasting over axis 1."""
    return jnp.asarray(values, dtype).reshape((1, -1) + (1,) * (rank - 2))


def _batch_transform(
    node: Node, x: Value, scale: Value, bias: Value, mean: Value, var: Value, channels: bool = True
) -> Value:
    """Normalise with given statistics, per channel or (`channels` false) per element."""
    dtype = _at_least_float32(x.dtype)
    if channels:
        scale, bias, mean, var = (_along_channels(item, x.ndim, dtype) for item in (scale, bias, mean, var))
    factor = scale * lax.rsqrt(jnp.asarray(var, dtype) + _epsilon(node))
    return ((jnp.asarray(x, dtype) - mean) * factor + bias).astype(x.dtype)


def _batch_statistics(x: Value, axes: tuple[int, ...]) -> tuple[Value, Value]:
    """Compute mean and (biased) variance over axes."""
    wide = jnp.asarray(x, _at_least_float32(x.dtype))
    mean = jnp.mean(wide, axis=axes)
    centred = wide - jnp.expand_dims(mean, axes)
    return mean, jnp.mean(centred * centred, axis=axes)


@rule("BatchNormalization")
def batch_normalization(
    node: Node, x: Value, scale: Value, bias: Value, mean: Value, var: Value
) -> Value | tuple[Value, ...]:
    """BatchNormalization up to opset 13: extra outputs ask for training mode.

    Before opset 9, statistics may be given per element.
    """
    channels = bool(node.attr("spatial", 1))
    if not any(node.wants(index) for index in range(1, 5)):
        return _batch_transform(node, x, scale, bias, mean, var, channels)
    axes = (0, *range(2, x.ndim)) if channels else (0,)
    batch_mean, batch_var = _batch_statistics(x, axes)
    momentum = float(node.attr("momentum", np.float32(0.9)))
    y = _batch_transform(node, x, scale, bias, batch_mean, batch_var, channels)
    running_mean, running_var = (
        (old * momentum + new * (1 - momentum)).astype(old.dtype)
        for old, new in ((mean, batch_mean), (var, batch_var))
    )
    return y, running_mean, running_var, batch_mean.astype(x.dtype), batch_var.astype(x.dtype)


@rule("BatchNormalization", since=14)
def batch_normalization_14(
    node: Node, x: Value, scale: Value, bias: Value, mean: Value, var: Value
) -> Value | tuple[Value, ...]:
    """BatchNormalization from opset 14: the attribute `training_mode` chooses the statistics."""
    if not node.attr("training_mode", 0):
        return _batch_transform(node, x, scale, bias, mean, var)
    batch_mean, batch_var = _batch_statistics(x, (0, *range(2, x.ndim)))
    momentum = float(node.attr("momentum", np.float32(0.9)))
    y = _batch_transform(node, x, scale, bias, batch_mean, batch_var)
    return (
        y,
        (mean * momentum + batch_mean * (1 - momentum)).astype(mean.dtype),
        (var * momentum + batch_var * (1 - momentum)).astype(var.dtype),
    )


@rule("InstanceNormalization")
def instance_normalization(node: Node, x: Value, scale: Value, bias: Value) -> Value:
    """InstanceNormalization: over the spatial axes of each channel of each sample."""
    dtype = _at_least_float32(x.dtype)
    y, _, _ = standardize(jnp.asarray(x, dtype), range(2, x.ndim), _epsilon(node))
    scale, bias = (_along_channels(item, x.ndim, dtype) for item in (scale, bias))
    return (y * scale + bias).astype(x.dtype)


@rule("LayerNormalization", since=17)
def layer_normalization(
    node: Node, x: Value, scale: Value, bias: Value | None = None
) -> Value | tuple[Value, Value, Value]:
    """LayerNormalization: over the trailing axes (Ba et al., 2016); returns statistics in `stash_type`."""
    axis = int(node.attr("axis", -1)) % x.ndim
    dtype = _compute_dtype(node, x.dtype)
    y, mean, inverse = standardize(jnp.asarray(x, dtype), range(axis, x.ndim), _epsilon(node))
    y = y.astype(x.dtype) * scale
    y = y if bias is None else y + bias
    stash = _stash_dtype(node)
    return (y, mean.astype(stash), inverse.astype(stash)) if len(node.outputs) > 1 else y


@rule("RMSNormalization", since=23)
def rms_normalization(node: Node, x: Value, scale: Value) -> Value:
    """RMSNormalization: divides by the root mean square of the trailing axes (Zhang and Sennrich, 2019)."""
    axes = tuple(range(int(node.attr("axis", -1)) % x.ndim, x.ndim))
    wide = jnp.asarray(x, _compute_dtype(node, x.dtype))
    y = wide * lax.rsqrt(jnp.mean(wide * wide, axis=axes, keepdims=True) + _epsilon(node))
    return y.astype(scale.dtype) * scale


def _normalize_groups(node: Node, x: Value, dtype: Any) -> Value:
    """Standardize each group of channels, (batch, groups, members)."""
    groups = int(node.attr("num_groups", 0))
    if groups < 1 or x.shape[1] % groups:
        raise node.fail(f"num_groups {groups} does not divide {x.shape[1]} channels")
    members = math.prod(x.shape[1:]) // groups
    folded = jnp.asarray(x, dtype).reshape(x.shape[0], groups, members)
    return standardize(folded, (2,), _epsilon(node))[0]


@rule("GroupNormalization", since=18)
def group_normalization(node: Node, x: Value, scale: Value, bias: Value) -> Value:
    """GroupNormalization up to opset 20: one scale and bias for each group."""
    dtype = _at_least_float32(x.dtype)
    scale, bias = (jnp.asarray(item, dtype).reshape(1, -1, 1) for item in (scale, bias))
    return (_normalize_groups(node, x, dtype) * scale + bias).reshape(x.shape).astype(x.dtype)


@rule("GroupNormalization", since=21)
def group_normalization_21(node: Node, x: Value, scale: Value, bias: Value) -> Value:
    """GroupNormalization from opset 21: one scale and bias for each channel (Wu and He, 2018)."""
    y = _normalize_groups(node, x, _compute_dtype(node, x.dtype)).reshape(x.shape).astype(x.dtype)
    scale, bias = (_along_channels(item, x.ndim, x.dtype) for item in (scale, bias))
    return y * scale + bias


@rule("LpNormalization")
def lp_normalization(node: Node, x: Value) -> Value:
    """LpNormalization: x over its 1- or 2-norm along an axis; 0, with derivative 0, where the norm is 0."""
    axis, p = int(node.attr("axis", -1)), int(node.attr("p", 2))
    if p not in (1, 2):
        raise node.fail(f"p is {p}; the operator defines 1 and 2")
    total = jnp.sum(x * (lax.sign(x) if p == 1 else x), axis=axis, keepdims=True)
    nonzero = total > 0
    safe = jnp.where(nonzero, total, 1)
    return jnp.where(nonzero, x / (safe if p == 1 else lax.sqrt(safe)), 0)


@rule("LRN")
def lrn(node: Node, x: Value) -> Value:
    """LRN: divides by a power of the squares of neighbouring channels (Krizhevsky et al., 2012)."""
    size = int(node.attr("size", 0))
    alpha, beta = float(node.attr("alpha", np.float32(1e-4))), float(node.attr("beta", 0.75))
    window = (1, size, *(1,) * (x.ndim - 2))
    padding = [(0, 0), ((size - 1) // 2, size // 2), *((0, 0),) * (x.ndim - 2)]
    x = jnp.asarray(x)
    squares = lax.reduce_window(x * x, np.zeros((), x.dtype), lax.add, window, (1,) * x.ndim, padding)
    return x * (float(node.attr("bias", 1.0)) + alpha / size * squares) ** -beta


@rule("MeanVarianceNormalization", since=9)
def mean_variance_normalization(node: Node, x: Value) -> Value:
    """MeanVarianceNormalization: (x - mean) / (deviation + 1e-9); derivative 0 where a slice is constant."""
    axes = tuple(int(axis) for axis in node.attr("axes", (0, 2, 3)))
    centred = x - jnp.mean(x, axis=axes, keepdims=True)
    variance = jnp.mean(centred * centred, axis=axes, keepdims=True)
    varies = variance > 0
    deviation = lax.sqrt(jnp.where(varies, variance, 1)) + float(np.float32(1e-9))
    return jnp.where(varies, centred / deviation, 0)
