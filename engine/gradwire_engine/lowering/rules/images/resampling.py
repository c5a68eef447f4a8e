"""Resize and Upsample: separable interpolation whose indices and weights are static.

Each axis becomes one gather of the elements that a result reads, times constant weights. Cubic
weights are the convolution kernel of Keys (1981); antialiasing widens a kernel by the inverse of
the scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isclose
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradwire_engine.lowering.arrays import axis_of, take
from gradwire_engine.lowering.registry import Node, Value, namespace, rule

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Axis:
    """One axis to resize.

    Attributes:
        axis: its number.
        size: size of the input.
        result: size of the output.
        scale: the factor that positions are divided by, which may differ from result / size.
        start: first position to read, as a fraction of the axis (tf_crop_and_resize only).
        end: last position to read, likewise.
    """

    axis: int
    size: int
    result: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    @property
    def is_identity(self) -> bool:
        """Whether resizing leaves the axis unchanged."""
        return self.result == self.size and isclose(self.scale, 1.0) and (self.start, self.end) == (0.0, 1.0)


@dataclass(frozen=True)
class Interpolation:
    """The attributes of Resize that say how an element is computed.

    Attributes:
        mode: "nearest", "linear" or "cubic".
        coordinates: `coordinate_transformation_mode`.
        nearest: `nearest_mode`.
        cubic: `cubic_coeff_a`, the parameter of Keys' kernel.
        antialias: whether kernels are widened where the axis shrinks.
        exclude_outside: whether elements outside the input get weight 0.
        extrapolation: the value outside the input (tf_crop_and_resize only).
    """

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    extrapolation: float = 0.0


def linear_kernel(distance: Floats) -> Floats:
    """Compute the kernel of linear interpolation."""
    return np.maximum(0.0, 1.0 - np.abs(distance))


def cubic_kernel(distance: Any, a: float) -> Any:
    """Compute Keys' cubic convolution kernel with parameter `a`; arrays of NumPy or JAX."""
    xp = namespace(distance)
    near = xp.abs(distance)
    inner = ((a + 2) * near - (a + 3)) * near * near + 1
    outer = ((a * near - 5 * a) * near + 8 * a) * near - 4 * a
    return xp.where(near <= 1, inner, xp.where(near < 2, outer, 0.0 * near))


def _coordinates(node: Node, item: Axis, interpolation: Interpolation) -> Floats:
    """Return the position in the input of each element of the result."""
    position = np.arange(item.result, dtype=np.float64)
    last = item.size - 1
    # "align_corners" and "tf_crop_and_resize" are defined by the length of the resized tensor, a whole
    # number; onnx.reference takes scale times size there, unlike the text and every runtime.
    steps = max(1, item.result - 1)
    match interpolation.coordinates:
        case "half_pixel":
            return (position + 0.5) / item.scale - 0.5
        case "half_pixel_symmetric":
            offset = item.size / 2 * (1 - item.result / (item.scale * item.size))
            return offset + (position + 0.5) / item.scale - 0.5
        case "pytorch_half_pixel":
            return (position + 0.5) / item.scale - 0.5 if item.result > 1 else position * 0
        case "align_corners":
            return position * last / steps
        case "asymmetric":
            return position / item.scale
        case "tf_half_pixel_for_nn":
            return (position + 0.5) / item.scale
        case "tf_crop_and_resize":
            if item.result == 1:
                return position + (item.start + item.end) * last / 2
            return item.start * last + position * (item.end - item.start) * last / steps
    raise node.fail(f"coordinate_transformation_mode {interpolation.coordinates!r} is not known")


def _nearest(node: Node, where: Floats, rounding: str) -> Integers:
    """Round positions to elements."""
    match rounding:
        case "round_prefer_floor":
            return np.ceil(where - 0.5).astype(np.int64)
        case "round_prefer_ceil":
            return np.floor(where + 0.5).astype(np.int64)
        case "floor":
            return np.floor(where).astype(np.int64)
        case "ceil":
            return np.ceil(where).astype(np.int64)
    raise node.fail(f"nearest_mode {rounding!r} is not known")


def _taps(node: Node, where: Floats, item: Axis, interpolation: Interpolation) -> tuple[Integers, Floats]:
    """Return the elements that each result reads, (result, taps), and their weights."""
    if interpolation.mode not in ("linear", "cubic"):
        raise node.fail(f"mode {interpolation.mode!r} is not one of nearest, linear, cubic")
    radius = 1 if interpolation.mode == "linear" else 2
    shrink = min(item.scale, 1.0) if interpolation.antialias else 1.0
    first = floor(-radius / shrink) + 1
    taps = np.floor(where)[:, None] + np.arange(first, 2 - first)
    distance = (taps - where[:, None]) * shrink
    weights = (
        linear_kernel(distance)
        if interpolation.mode == "linear"
        else cubic_kernel(distance, interpolation.cubic)
    )
    if interpolation.exclude_outside:
        weights = np.where((taps < 0) | (taps >= item.size), 0.0, weights)
    if interpolation.exclude_outside or interpolation.antialias:
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    return taps.astype(np.int64), weights


def _resize_axis(node: Node, data: Value, item: Axis, interpolation: Interpolation) -> Value:
    where = _coordinates(node, item, interpolation)
    if interpolation.mode == "nearest":
        result = take(
            data, np.clip(_nearest(node, where, interpolation.nearest), 0, item.size - 1), item.axis
        )
    else:
        taps, weights = _taps(node, where, item, interpolation)
        read = take(data, np.clip(taps, 0, item.size - 1), item.axis)
        spread = [1] * read.ndim
        spread[item.axis : item.axis + 2] = weights.shape
        result = (read * weights.astype(data.dtype).reshape(spread)).sum(axis=item.axis + 1)
    if interpolation.coordinates != "tf_crop_and_resize":
        return result
    spread = [1] * result.ndim
    spread[item.axis] = item.result
    outside = ((where < 0) | (where > item.size - 1)).reshape(spread)
    fill = np.asarray(interpolation.extrapolation).astype(data.dtype)
    return namespace(result).where(outside, fill, result)


def resize(node: Node, data: Value, axes: Sequence[Axis], interpolation: Interpolation) -> Value:
    """Resize axis by axis, in float32 at least; integers are rounded at the end, within their range.

    Args:
        node: named in errors.
        data: array of any dtype; its derivatives exist where it is floating.
        axes: the axes to resize.
        interpolation: how an element is computed.

    Returns:
        An array of the dtype of `data`.

    Raises:
        InvalidGraph: an attribute has no such value, or an empty axis is enlarged.
    """
    changed = [item for item in axes if not item.is_identity]
    if any(item.size == 0 and item.result for item in changed):
        raise node.fail("an empty axis cannot be resized")
    dtype = data.dtype
    exact = interpolation.mode == "nearest" and interpolation.coordinates != "tf_crop_and_resize"
    floating = jnp.issubdtype(dtype, jnp.floating)
    wide = dtype if exact else np.promote_types(dtype, np.float32) if floating else np.dtype(np.float64)
    result = data.astype(wide)
    for item in changed:
        result = _resize_axis(node, result, item, interpolation)
    if wide != dtype and not floating and dtype != np.bool_:
        limits = np.iinfo(dtype)
        result = result.round().clip(limits.min, limits.max)
    return result.astype(dtype)


def _by_scales(node: Node, data: Value, scales: Sequence[float], axes: Sequence[int]) -> list[Axis]:
    """Return the axes to resize by scales; sizes are rounded down."""
    if len(scales) != len(axes):
        raise node.fail(f"scales has {len(scales)} entries, {len(axes)} are needed")
    if min(scales, default=1.0) <= 0:
        raise node.fail(f"scales {list(scales)} must be positive")
    return [
        Axis(axis, data.shape[axis], int(scale * data.shape[axis]), scale)
        for axis, scale in zip(axes, scales, strict=True)
    ]


def _by_sizes(node: Node, data: Value, sizes: Sequence[int], axes: Sequence[int]) -> list[Axis]:
    """Return the axes to resize to sizes, under the policy for the aspect ratio."""
    if len(sizes) != len(axes):
        raise node.fail(f"sizes has {len(sizes)} entries, {len(axes)} are needed")
    scales = [size / max(1, data.shape[axis]) for axis, size in zip(axes, sizes, strict=True)]
    policy = node.attr("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return [
            Axis(axis, data.shape[axis], size, scale)
            for axis, size, scale in zip(axes, sizes, scales, strict=True)
        ]
    if policy not in ("not_larger", "not_smaller"):
        raise node.fail(f"keep_aspect_ratio_policy {policy!r} is not known")
    scale = min(scales) if policy == "not_larger" else max(scales)
    # Rounds halves up.
    return [Axis(axis, data.shape[axis], floor(scale * data.shape[axis] + 0.5), scale) for axis in axes]


def _floats(node: Node, value: Value, what: str) -> list[float]:
    return [float(item) for item in np.ravel(node.static(value, what))]


def _given(value: Value) -> bool:
    return value is not None and value.size > 0


@rule("Upsample", since=7)
def upsample_by_attribute(node: Node, data: Value) -> Value:
    """Upsample before opset 9: the scales are an attribute."""
    return _resize_as_opset_10(node, data, list(node.attributes["scales"]))


@rule("Upsample", since=9)
@rule("Resize", since=10)
def upsample(node: Node, data: Value, scales: Value) -> Value:
    """Upsample, and Resize of opset 10: the scales are a static input."""
    return _resize_as_opset_10(node, data, _floats(node, scales, "scales"))


def _resize_as_opset_10(node: Node, data: Value, scales: list[float]) -> Value:
    # Before opset 11 the first elements of input and output coincide, and nearest rounds down.
    mode = {"bilinear": "linear"}.get(node.attr("mode", "nearest"), node.attr("mode", "nearest"))
    interpolation = Interpolation(mode=mode, coordinates="asymmetric", nearest="floor")
    return resize(node, data, _by_scales(node, data, scales, range(data.ndim)), interpolation)


@rule("Resize", since=11)
def resize_11(node: Node, data: Value, roi: Value = None, scales: Value = None, sizes: Value = None) -> Value:
    """Resize from opset 11: by static scales or sizes, over any axes."""
    axes = [axis_of(node, axis, data.ndim) for axis in node.attr("axes") or range(data.ndim)]
    if _given(sizes):
        items = _by_sizes(node, data, node.ints(sizes, "sizes"), axes)
    elif _given(scales):
        items = _by_scales(node, data, _floats(node, scales, "scales"), axes)
    else:
        raise node.fail("neither scales nor sizes is given")
    interpolation = Interpolation(
        mode=node.attr("mode", "nearest"),
        coordinates=node.attr("coordinate_transformation_mode", "half_pixel"),
        nearest=node.attr("nearest_mode", "round_prefer_floor"),
        cubic=node.attr("cubic_coeff_a", -0.75),
        antialias=bool(node.attr("antialias", 0)),
        exclude_outside=bool(node.attr("exclude_outside", 0)),
        extrapolation=node.attr("extrapolation_value", 0.0),
    )
    if interpolation.coordinates == "tf_crop_and_resize":
        if not _given(roi):
            raise node.fail("coordinate_transformation_mode tf_crop_and_resize needs roi")
        region = _floats(node, roi, "roi")
        if len(region) != 2 * len(axes):
            raise node.fail(f"roi has {len(region)} entries, {2 * len(axes)} are needed")
        items = [
            Axis(item.axis, item.size, item.result, item.scale, region[index], region[len(axes) + index])
            for index, item in enumerate(items)
        ]
    return resize(node, data, items, interpolation)
