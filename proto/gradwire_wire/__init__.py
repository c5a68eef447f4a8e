"""The wire's codec, for both sides: generated messages (`v1`), tensors, framing, outputs, names of kinds.

Client and server use this package. It imports NumPy, protobuf and grpc, and nothing of gradwire.
"""

from gradwire_wire.tensors import (
    CHUNK_BYTES,
    DTYPES,
    Array,
    WireError,
    array_from_bytes,
    byte_view,
    check_shape,
    chunks,
    data_type,
    dtype_named,
    from_tensor,
    is_float,
    keep_freed_memory,
    numpy_dtype,
    tensor_by_id,
    tensor_digest,
    tensor_id,
    tensor_type,
    to_tensor,
    wire_array,
)

#: The key of the trailing metadata that hold a serialized `google.rpc.Status`, by gRPC's convention.
STATUS_DETAILS_KEY = "grpc-status-details-bin"

__all__ = [
    "CHUNK_BYTES",
    "DTYPES",
    "STATUS_DETAILS_KEY",
    "Array",
    "WireError",
    "array_from_bytes",
    "byte_view",
    "check_shape",
    "chunks",
    "data_type",
    "dtype_named",
    "from_tensor",
    "is_float",
    "keep_freed_memory",
    "numpy_dtype",
    "tensor_by_id",
    "tensor_digest",
    "tensor_id",
    "tensor_type",
    "to_tensor",
    "wire_array",
]
