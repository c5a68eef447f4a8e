"""Draws sparsity patterns with their colorings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gradwire._face.function import AsyncFunction
from gradwire._face.options import Kind
from gradwire._face.preparation import AsyncPrepared
from gradwire._sync.function import Function
from gradwire._sync.prepared import Prepared
from gradwire.pictures.coloring import Order, Partition, coloring
from gradwire.pictures.pattern import Pattern, pattern_of
from gradwire.pictures.seeds import Seeds, by_side, counted, of_prepared

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS = 300
"""The most rows and columns of cells; of a larger pattern, the nonzeros in each cell are counted."""

_LEGEND = 10


def spy(
    matrix: Any,
    coloring: Literal["auto", "column", "row"] | npt.ArrayLike | None = "auto",
    ax: Axes | None = None,
    *,
    kind: Kind | None = None,
    order: Order = "largest_first",
    row_axes: int | None = None,
) -> Axes:
    """Draw the nonzeros of a matrix, and which of its columns (or rows) share a color.

        gw.spy(f.prepare_jacobian())  # the pattern and the colors that the server uses
        gw.spy(f, kind="hessian")  # the same, of a function whose shapes are known
        gw.spy(f.jacobian(x))  # the nonzeros at a point, colored here

    Columns of one color have no row in common, so that one seed serves them all. A pattern of more than 300
    rows or columns is drawn as a map of the number of nonzeros in each of at most 300 by 300 cells; its title
    has the number of colors.

    Args:
        matrix: a prepared derivative, a function or a pattern of a server; a scipy.sparse matrix or array, a
            dense matrix, or a Jacobian of shape output.shape + input.shape, which is flattened, row-major, to
            outputs by inputs.
        coloring: "auto" for the server's colors of a prepared derivative or a function, and those of columns
            of anything else; "column" or "row" to color them greedily, an array of integers with the color
            of each column (or else of each row), or None for no colors.
        ax: the axes to draw on; by default those of a new figure.
        kind: of a function, which derivative: "jacobian" (the default) or "hessian".
        order: the order of the greedy coloring, "largest_first" or "natural".
        row_axes: how many axes of an array are the output's; needed where its shape does not tell.

    Returns:
        The axes, with shape, nonzeros, density and colors in the title.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        TypeError: the matrix has no numeric dtype, or is a function of `gradwire.aio`.
        ValueError: an unknown `coloring`, `kind` or `order`, a `kind` of what is no function, colors that fit
            neither columns nor rows, or an array whose shape needs `row_axes`.
    """
    try:
        from matplotlib import pyplot
        from matplotlib.ticker import MaxNLocator, StrMethodFormatter
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "gw.spy draws with matplotlib: pip install 'gradwire[plot]'", name="matplotlib"
        ) from None
    matrix = _prepared(matrix, kind)
    prepared = isinstance(matrix, AsyncPrepared | Prepared)
    pattern = pattern_of(matrix.pattern if prepared else matrix, row_axes)
    if prepared and isinstance(coloring, str) and coloring == "auto":
        seeds: Seeds | None = of_prepared(pattern, matrix)
    else:
        seeds = _seeds(pattern, coloring, order)
    if ax is None:
        _, ax = pyplot.subplots(layout="constrained")
    if max(pattern.shape) > CELLS:
        _draw_counts(ax, pattern)
    else:
        _draw_cells(ax, pattern, seeds)
    ax.set_title(_title(pattern, seeds), fontsize="medium")
    ax.xaxis.set_ticks_position("top")
    ax.tick_params(labelsize="small")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    wide, high = max(1, pattern.shape[1]), max(1, pattern.shape[0])
    ax.set_aspect("equal" if 1 / 4 <= wide / high <= 4 else "auto")
    return ax


def _prepared(matrix: Any, kind: Kind | None) -> Any:
    """Return the prepared derivative of a function, and anything else as it is."""
    if isinstance(matrix, AsyncFunction):
        raise TypeError(
            "gw.spy does not wait for a function of gradwire.aio: pass await f.prepare_jacobian() or "
            "await f.prepare_hessian()"
        )
    if kind is not None and (kind not in get_args(Kind) or not isinstance(matrix, Function)):
        raise ValueError(f"kind={kind!r}: it is 'jacobian' or 'hessian', and of a function")
    if not isinstance(matrix, Function):
        return matrix
    return matrix.prepare_hessian() if kind == "hessian" else matrix.prepare_jacobian()


def _seeds(pattern: Pattern, wish: Any, order: Order) -> Seeds | None:
    """Color a pattern as it is wished for."""
    if wish is None:
        return None
    if isinstance(wish, str):
        if wish not in ("auto", "column", "row"):
            raise ValueError(f"coloring={wish!r}: use 'auto', 'column', 'row', None, or an array of colors")
        partition: Partition = "row" if wish == "row" else "column"
        return by_side(pattern, partition, coloring(pattern, partition, order))
    colors = np.asarray(wish)
    if colors.ndim == 1 and colors.dtype.kind in "iu":
        for side, count in (("column", pattern.shape[1]), ("row", pattern.shape[0])):
            if len(colors) == count:
                return by_side(pattern, side, np.unique(colors, return_inverse=True)[1])
    raise ValueError(
        f"colors of shape {colors.shape} and dtype {colors.dtype} fit neither the {pattern.shape[1]} columns "
        f"nor the {pattern.shape[0]} rows: give one integer for each"
    )


def _title(pattern: Pattern, seeds: Seeds | None) -> str:
    rows, columns = pattern.shape
    title = f"{rows:,} × {columns:,}, {counted(pattern.nnz, 'nonzero')}, density {pattern.density:.2g}"
    return title if seeds is None else f"{title}\n{seeds.text}"


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


def _draw_cells(ax: Axes, pattern: Pattern, seeds: Seeds | None) -> None:
    image = np.ones((*pattern.shape, 3))
    if seeds is None:
        image[pattern.rows, pattern.columns] = (0.13, 0.27, 0.45)
    else:
        paints = palette(seeds.count)
        image[pattern.rows, pattern.columns] = paints[seeds.entries]
        if seeds.count <= _LEGEND and pattern.nnz:
            _legend(ax, paints, seeds)
    if image.size:
        ax.imshow(image, interpolation="nearest", origin="upper")
    _separate(ax, pattern.shape)


def _legend(ax: Axes, paints: npt.NDArray[np.float64], seeds: Seeds) -> None:
    from matplotlib.patches import Patch

    patches = [
        Patch(color=tuple(paint), label=counted(count, side))
        for paint, side, count in zip(paints, seeds.sides, seeds.members, strict=True)
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
