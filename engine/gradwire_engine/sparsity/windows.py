"""Windows of an array that index vectors name: what gathers read and scatters write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """Where windows lie in an array: the common part of gather and scatter.

    Attributes:
        shape: of the array.
        sizes: extents of a window, one an axis of the array.
        window_axes: axes of the windows' array that run within a window, ascending.
        dropped: axes of the array that have no such axis: windows have extent 1 there.
        indexed: axes of the array that the components of an index vector move along.
        batching: pairs of an axis of the array and the axis of the indices that runs along with it.
        mode: what becomes of windows that reach outside.
    """

    shape: tuple[int, ...]
    sizes: tuple[int, ...]
    window_axes: tuple[int, ...]
    dropped: tuple[int, ...]
    indexed: tuple[int, ...]
    batching: tuple[tuple[int, int], ...]
    mode: Any

    def positions(self, indices: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Return the flat position in the array of each element of all windows, and whether it is one.

        Args:
            indices: index vectors, along the last axis.
            shape: of the windows' array.
        """
        rank = len(shape)
        index_axes = [axis for axis in range(rank) if axis not in self.window_axes]

        def along_indices(values: Array) -> Array:
            spread = [1] * rank
            for axis, extent in zip(index_axes, values.shape, strict=True):
                spread[axis] = extent
            return values.reshape(spread)

        offsets = iter(self.window_axes)
        batched = dict(self.batching)
        flat: Any = np.zeros([1] * rank, np.int64)
        valid: Any = np.ones([1] * rank, bool)
        for axis, extent in enumerate(self.shape):
            place: Any = np.zeros([1] * rank, np.int64)
            if axis in self.indexed:
                start = along_indices(indices[..., self.indexed.index(axis)].astype(np.int64))
                last = extent - self.sizes[axis]
                if self.mode == GatherScatterMode.CLIP:
                    start = np.clip(start, 0, last)
                valid = valid & (start >= 0) & (start <= last)
                place = place + np.clip(start, 0, max(0, last))
            if axis in batched:
                line = np.arange(indices.shape[batched[axis]])
                spread = [1] * (indices.ndim - 1)
                spread[batched[axis]] = -1
                place = place + along_indices(np.broadcast_to(line.reshape(spread), indices.shape[:-1]))
            elif axis not in self.dropped:
                spread = [1] * rank
                spread[next(offsets)] = self.sizes[axis]
                place = place + np.arange(self.sizes[axis]).reshape(spread)
            flat = flat * extent + place
        return np.broadcast_to(flat, shape), np.broadcast_to(valid, shape)


def gathered(params: Mapping[str, Any], shape: Shape) -> Windows:
    """Return the windows that a gather reads from an array of a shape."""
    numbers = params["dimension_numbers"]
    # An index that was promised to be inside, and is not, XLA moves back in.
    promised = params["mode"] == GatherScatterMode.PROMISE_IN_BOUNDS
    return Windows(
        shape,
        tuple(params["slice_sizes"]),
        tuple(numbers.offset_dims),
        (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims),
        tuple(numbers.start_index_map),
        tuple(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)),
        GatherScatterMode.CLIP if promised else params["mode"],
    )


def scattered(params: Mapping[str, Any], shape: Shape, updates: Shape) -> Windows:
    """Return the windows that a scatter writes to an array of a shape, from updates of a shape."""
    numbers = params["dimension_numbers"]
    dropped = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    extents = iter(numbers.update_window_dims)
    return Windows(
        shape,
        tuple(1 if axis in dropped else updates[next(extents)] for axis in range(len(shape))),
        tuple(numbers.update_window_dims),
        dropped,
        tuple(numbers.scatter_dims_to_operand_dims),
        tuple(zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True)),
        params["mode"],
    )
