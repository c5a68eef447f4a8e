"""Arrays become messages and come back the same."""

import hashlib
import pickle

import ml_dtypes
import numpy as np
import pytest

import gradwire_wire as wire
from gradwire_wire import framing
from gradwire_wire.v1 import tensor_pb2

LAYOUTS = {
    "row-major": np.arange(6.0).reshape(2, 3),
    "column-major": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(24.0).reshape(4, 6)[::2, ::-2],
    "big-endian": np.arange(6.0).astype(">f8"),
    "scalar": np.float64(3.5),
    "empty": np.zeros((0, 3)),
    "bool": np.array([True, False]),
    "bfloat16": np.arange(3).astype(ml_dtypes.bfloat16),
    "complex": np.array([1 + 2j]),
}


@pytest.mark.parametrize("array", LAYOUTS.values(), ids=LAYOUTS)
def test_an_array_of_any_layout_survives_the_round_trip(array: np.ndarray) -> None:
    back = wire.from_tensor(wire.to_tensor(array))
    np.testing.assert_array_equal(back, array)
    assert back.dtype == np.asarray(array).dtype.newbyteorder("=") and back.shape == np.shape(array)


def test_every_documented_element_type_has_a_dtype_and_back() -> None:
    numbers = set(tensor_pb2.DataType.values()) - {tensor_pb2.DATA_TYPE_UNSPECIFIED}
    assert set(wire.DTYPES) == numbers
    assert all(wire.data_type(wire.numpy_dtype(number)) == number for number in numbers)


def test_the_id_of_an_array_is_the_documented_hash() -> None:
    array = np.arange(6.0).reshape(2, 3)
    expected = hashlib.sha256(b"1:2,3:" + array.tobytes()).hexdigest()
    assert wire.tensor_id(array) == expected
    assert wire.tensor_id(np.asfortranarray(array)) == expected
    assert wire.tensor_id(array.ravel()) != expected


def test_a_row_major_array_is_viewed_and_not_copied() -> None:
    array = np.zeros(1000)
    view = wire.byte_view(array)
    array[0] = 1.0
    assert bytes(view[:8]) == np.float64(1.0).tobytes()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (tensor_pb2.Tensor(dtype=1, shape=[2, 2], data=bytes(31)), "32 bytes, but 31"),
        (tensor_pb2.Tensor(dtype=0, shape=[1], data=bytes(8)), "UNSPECIFIED"),
        (tensor_pb2.Tensor(dtype=1, shape=[-1], data=b""), "negative"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused(message: tensor_pb2.Tensor, words: str) -> None:
    with pytest.raises(wire.WireError, match=words):
        wire.from_tensor(message)


def test_a_dtype_that_does_not_travel_is_refused_by_name() -> None:
    with pytest.raises(wire.WireError, match="datetime64"):
        wire.to_tensor(np.array(["2020-01-01"], dtype="datetime64[D]"))


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 1 << 21])
def test_a_bytes_field_written_by_hand_is_what_protobuf_writes(size: int) -> None:
    payload = bytes(size)
    expected = tensor_pb2.PutTensorRequest(data=payload)
    assert tensor_pb2.PutTensorRequest.FromString(framing.bytes_field(3, payload)) == expected


def test_messages_name_the_wires_own_package_when_they_are_pickled() -> None:
    message = tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT64, shape=[2])
    assert type(message).__module__ == "gradwire_wire.v1.tensor_pb2"
    assert pickle.loads(pickle.dumps(message)) == message
