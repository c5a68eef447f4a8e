"""What comes back beside the numbers: plans, blocks, progress and summaries."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gradwire_wire as wire
from gradwire.tables import html_notes, html_table
from gradwire_wire.kinds import KIND_NAMES, MODE_NAMES
from gradwire_wire.v1 import derivative_pb2


@dataclass(frozen=True, slots=True)
class Entry:
    """One matrix of a result, d row / d column; as an array it has shape row_shape + column_shape."""

    row: str
    row_shape: tuple[int, ...]
    column: str
    column_shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape as an array."""
        return self.row_shape + self.column_shape

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """The shape as a matrix, rows and columns flattened."""
        return int(np.prod(self.row_shape, dtype=np.int64)), int(np.prod(self.column_shape, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Plan:
    """How a derivative is cut into work. Estimates are for one block."""

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

    @classmethod
    def from_proto(cls, plan: derivative_pb2.Plan) -> "Plan":
        """The plan in a message."""
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
            KIND_NAMES.get(plan.kind, ""),
            MODE_NAMES.get(plan.mode, ""),
            entries,
            plan.blocks,
            plan.block_width,
            plan.seeds,
            plan.result_bytes,
            plan.block_memory_bytes,
            plan.block_flops,
            plan.plan_id,
        )

    def __str__(self) -> str:
        rows = [
            (_pair(entry), f"{entry.dtype.name} {list(entry.shape)}", _matrix(entry))
            for entry in self.entries[:_LISTED]
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        entries = [
            "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        if len(self.entries) > _LISTED:
            entries.append(f"  … and {len(self.entries) - _LISTED:,} more matrices")
        return "\n".join([self._heading(), f"  {self._work()}", *entries, f"  {self._cost()}"])

    def _heading(self) -> str:
        return f"{self.kind}, {self.mode.replace('_', ' ')} mode"

    def _work(self) -> str:
        seeds = _count(self.seeds, "seed")
        if self.blocks <= 1:
            return f"{seeds} in {_count(self.blocks, 'block')}"
        return f"{seeds} in {_count(self.blocks, 'block')} of up to {self.block_width:,}"

    def _cost(self) -> str:
        return (
            f"result {_scaled(self.result_bytes, 'B', 1024)}; a block takes about "
            f"{_scaled(self.block_memory_bytes, 'B', 1024)} of memory and "
            f"{_scaled(self.block_flops, 'flop', 1000)}"
        )

    def _repr_html_(self) -> str:
        rows = [
            (_pair(entry), entry.dtype.name, str(list(entry.shape)), _matrix(entry))
            for entry in self.entries[:_LISTED]
        ]
        hidden = len(self.entries) - _LISTED
        notes = [self._work(), self._cost()]
        notes += [f"{hidden:,} more matrices are not listed"] if hidden > 0 else []
        return html_table(self._heading(), ("derivative", "dtype", "shape", "as a matrix"), rows, notes)


#: Matrices of a plan that are listed.
_LISTED = 12


def _pair(entry: Entry) -> str:
    return f"d {entry.row} / d {entry.column}"


def _matrix(entry: Entry) -> str:
    return " × ".join(f"{side:,}" for side in entry.matrix_shape)


def _range(part: slice) -> str:
    return f"{part.start:,}:{part.stop:,}"


def _seconds(figure: float) -> str:
    return f"{figure:.3g} s" if figure >= 1 else f"{figure * 1000:.3g} ms"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _scaled(figure: float, unit: str, base: int) -> str:
    prefixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi"] if base == 1024 else ["", "k", "M", "G", "T", "P"]
    for prefix in prefixes:
        if abs(figure) < base or prefix == prefixes[-1]:
            break
        figure /= base
    return f"{figure:.3g} {prefix}{unit}" if prefix else f"{figure:.0f} {unit}"


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A rectangle of one matrix: rows of `row` (an output; for a Hessian an input) by columns of `column`."""

    entry: int
    row: str
    column: str
    rows: slice
    columns: slice
    data: wire.Array

    def __repr__(self) -> str:
        place = f"[{_range(self.rows)}, {_range(self.columns)}]"
        return f"<Piece of d {self.row} / d {self.column} {place}, {self.data.dtype.name}>"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A part of a derivative as it arrives: the pieces it covers, and who computed it in how many seconds."""

    index: int
    pieces: tuple[Piece, ...]
    worker: str
    compute: float

    def __repr__(self) -> str:
        pieces = ", ".join(map(repr, self.pieces))
        return f"<Block {self.index} by {self.worker} in {_seconds(self.compute)}: {pieces}>"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a derivative has arrived."""

    blocks_done: int
    blocks_total: int
    bytes_done: int
    bytes_total: int
    elapsed: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What a server did for a derivative: blocks computed, in all and by worker, and where the time went."""

    blocks: int = 0
    elapsed: float = 0.0
    compile: float = 0.0
    blocks_by_worker: Mapping[str, int] = field(default_factory=dict)
    blocks_rerun: int = 0

    @classmethod
    def from_proto(cls, summary: derivative_pb2.Summary) -> "Summary":
        """The summary in a message."""
        return cls(
            summary.blocks,
            summary.elapsed.ToTimedelta().total_seconds(),
            summary.compile.ToTimedelta().total_seconds(),
            dict(summary.blocks_by_worker),
            summary.blocks_rerun,
        )


@dataclass(frozen=True, slots=True)
class Info:
    """What `return_info=True` gives beside a result. `elapsed` and `resumed` are as the client saw them;
    the summary is that of the last stream when the connection broke and was resumed."""

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


class ProgressReporter:
    """Tells a user how far a derivative is: nothing, a progress bar, or a call of their function."""

    def __init__(self, wish: bool | Callable[[Progress], object], title: str) -> None:
        self._call = wish if callable(wish) else None
        self._title = title
        self._bar: Any = None
        self._wanted = bool(wish) and self._call is None
        self._started = time.monotonic()

    def update(self, blocks: tuple[int, int], size: tuple[int, int]) -> None:
        """Report blocks and bytes, each done and in all."""
        if self._call is not None:
            self._call(Progress(*blocks, *size, time.monotonic() - self._started))
        elif self._wanted:
            if self._bar is None:
                from tqdm.auto import tqdm  # only for those who look at it: it searches for notebooks

                self._bar = tqdm(total=size[1], unit="B", unit_scale=True, desc=self._title)
            self._bar.set_postfix_str(f"{blocks[0]}/{blocks[1]} blocks", refresh=False)
            self._bar.update(size[0] - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
