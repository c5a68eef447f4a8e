"""Translates NumPy's indexing into slices, gathers and scatters.

A parsed key is a list of parts, one for each axis of the array and one for each new axis. A key of slices and
integers is a basic index (a view); one with any array is an advanced index (a copy).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire.errors import TraceError
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import Array, GraphBuilder
from gradwire.graphs.nodes import GraphValue, Shape
from gradwire.graphs.refusals import refuse
from gradwire.graphs.sizes import any_symbolic, as_extent, is_symbolic, surely_equal


@dataclass(slots=True)
class Part:
    """The part of a key that applies to one axis.

    Attributes:
        kind: "slice" (`count` elements from `start` by `step`), "int" (`start`), "array"
            (`indices`, never negative where they are known) or "new" (no axis of the array).
        axis: the array's axis, -1 for a new one.
    """

    kind: str
    axis: int
    start: int = 0
    step: int = 1
    count: int = 1
    indices: Array | GraphValue | None = None


@dataclass(slots=True)
class Index:
    """A parsed key.

    Attributes:
        parts: in the key's order.
        shape: shape of the result.
        array_shape: broadcast shape of the index arrays, None for a basic index.
        place: axis of the result at which `array_shape` starts.
    """

    parts: list[Part]
    shape: Shape
    array_shape: Shape | None = None
    place: int = 0

    @property
    def basic(self) -> bool:
        """Whether the index contains no array."""
        return self.array_shape is None


def parse(key: Any, shape: Shape, graph: GraphBuilder) -> Index:
    """Parse a key.

    Args:
        key: the expression in the brackets, with traced arrays as `GraphValue`.
        shape: shape of the indexed array.
        graph: where axes of unknown size are demanded to reach as far as the key does.

    Raises:
        IndexError: the key does not fit the shape, as in NumPy.
        TraceError: the key depends on values in a way that changes shapes.
    """
    items = _spread(list(key) if isinstance(key, tuple) else [key], len(shape))
    parts: list[Part] = []
    axis = 0
    for item in items:
        if item is None:
            parts.append(Part("new", -1))
        else:
            parts.append(_part(item, axis, shape[axis]))
            if parts[-1].kind != "array":
                ops.reach(graph, parts[-1].start, parts[-1].step, parts[-1].count, shape[axis])
            axis += 1
    return _arranged(parts)


def _spread(items: list[Any], rank: int) -> list[Any]:
    """Replace masks by positions and the ellipsis by full slices, and append slices up to the rank."""
    flat: list[Any] = []
    for item in items:
        if isinstance(item, list):
            item = np.asarray(item) if item else np.zeros(0, np.int64)
        if isinstance(item, bool | np.bool_):
            raise refuse("indexing with a single bool", "use np.where, or index with None to add an axis")
        if isinstance(item, GraphValue) and item.dtype == ops.BOOL:
            raise refuse(
                "indexing with a traced boolean mask",
                "the shape would depend on values: use np.where(mask, a, b), or sum(np.where(mask, x, 0))",
            )
        if isinstance(item, np.ndarray) and item.dtype == np.bool_:
            flat.extend(
                _MaskAxis(where, extent) for where, extent in zip(np.nonzero(item), item.shape, strict=True)
            )
        else:
            flat.append(item)
    used = sum(item is not None and item is not Ellipsis for item in flat)
    if used > rank:
        raise IndexError(f"too many indices for array: array is {rank}-dimensional, but {used} were indexed")
    ellipses = [position for position, item in enumerate(flat) if item is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    place = ellipses[0] if ellipses else len(flat)
    return flat[:place] + [slice(None)] * (rank - used) + flat[place + 1 :]


@dataclass(slots=True)
class _MaskAxis:
    """Positions along one axis of a constant boolean mask, and the extent of that axis."""

    positions: Array
    extent: int


def _part(item: Any, axis: int, extent: int) -> Part:
    if isinstance(item, slice):
        if is_symbolic(extent):
            return _symbolic_part(_bounds(item), axis, extent)
        start, stop, step = _bounds(item).indices(extent)
        return Part("slice", axis, start, step, len(range(start, stop, step)))
    if isinstance(item, _MaskAxis):
        if item.extent != extent:
            raise IndexError(
                f"boolean index did not match indexed array along axis {axis}; "
                f"size of axis is {extent} but size of corresponding boolean axis is {item.extent}"
            )
        return Part("array", axis, indices=item.positions)
    if isinstance(item, GraphValue):
        if item.dtype.kind not in "iu":
            raise IndexError(f"index arrays must be of integer type, not {item.dtype}; use .astype(np.int64)")
        return Part("array", axis, indices=ops.cast(item, ops.INT64))
    if is_symbolic(item) or (is_symbolic(extent) and isinstance(item, int | np.integer)):
        return _symbolic_position(item, axis, extent)
    if isinstance(item, np.ndarray) and item.ndim:
        return Part("array", axis, indices=_in_range(item, axis, extent))
    try:
        number = operator.index(item)
    except TypeError:
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), None and integer or boolean arrays "
            f"are valid indices, not {type(item).__name__}"
        ) from None
    if not -extent <= number < extent:
        raise IndexError(f"index {number} is out of bounds for axis {axis} with size {extent}")
    return Part("int", axis, number % extent)


def _symbolic_part(item: slice, axis: int, extent: int) -> Part:
    """Parse a slice of an axis of unknown size; bounds count from its beginning or from its end."""
    step = 1 if item.step is None else operator.index(item.step)
    if step == -1 and item.start is None and item.stop is None:
        return Part("slice", axis, extent - 1, -1, extent)
    start = 0 if item.start is None else _bound(item.start, extent)
    stop = extent if item.stop is None else _bound(item.stop, extent)
    length = stop - start
    if not is_symbolic(length):
        if step < 1:
            raise _unknown_slice(item, extent)
        return Part("slice", axis, start, step, max(-(-length // step), 0))
    if step != 1 or not _reaches(length, extent):
        raise _unknown_slice(item, extent)
    return Part("slice", axis, start, 1, length)


def _bound(given: Any, extent: int) -> int:
    """Return a bound of a slice as a position: an integer, or the size less an integer."""
    place = as_extent(given)
    if is_symbolic(place):
        if not is_symbolic(place - extent) and place - extent > 0:
            return extent
        return place
    return place + extent if place < 0 else place


def _reaches(length: int, extent: int) -> bool:
    """Return whether a length is the size of the axis less an integer."""
    return not is_symbolic(extent - length)


def _unknown_slice(item: slice, extent: int) -> TraceError:
    return refuse(
        f"the slice {_shown(item)} of an axis of size {extent}",
        "bounds on an axis of unknown size count from one of its ends (x[1:], x[:-1], x[2:5], x[::-1]); or "
        "give the size as a number: gw.spec(100)",
    )


def _shown(item: slice) -> str:
    parts = ["" if bound is None else str(bound) for bound in (item.start, item.stop)]
    return ":".join(parts if item.step is None else [*parts, str(item.step)])


def _symbolic_position(item: Any, axis: int, extent: int) -> Part:
    """Parse a position on an axis of unknown size."""
    place = as_extent(item)
    if not is_symbolic(extent) or (is_symbolic(place) and is_symbolic(place - extent)):
        raise refuse(
            f"the position {place} on an axis of size {extent}", "count from an end: x[0], x[-1], x[n - 1]"
        )
    if is_symbolic(place) and place - extent >= 0:
        raise IndexError(f"index {place} is out of bounds for axis {axis} with size {extent}")
    return Part("int", axis, place if is_symbolic(place) or place >= 0 else place + extent)


def _bounds(item: slice) -> slice:
    if any(isinstance(bound, GraphValue) for bound in (item.start, item.stop, item.step)):
        raise refuse(
            "a slice with a traced bound",
            "the shape would depend on values: use fixed bounds, or index with x[start + np.arange(length)]",
        )
    return item


def _in_range(indices: Array, axis: int, extent: int) -> Array:
    if indices.dtype.kind not in "iu":
        raise IndexError(f"arrays used as indices must be of integer (or boolean) type, not {indices.dtype}")
    if is_symbolic(extent):
        if indices.size and indices.min() < 0:
            raise refuse(f"indices from the end of an axis of size {extent}", "index with x[-1], one by one")
        return indices.astype(np.int64)
    outside = (indices < -extent) | (indices >= extent)
    if outside.any():
        raise IndexError(f"index {indices[outside][0]} is out of bounds for axis {axis} with size {extent}")
    return np.where(indices < 0, indices + extent, indices).astype(np.int64)


def _arranged(parts: list[Part]) -> Index:
    """Find the shape of the result, and where NumPy puts the axes of index arrays."""
    if not any(part.kind == "array" for part in parts):
        shape = tuple(part.count for part in parts if part.kind != "int")
        return Index(parts, shape)
    # Next to an index array, an integer is an index array too.
    for part in parts:
        if part.kind == "int":
            if is_symbolic(part.start):
                raise refuse(
                    f"the position {part.start} beside an index array", "index one axis after the other"
                )
            part.kind, part.indices = "array", np.asarray(part.start)
    arrays = [position for position, part in enumerate(parts) if part.kind == "array"]
    array_shape = ops.broadcast(*(part.indices.shape for part in parts if part.indices is not None))
    together = arrays[-1] - arrays[0] == len(arrays) - 1
    rest = tuple(part.count for part in parts if part.kind != "array")
    place = arrays[0] if together else 0
    return Index(parts, rest[:place] + array_shape + rest[place:], array_shape, place)


def take(x: GraphValue, index: Index) -> GraphValue:
    """Return the indexed elements."""
    if index.array_shape is None:
        sliced = ops.slices(x, [(p.axis, p.start, p.step, p.count) for p in index.parts if p.kind != "new"])
        return ops.reshape(sliced, index.shape)
    parts = index.parts
    x = ops.slices(x, [(p.axis, p.start, p.step, p.count) for p in parts if p.kind == "slice"])
    arrays = [part for part in parts if part.indices is not None]
    kept = [part.axis for part in parts if part.kind == "slice"]
    if len(arrays) == 1:
        indices = arrays[0].indices
        assert indices is not None
        axis = arrays[0].axis
        _demand(x.graph, indices, x.shape[axis])
        result = ops.gather(
            x, indices if isinstance(indices, GraphValue) else x.graph.constant(indices), axis
        )
        axes = len(index.array_shape)
        front = list(range(axis, axis + axes))
        order = [*front, *(item for item in range(result.ndim) if item not in front)]
        before = sum(part.kind == "slice" for part in parts[: index.place])
    else:
        axes = len(index.array_shape)
        extents = [x.shape[part.axis] for part in arrays]
        x = ops.transpose(x, [*(part.axis for part in arrays), *kept])
        rest = x.shape[len(arrays) :]
        x = ops.reshape(x, (ops.size_of(tuple(extents)), *rest))
        flat = _combined(x.graph, [part.indices for part in arrays], _strides(extents), extents)
        result = ops.gather(x, flat if isinstance(flat, GraphValue) else x.graph.constant(flat), 0)
        order = list(range(result.ndim))
        before = sum(part.kind == "slice" for part in parts[: index.place])
    # The axes of the index arrays belong after the sliced axes that precede them.
    order = [*order[axes : axes + before], *order[:axes], *order[axes + before :]]
    return ops.reshape(ops.transpose(result, order), index.shape)


def _strides(extents: Sequence[int]) -> list[int]:
    strides = [1]
    for extent in reversed(extents[1:]):
        strides.append(strides[-1] * extent)
    return strides[::-1]


def _demand(graph: GraphBuilder, indices: Array | GraphValue | None, extent: int) -> None:
    """Demand that an axis of unknown size reaches as far as constant indices."""
    if is_symbolic(extent) and isinstance(indices, np.ndarray) and indices.size:
        graph.require(extent - 1 - int(indices.max()))


def _combined(
    graph: GraphBuilder,
    indices: Sequence[Array | GraphValue | None],
    strides: Sequence[int],
    extents: Sequence[int],
) -> Array | GraphValue:
    """Sum index times stride; known indices stay arrays, traced ones become non-negative.

    Args:
        graph: where traced positions are computed.
        indices: one array of positions for each axis, broadcast against each other.
        strides: elements between neighbors along each axis.
        extents: extent of each axis, added to negative traced indices.
    """
    known: Array = np.zeros((), np.int64)
    traced: GraphValue | None = None
    for item, stride, extent in zip(indices, strides, extents, strict=True):
        _demand(graph, item, extent)
        if isinstance(item, GraphValue):
            zero = graph.scalar(0, ops.INT64)
            wrapped = ops.binary("Add", item, graph.scalar(extent, ops.INT64))
            item = ops.where(ops.compare("Less", item, zero), wrapped, item)
            term = ops.binary("Mul", item, graph.scalar(stride, ops.INT64))
            traced = term if traced is None else ops.binary("Add", traced, term)
        elif item is not None:
            known = known + np.multiply(item, stride, dtype=np.int64)
    if traced is None:
        return np.asarray(known, np.int64)
    return ops.binary("Add", traced, graph.constant(np.asarray(known, np.int64)))


def positions(index: Index, shape: Shape, graph: GraphBuilder) -> Array | GraphValue:
    """Return the flat positions in the array of the indexed elements, in the shape of the result."""
    strides = _strides(shape) if shape else []
    rank = len(index.shape)
    axes_of_arrays = 0 if index.array_shape is None else len(index.array_shape)
    terms: list[Array | GraphValue | None] = []
    scales: list[int] = []
    extents: list[int] = []
    here = axes_of_arrays if index.array_shape is not None and index.place == 0 else 0
    passed = here > 0 or index.array_shape is None
    for part in index.parts:
        if not passed and here == index.place:
            here += axes_of_arrays
            passed = True
        if part.kind == "new":
            here += 1
            continue
        scales.append(strides[part.axis])
        extents.append(shape[part.axis])
        if part.kind == "int":
            terms.append(np.asarray(part.start))
        elif part.kind == "slice":
            steps = part.start + part.step * np.arange(part.count)
            terms.append(steps.reshape((-1,) + (1,) * (rank - here - 1)))
            here += 1
        else:
            assert part.indices is not None
            trailing = rank - index.place - axes_of_arrays
            terms.append(_with_trailing_axes(part.indices, trailing))
    flat = _combined(graph, terms, scales, extents)
    if isinstance(flat, GraphValue):
        return ops.expand(flat, index.shape)
    return np.broadcast_to(flat, index.shape)


def _with_trailing_axes(indices: Array | GraphValue, count: int) -> Array | GraphValue:
    shape = indices.shape + (1,) * count
    return ops.reshape(indices, shape) if isinstance(indices, GraphValue) else indices.reshape(shape)


_SCATTER_ELEMENTS = 4096


def put(x: GraphValue, index: Index, value: GraphValue) -> GraphValue:
    """Replace the indexed elements of `x` by `value`, which has the shape of the result."""
    if not index.basic:
        return _scatter(x, index, value)
    partial = [
        part
        for part in index.parts
        if part.kind != "new" and not (surely_equal(part.count, x.shape[part.axis]) and part.step == 1)
    ]
    if not partial:
        return ops.reshape(value, x.shape)
    boxed = all(abs(part.step) == 1 or surely_equal(part.count, 1) for part in partial)
    if any_symbolic(x.shape):
        if boxed:
            return _join(x, index, partial, value)
    elif boxed and (len(partial) == 1 or value.size > _SCATTER_ELEMENTS):
        return _join(x, index, partial, value)
    return _scatter(x, index, value)


def _join(x: GraphValue, index: Index, partial: Sequence[Part], value: GraphValue) -> GraphValue:
    """Concatenate a box of elements with its surroundings, axis by axis from the innermost."""
    shape = tuple(part.count for part in index.parts if part.kind != "new")
    value = ops.reshape(value, shape)
    for part in partial:
        if part.step < 0:
            value = ops.slices(value, [(part.axis, part.count - 1, -1, part.count)])
    for position in reversed(range(len(partial))):
        part = partial[position]
        low = _ascending(part)[1] if not surely_equal(part.count, 0) else 0
        high = low + part.count
        around = ops.slices(x, [_ascending(outer) for outer in partial[:position]])
        extent = x.shape[part.axis]
        before = ops.slices(around, [(part.axis, 0, 1, low)])
        after = ops.slices(around, [(part.axis, high, 1, extent - high)])
        value = ops.concat([before, value, after], part.axis)
    return value


def _ascending(part: Part) -> tuple[int, int, int, int]:
    low = part.start if part.step > 0 else part.start + part.step * (part.count - 1)
    return (part.axis, low, 1, part.count)


def _scatter(x: GraphValue, index: Index, value: GraphValue) -> GraphValue:
    where = positions(index, x.shape, x.graph)
    if not value.size:
        return x
    updates = ops.reshape(value, (value.size,))
    if isinstance(where, GraphValue):
        return ops.scatter_flat(x, where, updates)
    flat = where.ravel()
    # Of values for the same element NumPy keeps the last; ONNX does not specify which.
    unique, from_end = np.unique(flat[::-1], return_index=True)
    if unique.size < flat.size:
        updates = ops.gather(updates, x.graph.constant(flat.size - 1 - from_end), 0)
        flat = unique
    return ops.scatter_flat(x, x.graph.constant(flat), updates)


def reduce_at(x: GraphValue, index: Index, value: GraphValue, reduction: str) -> GraphValue:
    """Combine values with the indexed elements as `ufunc.at` does: repeated positions all count.

    Args:
        x: the array.
        index: which elements.
        value: of the shape of the result.
        reduction: "add", "mul", "max" or "min", as ONNX's ScatterND has it.
    """
    where = positions(index, x.shape, x.graph)
    rows = where if isinstance(where, GraphValue) else x.graph.constant(where)
    return ops.scatter_flat(x, rows, ops.reshape(value, (value.size,)), reduction)


def position(index: Index, shape: Shape) -> int:
    """Return the flat position of the element that a basic index of integers selects."""
    strides = _strides(shape)
    return sum(part.start * strides[part.axis] for part in index.parts)


def is_contiguous(index: Index, shape: Shape) -> bool:
    """Return whether a basic index of a contiguous array selects consecutive elements in memory."""
    free = True
    for part in index.parts:
        if part.kind == "new":
            continue
        whole = surely_equal(part.count, shape[part.axis]) and part.step == 1
        if not free and not whole:
            return False
        # After axes of one element, the first longer axis may be cut; all axes after it must be whole.
        free = free and surely_equal(part.count, 1)
        if part.step != 1 and (is_symbolic(part.count) or part.count > 1):
            return False
    return True
