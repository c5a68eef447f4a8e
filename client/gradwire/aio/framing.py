"""Reading streamed messages without copying the array data in them.

The generated classes copy a bytes field twice before it can be used, which at a gigabyte a second is the
largest cost on the client. Here the few integers around the data are read by hand, and the data stay where
gRPC put them. Everything else is left to the generated classes.
"""

from dataclasses import dataclass

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CHUNK_FIELD = 3  # `chunk` in DifferentiateResponse and in EvaluateStreamResponse


@dataclass(frozen=True, slots=True)
class Chunk:
    """The data of a `BlockChunk` (numbers: block, piece, offset) or an `OutputChunk` (output, offset)."""

    numbers: tuple[int, int, int]
    data: memoryview


class FramingError(ValueError):
    """The bytes are no protobuf message."""


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view) and shift < 70:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise FramingError("a message from the server ends in the middle of a number")


def _fields(view: memoryview) -> dict[int, int | memoryview]:
    """A message's fields by number: integers, and views of whatever has a length. The last one wins."""
    found: dict[int, int | memoryview] = {}
    at, end = 0, len(view)
    while at < end:
        key, at = _varint(view, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            found[number], at = _varint(view, at)
            continue
        if kind == _BYTES:
            size, at = _varint(view, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise FramingError(f"a message from the server has a field of the unknown kind {kind}")
        if at + size > end:
            raise FramingError("a message from the server is cut off")
        found[number] = view[at : at + size]
        at += size
    return found


def block_chunk(message: bytes) -> Chunk | None:
    """The chunk in a serialized `DifferentiateResponse`; None when it holds something else."""
    return _chunk(_fields(memoryview(message)), numbers=3) if message[:1] == b"\x1a" else None


def value_chunk(message: bytes) -> Chunk | None:
    """The value chunk in a serialized `DifferentiateResponse`; None when it holds something else."""
    return _chunk(_fields(memoryview(message)), 2, field=7) if message[:1] == b"\x3a" else None


def output_chunk(message: bytes) -> tuple[int, Chunk, bool] | None:
    """Call id, chunk and `last` of a serialized `EvaluateStreamResponse`; None when it holds no chunk."""
    if len(message) < 1024 and b"\x1a" not in message[:16]:
        return None
    fields = _fields(memoryview(message))
    chunk = _chunk(fields, numbers=2)
    return None if chunk is None else (_integer(fields, 1), chunk, bool(_integer(fields, 5)))


def gradient_chunk(message: bytes) -> Chunk | None:
    """The chunk in a serialized `AccumulateResponse`; None when it holds something else."""
    return _chunk(_fields(memoryview(message)), 2, field=2) if message[:1] == b"\x12" else None


def _chunk(fields: dict[int, int | memoryview], numbers: int, field: int = _CHUNK_FIELD) -> Chunk | None:
    body = fields.get(field)
    if not isinstance(body, memoryview):
        return None
    parts = _fields(body)
    data = parts.get(numbers + 1, memoryview(b""))
    if not isinstance(data, memoryview):
        raise FramingError("a chunk from the server has no data")
    first, second = _integer(parts, 1), _integer(parts, 2)
    return Chunk((first, second, _integer(parts, 3) if numbers == 3 else 0), data)


def _integer(fields: dict[int, int | memoryview], number: int) -> int:
    value = fields.get(number, 0)
    if not isinstance(value, int):
        raise FramingError(f"field {number} of a message from the server is no number")
    return value
