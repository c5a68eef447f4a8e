"""PutTensor: an array uploaded in chunks, kept under the hash of its content."""

from __future__ import annotations

from collections.abc import AsyncIterator

import gradwire_wire as wire
from gradwire_engine.errors import InvalidInput
from gradwire_engine.values import ArrayType
from gradwire_server.compute.shared_values import SharedValue
from gradwire_server.compute.store import StoredTensor
from gradwire_server.errors import Overloaded
from gradwire_server.observe.events import BytesReceived
from gradwire_server.rpc.backend import Backend
from gradwire_wire.v1 import tensor_pb2


async def put_tensor(
    backend: Backend, requests: AsyncIterator[tensor_pb2.PutTensorRequest]
) -> tensor_pb2.PutTensorResponse:
    """Answer PutTensor.

    Raises:
        EngineError, ServiceError: rows of the error table.
    """
    store, limit = backend.store, backend.settings.tensor_bytes
    first: tensor_pb2.PutTensorRequest | None = None
    with store.upload("tensor_bytes", limit) as upload:
        async for request in requests:
            if first is None:
                first = tensor_pb2.PutTensorRequest(dtype=request.dtype, shape=request.shape)
                digest = wire.tensor_digest(first.dtype, first.shape)
                declared = _declared(first, limit)
            upload.add(request.data)
            if upload.size > declared.nbytes:
                break
            digest.update(request.data)
        if first is None:
            raise InvalidInput("the upload is empty: its first message carries dtype and shape", "dtype")
        if upload.size != declared.nbytes:
            raise InvalidInput(
                f"the array is declared as {declared}, which has {declared.nbytes} bytes, "
                f"but {'more' if upload.size > declared.nbytes else upload.size} were sent",
                "data",
            )
        array = wire.array_from_bytes(upload.joined(), first.dtype, first.shape)
    backend.events(BytesReceived(declared.nbytes))
    tensor_id = digest.hexdigest()
    elements = SharedValue(store.scoped(tensor_id), array, nbytes=array.nbytes, lasting=True)
    store.add_tensor(tensor_id, StoredTensor(declared, elements))
    reference = tensor_pb2.TensorRef(tensor_id=tensor_id, dtype=first.dtype, shape=first.shape)
    return tensor_pb2.PutTensorResponse(tensor=reference)


def _declared(message: tensor_pb2.PutTensorRequest, limit: int) -> ArrayType:
    try:
        declared = ArrayType(wire.numpy_dtype(message.dtype).name, tuple(message.shape))
    except wire.WireError as error:
        raise InvalidInput(str(error), "dtype") from None
    if any(extent < 0 for extent in declared.shape):
        raise InvalidInput(f"the shape {list(declared.shape)} has a negative extent", "shape")
    if declared.nbytes > limit:
        raise Overloaded(
            f"the array has {declared.nbytes} bytes; the limit is {limit}",
            "tensor_bytes",
            limit,
            declared.nbytes,
        )
    return declared
