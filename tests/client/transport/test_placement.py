"""Pieces land where they belong, whatever the chunks and the destination look like."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradwire as gw
from gradwire.results import Entry, Plan
from gradwire.transport.placement import OpenBlock, ResultArrays, write_bytes
from gradwire_wire.kinds import KINDS
from gradwire_wire.v1 import derivative_pb2 as d
from gradwire_wire.v1 import tensor_pb2 as t

ROWS, COLUMNS = (2, 3), (5,)


def plan(*entries: Entry) -> Plan:
    return Plan("jacobian", "forward", entries, 1, 1, 1, 1, 1, 1, "id")


ENTRY = Entry("y", ROWS, "x", COLUMNS, np.dtype(np.float64))


def outs() -> dict[str, np.ndarray]:
    base = np.full((4, 6, 10), np.nan)
    return {
        "row-major": np.full((2, 3, 5), np.nan),
        "column-major": np.full((2, 3, 5), np.nan, order="F"),
        "gaps between rows": base[:2, :3, :5],
        "gaps everywhere": base[::2, ::2, ::2],
        "reversed": base[:2, :3, :5][::-1, :, ::-1],
        "axes swapped": np.full((5, 3, 2), np.nan).T,
    }


def fill(out: np.ndarray, rectangles: list[tuple[int, int, int, int]], chunk: int) -> np.ndarray:
    values = np.arange(30.0).reshape(6, 5) + 0.5
    destination = ResultArrays(plan(ENTRY), [out])
    pieces = [
        d.Piece(entry=0, row_start=a, row_stop=b, column_start=c, column_stop=e) for a, b, c, e in rectangles
    ]
    block = OpenBlock(d.BlockStart(block=0, pieces=pieces), plan(ENTRY), destination)
    for number, (a, b, c, e) in enumerate(rectangles):
        data = values[a:b, c:e].tobytes()
        for offset in range(0, len(data), chunk):
            assert not block.complete
            block.write(number, offset, memoryview(data)[offset : offset + chunk])
    assert block.complete
    return values.reshape(2, 3, 5)


@pytest.mark.parametrize("layout", outs())
@pytest.mark.parametrize("chunk", [1, 7, 13, 16, 24, 1 << 20])
def test_chunks_of_any_size_fill_an_out_of_any_layout(layout: str, chunk: int) -> None:
    out = outs()[layout]
    expected = fill(out, [(0, 6, 0, 2), (0, 4, 2, 5), (4, 6, 2, 5), (3, 3, 0, 5)], chunk)
    np.testing.assert_array_equal(out, expected)


def test_nothing_beside_a_strided_out_is_written() -> None:
    base = np.full((4, 6, 10), np.nan)
    fill(base[::2, ::2, ::2], [(0, 6, 0, 5)], 11)
    assert np.isnan(base).sum() == base.size - 30


def test_a_memory_map_is_filled_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "jacobian.bin"
    out = np.memmap(path, np.float64, "w+", shape=(2, 3, 5))
    expected = fill(out, [(0, 6, 0, 5)], 17)
    out.flush()
    np.testing.assert_array_equal(np.fromfile(path).reshape(2, 3, 5), expected)


@given(st.integers(1, 6), st.integers(1, 9), st.data())
def test_bytes_written_piecemeal_equal_bytes_written_at_once(
    rows: int, width: int, data: st.DataObject
) -> None:
    content = np.random.default_rng(rows * width).integers(0, 256, rows * width, np.uint8)
    target = np.zeros((rows, width + 2), np.uint8)
    offset = 0
    while offset < len(content):
        size = data.draw(st.integers(1, len(content) - offset))
        write_bytes(target[:, 1:-1], offset, memoryview(content[offset : offset + size].tobytes()))
        offset += size
    np.testing.assert_array_equal(target[:, 1:-1].ravel(), content)
    assert not target[:, [0, -1]].any()


def test_scalars_have_a_place_too() -> None:
    entry = Entry("y", (), "x", (), np.dtype(np.float32))
    destination = ResultArrays(plan(entry), None)
    start = d.BlockStart(pieces=[d.Piece(row_stop=1, column_stop=1)])
    OpenBlock(start, plan(entry), destination).write(0, 0, memoryview(np.float32(2.5).tobytes()))
    assert destination.arrays[0].shape == () and destination.arrays[0] == 2.5


READ_ONLY = np.zeros((2, 3, 5))
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ([np.zeros((6, 5))], r"must be float64 \[2, 3, 5\], but is float64 \[6, 5\]"),
        ([np.zeros((2, 3, 5), np.float32)], "is float32"),
        ([np.zeros((2, 3, 5), ">f8")], "must be float64"),
        ([READ_ONLY], "read-only"),
        ([[1.0]], "not list"),
        ([], "has 0 arrays"),
    ],
)
def test_an_out_that_does_not_fit_is_refused_by_name(out: list, words: str) -> None:
    with pytest.raises(gw.InvalidArgumentError, match=words):
        ResultArrays(plan(ENTRY), out)


@pytest.mark.parametrize(
    ("piece", "chunk"),
    [
        (d.Piece(entry=1, row_stop=1, column_stop=1), None),
        (d.Piece(row_stop=7, column_stop=5), None),
        (d.Piece(row_start=3, row_stop=2, column_stop=5), None),
        (d.Piece(row_stop=6, column_stop=5), (0, 8, 8)),
        (d.Piece(row_stop=6, column_stop=5), (0, 0, 241)),
        (d.Piece(row_stop=6, column_stop=5), (1, 0, 8)),
    ],
)
def test_a_server_that_sends_nonsense_cannot_write_outside(
    piece: d.Piece, chunk: tuple[int, int, int] | None
) -> None:
    with pytest.raises(gw.ServerError, match="may not fit this client"):
        block = OpenBlock(d.BlockStart(pieces=[piece]), plan(ENTRY), ResultArrays(plan(ENTRY), None))
        if chunk is not None:
            block.write(chunk[0], chunk[1], memoryview(bytes(chunk[2])))


@pytest.mark.parametrize("side", [5_000_000, 1 << 40], ids=str)
@pytest.mark.parametrize("kind", ["jacobian", "hessian"])
def test_a_result_without_memory_for_it_says_what_to_do(kind: str, side: int) -> None:
    entry = d.Entry(row="x", row_shape=[side], column="x", column_shape=[side], dtype=t.DATA_TYPE_FLOAT64)
    message = d.Plan(kind=KINDS[kind], entries=[entry], result_bytes=min(8 * side * side, (1 << 63) - 1))
    plan = Plan.from_proto(message, ["e"])
    with pytest.raises(MemoryError) as caught:
        ResultArrays(plan, None)
    assert isinstance(caught.value, gw.ResultMemoryError)
    named = "d2 e / dx dx" if kind == "hessian" else "d x / d x"
    for hint in (named, "out=", "sink=", f"{kind}_blocks", "wrt=", "hvp" if kind == "hessian" else "vjp"):
        assert hint in str(caught.value)
