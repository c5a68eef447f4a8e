"""Operators that read arrays at computed positions: GridSample, AffineGrid, RoiAlign.

Positions may be traced: the grid and the regions have derivatives as well as the data. Where a
position is rounded (nearest) or clamped to the border, its derivative is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradwire_engine.lowering.arrays import marked, take, wrap_index
from gradwire_engine.lowering.registry import Node, Value, is_static, rule
from gradwire_engine.lowering.rules.images.resampling import cubic_kernel

_MODES = {"bilinear": "linear", "bicubic": "cubic"}

_CUBIC = -0.75


def _denormalized(position: Value, size: int, align_corners: bool) -> Value:
    """Convert a coordinate in [-1, 1] to a position on an axis."""
    if align_corners:
        return (position + 1) * (0.5 * (size - 1))
    return ((position + 1) * size - 1) * 0.5


def _reflected(position: Value, low: float, high: float) -> Value:
    """Reflect a position at both ends into [low, high]."""
    span = high - low
    if span <= 0:
        return position * 0 + low
    offset = position - low
    offset = offset - 2 * span * jnp.floor(offset / (2 * span))
    return low + jnp.where(offset > span, 2 * span - offset, offset)


def _reflected_index(index: Value, size: int, align_corners: bool) -> Value:
    """Reflect the index of an element into the axis, in integers."""
    period = max(1, 2 * (size - 1) if align_corners else 2 * size)
    folded = index % period
    return jnp.where(folded < size, folded, period - (0 if align_corners else 1) - folded)


def _axis_taps(
    position: Value, size: int, mode: str, padding: str, align_corners: bool
) -> tuple[Value, Value]:
    """Return the elements read along one axis and their weights, each with a last axis of taps.

    With a border, linear interpolation clips the position; cubic interpolation takes its weights from the
    position as it is and clips only the elements that they weigh, as PyTorch and onnxruntime do.
    """
    if mode == "nearest":
        position = jnp.round(position)
    low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
    if padding == "border" and mode != "cubic":
        inside = (position >= low) & (position <= high)
        position = jnp.where(inside, position, jnp.clip(position, 0.0, size - 1.0))
    elif padding == "reflection":
        position = _reflected(position, low, high)
    if mode == "nearest":
        index, weights = jnp.round(position).astype(np.int32)[..., None], jnp.ones_like(position)[..., None]
    else:
        first, last = (0, 2) if mode == "linear" else (-1, 3)
        base = jnp.floor(position)
        # Positions far outside stay outside, and stay numbers of int32.
        start = jnp.clip(base, -4.0, size + 4.0) if padding != "reflection" else base
        index = start.astype(np.int32)[..., None] + np.arange(first, last, dtype=np.int32)
        fraction = (position - base)[..., None]
        if mode == "linear":
            weights = jnp.concatenate([1 - fraction, fraction], axis=-1)
        else:
            weights = cubic_kernel(fraction - np.arange(first, last).astype(position.dtype), _CUBIC)
    if padding == "zeros":
        weights = jnp.where((index >= 0) & (index < size), weights, jnp.zeros_like(weights))
    elif padding == "reflection":
        index = _reflected_index(index, size, align_corners)
    return jnp.clip(index, 0, size - 1), weights


@rule("GridSample", since=16)
def grid_sample(node: Node, data: Value, grid: Value) -> Value:
    """GridSample: interpolates at positions in [-1, 1], over any number of spatial axes."""
    mode = node.attr("mode", "linear")
    mode = _MODES.get(mode, mode)
    padding = node.attr("padding_mode", "zeros")
    if mode not in ("linear", "nearest", "cubic"):
        raise node.fail(f"mode {mode!r} is not one of linear, nearest, cubic")
    if padding not in ("zeros", "border", "reflection"):
        raise node.fail(f"padding_mode {padding!r} is not one of zeros, border, reflection")
    batch, channels, *space = data.shape
    rank = len(space)
    if grid.shape[-1] != rank or grid.shape[0] != batch:
        raise node.fail(f"a grid of shape {list(grid.shape)} does not fit data of shape {list(data.shape)}")
    shape = (batch, channels, *grid.shape[1:-1])
    if not prod(shape):
        return np.zeros(shape, data.dtype)
    wide: Any = np.promote_types(np.promote_types(data.dtype, grid.dtype), np.float32)
    points = jnp.asarray(grid).reshape(batch, -1, rank).astype(wide)
    align_corners = bool(node.attr("align_corners", 0))
    # Rows and weights over all taps, (batch, points, taps); a grid's last axis runs x, y, z.
    rows: Any = np.arange(batch, dtype=np.int32)[:, None, None]
    weights: Any = np.ones((1, 1, 1), wide)
    for axis, size in enumerate(space):
        position = _denormalized(points[..., rank - 1 - axis], size, align_corners)
        index, share = _axis_taps(position, size, mode, padding, align_corners)
        rows = (rows[..., :, None] * size + index[..., None, :]).reshape(*index.shape[:2], -1)
        weights = (weights[..., :, None] * share[..., None, :]).reshape(*index.shape[:2], -1)
    order = (0, *range(2, rank + 2), 1)
    values = take(data.transpose(order).reshape(-1, channels), rows, 0, trusted=True)
    if mode == "nearest" and padding != "zeros":
        sampled = values[:, :, 0]
    else:
        sampled = jnp.einsum("npt,nptc->npc", weights, values.astype(wide)).astype(data.dtype)
    return sampled.transpose(0, 2, 1).reshape(shape)


@rule("AffineGrid", since=20)
def affine_grid(node: Node, theta: Value, size: Value) -> Value:
    """AffineGrid: the positions of a static grid under an affine map."""
    batch, _, *space = node.ints(size, "the size")
    rank = len(space)
    if tuple(theta.shape) != (batch, rank, rank + 1):
        raise node.fail(f"theta has shape {list(theta.shape)}; the size asks for {[batch, rank, rank + 1]}")
    along = []
    for count in space:
        step = np.arange(count, dtype=np.float64)
        if node.attr("align_corners", 0):
            along.append(2 * step / max(1, count - 1) - 1 if count > 1 else step * 0)
        else:
            along.append((2 * step + 1) / count - 1)
    places = np.meshgrid(*along, indexing="ij")
    # Homogeneous coordinates, x first.
    base = np.stack([*reversed(places), np.ones(space)], axis=-1)
    wide: Any = np.promote_types(theta.dtype, np.float32)
    flat = base.reshape(-1, rank + 1).astype(wide)
    grid = jnp.einsum("pk,nik->npi", flat, jnp.asarray(theta).astype(wide))
    return grid.reshape(batch, *space, rank).astype(theta.dtype)


def _roi_axis(
    start: Value, length: Value, bins: int, counts: Value, most: int, size: int
) -> tuple[Value, Value, Value]:
    """Return the samples of every region along one axis.

    Elements and weights are of shape (regions, bins, samples, 2). A mask of shape (regions, 1, samples)
    tells which samples exist: an adaptive count differs by region.
    """
    sample = np.arange(most)
    width = length / bins
    offset = (sample + 0.5).astype(start.dtype) / jnp.maximum(counts, 1).astype(start.dtype)[:, None]
    left = start[:, None] + np.arange(bins).astype(start.dtype) * width[:, None]
    position = left[:, :, None] + (offset * width[:, None])[:, None, :]
    inside = (position >= -1) & (position <= size)
    position = jnp.where(position > 0, position, 0 * position)
    low = jnp.clip(jnp.floor(position).astype(np.int32), 0, size - 1)
    fraction = jnp.where(low >= size - 1, 0 * position, position - low)
    weights = jnp.stack([1 - fraction, fraction], axis=-1) * inside[..., None]
    index = jnp.stack([low, jnp.minimum(low + 1, size - 1)], axis=-1)
    return index, weights, (sample < counts[:, None])[:, None, :]


def _sample_counts(node: Node, sizes: Sequence[Value], bins: Sequence[int]) -> list[tuple[Value, int]]:
    """Return for each axis the samples per bin of every region, and the largest of them."""
    ratio: int = node.attr("sampling_ratio", 0)
    counts = []
    for length, number in zip(sizes, bins, strict=True):
        if ratio > 0:
            counts.append((np.full(length.shape, ratio), ratio))
            continue
        known = node.static(length, "how many samples a region takes (sampling_ratio 0 adapts it)")
        wanted = np.maximum(np.ceil(known / number), 0).astype(np.int64)
        counts.append((wanted, max(1, int(wanted.max(initial=1)))))
    return counts


@rule("RoiAlign", since=10)
def roi_align(node: Node, data: Value, rois: Value, batch_indices: Value) -> Value:
    """RoiAlign (He et al., 2017): the mean or the largest of interpolated samples in each bin."""
    mode = node.attr("mode", "avg").lower()
    if mode not in ("avg", "max"):
        raise node.fail(f"mode {mode!r} is not avg or max")
    coordinates = node.attr(
        "coordinate_transformation_mode", "half_pixel" if node.opset >= 16 else "output_half_pixel"
    )
    half_pixel = coordinates.lower() == "half_pixel"
    batch, channels, *space = data.shape
    wide: Any = np.promote_types(np.promote_types(data.dtype, rois.dtype), np.float32)
    corners = rois.astype(wide) * wide.type(node.attr("spatial_scale", 1.0)) - wide.type(half_pixel / 2)
    starts, sizes = (
        [corners[:, 1], corners[:, 0]],
        [
            corners[:, 3] - corners[:, 1],
            corners[:, 2] - corners[:, 0],
        ],
    )
    if not half_pixel:
        # Smaller regions are given the size of one element.
        sizes = [(np if is_static(size) else jnp).maximum(size, 1) for size in sizes]
    bins = (node.attr("output_height", 1), node.attr("output_width", 1))
    counts = _sample_counts(node, sizes, bins)
    (yi, yw, ye), (xi, xw, xe) = (
        _roi_axis(jnp.asarray(start), jnp.asarray(size), number, jnp.asarray(count), most, extent)
        for start, size, number, (count, most), extent in zip(starts, sizes, bins, counts, space, strict=True)
    )
    regions = rois.shape[0]
    images = jnp.asarray(wrap_index(node, batch_indices, batch, negative=False))
    known = (images >= 0) & (images < batch)
    owner = jnp.where(known, images, 0).astype(np.int32).reshape(-1, 1, 1, 1, 1, 1, 1)
    # (regions, rows, columns, samples down, samples across, corner, corner)
    down = yi.reshape(regions, bins[0], 1, -1, 1, 2, 1)
    across = xi.reshape(regions, 1, bins[1], 1, -1, 1, 2)
    weights = yw.reshape(down.shape) * xw.reshape(across.shape)
    rows = (owner * space[0] + down) * space[1] + across
    pixels = take(data.transpose(0, 2, 3, 1).reshape(-1, channels), rows, 0, trusted=True).astype(wide)
    exists = ye.reshape(regions, 1, 1, -1, 1, 1, 1) & xe.reshape(regions, 1, 1, 1, -1, 1, 1)
    inner = (3, 4, 5, 6)
    if mode == "avg":
        number = jnp.asarray(np.maximum(counts[0][0] * counts[1][0], 1)).astype(wide)
        weights = jnp.where(exists, weights, jnp.zeros_like(weights))
        pooled = jnp.einsum("rhwabcd,rhwabcdk->rkhw", weights, pixels) / number[:, None, None, None]
    else:
        # The operator specifies the largest weighted element, not the largest interpolated value.
        weighted = jnp.where(exists[..., None], weights[..., None] * pixels, -jnp.inf)
        largest = weighted.max(axis=inner)
        pooled = jnp.where(exists.any(axis=inner)[..., None], largest, jnp.zeros_like(largest))
        pooled = pooled.transpose(0, 3, 1, 2)
    if not is_static(batch_indices):
        pooled = marked(pooled, known.reshape(-1, 1, 1, 1))
    return pooled.astype(data.dtype)
