"""Messages made by hand are the documented ones: the generated classes read them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from gradwire_wire import CHUNK_BYTES, framing
from gradwire_wire.v1 import derivative_pb2, function_pb2


@pytest.mark.parametrize("block", [0, 1, 200, 2**32 - 1])
@pytest.mark.parametrize("size", [1, 3, CHUNK_BYTES // 8, CHUNK_BYTES // 8 + 1, CHUNK_BYTES // 3])
def test_a_blocks_chunks_parse_and_join_to_its_bytes(block: int, size: int) -> None:
    array = np.random.default_rng(0).standard_normal(size)
    messages = list(framing.block_chunks(block, 7, array))
    chunks = [derivative_pb2.DifferentiateResponse.FromString(message).chunk for message in messages]
    assert b"".join(chunk.data for chunk in chunks) == array.tobytes()
    assert [chunk.offset for chunk in chunks] == list(range(0, array.nbytes, CHUNK_BYTES))
    assert {(chunk.block, chunk.piece) for chunk in chunks} == {(block, 7)}


def test_a_frame_is_byte_for_byte_what_protobuf_writes() -> None:
    (message,) = framing.block_chunks(300, 0, np.arange(5.0))
    chunk = derivative_pb2.BlockChunk(block=300, data=np.arange(5.0).tobytes())
    assert message == derivative_pb2.DifferentiateResponse(chunk=chunk).SerializeToString()


def test_an_array_without_elements_has_no_chunks() -> None:
    assert not list(framing.block_chunks(0, 0, np.zeros((0, 3))))


def test_columns_and_extension_dtypes_travel_in_row_major_order() -> None:
    array = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    (message,) = framing.block_chunks(0, 0, array.T)
    chunk = derivative_pb2.DifferentiateResponse.FromString(message).chunk
    assert chunk.data == np.ascontiguousarray(array.T).tobytes()


@pytest.mark.parametrize("last", [True, False])
def test_only_the_final_chunk_of_a_call_says_so(last: bool) -> None:
    array = np.arange(CHUNK_BYTES // 4, dtype=np.float64)
    answers = [
        function_pb2.EvaluateStreamResponse.FromString(message)
        for message in framing.output_chunks(12, 3, array, last)
    ]
    assert [answer.last for answer in answers] == [False, last]
    assert b"".join(answer.chunk.data for answer in answers) == array.tobytes()
    assert {(answer.call_id, answer.chunk.output) for answer in answers} == {(12, 3)}
