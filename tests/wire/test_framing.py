"""Chunks read by hand are the chunks that protobuf reads, and damage is noticed."""

import contextlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gradwire_wire.framing import FramingError, block_chunk, output_chunk, pattern_chunk, pattern_chunks
from gradwire_wire.v1 import derivative_pb2, function_pb2

NUMBERS = st.integers(0, 2**32 - 1)
OFFSETS = st.integers(0, 2**63)
DATA = st.binary(max_size=3000)


@given(NUMBERS, NUMBERS, OFFSETS, DATA)
def test_a_block_chunk_is_read_as_protobuf_wrote_it(block: int, piece: int, offset: int, data: bytes) -> None:
    chunk = derivative_pb2.BlockChunk(block=block, piece=piece, offset=offset, data=data)
    read = block_chunk(derivative_pb2.DifferentiateResponse(chunk=chunk).SerializeToString())
    assert read is not None and read.numbers == (block, piece, offset) and bytes(read.data) == data


@given(st.integers(1, 4), st.integers(0, 700_000))
def test_a_part_of_a_pattern_is_read_by_protobuf_and_by_hand(part: int, size: int) -> None:
    array = np.arange(size, dtype=np.int32)
    read, parsed = b"", b""
    for message in pattern_chunks(part, array):
        chunk = pattern_chunk(message)
        own = derivative_pb2.DifferentiateResponse.FromString(message).pattern_chunk
        assert chunk is not None and chunk.numbers[:2] == (own.part, own.offset) == (part, len(read))
        read, parsed = read + bytes(chunk.data), parsed + own.data
    assert read == parsed == array.tobytes()


@given(st.integers(1, 2**64 - 1), NUMBERS, OFFSETS, DATA, st.booleans())
def test_an_output_chunk_is_read_as_protobuf_wrote_it(
    call: int, output: int, offset: int, data: bytes, last: bool
) -> None:
    chunk = function_pb2.OutputChunk(output=output, offset=offset, data=data)
    message = function_pb2.EvaluateStreamResponse(call_id=call, chunk=chunk, last=last)
    read = output_chunk(message.SerializeToString())
    assert read is not None and (read[0], read[2]) == (call, last)
    assert read[1].numbers[:2] == (output, offset) and bytes(read[1].data) == data


@given(st.integers(1, 2**64 - 1), DATA)
def test_messages_that_hold_no_chunk_are_left_to_protobuf(call: int, data: bytes) -> None:
    response = function_pb2.EvaluateResponse()
    response.outputs.add(name="y").tensor.data = data
    message = function_pb2.EvaluateStreamResponse(call_id=call, response=response, last=True)
    assert output_chunk(message.SerializeToString()) is None
    header = derivative_pb2.DifferentiateResponse(header=derivative_pb2.DifferentiateHeader())
    assert block_chunk(header.SerializeToString()) is None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused_by_name(message: bytes) -> None:
    for read in (block_chunk, output_chunk):
        with contextlib.suppress(FramingError):
            read(b"\x1a" + message)


def test_a_chunk_that_is_cut_off_is_refused() -> None:
    chunk = derivative_pb2.BlockChunk(block=1, data=bytes(100))
    message = derivative_pb2.DifferentiateResponse(chunk=chunk).SerializeToString()
    refused = 0
    for length in range(1, len(message)):
        try:
            block_chunk(message[:length])
        except FramingError:
            refused += 1
    assert refused == len(message) - 1
