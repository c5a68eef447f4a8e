"""Rules for convolution, pooling and normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import wrap
from gradwire.frontends.torch.lowering import Array, Call, rule
from gradwire.graphs.builder import SCI


def _spread(values: Sequence[int], rank: int, default: int = 0) -> list[int]:
    """Return one number for each spatial axis."""
    listed = list(values) or [default] * rank
    return listed * rank if len(listed) == 1 else listed


@rule("convolution", "_convolution")
def convolution(
    call: Call,
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    *_: Any,
) -> Any:
    rank = weight.ndim - 2
    pads = _spread(padding, rank) * 2
    attributes: dict[str, Any] = {
        "strides": _spread(stride, rank, 1),
        "dilations": _spread(dilation, rank, 1),
        "pads": pads,
        "group": groups,
    }
    if transposed:
        attributes["output_padding"] = _spread(output_padding, rank)
    batched = x if x.ndim == weight.ndim else x[None]
    inputs = [call.value(batched), call.value(weight), None if bias is None else call.value(bias)]
    shape = call.shape if x.ndim == weight.ndim else (1, *call.shape)
    name = "ConvTranspose" if transposed else "Conv"
    return call.emit(name, *inputs, shape=shape, **attributes).reshape(call.shape)


def _window(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], rank: int, ceil_mode: bool
) -> dict[str, Any]:
    size = _spread(kernel, rank)
    return {
        "kernel_shape": size,
        "strides": _spread(stride, rank) if stride else size,
        "pads": _spread(padding, rank) * 2,
        "ceil_mode": int(ceil_mode),
    }


@rule("max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool(
    call: Call,
    x: Array,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Any:
    rank = int(call.op[8])
    attributes = _window(kernel, stride, padding, rank, ceil_mode)
    attributes["dilations"] = _spread(dilation, rank)
    unbatched = x.ndim == rank + 1
    shape = (1, *call.shape) if unbatched else call.shape
    source = call.value(x[None] if unbatched else x)
    values, places = call.graph.emit(
        "MaxPool", [source], [(shape, call.dtype), (shape, np.dtype(np.int64))], **attributes
    )
    # ONNX counts from the first element of the batch, PyTorch from that of the plane.
    plane = math.prod(x.shape[x.ndim - rank :])
    return wrap(values).reshape(call.shape), np.remainder(wrap(places), plane).reshape(call.shape)


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def average_pool(
    call: Call,
    x: Array,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    rank = int(call.op[8])
    if divisor_override is not None:
        count_include_pad = True
        if ceil_mode:
            raise call.refuse("with divisor_override and ceil_mode", "scale the result")
    attributes = _window(kernel, stride, padding, rank, ceil_mode)
    unbatched = x.ndim == rank + 1
    shape = (1, *call.shape) if unbatched else call.shape
    pooled = call.emit(
        "AveragePool",
        call.value(x[None] if unbatched else x),
        shape=shape,
        count_include_pad=int(count_include_pad),
        **attributes,
    )
    if divisor_override is not None:
        pooled = pooled * (math.prod(_spread(kernel, rank)) / divisor_override)
    return pooled.reshape(call.shape)


@rule("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d")
def adaptive_average_pool(call: Call, x: Array, output_size: Sequence[int]) -> Any:
    """Means over windows with evenly spaced bounds, axis by axis."""
    count = len(output_size)
    for axis, extent in zip(range(x.ndim - count, x.ndim), output_size, strict=True):
        x = _pooled(call, x, axis, int(extent))
    return x


def _pooled(call: Call, x: Array, axis: int, extent: int) -> Any:
    """Average windows along one axis, as a product with a matrix of weights."""
    source = x.shape[axis]
    weights = np.zeros((source, extent), call.dtype)
    for place in range(extent):
        start, stop = place * source // extent, -(-(place + 1) * source // extent)
        weights[start:stop, place] = 1 / (stop - start)
    moved = np.moveaxis(x, axis, -1)
    return np.moveaxis(np.matmul(moved, wrap(call.graph.constant(weights))), -1, axis)


@rule("adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(call: Call, x: Array, output_size: Sequence[int]) -> Any:
    """Maxima over windows with evenly spaced bounds; of equal elements, the first counts."""
    spatial = len(output_size)
    extents = x.shape[x.ndim - spatial :]
    places = np.arange(math.prod(extents)).reshape(extents)
    windows = places
    for axis, (extent, count) in enumerate(zip(extents, output_size, strict=True)):
        windows = np.take(windows, _windows(extent, int(count)), axis=2 * axis)
    order = [*range(0, 2 * spatial, 2), *range(1, 2 * spatial, 2)]
    windows = np.transpose(windows, order).reshape(*output_size, -1)
    flat = x.reshape((*x.shape[: x.ndim - spatial], -1))
    candidates = flat[..., windows]
    chosen = np.expand_dims(np.argmax(candidates, axis=-1), -1)
    where = np.take_along_axis(np.broadcast_to(windows, candidates.shape), chosen, -1)
    return np.take_along_axis(candidates, chosen, -1)[..., 0], where[..., 0]


def _windows(extent: int, count: int) -> np.ndarray[Any, Any]:
    """Return the elements of each window; shorter ones repeat their last, which is never chosen first."""
    bounds = [(place * extent // count, -(-(place + 1) * extent // count)) for place in range(count)]
    width = max(stop - start for start, stop in bounds)
    return np.array([[min(start + step, stop - 1) for step in range(width)] for start, stop in bounds])


@rule("native_layer_norm")
def layer_norm(call: Call, x: Array, normalized: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
    axes = tuple(range(x.ndim - len(normalized), x.ndim))
    mean = np.mean(x, axis=axes, keepdims=True)
    centered = x - mean
    scale = 1 / np.sqrt(np.mean(centered * centered, axis=axes, keepdims=True) + eps)
    result = centered * scale
    if weight is not None:
        result = result * weight
    return result if bias is None else result + bias, mean, scale


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_with_update",
    "_batch_norm_no_update",
    "cudnn_batch_norm",
)
def batch_norm(call: Call, x: Array, weight: Any, bias: Any, *rest: Any) -> Any:
    """In training, running statistics are updated in place if there are any."""
    numbers = [one for one in rest if isinstance(one, float | int) and not isinstance(one, bool)]
    momentum, eps = numbers[0], numbers[1]
    running: list[Any] = list(rest[:2]) if rest and not isinstance(rest[0], bool) else [None, None]
    training = "no_" not in call.op and (
        call.op == "_batch_norm_with_update" or any(one is True for one in rest)
    )
    axes = (0, *range(2, x.ndim))
    column = (-1,) + (1,) * (x.ndim - 2)
    if training:
        mean = np.mean(x, axis=axes)
        centered = x - mean.reshape(column)
        variance = np.mean(centered * centered, axis=axes)
        count = x.size // x.shape[1]
        for stored, fresh in zip(running, (mean, variance * (count / max(count - 1, 1))), strict=True):
            if stored is not None:
                stored[...] = stored * (1 - momentum) + detached(call, fresh) * momentum
    else:
        mean, variance = running
        centered = x - mean.reshape(column)
    scale = 1 / np.sqrt(variance + eps)
    result = centered * scale.reshape(column)
    if weight is not None:
        result = result * weight.reshape(column)
    if bias is not None:
        result = result + bias.reshape(column)
    return result, mean, scale, call.unavailable("the reserve", "use the result alone")


def detached(call: Call, x: Array) -> Any:
    """Stop the derivative: running statistics have none."""
    return call.emit("StopGradient", x.value, shape=x.shape, domain=SCI)
