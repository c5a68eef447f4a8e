"""Colors the columns or rows of a sparsity pattern, so that those of one color can share a seed.

Two columns may share a color if no row has a nonzero in both: then one product of the Jacobian with the sum
of their seeds contains the entries of each. The algorithm is greedy coloring of the columns' intersection
graph: A. R. Curtis, M. J. D. Powell, J. K. Reid, "On the estimation of sparse Jacobian matrices" (1974); as a
distance-1 coloring, A. H. Gebremedhin, F. Manne, A. Pothen, "What color is your Jacobian?" (2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gradwire.pictures.pattern import Indices, Pattern

Partition = Literal["column", "row"]
Order = Literal["natural", "largest_first"]
Colors = npt.NDArray[np.int64]


def coloring(pattern: Pattern, partition: Partition = "column", order: Order = "natural") -> Colors:
    """Color columns (or rows) so that no row (or column) has nonzeros in two of one color.

    Args:
        pattern: the nonzeros.
        partition: "column" for forward mode, "row" for reverse mode.
        order: the order in which columns are colored: "natural", or "largest_first" for those with most
            conflicts first.

    Returns:
        The color of each column (or row), int64, from 0 on. There is at most one color more than the most
        conflicts of a column. An empty column has color 0.

    Raises:
        ValueError: an unknown order.
    """
    if order not in get_args(Order):
        raise ValueError(f"order={order!r}: use 'largest_first' or 'natural'")
    by_column = pattern.transposed() if partition == "column" else pattern
    count, across = by_column.shape
    nonzeros = np.bincount(by_column.columns, minlength=across)
    if nonzeros.max(initial=0) == count:
        return np.arange(count)  # a full row: every two columns conflict
    starts = np.concatenate([[0], np.cumsum(np.bincount(by_column.rows, minlength=count))])
    natural = order == "natural"
    sequence: Sequence[int] = range(count) if natural else _largest_first(by_column.columns, starts, nonzeros)
    # The colors used in a row are the bits of one integer: a column costs one operation for each nonzero.
    taken = [0] * across
    colors = np.zeros(count, np.int64)
    where, ends = by_column.columns.tolist(), starts.tolist()
    for one in sequence:
        crossed = where[ends[one] : ends[one + 1]]
        used = 0
        for row in crossed:
            used |= taken[row]
        lowest = ~used & (used + 1)
        for row in crossed:
            taken[row] |= lowest
        colors[one] = lowest.bit_length() - 1
    return colors


def _largest_first(columns: Indices, starts: Indices, nonzeros: Indices) -> Sequence[int]:
    """Order columns by descending number of conflicts, counted once for each row."""
    meetings = np.concatenate([[0], np.cumsum(nonzeros[columns] - 1)])
    return [int(one) for one in np.argsort(-(meetings[starts[1:]] - meetings[starts[:-1]]), kind="stable")]
