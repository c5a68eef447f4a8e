"""Rules for operators that rearrange elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwire.frontends.numpy.arrays.array import TracedArray, wrap
from gradwire.frontends.numpy.arrays.array import view as view_of
from gradwire.frontends.numpy.arrays.cells import ViewCell
from gradwire.frontends.torch.lowering import Array, Call, rule
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import GraphValue


def on_axis(rank: int, axis: int, index: Any) -> tuple[Any, ...]:
    """Return an index tuple that applies `index` to one axis."""
    return (slice(None),) * (axis % rank) + (index,)


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy")
def view(call: Call, x: Array, *_: Any) -> Any:
    if call.overload == "dtype":
        raise call.refuse("to another dtype", "use x.to(dtype), which converts values")
    return relaid(x, call.shape)


def relaid(x: Array, shape: Sequence[int]) -> Array:
    """Return the same elements in another shape, as a view that can be written to."""
    if not isinstance(x, TracedArray):
        return x.reshape(shape)
    before, after = x.shape, tuple(shape)
    return view_of(x, after, lambda base: ops.reshape(base, after), lambda new: ops.reshape(new, before))


@rule("unsqueeze", "unsqueeze_copy", "unsqueeze_")
def unsqueeze(call: Call, x: Array, dim: int) -> Any:
    return relaid(x, call.shape)


@rule("squeeze", "squeeze_copy", "squeeze_")
def squeeze(call: Call, x: Array, *_: Any) -> Any:
    return relaid(x, call.shape)


@rule("expand", "expand_copy")
def expand(call: Call, x: Array, *_: Any, **__: Any) -> Any:
    return np.broadcast_to(x, call.shape)


@rule("broadcast_in_dim")
def broadcast_in_dim(call: Call, x: Array, shape: Sequence[int], dims: Sequence[int]) -> Any:
    placed = [1] * len(shape)
    for dim, extent in zip(dims, x.shape, strict=True):
        placed[dim] = extent
    return np.broadcast_to(x.reshape(placed), tuple(shape))


@rule("permute", "permute_copy")
def permute(call: Call, x: Array, dims: Sequence[int]) -> Any:
    return np.transpose(x, [dim % x.ndim for dim in dims]) if x.ndim else x


@rule("transpose", "transpose_copy", "transpose_", "swapaxes_")
def transpose(call: Call, x: Array, first: int, second: int) -> Any:
    return np.swapaxes(x, first, second) if x.ndim else x


@rule("t", "t_copy", "t_")
def t(call: Call, x: Array) -> Any:
    return x.T if x.ndim == 2 else x


def element(x: Array, dim: int, index: int) -> Any:
    """Return the elements at a position along an axis, as a writable view."""
    if x.ndim > 1 and isinstance(x, TracedArray):
        return x[on_axis(x.ndim, dim, index)]
    rest = x.shape[: dim % x.ndim] + x.shape[dim % x.ndim + 1 :]
    kept = x[on_axis(x.ndim, dim, slice(index, index + 1))]
    if not isinstance(x, TracedArray):
        return kept.reshape(rest)
    return view_of(kept, rest, lambda base: ops.reshape(base, ()), lambda new: ops.reshape(new, (1,)))


@rule("select", "select_copy")
def select(call: Call, x: Array, dim: int, index: int) -> Any:
    return element(x, dim, index % x.shape[dim])


@rule("slice", "slice_copy")
def slice_(
    call: Call, x: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    return x[on_axis(x.ndim, dim, slice(start, end, step))]


@rule("select_scatter")
def select_scatter(call: Call, x: Array, source: Array, dim: int, index: int) -> Any:
    result = x.copy()
    result[on_axis(x.ndim, dim, index)] = source
    return result


@rule("slice_scatter")
def slice_scatter(
    call: Call,
    x: Array,
    source: Array,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:
    result = x.copy()
    result[on_axis(x.ndim, dim, slice(start, end, step))] = source
    return result


@rule("cat", "concat")
def cat(call: Call, tensors: Sequence[Array], dim: int = 0) -> Any:
    # PyTorch accepts an empty vector among tensors of any rank.
    rank = len(call.shape)
    return np.concatenate([x.astype(call.dtype) for x in tensors if x.ndim == rank], dim)


@rule("stack")
def stack(call: Call, tensors: Sequence[Array], dim: int = 0) -> Any:
    return np.stack([x.astype(call.dtype) for x in tensors], dim)


@rule("split_with_sizes", "split_with_sizes_copy")
def split_with_sizes(call: Call, x: Array, sizes: Sequence[int], dim: int = 0) -> list[Any]:
    ends = np.cumsum(sizes)
    return [
        x[on_axis(x.ndim, dim, slice(int(end - size), int(end)))]
        for size, end in zip(sizes, ends, strict=True)
    ]


@rule("split", "split_copy")
def split(call: Call, x: Array, size: int, dim: int = 0) -> list[Any]:
    extent = x.shape[dim]
    return [x[on_axis(x.ndim, dim, slice(at, at + size))] for at in range(0, max(extent, 1), size)]


@rule("unbind", "unbind_copy")
def unbind(call: Call, x: Array, dim: int = 0) -> list[Any]:
    return [element(x, dim, at) for at in range(x.shape[dim])]


@rule("flip")
def flip(call: Call, x: Array, dims: Sequence[int]) -> Any:
    return np.flip(x, tuple(dims)) if dims else x.copy()


@rule("roll")
def roll(call: Call, x: Array, shifts: Any, dims: Any = ()) -> Any:
    return np.roll(x, tuple(shifts), tuple(dims)) if dims else np.roll(x, shifts[0])


@rule("repeat")
def repeat(call: Call, x: Array, repeats: Sequence[int]) -> Any:
    return np.tile(x, tuple(repeats))


@rule("diagonal", "diagonal_copy")
def diagonal(call: Call, x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """Return a writable view."""
    if not isinstance(x, TracedArray):
        result = np.diagonal(x, offset, dim1, dim2)
        result.flags.writeable = x.flags.writeable  # NumPy makes diagonals read-only
        return result
    count = call.shape[-1]

    def forward(base: GraphValue) -> GraphValue:
        whole: Array = wrap(base)
        moved: Any = np.moveaxis(whole, (dim1, dim2), (-2, -1))
        rows, columns = moved.shape[-2:]
        flat = moved.reshape((*moved.shape[:-2], rows * columns))
        found: TracedArray = flat[..., _diagonal_positions(rows, columns, offset, count)]
        return found.value

    def backward(base: GraphValue, new: GraphValue) -> GraphValue:
        whole: TracedArray = _with_diagonal(wrap(base), wrap(new), offset, dim1, dim2)
        return whole.value

    return TracedArray(ViewCell(x._cell, call.shape, forward, backward))


def _diagonal_positions(rows: int, columns: int, offset: int, count: int) -> np.ndarray[Any, Any]:
    first = offset if offset >= 0 else -offset * columns
    return first + (columns + 1) * np.arange(count)


@rule("diag_embed")
def diag_embed(call: Call, x: Array, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Any:
    size, count = x.shape[-1] + abs(offset), x.shape[-1]
    flat = np.zeros_like(x, shape=(*x.shape[:-1], size * size))
    flat[..., _diagonal_positions(size, size, offset, count)] = x
    return np.moveaxis(flat.reshape((*x.shape[:-1], size, size)), (-2, -1), (dim1, dim2))


@rule("diagonal_scatter")
def diagonal_scatter(
    call: Call, x: Array, source: Array, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Any:
    return _with_diagonal(x, source, offset, dim1, dim2)


def _with_diagonal(x: Array, source: Array, offset: int, dim1: int, dim2: int) -> Any:
    moved = np.moveaxis(x, (dim1, dim2), (-2, -1))
    rows, columns = moved.shape[-2:]
    flat = moved.reshape((*moved.shape[:-2], rows * columns)).copy()
    flat[..., _diagonal_positions(rows, columns, offset, source.shape[-1])] = source
    return np.moveaxis(flat.reshape(moved.shape), (-2, -1), (dim1, dim2))


@rule("tril")
def tril(call: Call, x: Array, diagonal: int = 0) -> Any:
    return np.tril(x, diagonal)


@rule("triu")
def triu(call: Call, x: Array, diagonal: int = 0) -> Any:
    return np.triu(x, diagonal)


@rule("constant_pad_nd")
def constant_pad_nd(call: Call, x: Array, pad: Sequence[int], value: Any = 0) -> Any:
    """Pad by widths given from the last axis to the first; negative widths crop."""
    widths = [(0, 0)] * x.ndim
    for position in range(len(pad) // 2):
        widths[x.ndim - 1 - position] = (pad[2 * position], pad[2 * position + 1])
    kept = tuple(
        slice(max(-low, 0), extent - max(-high, 0))
        for extent, (low, high) in zip(x.shape, widths, strict=True)
    )
    grown = [(max(low, 0), max(high, 0)) for low, high in widths]
    return np.pad(x[kept], grown, constant_values=value)


@rule("as_strided", "as_strided_copy")
def as_strided(
    call: Call, x: Array, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Any:
    """Return a writable view of elements of the tensor itself; its memory may hold others."""
    var = call.operands[0]
    here = _memory(var.shape, var.stride, var.offset).reshape(-1)
    wanted = _memory(size, stride, var.offset if storage_offset is None else storage_offset)
    places = np.full(1 + max(here.max(initial=0), wanted.max(initial=0)), -1)
    places[here] = np.arange(here.size)
    if (places[wanted] < 0).any():
        raise call.refuse("beyond the elements of its tensor", "take it of the tensor that holds them all")
    return _elements(call, x, places[wanted])


def _memory(size: Sequence[int], stride: Sequence[int], offset: int) -> np.ndarray[Any, Any]:
    """Return the place in memory of each element."""
    places = np.full(tuple(size), offset)
    for axis, (extent, step) in enumerate(zip(size, stride, strict=True)):
        places += (np.arange(extent) * step).reshape((-1,) + (1,) * (len(size) - axis - 1))
    return places


def _elements(call: Call, x: Array, places: np.ndarray[Any, Any]) -> Any:
    """Return the elements at flat places, as a view that can be written to unless it holds one twice."""
    if not isinstance(x, TracedArray):
        if call.operands[0].content.written:
            raise call.refuse("of integers that are written to", "write to a .clone()")
        return x.reshape(-1)[places]

    def forward(base: GraphValue) -> GraphValue:
        flat: Any = wrap(ops.reshape(base, (base.size,)))
        found: TracedArray = flat[places]
        return found.value

    def backward(base: GraphValue, new: GraphValue) -> GraphValue:
        updates = ops.reshape(new, (new.size,))
        return ops.scatter_flat(base, base.graph.constant(places.reshape(-1)), updates)

    once = np.unique(places).size == places.size
    return TracedArray(ViewCell(x._cell, places.shape, forward, backward if once else None))


@rule("unfold", "unfold_copy")
def unfold(call: Call, x: Array, dimension: int, size: int, step: int) -> Any:
    if not x.ndim:
        return relaid(x, call.shape)
    whole = np.arange(x.size).reshape(x.shape)
    windows = np.lib.stride_tricks.sliding_window_view(whole, size, dimension)
    return _elements(call, x, windows[on_axis(x.ndim, dimension, slice(None, None, step))])
