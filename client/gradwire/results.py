"""Results beside the arrays themselves: plans, blocks and summaries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gradwire_wire as wire
from gradwire.sparse import SparsePlan
from gradwire.tables import html_notes, html_table
from gradwire_wire.kinds import KIND_NAMES, PLANNED_MODE_NAMES
from gradwire_wire.v1 import derivative_pb2


@dataclass(frozen=True, slots=True)
class Entry:
    """One matrix of a result, the derivative of `row` with respect to `column`.

    Attributes:
        row: an output; for a Hessian an input.
        row_shape: its shape.
        column: an input.
        column_shape: its shape.
        dtype: of the derivative.
    """

    row: str
    row_shape: tuple[int, ...]
    column: str
    column_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape as an array: row_shape + column_shape."""
        return self.row_shape + self.column_shape

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """The shape as a matrix, with `row_shape` and `column_shape` flattened."""
        return int(np.prod(self.row_shape, dtype=np.int64)), int(np.prod(self.column_shape, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Plan:
    """How a derivative is divided into blocks.

    Attributes:
        kind: "jacobian" or "hessian".
        mode: of differentiation, such as "reverse" or "forward_over_reverse".
        entries: the matrices of the result.
        blocks: how many blocks there are.
        block_width: seeds in a block, at most.
        seeds: tangents or cotangents in all.
        result_bytes: size of the result.
        block_memory_bytes: estimated memory that one block takes while it is computed.
        block_flops: estimated operations of one block.
        plan_id: identifies the plan; the same problem always has the same.
        of: the output that a Hessian is of; "" for a Jacobian, whose entries name theirs.
        sparse: pattern and coloring of a sparse derivative; None of a dense one.
    """

    kind: str
    mode: str
    entries: tuple[Entry, ...]
    blocks: int
    block_width: int
    seeds: int
    result_bytes: int
    block_memory_bytes: int
    block_flops: int
    plan_id: str
    of: str = ""
    sparse: SparsePlan | None = None

    @classmethod
    def from_proto(cls, plan: derivative_pb2.Plan, of: Sequence[str]) -> "Plan":
        """Read the plan in a message, of a derivative of the outputs `of`."""
        kind = KIND_NAMES.get(plan.kind, "")
        entries = tuple(
            Entry(
                one.row,
                tuple(one.row_shape),
                one.column,
                tuple(one.column_shape),
                wire.numpy_dtype(one.dtype),
            )
            for one in plan.entries
        )
        return cls(
            kind,
            PLANNED_MODE_NAMES.get(plan.mode, ""),
            entries,
            plan.blocks,
            plan.block_width,
            plan.seeds,
            plan.result_bytes,
            plan.block_memory_bytes,
            plan.block_flops,
            plan.plan_id,
            of[0] if kind == "hessian" else "",
            SparsePlan.from_proto(plan.sparse) if plan.HasField("sparse") else None,
        )

    @property
    def heights(self) -> list[int]:
        """Rows of the matrices below one another in the joint matrix."""
        return [entry.matrix_shape[0] for entry in self.entries[:: len(self.widths)]]

    @property
    def widths(self) -> list[int]:
        """Columns of the matrices beside one another in the joint matrix."""
        first = self.entries[0].row if self.entries else ""
        return [entry.matrix_shape[1] for entry in self.entries if entry.row == first]

    def name(self, entry: Entry) -> str:
        """Return the derivative that an entry is, as it is written: "d y / d x", or "d2 y / dx dx"."""
        return derivative_name(self.of, entry.row, entry.column)

    def __str__(self) -> str:
        rows = [
            (self.name(entry), f"{entry.dtype.name} {list(entry.shape)}", _matrix(entry))
            for entry in self.entries[:_LISTED]
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        entries = [
            "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        if len(self.entries) > _LISTED:
            entries.append(f"  … and {len(self.entries) - _LISTED:,} more matrices")
        notes = [f"  {note}" for note in (*self._sparse_notes(), self._cost())]
        return "\n".join([self._heading(), f"  {self._work()}", *entries, *notes])

    def _heading(self) -> str:
        if self.sparse is not None:
            return f"sparse {self.kind}, {self.mode.replace('_', ' ')} mode: {self.sparse}"
        return f"{self.kind}, {self.mode.replace('_', ' ')} mode{self._reason()}"

    def _reason(self) -> str:
        """Says why the mode was chosen, where sizes decide: that with fewer seeds is."""
        rows = sum({entry.row: entry.matrix_shape[0] for entry in self.entries}.values())
        columns = sum({entry.column: entry.matrix_shape[1] for entry in self.entries}.values())
        if self.mode == "reverse" and rows < columns:
            return f": fewer rows ({rows:,}) than columns ({columns:,})"
        if self.mode == "reverse" and rows == columns:
            return f": as many rows as columns ({rows:,})"
        if self.mode == "forward" and columns < rows:
            return f": fewer columns ({columns:,}) than rows ({rows:,})"
        if self.mode in ("forward", "forward_over_forward"):
            return ": asked for, or the graph has no reverse mode"
        return ": asked for" if self.mode == "reverse" else ""

    def _work(self) -> str:
        seeds = _count(self.seeds, "seed")
        if self.blocks <= 1:
            return f"{seeds} in {_count(self.blocks, 'block')}"
        return f"{seeds} in {_count(self.blocks, 'block')} of up to {self.block_width:,}"

    def _sparse_notes(self) -> list[str]:
        """Say what travels of a sparse derivative beside what would of a dense one."""
        if self.sparse is None:
            return []
        dense = sum(
            entry.matrix_shape[0] * entry.matrix_shape[1] * entry.dtype.itemsize for entry in self.entries
        )
        values = self.sparse.nonzeros * self.sparse.dtype.itemsize
        coordinates = self.sparse.nonzeros * _COORDINATE_BYTES
        notes = [
            f"values {scaled_bytes(values)}, coordinates {scaled_bytes(coordinates)} once; "
            f"dense {scaled_bytes(dense)}"
        ]
        if self.sparse.dense_operators:
            names = ", ".join(self.sparse.dense_operators)
            notes.append(f"taken for dense, for want of a rule: what depends on {names}")
        return notes

    def _cost(self) -> str:
        return (
            f"result {scaled_bytes(self.result_bytes)}; a block takes about "
            f"{scaled_bytes(self.block_memory_bytes)} of memory and "
            f"{_scaled(self.block_flops, 'flop', 1000)}"
        )

    def _repr_html_(self) -> str:
        rows = [
            (self.name(entry), entry.dtype.name, str(list(entry.shape)), _matrix(entry))
            for entry in self.entries[:_LISTED]
        ]
        hidden = len(self.entries) - _LISTED
        notes = [self._work(), *self._sparse_notes(), self._cost()]
        notes += [f"{hidden:,} more matrices are not listed"] if hidden > 0 else []
        return html_table(self._heading(), ("derivative", "dtype", "shape", "as a matrix"), rows, notes)


_COORDINATE_BYTES = 8
"""Of row and column of an entry, int32 each."""

# How many matrices of a plan are listed.
_LISTED = 12


def derivative_name(of: str, row: str, column: str) -> str:
    """Return how a derivative is written: of `row` by `column`, or of `of` by both where that is given."""
    return f"d2 {of} / d{row} d{column}" if of else f"d {row} / d {column}"


def _matrix(entry: Entry) -> str:
    return " × ".join(f"{side:,}" for side in entry.matrix_shape)


def _range(part: slice) -> str:
    return f"{part.start:,}:{part.stop:,}"


def _seconds(figure: float) -> str:
    return f"{figure:.3g} s" if figure >= 1 else f"{figure * 1000:.3g} ms"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def scaled_bytes(figure: float) -> str:
    """Return a number of bytes as people read it, such as "74.5 GiB"."""
    return _scaled(figure, "B", 1024)


def _scaled(figure: float, unit: str, base: int) -> str:
    prefixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi"] if base == 1024 else ["", "k", "M", "G", "T", "P"]
    for prefix in prefixes:
        if abs(figure) < base or prefix == prefixes[-1]:
            break
        figure /= base
    return f"{figure:.3g} {prefix}{unit}" if prefix else f"{figure:.0f} {unit}"


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A rectangle of one matrix.

    Attributes:
        entry: index of the matrix in the plan.
        row: an output; for a Hessian an input.
        column: an input.
        rows: which rows of the matrix.
        columns: which columns of the matrix.
        data: the values, of shape (rows, columns).
        of: the output that a Hessian is of; "" for a Jacobian.
    """

    entry: int
    row: str
    column: str
    rows: slice
    columns: slice
    data: wire.Array
    of: str = ""

    def __repr__(self) -> str:
        place = f"[{_range(self.rows)}, {_range(self.columns)}]"
        name = derivative_name(self.of, self.row, self.column)
        return f"<Piece of {name} {place}, {self.data.dtype.name}>"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A part of a derivative as it arrives.

    Attributes:
        index: its number in the plan.
        pieces: what it covers.
        worker: the worker that computed it.
        compute: seconds that it took.
    """

    index: int
    pieces: tuple[Piece, ...]
    worker: str
    compute: float

    def __repr__(self) -> str:
        pieces = ", ".join(map(repr, self.pieces))
        return f"<Block {self.index} by {self.worker} in {_seconds(self.compute)}: {pieces}>"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a server did for a derivative.

    Attributes:
        blocks: blocks computed.
        elapsed: seconds on the server.
        compile: seconds of them spent compiling.
        blocks_by_worker: how many blocks each worker computed.
        blocks_rerun: blocks computed again because a worker was lost.
        pattern_verified: whether a pattern of one's own was compared with the derivative this time.
    """

    blocks: int = 0
    elapsed: float = 0.0
    compile: float = 0.0
    blocks_by_worker: Mapping[str, int] = field(default_factory=dict)
    blocks_rerun: int = 0
    pattern_verified: bool = False

    @classmethod
    def from_proto(cls, summary: derivative_pb2.Summary) -> "Summary":
        """Read the summary in a message."""
        return cls(
            summary.blocks,
            summary.elapsed.ToTimedelta().total_seconds(),
            summary.compile.ToTimedelta().total_seconds(),
            dict(summary.blocks_by_worker),
            summary.blocks_rerun,
            summary.pattern_verified,
        )


@dataclass(frozen=True, slots=True)
class Info:
    """How a result was computed; `return_info=True` returns it.

    Attributes:
        plan: how the derivative was divided.
        summary: what the server did; of the last stream when the connection broke and was resumed.
        elapsed: seconds, as the client measured them.
        resumed: how many times the stream broke and was resumed.
    """

    plan: Plan
    summary: Summary
    elapsed: float
    resumed: int

    def __str__(self) -> str:
        return "\n".join([str(self.plan), *(f"  {line}" for line in self._lines())])

    def _lines(self) -> list[str]:
        done = self.summary
        shares = ", ".join(f"{worker} {count:,}" for worker, count in sorted(done.blocks_by_worker.items()))
        lines = [
            f"took {_seconds(self.elapsed)}, {_seconds(done.elapsed)} of them on the server"
            + (f", {_seconds(done.compile)} to compile" if done.compile else "")
        ]
        if shares:
            lines.append(f"blocks by worker: {shares}")
        if done.blocks_rerun:
            lines.append(f"{_count(done.blocks_rerun, 'block')} computed again after a worker was lost")
        if self.resumed:
            lines.append(f"the stream broke and was resumed {_count(self.resumed, 'time')}")
        return lines

    def _repr_html_(self) -> str:
        return self.plan._repr_html_() + html_notes(self._lines())


@dataclass(frozen=True, slots=True, eq=False)
class Accumulated:
    """A loss and its gradient over batches.

    Attributes:
        value: the loss.
        grad: its gradient: an array, or a tuple of them, one for each of `wrt`.
        batches: batches added.
        rows: rows in them.
        batches_by_worker: how many batches each worker computed.
        batches_rerun: batches computed again because a worker was lost.
        compute: seconds that the workers spent.
    """

    value: wire.Array
    grad: Any
    batches: int
    rows: int
    batches_by_worker: Mapping[str, int]
    batches_rerun: int
    compute: float


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One comparison.

    Attributes:
        name: what was compared.
        difference: the largest difference, relative to the size of what was compared.
        allowed: the largest one that rounding explains.
        skipped: why nothing was compared; "" where something was.
    """

    name: str
    difference: float = 0.0
    allowed: float = 0.0
    skipped: str = ""

    @property
    def passed(self) -> bool:
        """Whether the two agree, or were not compared."""
        return bool(self.skipped) or self.difference <= self.allowed

    @property
    def verdict(self) -> str:
        """The row's result in a word or two."""
        return f"skipped: {self.skipped}" if self.skipped else "ok" if self.passed else "DIFFERS"

    def cells(self) -> tuple[str, str, str, str]:
        """Return the row as text."""
        figures = ("", "") if self.skipped else (f"{self.difference:.1e}", f"{self.allowed:.1e}")
        return (self.name, *figures, self.verdict)


_HEAD = ("compared", "difference", "allowed", "")


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found; printed as a table.

    Attributes:
        rows: the comparisons.
    """

    rows: tuple[CheckRow, ...]

    @property
    def passed(self) -> bool:
        """Whether everything that was compared agrees."""
        return all(row.passed for row in self.rows)

    def __str__(self) -> str:
        table = [_HEAD, *(row.cells() for row in self.rows)]
        widths = [max(len(row[i]) for row in table) for i in range(3)]
        return "\n".join(
            f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
            for row in table
        )

    def _repr_html_(self) -> str:
        return html_table("check", _HEAD, [row.cells() for row in self.rows], [])
