"""Windows that slide along an axis: which elements each of them holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradwire_engine.sparsity.index_sets import EMPTY, Array, IndexSets


@dataclass(frozen=True, eq=False)
class Taps:
    """The windows along one axis.

    Attributes:
        places: for each window and each of its taps the element that it holds, (windows, taps).
        held: whether there is such an element: padding and the gaps of a dilated base hold none.
    """

    places: Array
    held: Array

    @staticmethod
    def of_windows(
        extent: int,
        size: int,
        stride: int,
        padding: tuple[int, int],
        base_dilation: int = 1,
        window_dilation: int = 1,
    ) -> Taps:
        """Lay windows along an axis as XLA does.

        Args:
            extent: elements of the axis, before it is dilated.
            size: taps of a window.
            stride: from one window to the next.
            padding: before and after; negative padding crops.
            base_dilation, window_dilation: distances between elements and between taps.
        """
        dilated = (extent - 1) * base_dilation + 1 if extent else 0
        low, high = (int(side) for side in padding)
        reach = (size - 1) * window_dilation + 1
        count = max(0, (dilated + low + high - reach) // stride + 1)
        places = (np.arange(count) * stride - low)[:, None] + np.arange(size) * window_dilation
        held = (places >= 0) & (places < dilated) & (places % base_dilation == 0)
        return Taps(np.where(held, places // base_dilation, 0), held)

    def taken(self, ids: Array, axis: int) -> Array:
        """Return the ids that each tap of each window holds: (windows, taps) in front of the other axes."""
        moved = np.moveaxis(ids, axis, 0)
        if not self.held.any():
            return np.broadcast_to(np.int32(EMPTY), (*self.held.shape, *moved.shape[1:]))
        held = self.held.reshape(*self.held.shape, *[1] * (moved.ndim - 1))
        return np.where(held, moved[self.places], np.int32(EMPTY))

    def united(self, sets: IndexSets, ids: Array, axis: int) -> Array:
        """Unite the ids that each window holds."""
        if (
            self.held.all()
            and np.array_equal(self.places[:, 0], np.arange(ids.shape[axis]))
            and self.places.shape[1] == 1
        ):
            return ids
        return np.moveaxis(sets.union_along(self.taken(ids, axis), (1,)), 0, axis)

    def united_taps(self, sets: IndexSets, ids: Array, axis: int) -> Array:
        """Unite the ids of the taps that hold an element: the axis runs over taps before, windows after."""
        moved = np.moveaxis(ids, axis, 0)
        held = self.held.reshape(*self.held.shape, *[1] * (moved.ndim - 1))
        carried = np.where(held, moved[None], np.int32(EMPTY))
        return np.moveaxis(sets.union_along(carried, (1,)), 0, axis)

    def spread(self, sets: IndexSets, ids: Array, axis: int, extent: int) -> Array:
        """Unite, for each of `extent` elements, the ids of all windows that hold it."""
        moved = np.moveaxis(ids, axis, 0)
        window, _ = np.nonzero(self.held)
        place = self.places[self.held]
        order = np.argsort(place, kind="stable")
        counts = np.bincount(place, minlength=extent)
        most = int(counts.max(initial=0))
        # (elements, windows that hold one): rows of unequal length are filled with the empty set.
        table = np.zeros((extent, most), np.int64)
        filled = np.arange(most) < counts[:, None]
        table[filled] = window[order]
        rows = np.where(filled.reshape(*filled.shape, *[1] * (moved.ndim - 1)), moved[table], np.int32(EMPTY))
        return np.moveaxis(sets.union_along(rows, (1,)), 0, axis)
