"""Resize and Upsample: separable interpolation whose indices and weights are known beforehand.

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
    """One axis to resize: sizes, scale (not always their quotient) and the part of it to read."""

    axis: int
    size: int
    result: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    @property
    def is_identity(self) -> bool:
        return self.result == self.size and isclose(self.scale, 1.0) and (self.start, self.end) == (0.0, 1.0)


@dataclass(frozen=True)
class Method:
    """The attributes of Resize that say how an element is computed."""

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    extrapolation: float = 0.0


def triangle(distance: Floats) -> Floats:
    """The kernel of linear interpolation."""
    return np.maximum(0.0, 1.0 - np.abs(distance))


def keys(distance: Any, a: float) -> Any:
    """Keys' cubic convolution kernel with parameter ``a``; arrays of NumPy or JAX."""
    xp = namespace(distance)
    near = xp.abs(distance)
    inner = ((a + 2) * near - (a + 3)) * near * near + 1
    outer = ((a * near - 5 * a) * near + 8 * a) * near - 4 * a
    return xp.where(near <= 1, inner, xp.where(near < 2, outer, 0.0 * near))


def _coordinates(node: Node, item: Axis, method: Method) -> Floats:
    """Where in the input each element of the result lies."""
    position = np.arange(item.result, dtype=np.float64)
    # The width that the scale asks for, which need not be a whole number.
    width = item.scale * item.size
    last = item.size - 1
    match method.coordinates:
        case "half_pixel":
            return (position + 0.5) / item.scale - 0.5
        case "half_pixel_symmetric":
            offset = item.size / 2 * (1 - item.result / width)
            return offset + (position + 0.5) / item.scale - 0.5
        case "pytorch_half_pixel":
            return (position + 0.5) / item.scale - 0.5 if item.result > 1 else position * 0
        case "align_corners":
            return position * last / (width - 1) if width != 1 else position * 0
        case "asymmetric":
            return position / item.scale
        case "tf_half_pixel_for_nn":
            return (position + 0.5) / item.scale
        case "tf_crop_and_resize":
            if width == 1:
                return position * 0 + (item.start + item.end) * last / 2
            return item.start * last + position * (item.end - item.start) * last / (width - 1)
    raise node.fail(f"coordinate_transformation_mode {method.coordinates!r} is not known")


def _nearest(node: Node, where: Floats, rounding: str) -> Integers:
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


def _taps(node: Node, where: Floats, item: Axis, method: Method) -> tuple[Integers, Floats]:
    """Elements that each result reads, (result, taps), and their weights."""
    if method.mode not in ("linear", "cubic"):
        raise node.fail(f"mode {method.mode!r} is not one of nearest, linear, cubic")
    radius = 1 if method.mode == "linear" else 2
    shrink = min(item.scale, 1.0) if method.antialias else 1.0
    first = floor(-radius / shrink) + 1
    taps = np.floor(where)[:, None] + np.arange(first, 2 - first)
    distance = (taps - where[:, None]) * shrink
    weights = triangle(distance) if method.mode == "linear" else keys(distance, method.cubic)
    if method.exclude_outside:
        weights = np.where((taps < 0) | (taps >= item.size), 0.0, weights)
    if method.exclude_outside or method.antialias:
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    return taps.astype(np.int64), weights


def _resize_axis(node: Node, data: Value, item: Axis, method: Method) -> Value:
    where = _coordinates(node, item, method)
    if method.mode == "nearest":
        result = take(data, np.clip(_nearest(node, where, method.nearest), 0, item.size - 1), item.axis)
    else:
        taps, weights = _taps(node, where, item, method)
        read = take(data, np.clip(taps, 0, item.size - 1), item.axis)
        spread = [1] * read.ndim
        spread[item.axis : item.axis + 2] = weights.shape
        result = (read * weights.astype(data.dtype).reshape(spread)).sum(axis=item.axis + 1)
    if method.coordinates != "tf_crop_and_resize":
        return result
    spread = [1] * result.ndim
    spread[item.axis] = item.result
    outside = ((where < 0) | (where > item.size - 1)).reshape(spread)
    fill = np.asarray(method.extrapolation).astype(data.dtype)
    return namespace(result).where(outside, fill, result)


def resize(node: Node, data: Value, axes: Sequence[Axis], method: Method) -> Value:
    """Resize axis by axis, in float32 at least; integers are rounded at the end, within their range."""
    changed = [item for item in axes if not item.is_identity]
    if any(item.size == 0 and item.result for item in changed):
        raise node.fail("an empty axis cannot be resized")
    dtype = data.dtype
    exact = method.mode == "nearest" and method.coordinates != "tf_crop_and_resize"
    floating = jnp.issubdtype(dtype, jnp.floating)
    wide = dtype if exact else np.promote_types(dtype, np.float32) if floating else np.dtype(np.float64)
    result = data.astype(wide)
    for item in changed:
        result = _resize_axis(node, result, item, method)
    if wide != dtype and not floating and dtype != np.bool_:
        limits = np.iinfo(dtype)
        result = result.round().clip(limits.min, limits.max)
    return result.astype(dtype)


def _by_scales(node: Node, data: Value, scales: Sequence[float], axes: Sequence[int]) -> list[Axis]:
    if len(scales) != len(axes):
        raise node.fail(f"scales has {len(scales)} entries, {len(axes)} are needed")
    if min(scales, default=1.0) <= 0:
        raise node.fail(f"scales {list(scales)} must be positive")
    return [
        Axis(axis, data.shape[axis], int(scale * data.shape[axis]), scale)
        for axis, scale in zip(axes, scales, strict=True)
    ]


def _by_sizes(node: Node, data: Value, sizes: Sequence[int], axes: Sequence[int]) -> list[Axis]:
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
    # Halves round up.
    return [Axis(axis, data.shape[axis], floor(scale * data.shape[axis] + 0.5), scale) for axis in axes]


def _floats(node: Node, value: Value, what: str) -> list[float]:
    return [float(item) for item in np.ravel(node.static(value, what))]


def _given(value: Value) -> bool:
    return value is not None and value.size > 0


@rule("Upsample", since=7)
def upsample_by_attribute(node: Node, data: Value) -> Value:
    return _resize_as_opset_10(node, data, list(node.attributes["scales"]))


@rule("Upsample", since=9)
@rule("Resize", since=10)
def upsample(node: Node, data: Value, scales: Value) -> Value:
    return _resize_as_opset_10(node, data, _floats(node, scales, "scales"))


def _resize_as_opset_10(node: Node, data: Value, scales: list[float]) -> Value:
    # Before opset 11 the first elements of input and output coincide, and nearest rounds down.
    mode = {"bilinear": "linear"}.get(node.attr("mode", "nearest"), node.attr("mode", "nearest"))
    method = Method(mode=mode, coordinates="asymmetric", nearest="floor")
    return resize(node, data, _by_scales(node, data, scales, range(data.ndim)), method)


@rule("Resize", since=11)
def resize_11(node: Node, data: Value, roi: Value = None, scales: Value = None, sizes: Value = None) -> Value:
    axes = [axis_of(node, axis, data.ndim) for axis in node.attr("axes") or range(data.ndim)]
    if _given(sizes):
        items = _by_sizes(node, data, node.ints(sizes, "sizes"), axes)
    elif _given(scales):
        items = _by_scales(node, data, _floats(node, scales, "scales"), axes)
    else:
        raise node.fail("neither scales nor sizes is given")
    method = Method(
        mode=node.attr("mode", "nearest"),
        coordinates=node.attr("coordinate_transformation_mode", "half_pixel"),
        nearest=node.attr("nearest_mode", "round_prefer_floor"),
        cubic=node.attr("cubic_coeff_a", -0.75),
        antialias=bool(node.attr("antialias", 0)),
        exclude_outside=bool(node.attr("exclude_outside", 0)),
        extrapolation=node.attr("extrapolation_value", 0.0),
    )
    if method.coordinates == "tf_crop_and_resize":
        if not _given(roi):
            raise node.fail("coordinate_transformation_mode tf_crop_and_resize needs roi")
        region = _floats(node, roi, "roi")
        if len(region) != 2 * len(axes):
            raise node.fail(f"roi has {len(region)} entries, {2 * len(axes)} are needed")
        items = [
            Axis(item.axis, item.size, item.result, item.scale, region[index], region[len(axes) + index])
            for index, item in enumerate(items)
        ]
    return resize(node, data, items, method)
