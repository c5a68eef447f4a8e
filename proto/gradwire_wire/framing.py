"""Writes and reads the messages that carry array data, without protobuf's copies.

The bytes are what protobuf itself writes for the documented messages. The generated classes copy a bytes
field twice more than is needed in either direction, which at a gigabyte a second is the largest cost of a
stream. Writing copies the data once, into the message; reading returns views of the received bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import Message

from gradwire_wire.tensors import Array, byte_view, chunks

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Numbers of the fields that hold a chunk.
_DIFFERENTIATE_CHUNK = 3  # DifferentiateResponse.chunk
_DIFFERENTIATE_VALUE_CHUNK = 7  # DifferentiateResponse.value_chunk
_DIFFERENTIATE_PATTERN_CHUNK = 8  # DifferentiateResponse.pattern_chunk
_ACCUMULATE_CHUNK = 2  # AccumulateResponse.chunk
_STREAM_CHUNK = 3  # EvaluateStreamResponse.chunk
_BATCH_CHUNK = 3  # AccumulateRequest.chunk


# Writing.


def serialize(message: Message | bytes) -> bytes:
    """Return a response as bytes; bytes are taken to be serialized already."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def varint(value: int) -> bytes:
    """Encode a non-negative integer in protobuf's variable-length encoding."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def bytes_field(number: int, payload: bytes | memoryview) -> bytes:
    """Serialize a message with the single field `number` of type bytes; copy the payload once."""
    return b"".join((varint(number << 3 | 2), varint(len(payload)), payload))


def _integer_field(number: int, value: int) -> bytes:
    """Serialize a field of an integer type; zero is not written, as proto3 prescribes."""
    return varint(number << 3) + varint(value) if value else b""


def _message(outer: bytes, field: int, inner: bytes, data_field: int, data: memoryview, tail: bytes) -> bytes:
    """Serialize a message that contains a message with array data.

    Args:
        outer: serialized fields before the inner message.
        field: number of the inner message's field.
        inner: serialized fields of the inner message before its data.
        data_field: number of the data's field in the inner message.
        data: the array data.
        tail: serialized fields after the inner message.
    """
    head = inner + varint(data_field << 3 | 2) + varint(len(data))
    return b"".join((outer, varint(field << 3 | 2), varint(len(head) + len(data)), head, data, tail))


def block_chunks(block: int, piece: int, array: Array) -> Iterator[bytes]:
    """Yield the DifferentiateResponse messages that carry one piece of a block."""
    offset = 0
    for data in chunks(byte_view(array)):
        inner = _integer_field(1, block) + _integer_field(2, piece) + _integer_field(3, offset)
        yield _message(b"", _DIFFERENTIATE_CHUNK, inner, 4, data, b"")
        offset += len(data)


def pattern_chunks(part: int, array: Array) -> Iterator[bytes]:
    """Yield the DifferentiateResponse messages that carry an array of a pattern, by its `PatternPart`."""
    return _output_chunk_messages(_DIFFERENTIATE_PATTERN_CHUNK, part, array)


def value_chunks(output: int, array: Array) -> Iterator[bytes]:
    """Yield the DifferentiateResponse messages that carry one of the function's own outputs."""
    return _output_chunk_messages(_DIFFERENTIATE_VALUE_CHUNK, output, array)


def gradient_chunks(output: int, array: Array) -> Iterator[bytes]:
    """Yield the AccumulateResponse messages that carry the loss or one gradient."""
    return _output_chunk_messages(_ACCUMULATE_CHUNK, output, array)


def _output_chunk_messages(field: int, output: int, array: Array) -> Iterator[bytes]:
    """Yield messages with an OutputChunk each, in field `field`."""
    offset = 0
    for data in chunks(byte_view(array)):
        inner = _integer_field(1, output) + _integer_field(2, offset)
        yield _message(b"", field, inner, 3, data, b"")
        offset += len(data)


def output_chunks(call_id: int, output: int, array: Array, last: bool) -> Iterator[bytes]:
    """Yield the EvaluateStreamResponse messages that carry one output.

    Args:
        call_id: the call that the output belongs to.
        output: index of the output.
        array: its elements.
        last: whether the final message ends the call.
    """
    view = byte_view(array)
    offset = 0
    for data in chunks(view):
        inner = _integer_field(1, output) + _integer_field(2, offset)
        offset += len(data)
        tail = _integer_field(5, 1) if last and offset == len(view) else b""
        yield _message(_integer_field(1, call_id), _STREAM_CHUNK, inner, 3, data, tail)


def batch_chunk(name: str, offset: int, data: memoryview) -> bytes:
    """Serialize the AccumulateRequest message that carries a part of the batch's input `name`."""
    field = name.encode()
    inner = b"".join((varint(1 << 3 | 2), varint(len(field)), field, _integer_field(2, offset)))
    return _message(b"", _BATCH_CHUNK, inner, 3, data, b"")


# Reading.


@dataclass(frozen=True, slots=True)
class Chunk:
    """The data of a chunk message.

    Attributes:
        numbers: block, piece and offset of a `BlockChunk`; output, offset and 0 of an `OutputChunk`;
            part, offset and 0 of a `PatternChunk`.
        data: a view of the received bytes.
    """

    numbers: tuple[int, int, int]
    data: memoryview


class FramingError(ValueError):
    """The bytes are not a valid protobuf message."""


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
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
    """Return a message's fields by number: integers, and views of fields with a length.

    Of repeated fields the last is returned.
    """
    found: dict[int, int | memoryview] = {}
    at, end = 0, len(view)
    while at < end:
        key, at = _read_varint(view, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            found[number], at = _read_varint(view, at)
            continue
        if kind == _BYTES:
            size, at = _read_varint(view, at)
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
    """Return the chunk in a serialized `DifferentiateResponse`, None when there is none."""
    return _chunk(_fields(memoryview(message)), numbers=3) if message[:1] == b"\x1a" else None


def value_chunk(message: bytes) -> Chunk | None:
    """Return the value chunk in a serialized `DifferentiateResponse`, None when there is none."""
    if message[:1] != b"\x3a":
        return None
    return _chunk(_fields(memoryview(message)), 2, field=_DIFFERENTIATE_VALUE_CHUNK)


def pattern_chunk(message: bytes) -> Chunk | None:
    """Return the pattern chunk in a serialized `DifferentiateResponse`, None when there is none."""
    if message[:1] != b"\x42":
        return None
    return _chunk(_fields(memoryview(message)), 2, field=_DIFFERENTIATE_PATTERN_CHUNK)


def output_chunk(message: bytes) -> tuple[int, Chunk, bool] | None:
    """Return call id, chunk and `last` of a serialized `EvaluateStreamResponse`, None without a chunk."""
    if len(message) < 1024 and b"\x1a" not in message[:16]:
        return None
    fields = _fields(memoryview(message))
    chunk = _chunk(fields, numbers=2)
    return None if chunk is None else (_integer(fields, 1), chunk, bool(_integer(fields, 5)))


def gradient_chunk(message: bytes) -> Chunk | None:
    """Return the chunk in a serialized `AccumulateResponse`, None when there is none."""
    if message[:1] != b"\x12":
        return None
    return _chunk(_fields(memoryview(message)), 2, field=_ACCUMULATE_CHUNK)


def _chunk(fields: dict[int, int | memoryview], numbers: int, field: int = _STREAM_CHUNK) -> Chunk | None:
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
