"""Draws sparsity patterns with their colorings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from gradwire.pictures.coloring import Colors, Order, coloring
from gradwire.pictures.pattern import Pattern, pattern_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS = 300
"""The most rows and columns of cells; of a larger pattern, the nonzeros in each cell are counted."""

_LEGEND = 10


def spy(
    matrix: Any,
    coloring: Literal["column", "row"] | npt.ArrayLike | None = "column",
    ax: Axes | None = None,
    *,
    order: Order = "largest_first",
    row_axes: int | None = None,
) -> Axes:
    """Draw the nonzeros of a matrix, and which of its columns (or rows) share a color.

        gw.spy(f.jacobian(x))

    Columns of one color have no row in common, so that one seed serves them all. A pattern of more than 300
    rows or columns is drawn as a map of the number of nonzeros in each of at most 300 by 300 cells; its title
    has the number of colors.

    Args:
        matrix: a scipy.sparse matrix or array, a dense matrix, or a Jacobian of shape output.shape +
            input.shape, which is flattened, row-major, to outputs by inputs.
        coloring: "column" or "row" to color them greedily, an array of integers with the color of each column
            (or else of each row), or None for no colors.
        ax: the axes to draw on; by default those of a new figure.
        order: the order of the greedy coloring, "largest_first" or "natural".
        row_axes: how many axes of an array are the output's; needed where its shape does not tell.

    Returns:
        The axes, with shape, nonzeros, density and colors in the title.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        TypeError: the matrix has no numeric dtype.
        ValueError: an unknown `coloring` or `order`, colors that fit neither columns nor rows, or an array
            whose shape needs `row_axes`.
    """
    try:
        from matplotlib import pyplot
        from matplotlib.ticker import MaxNLocator, StrMethodFormatter
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "gw.spy draws with matplotlib: pip install 'gradwire[plot]'", name="matplotlib"
        ) from None
    pattern = pattern_of(matrix, row_axes)
    partition, colors = _colors(pattern, coloring, order)
    if ax is None:
        _, ax = pyplot.subplots(layout="constrained")
    if max(pattern.shape) > CELLS:
        _draw_counts(ax, pattern)
    else:
        _draw_cells(ax, pattern, partition, colors)
    ax.set_title(_title(pattern, partition, colors), fontsize="medium")
    ax.xaxis.set_ticks_position("top")
    ax.tick_params(labelsize="small")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    wide, high = max(1, pattern.shape[1]), max(1, pattern.shape[0])
    ax.set_aspect("equal" if 1 / 4 <= wide / high <= 4 else "auto")
    return ax


def _colors(pattern: Pattern, wish: Any, order: Order) -> tuple[str, Colors | None]:
    """Return what is colored, "column", "row" or "", and the colors."""
    if wish is None:
        return "", None
    if isinstance(wish, str):
        if wish not in ("column", "row"):
            raise ValueError(f"coloring={wish!r}: use 'column', 'row', None, or an array of colors")
        return wish, coloring(pattern, "row" if wish == "row" else "column", order)
    colors = np.asarray(wish)
    if colors.ndim == 1 and colors.dtype.kind in "iu":
        for partition, count in (("column", pattern.shape[1]), ("row", pattern.shape[0])):
            if len(colors) == count:
                return partition, colors.astype(np.int64)
    raise ValueError(
        f"colors of shape {colors.shape} and dtype {colors.dtype} fit neither the {pattern.shape[1]} columns "
        f"nor the {pattern.shape[0]} rows: give one integer for each"
    )


def _title(pattern: Pattern, partition: str, colors: Colors | None) -> str:
    rows, columns = pattern.shape
    title = f"{rows:,} × {columns:,}, {_counted(pattern.nnz, 'nonzero')}, density {pattern.density:.2g}"
    if colors is None:
        return title
    count = len(np.unique(colors))
    return f"{title}\n{_counted(count, f'{partition} color')} for {_counted(len(colors), partition)}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def palette(count: int) -> npt.NDArray[np.float64]:
    """Return `count` colors, (count, 3) RGB in [0, 1], each well apart from the few before it."""
    from matplotlib import colormaps
    from matplotlib.colors import hsv_to_rgb

    if count <= 10:
        return np.array(colormaps["tab10"].colors)[:count]  # type: ignore[attr-defined]
    step = np.arange(count)
    hues = step * 0.618033988749895 % 1  # multiples of the golden ratio are evenly spread
    shades = np.stack([hues, 0.55 + 0.4 * (step % 2), 0.9 - 0.3 * (step // 2 % 2)], axis=1)
    return np.asarray(hsv_to_rgb(shades))


def _draw_cells(ax: Axes, pattern: Pattern, partition: str, colors: Colors | None) -> None:
    image = np.ones((*pattern.shape, 3))
    if colors is None:
        image[pattern.rows, pattern.columns] = (0.13, 0.27, 0.45)
    else:
        known, places = np.unique(colors, return_inverse=True)
        paints = palette(len(known))
        owner = pattern.columns if partition == "column" else pattern.rows
        image[pattern.rows, pattern.columns] = paints[places[owner]]
        if len(known) <= _LEGEND and pattern.nnz:
            _legend(ax, paints, np.bincount(places), partition)
    if image.size:
        ax.imshow(image, interpolation="nearest", origin="upper")
    _separate(ax, pattern.shape)


def _legend(ax: Axes, paints: npt.NDArray[np.float64], counts: Any, partition: str) -> None:
    from matplotlib.patches import Patch

    patches = [
        Patch(color=tuple(paint), label=_counted(int(count), partition))
        for paint, count in zip(paints, counts, strict=True)
    ]
    ax.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small")


def _separate(ax: Axes, shape: tuple[int, int]) -> None:
    """Draw thin lines between cells if there are few."""
    if 0 < max(shape) <= 40:
        ax.set_xticks(np.arange(0.5, shape[1] - 1), minor=True)
        ax.set_yticks(np.arange(0.5, shape[0] - 1), minor=True)
        ax.grid(which="minor", color="0.9", linewidth=0.6)
        ax.tick_params(which="minor", length=0)


def binned(pattern: Pattern, cells: int = CELLS) -> npt.NDArray[np.int64]:
    """Count the nonzeros in each cell of a grid of at most `cells` by `cells`."""
    rows, columns = pattern.shape
    high, wide = min(rows, cells), min(columns, cells)
    place = (pattern.rows * high // rows) * wide + pattern.columns * wide // columns
    return np.bincount(place, minlength=high * wide).reshape(high, wide)


def _draw_counts(ax: Axes, pattern: Pattern) -> None:
    from matplotlib.colors import LogNorm

    counts = binned(pattern)
    shown = np.ma.masked_equal(counts, 0)
    rows, columns = pattern.shape
    image = ax.imshow(
        shown,
        interpolation="nearest",
        origin="upper",
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        cmap="viridis_r",
        norm=LogNorm(1, max(2, int(counts.max(initial=1)))),
    )
    high, wide = counts.shape
    label = f"nonzeros in a cell of {rows / high:,.4g} × {columns / wide:,.4g}"
    ax.figure.colorbar(image, ax=ax, label=label, shrink=0.8)
