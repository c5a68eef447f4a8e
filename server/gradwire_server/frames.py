"""Messages that carry array data, serialized by hand: one copy from the array to the message.

The bytes are what protobuf itself would write for the documented messages; a generated serializer copies
the data twice more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.message import Message

from gradwire.wire import CHUNK_BYTES, byte_view, chunks, varint

_DIFFERENTIATE_CHUNK = 3  # DifferentiateResponse.chunk
_DIFFERENTIATE_VALUE_CHUNK = 7  # DifferentiateResponse.value_chunk
_ACCUMULATE_CHUNK = 2  # AccumulateResponse.chunk
_STREAM_CHUNK = 3  # EvaluateStreamResponse.chunk


def serialize(message: Message | bytes) -> bytes:
    """A response as it travels: bytes are a message serialized already."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def _integer(number: int, value: int) -> bytes:
    """A field of an integer type; as proto3 has it, zero is not written."""
    return varint(number << 3) + varint(value) if value else b""


def _message(outer: bytes, field: int, inner: bytes, data_field: int, data: memoryview, tail: bytes) -> bytes:
    """``outer``, then field ``field`` holding ``inner`` and ``data``, then ``tail``."""
    head = inner + varint(data_field << 3 | 2) + varint(len(data))
    return b"".join((outer, varint(field << 3 | 2), varint(len(head) + len(data)), head, data, tail))


def block_chunks(block: int, piece: int, array: np.ndarray[Any, Any]) -> Iterator[bytes]:
    """The DifferentiateResponse messages that carry one piece of a block."""
    offset = 0
    for data in chunks(byte_view(array), CHUNK_BYTES):
        inner = _integer(1, block) + _integer(2, piece) + _integer(3, offset)
        yield _message(b"", _DIFFERENTIATE_CHUNK, inner, 4, data, b"")
        offset += len(data)


def value_chunks(output: int, array: np.ndarray[Any, Any]) -> Iterator[bytes]:
    """The DifferentiateResponse messages that carry one of the function's own outputs."""
    return _filling(_DIFFERENTIATE_VALUE_CHUNK, output, array)


def gradient_chunks(output: int, array: np.ndarray[Any, Any]) -> Iterator[bytes]:
    """The AccumulateResponse messages that carry the loss or one gradient."""
    return _filling(_ACCUMULATE_CHUNK, output, array)


def _filling(field: int, output: int, array: np.ndarray[Any, Any]) -> Iterator[bytes]:
    """Messages with an OutputChunk each, in field ``field``."""
    offset = 0
    for data in chunks(byte_view(array), CHUNK_BYTES):
        inner = _integer(1, output) + _integer(2, offset)
        yield _message(b"", field, inner, 3, data, b"")
        offset += len(data)


def output_chunks(call_id: int, output: int, array: np.ndarray[Any, Any], last: bool) -> Iterator[bytes]:
    """The EvaluateStreamResponse messages that carry one output; the final one ends the call if ``last``."""
    view = byte_view(array)
    offset = 0
    for data in chunks(view, CHUNK_BYTES):
        inner = _integer(1, output) + _integer(2, offset)
        offset += len(data)
        tail = _integer(5, 1) if last and offset == len(view) else b""
        yield _message(_integer(1, call_id), _STREAM_CHUNK, inner, 3, data, tail)
