"""Subtracts cells from one another, layer by layer: what substitution does at each point.

In NumPy, which takes as long as a compiled loop here: processes that compute and do not plan need no numba.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

ROUNDOFF = 2.0**-53
# Half of the digits of double precision.
TOLERANCE = 2.0**-26


class Steps(NamedTuple):
    """Which cells are subtracted from which, and the entry that is left in each.

    Attributes:
        minuends: int64, the numbers of cells from which others are subtracted, in order.
        subtrahends: int64, those of the cells that are subtracted from them.
        layers: int64, where layers begin among these, and the end: no cell is subtracted in the layer in
            which something is subtracted from it, or before.
        rows, columns: int64, of the entry that is left in each cell.
    """

    minuends: Array
    subtrahends: Array
    layers: Array
    rows: Array
    columns: Array


class Entries(NamedTuple):
    """What is left in cells.

    Attributes:
        values: float64, of each cell.
        magnitudes: for each the sum of the magnitudes of all cells that it was made of.
    """

    values: Array
    magnitudes: Array


def subtracted(cells: Array, steps: Steps) -> Entries:
    """Return the entry that is left in each cell.

    A cell that is not finite, or a difference that overflows, leaves its own entry not finite at least.
    """
    values = np.array(cells, np.float64)
    magnitudes = np.abs(values)
    layers = steps.layers.tolist()
    with np.errstate(over="ignore", invalid="ignore"):
        for start, stop in pairwise(layers):
            into, taken = steps.minuends[start:stop], steps.subtrahends[start:stop]
            # A cell that is there more than once is subtracted from in order: always to the same bits.
            np.subtract.at(values, into, values[taken])
            np.add.at(magnitudes, into, magnitudes[taken])
    return Entries(values, magnitudes)


def accurate(entries: Entries, steps: Steps, terms: int) -> bool:
    """Tell whether all entries are finite, and none lost its digits to others that are larger.

    The rounding errors of an entry's subtractions, `(terms - 1) * ROUNDOFF * magnitude` at most, must be
    below TOLERANCE times the largest entry in its row, and the largest in its column.
    """
    values, magnitudes = entries
    if not np.isfinite(values).all():
        return False
    sizes = np.abs(values)
    largest = np.zeros(max(steps.rows.max(initial=-1), steps.columns.max(initial=-1)) + 1)
    np.maximum.at(largest, steps.rows, sizes)
    np.maximum.at(largest, steps.columns, sizes)
    scales = np.minimum(largest[steps.rows], largest[steps.columns])
    return bool(((terms - 1) * ROUNDOFF * magnitudes <= TOLERANCE * scales).all())
