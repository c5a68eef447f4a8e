"""Operators that rearrange, join, split and repeat arrays, and operators that create them."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.errors import LimitExceeded
from gradwire_engine.lowering.arrays import axis_of, namespace_for
from gradwire_engine.lowering.registry import Node, Value, is_static, namespace, rule

Shape = tuple[int, ...]


@rule("Shape")
def shape(node: Node, data: Value) -> Value:
    """Shape: always static; `start` and `end` select axes."""
    start, end = node.attr("start", 0), node.attr("end")
    return np.array(data.shape[start:end], np.int64)


@rule("Size")
def size(node: Node, data: Value) -> Value:
    """Size: always static."""
    return np.array(prod(data.shape), np.int64)


@rule("Identity")
def identity(node: Node, data: Value) -> Value:
    """Identity: the input itself."""
    return data


@rule("Reshape")
def reshape(node: Node, data: Value, shape: Value = None) -> Value:
    """Reshape: a 0 copies the size of the input unless `allowzero` is set; -1 is inferred."""
    wanted = list(node.attr("shape", ()) if shape is None else node.ints(shape, "the shape"))
    if not node.attr("allowzero", 0):
        wanted = [data.shape[axis] if item == 0 else item for axis, item in enumerate(wanted)]
    return data.reshape(wanted)


@rule("Flatten")
def flatten(node: Node, data: Value) -> Value:
    """Flatten: a matrix, with the axes before `axis` as rows."""
    axis: int = node.attr("axis", 1)
    if not -data.ndim <= axis <= data.ndim:
        raise node.fail(f"axis {axis} is outside an array of {data.ndim} dimensions")
    split = axis + data.ndim if axis < 0 else axis
    return data.reshape(prod(data.shape[:split]), prod(data.shape[split:]))


def _axes(node: Node, axes: Value) -> Shape | None:
    """Return the axes, which are an attribute in older opsets and an input in newer ones."""
    if axes is not None:
        return node.ints(axes, "axes")
    given = node.attr("axes")
    return None if given is None else tuple(given)


@rule("Squeeze")
def squeeze(node: Node, data: Value, axes: Value = None) -> Value:
    """Squeeze: drops axes of size 1, by default all of them."""
    given = _axes(node, axes)
    if given is None:
        return data.reshape([item for item in data.shape if item != 1])
    dropped = {axis_of(node, axis, data.ndim) for axis in given}
    for axis in dropped:
        if data.shape[axis] != 1:
            raise node.fail(f"axis {axis} has size {data.shape[axis]}; only axes of size 1 can be squeezed")
    return data.reshape([item for axis, item in enumerate(data.shape) if axis not in dropped])


@rule("Unsqueeze")
def unsqueeze(node: Node, data: Value, axes: Value = None) -> Value:
    """Unsqueeze: inserts axes of size 1, numbered in the result."""
    given = _axes(node, axes)
    if given is None:
        raise node.fail("axes are missing")
    rank = data.ndim + len(given)
    added = {axis_of(node, axis, rank) for axis in given}
    if len(added) != len(given):
        raise node.fail(f"axes {list(given)} name one axis twice")
    sizes = iter(data.shape)
    return data.reshape([1 if axis in added else next(sizes) for axis in range(rank)])


@rule("Transpose")
def transpose(node: Node, data: Value) -> Value:
    """Transpose: reverses the axes by default."""
    order = node.attr("perm")
    return data.transpose(order) if order else data.transpose()


@rule("Concat")
def concat(node: Node, *arrays: Value) -> Value:
    """Concat: joins arrays along an axis."""
    # In opset 1 the axis may be omitted and is then 1.
    axis = axis_of(node, node.attr("axis", 1), arrays[0].ndim)
    if len(arrays) == 1:
        return arrays[0]
    total = (sum(array.size for array in arrays),)
    if namespace_for(total, *arrays) is np:
        return np.concatenate(arrays, axis)
    return lax.concatenate([jnp.asarray(array) for array in arrays], axis)


def split_sizes(node: Node, total: int, given: Value, parts: int) -> Shape:
    """Return the sizes of the parts of an axis.

    Args:
        node: read for the attribute `split`, where `given` is None.
        total: size of the axis.
        given: static sizes, or None.
        parts: number of parts where no sizes are given: equal ones, with a smaller last one.

    Raises:
        InvalidGraph: the sizes do not add up to `total`, or one is negative.
    """
    if given is not None:
        sizes = node.ints(given, "split")
    elif node.attr("split") is not None:
        sizes = tuple(node.attr("split"))
    else:
        each = ceil(total / parts)
        sizes = tuple(max(0, min(each, total - each * part)) for part in range(parts))
    if sum(sizes) != total or min(sizes, default=0) < 0:
        raise node.fail(f"split {list(sizes)} does not add up to {total}, the size of the axis")
    return sizes


def split_along(data: Value, sizes: Shape, axis: int) -> list[Value]:
    """Split an array along an axis into consecutive parts of the given sizes."""
    if namespace(data) is np:
        return np.split(data, np.cumsum(sizes)[:-1], axis)
    return list(lax.split(jnp.asarray(data), sizes, axis))


@rule("Split")
def split(node: Node, data: Value, sizes: Value = None) -> tuple[Value, ...]:
    """Split: sizes are an attribute, a static input, or equal."""
    axis = axis_of(node, node.attr("axis", 0), data.ndim)
    parts = node.attr("num_outputs", len(node.outputs))
    return tuple(split_along(data, split_sizes(node, data.shape[axis], sizes, parts), axis))


@rule("Expand")
def expand(node: Node, data: Value, shape: Value) -> Value:
    """Expand: broadcasts in both directions to a static shape."""
    result = np.broadcast_shapes(data.shape, node.ints(shape, "the shape"))
    if data.shape == result:
        return data
    return namespace_for(result, data).broadcast_to(data, result)


@rule("Tile")
def tile(node: Node, data: Value, repeats: Value, axis: Value = None) -> Value:
    """Tile: repeats an array along its axes a static number of times."""
    counts = list(node.ints(repeats, "repeats"))
    if node.opset < 6 and axis is not None:
        # Opset 1 repeats one axis: a count and the axis it is for.
        counts = [
            counts[0] if position == int(node.static(axis, "axis")) else 1 for position in range(data.ndim)
        ]
    if len(counts) != data.ndim:
        raise node.fail(f"repeats has {len(counts)} entries for an array of {data.ndim} dimensions")
    result = tuple(count * item for count, item in zip(counts, data.shape, strict=True))
    spread = tuple(part for count, item in zip(counts, data.shape, strict=True) for part in (count, item))
    single = tuple(part for item in data.shape for part in (1, item))
    xp = namespace_for(result, data)
    return xp.broadcast_to(data.reshape(single), spread).reshape(result)


@rule("Constant")
def constant(node: Node) -> Value:
    """Constant: the value of whichever attribute is set."""
    for name, dtype in (
        ("value", None),
        ("sparse_value", None),
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_string", object),
        ("value_strings", object),
    ):
        value = node.attr(name)
        if value is not None:
            return np.asarray(value, dtype)
    raise node.fail("none of its value attributes is set")


@rule("ConstantOfShape")
def constant_of_shape(node: Node, shape: Value) -> Value:
    """ConstantOfShape: a static shape filled with one value, by default float32 0."""
    value = np.ravel(node.attr("value", np.zeros(1, np.float32)))
    result = node.ints(shape, "the shape")
    return namespace_for(result).full(result, value[0], value.dtype)


@rule("Range")
def range_(node: Node, start: Value, limit: Value, delta: Value) -> Value:
    """Range: start, limit and delta must be static; the size is checked against the limit first."""
    dtype = start.dtype
    low, high, step = (
        np.ravel(node.static(item, what))[0]
        for item, what in ((start, "start"), (limit, "limit"), (delta, "delta"))
    )
    if step == 0:
        raise node.fail("delta is 0")
    if np.issubdtype(dtype, np.integer):
        count = max(0, -((int(low) - int(high)) // int(step)))
    else:
        low, high, step = float(low), float(high), float(step)
        span = (high - low) / step
        if not np.isfinite(span):
            raise node.fail(f"from {low} to {high} by {step} is not a finite number of elements")
        count = max(0, ceil(span))
    bytes_needed = count * dtype.itemsize
    if bytes_needed > node.scope.limits.array_bytes:
        raise LimitExceeded(
            f"node {node.name} (Range) makes an array of {count} elements, {bytes_needed} bytes; "
            f"the limit for one array is {node.scope.limits.array_bytes} bytes",
            "array_bytes",
            node.scope.limits.array_bytes,
            bytes_needed,
        )
    xp = namespace_for((count,))
    # Floats narrower than 32 bits are computed in float32 (bfloat16 cannot count past 256).
    wide = dtype if dtype.itemsize > 2 or np.issubdtype(dtype, np.integer) else np.dtype(np.float32)
    return (xp.arange(count).astype(wide) * wide.type(step) + wide.type(low)).astype(dtype)


@rule("DepthToSpace")
def depth_to_space(node: Node, data: Value) -> Value:
    """DepthToSpace: moves channels into blocks of space, over any number of spatial axes."""
    block = node.attributes["blocksize"]
    batch, channels, *space = data.shape
    rank = len(space)
    depth = channels // block**rank
    if node.attr("mode", "DCR") == "DCR":
        blocks = data.reshape(batch, *[block] * rank, depth, *space)
        first, start = rank + 1, 1
    else:
        blocks = data.reshape(batch, depth, *[block] * rank, *space)
        first, start = 1, 2
    order = [0, first]
    for axis in range(rank):
        order += [rank + 2 + axis, start + axis]
    return blocks.transpose(order).reshape(batch, depth, *[item * block for item in space])


@rule("SpaceToDepth")
def space_to_depth(node: Node, data: Value) -> Value:
    """SpaceToDepth: moves blocks of space into channels, over any number of spatial axes."""
    block = node.attributes["blocksize"]
    batch, channels, *space = data.shape
    rank = len(space)
    pairs = [part for item in space for part in (item // block, block)]
    inner, outer = [3 + 2 * axis for axis in range(rank)], [2 + 2 * axis for axis in range(rank)]
    # Opset 28 added the mode; before it, and by default, the block's position varies slowest.
    order = [0, 1, *inner, *outer] if node.attr("mode", "DCR") == "CRD" else [0, *inner, 1, *outer]
    blocks = data.reshape(batch, channels, *pairs).transpose(order)
    return blocks.reshape(batch, channels * block**rank, *[item // block for item in space])


@rule("OneHot")
def one_hot(node: Node, indices: Value, depth: Value, values: Value) -> Value:
    """OneHot: indices in [-depth, depth) are marked; others match nothing. The depth must be static."""
    count = int(np.ravel(node.static(depth, "depth"))[0])
    rank = indices.ndim + 1
    axis = axis_of(node, node.attr("axis", -1), rank)
    shape = (*indices.shape[:axis], count, *indices.shape[axis:])
    xp: Any = namespace_for(shape, indices, values)
    positions = xp.arange(count, dtype=np.int64).reshape([-1 if item == axis else 1 for item in range(rank)])
    # Indices may be floats; negative ones, down to -depth, count from the end.
    wanted = xp.expand_dims(indices.astype(np.int64), axis)
    hot = xp.where(wanted < 0, wanted + count, wanted) == positions
    off, on = (values[0], values[1])
    return xp.where(hot, on, off) if is_static(values) else jnp.where(hot, on, off)
