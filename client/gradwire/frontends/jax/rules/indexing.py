"""Gathers, scatters and dynamic slices, with JAX's meaning of indices that lie outside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire.frontends.jax.dtypes import is_float
from gradwire.frontends.jax.registry import Call, rule
from gradwire.frontends.jax.rules.shapes import placed
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import GraphBuilder
from gradwire.graphs.nodes import GraphValue


@dataclass(frozen=True)
class _Windows:
    """Windows of an array, one for each element of a batch.

    Attributes:
        batch: shape of the batch.
        sizes: extent of a window on each axis of the array.
        starts: for each axis on which windows differ, where they start: an array of the batch's shape.
        shape: the array's shape.
    """

    batch: tuple[int, ...]
    sizes: tuple[int, ...]
    starts: Mapping[int, GraphValue]
    shape: tuple[int, ...]

    @property
    def explicit(self) -> list[int]:
        """Axes on which positions must be spelled out; windows are whole on the others."""
        return [
            axis
            for axis, (size, extent) in enumerate(zip(self.sizes, self.shape, strict=True))
            if size != extent or axis in self.starts
        ]

    @property
    def wide(self) -> list[int]:
        """Those of them on which a window has more than one element, or none."""
        return [axis for axis in self.explicit if self.sizes[axis] != 1]

    @property
    def whole(self) -> list[int]:
        return [axis for axis in range(len(self.shape)) if axis not in self.explicit]

    @property
    def grid(self) -> tuple[int, ...]:
        """Shape of the positions: the batch, then the wide axes."""
        return (*self.batch, *(self.sizes[axis] for axis in self.wide))

    def positions(self, graph: GraphBuilder) -> list[GraphValue]:
        """For each explicit axis the positions on it, each broadcastable to the grid."""
        rank, components = len(self.grid), []
        for axis in self.explicit:
            start = self.starts.get(axis, graph.scalar(0, ops.INT64))
            component = ops.reshape(start, (*start.shape, *[1] * (rank - start.ndim)))
            if axis in self.wide:
                steps = placed(
                    _counting(graph, self.sizes[axis]), rank, [len(self.batch) + self.wide.index(axis)]
                )
                component = ops.binary("Add", component, steps)
            components.append(component)
        return components

    def tuples(self, positions: Sequence[GraphValue]) -> GraphValue:
        """Positions as ONNX's GatherND and ScatterND take them: the last axis runs over axes."""
        spread = [ops.expand(component, self.grid) for component in positions]
        return ops.concat([ops.reshape(part, (*self.grid, 1)) for part in spread], len(self.grid))


def _counting(graph: GraphBuilder, count: int) -> GraphValue:
    return graph.constant(np.arange(count, dtype=np.int64))


def _clipped(x: GraphValue, high: int) -> GraphValue:
    """Integers kept between 0 and a bound."""
    return ops.binary("Min", ops.binary("Max", x, ops.constant_like(x, 0)), ops.constant_like(x, high))


def _ints(items: Any) -> list[int]:
    return [int(item) for item in items]


def _mode(call: Call) -> str:
    """Return what happens to windows that lie outside: "clip", "fill_or_drop" or "promise_in_bounds"."""
    return str(getattr(call.params["mode"], "name", call.params["mode"])).lower()


def _starts(
    call: Call,
    indices: GraphValue,
    axes: Sequence[int],
    shape: Sequence[int],
    sizes: Sequence[int],
    clip: bool,
) -> tuple[dict[int, GraphValue], GraphValue | None]:
    """Where windows start on each axis, and which windows lie inside.

    Args:
        call: the gather or scatter.
        indices: integers of shape (*batch, number of axes).
        axes: the axis of the array that each of them is for.
        shape: the array's shape.
        sizes: extent of a window on each axis of the array.
        clip: whether windows that lie outside are moved inside.

    Returns:
        The start on each of the axes, int64 of the batch's shape, and whether the window lies inside: None
        where all do, or where it does not matter.
    """
    starts = {}
    inside: GraphValue | None = None
    last = indices.ndim - 1
    for place, axis in enumerate(axes):
        start = ops.slices(indices, [(last, place, 1, 1)])
        start = ops.cast(ops.reshape(start, indices.shape[:-1]), ops.INT64)
        bounded = _clipped(start, max(0, shape[axis] - sizes[axis]))
        starts[axis] = bounded if clip else start
        if _mode(call) == "fill_or_drop":
            fits = ops.compare("Equal", start, bounded)
            inside = fits if inside is None else ops.binary("And", inside, fits)
    known = None if inside is None else call.graph.known(inside)
    return starts, None if known is not None and known.all() else inside


def _moving(
    starts: Mapping[int, GraphValue], sizes: Sequence[int], shape: Sequence[int]
) -> dict[int, GraphValue]:
    """Return the starts without those of windows as long as their axis, which start at its beginning."""
    return {axis: start for axis, start in starts.items() if sizes[axis] != shape[axis]}


def _batch_starts(
    graph: GraphBuilder, axes: Sequence[int], batch_axes: Sequence[int], batch: Sequence[int]
) -> dict[int, GraphValue]:
    """Return the starts on axes of the array that run along with axes of the batch."""
    starts = {}
    for axis, batch_axis in zip(axes, batch_axes, strict=True):
        shape = [1] * len(batch)
        shape[batch_axis] = batch[batch_axis]
        positions = np.arange(batch[batch_axis], dtype=np.int64).reshape(shape)
        starts[axis] = graph.constant(np.broadcast_to(positions, batch))
    return starts


@rule("gather")
def gather(call: Call, x: GraphValue, indices: GraphValue) -> GraphValue:
    """Windows of `x`: one Gather where they differ on one axis, else one GatherND."""
    graph, numbers = call.graph, call.params["dimension_numbers"]
    batching = _ints(numbers.operand_batching_dims)
    sizes, batch = tuple(_ints(call.params["slice_sizes"])), indices.shape[:-1]
    axes = _ints(numbers.start_index_map)
    # Promised to lie inside or not, XLA clips.
    starts, inside = _starts(call, indices, axes, x.shape, sizes, clip=True)
    starts = _moving(starts, sizes, x.shape)
    starts |= _batch_starts(graph, batching, _ints(numbers.start_indices_batching_dims), batch)
    if batch and not starts and x.ndim:
        starts = {0: ops.expand(graph.scalar(0, ops.INT64), batch)}
    windows = _Windows(batch, sizes, starts, x.shape)
    named = [("batch", axis) for axis in range(len(batch))] + [("axis", axis) for axis in windows.wide]
    if not x.ndim:
        found, labels = ops.expand(x, batch), named
    elif not windows.explicit:
        found, labels = x, [("axis", axis) for axis in range(x.ndim)]
    elif len(windows.explicit) == 1:
        axis = windows.explicit[0]
        (positions,) = windows.positions(graph)
        found = ops.gather(x, ops.expand(positions, windows.grid), axis)
        before, after = range(axis), range(axis + 1, x.ndim)
        labels = [("axis", item) for item in before] + named + [("axis", item) for item in after]
    else:
        ordered = ops.transpose(x, windows.explicit + windows.whole)
        found = ops.gather_nd(ordered, windows.tuples(windows.positions(graph)))
        labels = named + [("axis", axis) for axis in windows.whole]
    result = _arranged(call, found, labels, x.ndim, len(batch))
    if inside is None:
        return result
    mask = placed(inside, len(call.shape), _batch_places(call, len(call.shape)))
    return ops.where(mask, result, _fill(call))


def _batch_places(call: Call, rank: int) -> list[int]:
    offsets = set(_ints(call.params["dimension_numbers"].offset_dims))
    return [axis for axis in range(rank) if axis not in offsets]


def _arranged(
    call: Call, found: GraphValue, labels: list[tuple[str, int]], rank: int, batch: int
) -> GraphValue:
    """Gathered windows with their axes where the primitive wants them."""
    numbers = call.params["dimension_numbers"]
    dropped = set(_ints(numbers.collapsed_slice_dims)) | set(_ints(numbers.operand_batching_dims))
    kept = iter([("axis", axis) for axis in range(rank) if axis not in dropped])
    batches = iter([("batch", axis) for axis in range(batch)])
    offsets = set(_ints(numbers.offset_dims))
    wanted = [next(kept) if place in offsets else next(batches) for place in range(len(call.shape))]
    order = [labels.index(label) for label in wanted if label in labels]
    order += [place for place in range(len(labels)) if place not in order]
    return ops.reshape(ops.transpose(found, order), call.shape)


def _fill(call: Call) -> GraphValue:
    """Return what stands where a window lies outside."""
    given, dtype = call.params["fill_value"], call.dtype
    if given is None:
        if is_float(dtype):
            given = math.nan
        elif dtype.kind == "b":
            given = True
        else:
            given = np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max
    return call.graph.constant(np.asarray(given).astype(dtype))


_REDUCTIONS = {
    "scatter": "none",
    "scatter-add": "add",
    "scatter-sub": "add",
    "scatter-mul": "mul",
    "scatter-max": "max",
    "scatter-min": "min",
    "scatter_add": "add",
    "scatter_sub": "add",
    "scatter_mul": "mul",
    "scatter_max": "max",
    "scatter_min": "min",
}


@rule(*_REDUCTIONS)
def scatter(call: Call, x: GraphValue, indices: GraphValue, updates: GraphValue) -> GraphValue:
    """Windows of `x` overwritten by, or combined with, the updates."""
    if call.name == "scatter" and call.params.get("update_jaxpr") is not None:
        raise call.fail("x.at[i].apply(f) has no place in a graph; write x.at[i].set(f(x[i]))")
    if not x.ndim:
        raise call.fail("the array has no axes; combine the numbers directly, without .at")
    graph, numbers = call.graph, call.params["dimension_numbers"]
    if call.name.endswith("sub"):
        updates = ops.unary("Neg", updates)
    batching = _ints(numbers.operand_batching_dims)
    alone = set(_ints(numbers.inserted_window_dims)) | set(batching)
    places = sorted(_ints(numbers.update_window_dims))
    kept = [axis for axis in range(x.ndim) if axis not in alone]
    sizes = [1] * x.ndim
    for axis, place in zip(kept, places, strict=True):
        sizes[axis] = updates.shape[place]
    batch = indices.shape[:-1]
    axes = _ints(numbers.scatter_dims_to_operand_dims)
    starts, inside = _starts(call, indices, axes, x.shape, sizes, _mode(call) == "clip")
    starts = _moving(starts, sizes, x.shape)
    starts |= _batch_starts(graph, batching, _ints(numbers.scatter_indices_batching_dims), batch)
    if not starts:
        starts = {0: ops.expand(graph.scalar(0, ops.INT64), batch)}
    windows = _Windows(batch, tuple(sizes), starts, x.shape)
    place_of = dict(zip(kept, places, strict=True))
    order = [place for place in range(updates.ndim) if place not in places]
    order += [place_of[axis] for axis in windows.wide]
    order += [place_of[axis] for axis in windows.whole if axis in place_of]
    order += [place for place in places if place not in order]
    return _scattered(x, windows, ops.transpose(updates, order), _REDUCTIONS[call.name], inside)


def _scattered(
    x: GraphValue, windows: _Windows, updates: GraphValue, reduction: str, inside: GraphValue | None
) -> GraphValue:
    """One ScatterND; updates that lie outside go to a row that is cut off again.

    Args:
        x: what is written to.
        windows: where.
        updates: what is written: the batch, then the wide axes, then the whole ones.
        reduction: ScatterND's.
        inside: which windows lie inside, of the batch's shape; None for all.
    """
    graph = x.graph
    order = windows.explicit + windows.whole
    data = ops.transpose(x, order)
    updates = ops.reshape(updates, (*windows.grid, *(x.shape[axis] for axis in windows.whole)))
    positions = windows.positions(graph)
    rows = data.shape[0]
    if inside is not None:
        spare = ops.reshape(inside, (*inside.shape, *[1] * (len(windows.grid) - inside.ndim)))
        positions[0] = ops.where(spare, positions[0], graph.scalar(rows, ops.INT64))
        zero = graph.scalar(0, ops.INT64)
        positions[1:] = [ops.where(spare, position, zero) for position in positions[1:]]
        data = ops.pad(data, [(0, 1)] + [(0, 0)] * (data.ndim - 1), ops.constant_like(x, 0))
    written = ops.scatter_nd(data, windows.tuples(positions), updates, reduction)
    kept = ops.slices(written, [(0, 0, 1, rows)])
    return ops.transpose(kept, [order.index(axis) for axis in range(x.ndim)])


def _bounded(start: GraphValue, room: int) -> GraphValue:
    """Return the start of a window that is moved inside where it lies outside."""
    return _clipped(ops.cast(start, ops.INT64), room)


@rule("dynamic_slice")
def dynamic_slice(call: Call, x: GraphValue, *starts: GraphValue) -> GraphValue:
    graph = call.graph
    for axis, (start, size) in enumerate(zip(starts, call.shape, strict=True)):
        room = x.shape[axis] - size
        if not room:
            continue
        position = _bounded(start, room)
        known = graph.known(position)
        if known is not None:
            x = ops.slices(x, [(axis, int(known), 1, size)])
        else:
            x = ops.gather(x, ops.binary("Add", position, _counting(graph, size)), axis)
    return x


@rule("dynamic_update_slice")
def dynamic_update_slice(call: Call, x: GraphValue, update: GraphValue, *starts: GraphValue) -> GraphValue:
    rooms = [extent - size for extent, size in zip(x.shape, update.shape, strict=True)]
    moved = {axis: _bounded(starts[axis], room) for axis, room in enumerate(rooms) if room}
    if not moved:
        return update
    windows = _Windows((), update.shape, moved, x.shape)
    order = windows.wide + windows.whole
    order += [axis for axis in range(x.ndim) if axis not in order]
    return _scattered(x, windows, ops.transpose(update, order), "none", None)
