"""Gathers, scatters and dynamic slices, with JAX's meaning of indices that lie outside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire.frontends.jax import ops
from gradwire.frontends.jax.graph import Graph, Value, constant
from gradwire.frontends.jax.registry import Call, rule

_INT64 = np.dtype(np.int64)


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
    starts: Mapping[int, Value]
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

    def positions(self, graph: Graph) -> list[Value]:
        """For each explicit axis the positions on it, each broadcastable to the grid."""
        rank, components = len(self.grid), []
        for axis in self.explicit:
            start = self.starts.get(axis, ops.scalar(0, _INT64))
            component = ops.reshape(graph, start, (*start.shape, *[1] * (rank - start.ndim)))
            if axis in self.wide:
                steps = constant(np.arange(self.sizes[axis]))
                steps = ops.place(graph, steps, rank, [len(self.batch) + self.wide.index(axis)])
                component = ops.broadcast(graph, "Add", component, steps)
            components.append(component)
        return components

    def tuples(self, graph: Graph, positions: Sequence[Value]) -> Value:
        """Positions as ONNX's GatherND and ScatterND take them: the last axis runs over axes."""
        spread = [ops.expand(graph, component, self.grid) for component in positions]
        return ops.concat(
            graph, [ops.reshape(graph, part, (*self.grid, 1)) for part in spread], len(self.grid)
        )


def _ints(items: Any) -> list[int]:
    return [int(item) for item in items]


def _mode(call: Call) -> str:
    """What happens to windows that lie outside: "clip", "fill_or_drop" or "promise_in_bounds"."""
    return str(getattr(call.params["mode"], "name", call.params["mode"])).lower()


def _starts(
    call: Call, indices: Value, axes: Sequence[int], shape: Sequence[int], sizes: Sequence[int], clip: bool
) -> tuple[dict[int, Value], Value | None]:
    """Where windows start on each axis, and which windows lie inside (None: all of them)."""
    graph, starts = call.graph, {}
    inside: Value | None = None
    last = indices.ndim - 1
    for place, axis in enumerate(axes):
        start = ops.slices(graph, indices, {last: (place, place + 1, 1)})
        start = ops.cast(graph, ops.reshape(graph, start, indices.shape[:-1]), _INT64)
        room = shape[axis] - sizes[axis]
        bounded = ops.clip(graph, start, 0, max(0, room))
        starts[axis] = bounded if clip else start
        if _mode(call) == "fill_or_drop":
            fits = ops.broadcast(graph, "Equal", start, bounded)
            inside = fits if inside is None else ops.broadcast(graph, "And", inside, fits)
    if inside is not None and inside.known is not None and inside.known.all():
        inside = None
    return starts, inside


def _moving(starts: Mapping[int, Value], sizes: Sequence[int], shape: Sequence[int]) -> dict[int, Value]:
    """The starts without those of windows as long as their axis, which can only start at its beginning."""
    return {axis: start for axis, start in starts.items() if sizes[axis] != shape[axis]}


def _batch_starts(axes: Sequence[int], batch_axes: Sequence[int], batch: Sequence[int]) -> dict[int, Value]:
    starts = {}
    for axis, batch_axis in zip(axes, batch_axes, strict=True):
        shape = [1] * len(batch)
        shape[batch_axis] = batch[batch_axis]
        starts[axis] = constant(np.broadcast_to(np.arange(batch[batch_axis]).reshape(shape), batch))
    return starts


@rule("gather")
def gather(call: Call, x: Value, indices: Value) -> Value:
    """Windows of ``x``: one Gather where they differ on one axis, else one GatherND."""
    graph, numbers = call.graph, call.params["dimension_numbers"]
    batching = _ints(numbers.operand_batching_dims)
    sizes, batch = tuple(_ints(call.params["slice_sizes"])), indices.shape[:-1]
    axes = _ints(numbers.start_index_map)
    # Promised to lie inside or not, XLA clips.
    starts, inside = _starts(call, indices, axes, x.shape, sizes, clip=True)
    starts = _moving(starts, sizes, x.shape)
    starts |= _batch_starts(batching, _ints(numbers.start_indices_batching_dims), batch)
    if batch and not starts and x.ndim:
        starts = {0: ops.expand(graph, ops.scalar(0, _INT64), batch)}
    windows = _Windows(batch, sizes, starts, x.shape)
    named = [("batch", axis) for axis in range(len(batch))] + [("axis", axis) for axis in windows.wide]
    if not x.ndim:
        found, labels = ops.expand(graph, x, batch), named
    elif not windows.explicit:
        found, labels = x, [("axis", axis) for axis in range(x.ndim)]
    elif len(windows.explicit) == 1:
        axis = windows.explicit[0]
        (positions,) = windows.positions(graph)
        found = ops.gather(graph, x, ops.expand(graph, positions, windows.grid), axis)
        before, after = range(axis), range(axis + 1, x.ndim)
        labels = [("axis", item) for item in before] + named + [("axis", item) for item in after]
    else:
        ordered = ops.transpose(graph, x, windows.explicit + windows.whole)
        tuples = windows.tuples(graph, windows.positions(graph))
        shape = (*windows.grid, *(x.shape[axis] for axis in windows.whole))
        found = graph.one("GatherND", [ordered, tuples], shape, x.dtype)
        labels = named + [("axis", axis) for axis in windows.whole]
    result = _arranged(call, found, labels, x.ndim, len(batch))
    if inside is None:
        return result
    mask = ops.place(graph, inside, len(call.shape), _batch_places(call, len(call.shape)))
    return ops.where(graph, mask, result, _fill(call))


def _batch_places(call: Call, rank: int) -> list[int]:
    offsets = set(_ints(call.params["dimension_numbers"].offset_dims))
    return [axis for axis in range(rank) if axis not in offsets]


def _arranged(call: Call, found: Value, labels: list[tuple[str, int]], rank: int, batch: int) -> Value:
    """Gathered windows with their axes where the primitive wants them."""
    numbers = call.params["dimension_numbers"]
    dropped = set(_ints(numbers.collapsed_slice_dims)) | set(_ints(numbers.operand_batching_dims))
    kept = iter([("axis", axis) for axis in range(rank) if axis not in dropped])
    batches = iter([("batch", axis) for axis in range(batch)])
    offsets = set(_ints(numbers.offset_dims))
    wanted = [next(kept) if place in offsets else next(batches) for place in range(len(call.shape))]
    order = [labels.index(label) for label in wanted if label in labels]
    order += [place for place in range(len(labels)) if place not in order]
    return ops.reshape(call.graph, ops.transpose(call.graph, found, order), call.shape)


def _fill(call: Call) -> Value:
    """What stands where a window lies outside."""
    given, dtype = call.params["fill_value"], call.dtype
    if given is None:
        if ops.is_float(dtype):
            given = math.nan
        elif dtype.kind == "b":
            given = True
        else:
            given = np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max
    return ops.scalar(given, dtype)


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
def scatter(call: Call, x: Value, indices: Value, updates: Value) -> Value:
    """Windows of ``x`` overwritten by, or combined with, the updates."""
    if call.name == "scatter" and call.params.get("update_jaxpr") is not None:
        raise call.fail("x.at[i].apply(f) has no place in a graph; write x.at[i].set(f(x[i]))")
    if not x.ndim:
        raise call.fail("the array has no axes; combine the numbers directly, without .at")
    graph, numbers = call.graph, call.params["dimension_numbers"]
    if call.name.endswith("sub"):
        updates = ops.same(graph, "Neg", updates)
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
    starts |= _batch_starts(batching, _ints(numbers.scatter_indices_batching_dims), batch)
    if not starts:
        starts = {0: ops.expand(graph, ops.scalar(0, _INT64), batch)}
    windows = _Windows(batch, tuple(sizes), starts, x.shape)
    place_of = dict(zip(kept, places, strict=True))
    order = [place for place in range(updates.ndim) if place not in places]
    order += [place_of[axis] for axis in windows.wide]
    order += [place_of[axis] for axis in windows.whole if axis in place_of]
    order += [place for place in places if place not in order]
    arranged = ops.transpose(graph, updates, order)
    return _scattered(graph, x, windows, arranged, _REDUCTIONS[call.name], inside)


def _scattered(
    graph: Graph, x: Value, windows: _Windows, updates: Value, reduction: str, inside: Value | None
) -> Value:
    """One ScatterND; updates that lie outside go to a row that is cut off again."""
    order = windows.explicit + windows.whole
    data = ops.transpose(graph, x, order)
    updates = ops.reshape(graph, updates, (*windows.grid, *(x.shape[axis] for axis in windows.whole)))
    positions = windows.positions(graph)
    rows = data.shape[0]
    if inside is not None:
        spare = ops.reshape(graph, inside, (*inside.shape, *[1] * (len(windows.grid) - inside.ndim)))
        outside = ops.scalar(rows, _INT64)
        positions[0] = ops.where(graph, spare, positions[0], outside)
        zero = ops.scalar(0, _INT64)
        positions[1:] = [ops.where(graph, spare, position, zero) for position in positions[1:]]
        data = ops.pad(graph, data, [(0, 1)] + [(0, 0)] * (data.ndim - 1), ops.scalar(0, x.dtype))
    tuples = windows.tuples(graph, positions)
    written = graph.one("ScatterND", [data, tuples, updates], data.shape, x.dtype, reduction=reduction)
    kept = ops.slices(graph, written, {0: (0, rows, 1)})
    return ops.transpose(graph, kept, [order.index(axis) for axis in range(x.ndim)])


def _bounded(graph: Graph, start: Value, room: int) -> Value:
    return ops.clip(graph, ops.cast(graph, start, _INT64), 0, room)


@rule("dynamic_slice")
def dynamic_slice(call: Call, x: Value, *starts: Value) -> Value:
    graph = call.graph
    for axis, (start, size) in enumerate(zip(starts, call.shape, strict=True)):
        room = x.shape[axis] - size
        if not room:
            continue
        position = _bounded(graph, start, room)
        if position.known is not None:
            first = int(position.known)
            x = ops.slices(graph, x, {axis: (first, first + size, 1)})
        else:
            steps = ops.broadcast(graph, "Add", position, constant(np.arange(size)))
            x = ops.gather(graph, x, steps, axis)
    return x


@rule("dynamic_update_slice")
def dynamic_update_slice(call: Call, x: Value, update: Value, *starts: Value) -> Value:
    rooms = [extent - size for extent, size in zip(x.shape, update.shape, strict=True)]
    moved = {axis: _bounded(call.graph, starts[axis], room) for axis, room in enumerate(rooms) if room}
    if not moved:
        return update
    windows = _Windows((), update.shape, moved, x.shape)
    order = windows.wide + windows.whole
    order += [axis for axis in range(x.ndim) if axis not in order]
    arranged = ops.transpose(call.graph, update, order)
    return _scattered(call.graph, x, windows, arranged, "none", None)
