"""Writes streamed chunks into result arrays.

A piece is a rectangle of a matrix, sent row-major in chunks of bytes that respect neither rows nor
elements. Wherever the destination's rows are contiguous a chunk is copied straight into it; any other
destination (a transposed or strided view) is filled from a buffer once the piece is complete.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

import gradwire_wire as wire
from gradwire.errors import InvalidArgumentError, ResultMemoryError, ServerError
from gradwire.results import Entry, Plan, scaled_bytes
from gradwire.sparse import Colors, SparsityPattern
from gradwire_wire.framing import Chunk
from gradwire_wire.v1 import derivative_pb2

Bytes = npt.NDArray[np.uint8]


def write_bytes(rows: Bytes, offset: int, data: memoryview) -> None:
    """Copy `data` into a rectangle of bytes, starting at byte `offset` in row-major order.

    `rows` is two-dimensional with contiguous rows; the rows themselves may lie apart.
    """
    source = np.frombuffer(data, dtype=np.uint8)
    if rows.flags.c_contiguous:
        rows.reshape(-1)[offset : offset + len(source)] = source
        return
    width = rows.shape[1]
    row, column = divmod(offset, width)
    if column:
        head = min(width - column, len(source))
        rows[row, column : column + head] = source[:head]
        source, row = source[head:], row + 1
    whole = len(source) // width
    if whole:
        rows[row : row + whole] = source[: whole * width].reshape(whole, width)
    tail = source[whole * width :]
    if len(tail):
        rows[row + whole, : len(tail)] = tail


@dataclass(slots=True)
class PieceBuffer:
    """The destination of one piece: rows of bytes to write to, and the values that they hold."""

    rows: Bytes
    values: wire.Array
    deliver: Callable[[wire.Array], None] | None = None  # takes the values once they are complete

    @classmethod
    def allocated(cls, shape: tuple[int, int], dtype: np.dtype[Any]) -> "PieceBuffer":
        """Allocate a buffer in memory of its own."""
        values: wire.Array = np.empty(shape, dtype)
        return cls(_byte_rows(values), values)

    @classmethod
    def within(cls, matrix: wire.Array) -> "PieceBuffer":
        """Return the buffer that a part of a matrix is."""
        if matrix.size and matrix.strides[1] == matrix.itemsize:
            return cls(_byte_rows(matrix), matrix)
        one = cls.allocated((matrix.shape[0], matrix.shape[1]), matrix.dtype)
        one.deliver = partial(matrix.__setitem__, ...)
        return one

    def finish(self) -> None:
        """Copy the values to a destination that cannot be written as bytes."""
        if self.deliver is not None:
            self.deliver(self.values)


def _byte_rows(values: wire.Array) -> Bytes:
    if values.size == 0:
        return np.empty((0, 0), np.uint8)
    return values.view(np.uint8)


class EntryArray:
    """The array of one entry of the plan, written piece by piece."""

    def __init__(self, entry: Entry, array: wire.Array) -> None:
        self._entry = entry
        self.array = array
        plain = np.asarray(array).view(np.ndarray)  # without the bookkeeping of np.memmap on every slice
        try:
            self._matrix: wire.Array | None = plain.reshape(entry.matrix_shape, copy=False)
        except TypeError:  # NumPy 1 has no copy=
            matrix = plain.reshape(entry.matrix_shape)
            self._matrix = matrix if np.shares_memory(matrix, plain) else None
        except ValueError:  # strides that no matrix has
            self._matrix = None
        self._plain = plain

    def buffer(self, piece: derivative_pb2.Piece) -> PieceBuffer:
        """Return what the data of `piece` are written to."""
        rows, columns = slices(piece)
        if self._matrix is not None:
            return PieceBuffer.within(self._matrix[rows, columns])
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        one = PieceBuffer.allocated(shape, self._entry.dtype)
        one.deliver = partial(self._scatter, rows, columns)
        return one

    def _scatter(self, rows: slice, columns: slice, values: wire.Array) -> None:
        row_index = np.unravel_index(np.arange(rows.start, rows.stop), self._entry.row_shape or (1,))
        column_index = np.unravel_index(
            np.arange(columns.start, columns.stop), self._entry.column_shape or (1,)
        )
        index = (
            *(index[:, None] for index in row_index if self._entry.row_shape),
            *(index[None, :] for index in column_index if self._entry.column_shape),
        )
        self._plain[index] = values


def slices(piece: derivative_pb2.Piece) -> tuple[slice, slice]:
    """Return the rows and columns of a piece."""
    return slice(piece.row_start, piece.row_stop), slice(piece.column_start, piece.column_stop)


class ResultArrays:
    """The arrays of a whole result, allocated here or given by the user.

    Args:
        plan: says which arrays there are.
        out: the user's arrays, one for each entry of the plan; None to allocate them.

    Raises:
        InvalidArgumentError: a given array has another shape or dtype, or is read-only.
    """

    def __init__(self, plan: Plan, out: Sequence[wire.Array] | None) -> None:
        if out is not None and len(out) != len(plan.entries):
            raise InvalidArgumentError(
                f"out has {len(out)} arrays, but the result has {len(plan.entries)}: "
                + ", ".join(map(plan.name, plan.entries))
            )
        self._entries = [
            EntryArray(
                entry, _allocated(plan, entry) if out is None else _checked(plan.name(entry), entry, out[i])
            )
            for i, entry in enumerate(plan.entries)
        ]

    @property
    def arrays(self) -> list[wire.Array]:
        """One array for each entry of the plan."""
        return [one.array for one in self._entries]

    def buffers(self, start: derivative_pb2.BlockStart, plan: Plan) -> list[PieceBuffer]:
        """Return what the pieces of a block are written to."""
        return [self._entries[piece.entry].buffer(piece) for piece in _checked_pieces(start, plan)]


def _allocated(plan: Plan, entry: Entry) -> wire.Array:
    try:
        return np.empty(entry.shape, entry.dtype)
    except (MemoryError, ValueError) as error:
        if isinstance(error, ValueError) and prod(entry.shape) < 1 << 60:  # it is not for the size
            raise
        blocks = f"{plan.kind}_blocks"
        products = "hvp" if plan.kind == "hessian" else "jvp or vjp"
        raise ResultMemoryError(
            f"the {plan.kind} takes {scaled_bytes(plan.result_bytes)}, and there is no memory for "
            f"{plan.name(entry)}, {entry.dtype.name} {list(entry.shape)}: write it to disk with "
            f"out='result.npy', take it block by block with sink= or {blocks}, ask for fewer inputs with "
            f"wrt=, or multiply it by vectors with {products}"
        ) from None


def _checked(name: str, entry: Entry, array: object) -> wire.Array:
    what = f"out for {name}"
    if not isinstance(array, np.ndarray):
        raise InvalidArgumentError(f"{what} must be a NumPy array or a path, not {type(array).__name__}")
    if array.shape != entry.shape or array.dtype != entry.dtype:
        raise InvalidArgumentError(
            f"{what} must be {entry.dtype.name} {list(entry.shape)}, "
            f"but is {array.dtype.name} {list(array.shape)}"
        )
    if not array.flags.writeable:
        raise InvalidArgumentError(f"{what} is read-only: open it with mode 'r+' or 'w+', or copy it")
    return array


def flatten_out(out: object) -> list[wire.Array] | None:
    """Flatten `out` as the user gave it: an array, or tuples of arrays."""
    return None if out is None else list(_leaves(out))


def _leaves(out: object) -> Iterator[wire.Array]:
    if isinstance(out, tuple | list):
        for one in out:
            yield from _leaves(one)
    else:
        yield out  # type: ignore[misc]  # checked against its entry later, where there is a name for it


class BlockBuffers:
    """Memory for blocks that are handed to the user one by one: a new array for each piece."""

    def __init__(self, plan: Plan) -> None:
        self._entries = plan.entries

    def buffers(self, start: derivative_pb2.BlockStart, plan: Plan) -> list[PieceBuffer]:
        """Allocate memory for the pieces of a block."""
        return [self._allocated(piece) for piece in _checked_pieces(start, plan)]

    def _allocated(self, piece: derivative_pb2.Piece) -> PieceBuffer:
        rows, columns = slices(piece)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        return PieceBuffer.allocated(shape, self._entries[piece.entry].dtype)


_ROWS, _COLUMNS = derivative_pb2.PATTERN_PART_ROWS, derivative_pb2.PATTERN_PART_COLUMNS
_COLUMN_COLORS = derivative_pb2.PATTERN_PART_COLUMN_COLORS
_ROW_COLORS = derivative_pb2.PATTERN_PART_ROW_COLORS


class SparseValues:
    """The values of a sparse derivative, and what is not held yet of its pattern and its colors.

    Args:
        plan: of a sparse derivative.
        held: the pattern, if the client has it.
        colored: whether the colors of columns and rows come too.
    """

    def __init__(self, plan: Plan, held: SparsityPattern | None, colored: bool = False) -> None:
        assert plan.sparse is not None
        layout = self._layout = plan.sparse
        self.values: wire.Array = np.empty(layout.nonzeros, layout.dtype)
        self._pattern, self._colored = held, colored
        rows, columns = layout.shape
        # Of each array its length, and the numbers in it: at least, below.
        self._ranges: dict[int, tuple[int, int]] = {}
        if held is None:
            self._ranges = {_ROWS: (0, rows), _COLUMNS: (0, columns)}
        sizes = dict.fromkeys(self._ranges, layout.nonzeros)
        if colored and layout.column_colors:
            self._ranges[_COLUMN_COLORS] = (-1, layout.column_colors)
            sizes[_COLUMN_COLORS] = columns
        if colored and layout.row_colors:
            self._ranges[_ROW_COLORS] = (-1, layout.row_colors)
            sizes[_ROW_COLORS] = rows
        self._parts = {part: np.empty(size, np.int32) for part, size in sizes.items()}
        self._missing = {part: array.nbytes for part, array in self._parts.items()}

    @property
    def complete(self) -> bool:
        """Whether all of the pattern, and of the colors that come with it, has arrived."""
        return not any(self._missing.values())

    @property
    def pattern(self) -> SparsityPattern | None:
        """The pattern, once all of it has arrived."""
        if self._pattern is None and self.complete:
            rows, columns = self._parts[_ROWS], self._parts[_COLUMNS]
            self._pattern = SparsityPattern(rows, columns, self._layout.shape, self._layout.pattern_id)
        return self._pattern

    @property
    def colors(self) -> Colors | None:
        """The colors of columns and rows, if they were asked for and once all of them have arrived."""
        if not self._colored or not self.complete:
            return None
        return Colors(self._parts.get(_COLUMN_COLORS), self._parts.get(_ROW_COLORS))

    def write_pattern(self, chunk: Chunk) -> None:
        """Write a chunk of an array of the pattern; those of each array must come in order."""
        part, offset, _ = chunk.numbers
        size = len(chunk.data)
        if size > self._missing.get(part, 0) or size % 4:
            raise _broken(f"{size} bytes of part {part} of a pattern, more than are missing")
        array = self._parts[part]
        if offset != array.nbytes - self._missing[part]:
            raise _broken(f"a pattern's bytes from {offset} on, which are not what comes next")
        given = np.frombuffer(chunk.data, "<i4")
        least, end = self._ranges[part]
        if given.size and not (given.min() >= least and given.max() < end):
            raise _broken(f"part {part} of a pattern with numbers outside of {least} to {end - 1}")
        array[offset // 4 : (offset + size) // 4] = given
        self._missing[part] -= size

    def buffers(self, start: derivative_pb2.BlockStart, plan: Plan) -> list[PieceBuffer]:
        """Return what the values of a block are written to."""
        if start.pieces or not start.values_start <= start.values_stop <= len(self.values):
            raise _broken(f"block {start.block}, which is not within the {len(self.values)} values")
        return [PieceBuffer.within(self.values[None, start.values_start : start.values_stop])]


Destination = ResultArrays | BlockBuffers | SparseValues
"""Memory that blocks are written to."""


class OpenBlock:
    """A block that has not arrived completely."""

    def __init__(self, start: derivative_pb2.BlockStart, plan: Plan, destination: Destination) -> None:
        self.start = start
        self.buffers = destination.buffers(start, plan)
        self._remaining = [one.values.nbytes for one in self.buffers]

    @property
    def complete(self) -> bool:
        """Whether every byte has arrived."""
        return not any(self._remaining)

    @property
    def received(self) -> int:
        """How many bytes have arrived."""
        return sum(one.values.nbytes for one in self.buffers) - sum(self._remaining)

    def write(self, piece: int, offset: int, data: memoryview) -> None:
        """Write a chunk of a piece; chunks of a piece must come in order."""
        if piece >= len(self._remaining):
            raise _broken(f"a chunk of piece {piece} of block {self.start.block}, which does not exist")
        buffer = self.buffers[piece]
        expected = buffer.values.nbytes - self._remaining[piece]
        if offset != expected or len(data) > self._remaining[piece]:
            raise _broken(
                f"{len(data)} bytes at offset {offset} of piece {piece} of block {self.start.block}, where "
                f"{self._remaining[piece]} from {expected} on are missing"
            )
        if len(data):
            write_bytes(buffer.rows, offset, data)
            self._remaining[piece] -= len(data)
            if not self._remaining[piece]:
                buffer.finish()


def _checked_pieces(start: derivative_pb2.BlockStart, plan: Plan) -> Sequence[derivative_pb2.Piece]:
    for piece in start.pieces:
        _check_piece(piece, plan)
    return start.pieces


def _check_piece(piece: derivative_pb2.Piece, plan: Plan) -> None:
    if piece.entry < len(plan.entries):
        rows, columns = plan.entries[piece.entry].matrix_shape
        if piece.row_start <= piece.row_stop <= rows and piece.column_start <= piece.column_stop <= columns:
            return
    raise _broken(f"the piece {str(piece).strip()!r}, which is not within the plan's matrices")


def _broken(what: str) -> ServerError:
    return ServerError(f"the server sent {what}; its version may not fit this client", code="DATA_LOSS")
