"""NumPy arrays on the wire: `Tensor` messages, dtype tables, array ids and chunks.

Elements are row-major and little-endian. Arrays in that layout are not copied.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gradwire_wire.v1 import tensor_pb2

Array = npt.NDArray[Any]

#: Bytes of data in one streamed message: large enough that per-message cost vanishes, and well under gRPC's
#: default limit of 4 MiB.
CHUNK_BYTES = 1 << 20

#: Axes that a tensor may have, as many as an array of NumPy.
MOST_AXES = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32
_MOST_BYTES = 2**63 - 1

_NAMES = {
    tensor_pb2.DATA_TYPE_FLOAT64: "float64",
    tensor_pb2.DATA_TYPE_FLOAT32: "float32",
    tensor_pb2.DATA_TYPE_FLOAT16: "float16",
    tensor_pb2.DATA_TYPE_INT64: "int64",
    tensor_pb2.DATA_TYPE_INT32: "int32",
    tensor_pb2.DATA_TYPE_INT16: "int16",
    tensor_pb2.DATA_TYPE_INT8: "int8",
    tensor_pb2.DATA_TYPE_UINT64: "uint64",
    tensor_pb2.DATA_TYPE_UINT32: "uint32",
    tensor_pb2.DATA_TYPE_UINT16: "uint16",
    tensor_pb2.DATA_TYPE_UINT8: "uint8",
    tensor_pb2.DATA_TYPE_BOOL: "bool",
    tensor_pb2.DATA_TYPE_COMPLEX64: "complex64",
    tensor_pb2.DATA_TYPE_COMPLEX128: "complex128",
}


def _dtype_table() -> dict[int, np.dtype[Any]]:
    table: dict[int, np.dtype[Any]] = {number: np.dtype(name) for number, name in _NAMES.items()}
    try:
        import ml_dtypes
    except ImportError:  # NumPy alone has no bfloat16; everything else works without it
        return table
    table[tensor_pb2.DATA_TYPE_BFLOAT16] = np.dtype(ml_dtypes.bfloat16)
    return table


#: The NumPy dtype of every `DataType` that this process can hold.
DTYPES: Mapping[int, np.dtype[Any]] = _dtype_table()
_DATA_TYPES: Mapping[np.dtype[Any], int] = {dtype: number for number, dtype in DTYPES.items()}
_BY_NAME: Mapping[str, np.dtype[Any]] = {dtype.name: dtype for dtype in DTYPES.values()}


class WireError(ValueError):
    """A message or array does not fit the wire: unknown element type, wrong number of bytes."""


def numpy_dtype(data_type: int) -> np.dtype[Any]:
    """Return the NumPy dtype of a `DataType`.

    Raises:
        WireError: there is none here.
    """
    try:
        return DTYPES[data_type]
    except KeyError:
        name = _enum_name(data_type)
        raise WireError(f"element type {name} has no NumPy dtype here; use one of {_known()}") from None


def data_type(dtype: npt.DTypeLike) -> tensor_pb2.DataType:
    """Return the `DataType` of a NumPy dtype, of either byte order.

    Raises:
        WireError: the wire has none.
    """
    native = np.dtype(dtype).newbyteorder("=")
    try:
        return _DATA_TYPES[native]  # type: ignore[return-value]  # protobuf enums are ints at run time
    except KeyError:
        raise WireError(f"arrays of {native} cannot be sent; convert to one of {_known()}") from None


def dtype_named(name: str) -> np.dtype[Any]:
    """Return the dtype called `name` ("float64", "bfloat16", ...).

    NumPy is not asked, as it has no bfloat16.

    Raises:
        WireError: there is none.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise WireError(f"no element type is called {name!r}; use one of {_known()}") from None


def _enum_name(number: int) -> str:
    try:
        return tensor_pb2.DataType.Name(number)
    except ValueError:
        return str(number)


def _known() -> str:
    return ", ".join(_BY_NAME)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Return whether arrays of this dtype can be differentiated: real floating point, bfloat16 included."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def wire_array(array: npt.ArrayLike) -> Array:
    """Return the array itself when it is row-major and little-endian already, else a copy that is."""
    result = np.asarray(array, order="C")
    if not result.flags.c_contiguous:  # a 0-d or odd-strided view
        result = np.ascontiguousarray(result).reshape(result.shape)
    if result.dtype.byteorder == ">" or (sys.byteorder == "big" and result.dtype.byteorder == "="):
        result = result.astype(result.dtype.newbyteorder("<"))
    return result


def byte_view(array: npt.ArrayLike) -> memoryview:
    """Return the array's elements in wire order as one flat view of bytes; no copy when the layout fits."""
    # Through uint8, because extension dtypes (bfloat16) have no buffer format of their own.
    return wire_array(array).reshape(-1).view(np.uint8).data


def to_tensor(array: npt.ArrayLike) -> tensor_pb2.Tensor:
    """Return the array as a `Tensor` with its elements inline."""
    values = np.asarray(array)
    return tensor_pb2.Tensor(
        dtype=data_type(values.dtype), shape=values.shape, data=wire_array(values).tobytes()
    )


def tensor_type(dtype: npt.DTypeLike, shape: Iterable[int]) -> tensor_pb2.Tensor:
    """Return a `Tensor` with dtype and shape and without content."""
    return tensor_pb2.Tensor(dtype=data_type(dtype), shape=shape)


def tensor_by_id(tensor_id: str, dtype: npt.DTypeLike, shape: Iterable[int]) -> tensor_pb2.Tensor:
    """Return a `Tensor` that refers to an array uploaded before."""
    return tensor_pb2.Tensor(dtype=data_type(dtype), shape=shape, tensor_id=tensor_id)


def from_tensor(tensor: tensor_pb2.Tensor) -> Array:
    """Return the array in a `Tensor`'s inline data: a read-only view of the message's bytes.

    Raises:
        WireError: dtype, shape and number of bytes do not agree.
    """
    return array_from_bytes(tensor.data, tensor.dtype, tensor.shape)


def check_shape(shape: Sequence[int], element_type: int) -> int:
    """Return the bytes of an array of this shape, in which extents of 0 count as 1.

    A shape is refused before anything is multiplied that need not be: it may come from anyone.

    Args:
        shape: the extents.
        element_type: a `DataType`; an unknown one counts as the largest.

    Raises:
        WireError: it has too many axes, a negative extent, or so many elements that none can be counted.
    """
    if len(shape) > MOST_AXES:
        raise WireError(f"the shape has {len(shape)} axes; an array has at most {MOST_AXES}")
    dtype = DTYPES.get(element_type)
    total = 16 if dtype is None else dtype.itemsize
    for extent in shape:
        if extent < 0:
            raise WireError(f"the shape {list(shape)} has a negative extent")
        total *= extent or 1
        if total > _MOST_BYTES:
            raise WireError(f"the shape {list(shape)} is of more bytes than any array can have")
    return total


def array_from_bytes(data: bytes | bytearray | memoryview, element_type: int, shape: Iterable[int]) -> Array:
    """Return a view of `data` as an array (read-only where `data` is).

    Raises:
        WireError: dtype, shape and number of bytes do not agree.
    """
    dtype, extents = numpy_dtype(element_type), tuple(shape)
    check_shape(extents, element_type)
    expected = prod(extents) * dtype.itemsize
    if len(data) != expected:
        raise WireError(
            f"a {dtype.name} array of shape {extents} has {expected} bytes, but {len(data)} were sent"
        )
    return np.frombuffer(data, dtype=np.uint8).view(dtype).reshape(extents)


def tensor_id(array: npt.ArrayLike) -> str:
    """Return the id of an array for `PutTensor`: the SHA-256 that `TensorRef.tensor_id` documents."""
    values = np.asarray(array)
    digest = tensor_digest(data_type(values.dtype), values.shape)
    digest.update(byte_view(values))
    return digest.hexdigest()


def tensor_digest(element_type: int, shape: Iterable[int]) -> "hashlib._Hash":
    """Return the hash whose digest is a tensor's id once it has been fed the elements.

    For uploads that arrive in parts.
    """
    return hashlib.sha256(f"{int(element_type)}:{','.join(str(extent) for extent in shape)}:".encode())


def chunks(data: memoryview, size: int = CHUNK_BYTES) -> Iterator[memoryview]:
    """Yield consecutive views of `data`, each of `size` bytes but the last; none when there is no data."""
    return (data[start : start + size] for start in range(0, len(data), size))


def keep_freed_memory() -> None:
    """Make the allocator keep the memory of messages for the next ones.

    glibc returns large freed blocks to the system at once and faults the next one's pages in again, one by
    one: as much work as receiving the data. It stops doing so for blocks up to the size of the largest it
    has seen freed, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD), so one such block is enough. It is
    never touched, so it costs nothing; other allocators are not affected.
    """
    np.empty(31 << 20, np.uint8)
