"""PutTensor: an array uploaded in chunks, kept under the hash of its content."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np

import gradwire_wire as wire
from gradwire_engine.errors import InvalidInput
from gradwire_engine.values import ArrayType
from gradwire_server.compute.caches.store import StoredTensor, Upload
from gradwire_server.compute.shared_values import SharedValue
from gradwire_server.errors import Overloaded
from gradwire_server.observe.events import BytesReceived
from gradwire_server.rpc.backend import Backend
from gradwire_wire.v1 import tensor_pb2

_LARGE = 1 << 16
"""Bytes from which a chunk is hashed and copied off the event loop."""


async def put_tensor(
    backend: Backend, requests: AsyncIterator[tensor_pb2.PutTensorRequest]
) -> tensor_pb2.PutTensorResponse:
    """Answer PutTensor.

    Raises:
        EngineError, ServiceError: rows of the error table.
    """
    store, limit = backend.store, backend.settings.tensor_bytes
    arriving: _Arriving | None = None
    with store.upload("tensor_bytes", limit) as upload:
        async for request in requests:
            if arriving is None:
                arriving = _Arriving(request, limit)
            else:
                arriving.check_repeated(request)
            await arriving.add(request.data, upload)
            if upload.size > arriving.type.nbytes:
                break
        if arriving is None:
            raise InvalidInput("the upload is empty: its first message carries dtype and shape", "dtype")
        if upload.size != arriving.type.nbytes:
            raise InvalidInput(
                f"the array is declared as {arriving.type}, which has {arriving.type.nbytes} bytes, "
                f"but {'more' if upload.size > arriving.type.nbytes else upload.size} were sent",
                "data",
            )
    backend.events(BytesReceived(arriving.type.nbytes))
    reference = arriving.reference()
    array = wire.array_from_bytes(arriving.buffer.data, reference.dtype, reference.shape)
    elements = SharedValue(store.scoped(reference.tensor_id), array, nbytes=array.nbytes, lasting=True)
    store.add_tensor(reference.tensor_id, StoredTensor(arriving.type, elements))
    return tensor_pb2.PutTensorResponse(tensor=reference)


class _Arriving:
    """An array that arrives in chunks: hashed and put in its place chunk by chunk, never as a whole."""

    def __init__(self, first: tensor_pb2.PutTensorRequest, limit: int) -> None:
        """Make room for the array that a first message declares."""
        self._first = tensor_pb2.PutTensorRequest(dtype=first.dtype, shape=first.shape)
        self.type = _declared(self._first, limit)
        self._digest = wire.tensor_digest(first.dtype, first.shape)
        # Pages that no chunk has reached take no memory.
        self.buffer = np.empty(self.type.nbytes, np.uint8)

    def check_repeated(self, later: tensor_pb2.PutTensorRequest) -> None:
        """Check that a later message declares the same array, if any; raise `InvalidInput`."""
        for field in ("dtype", "shape"):
            value, first = getattr(later, field), getattr(self._first, field)
            if value and value != first:
                raise InvalidInput(f"{field} differs from that of the upload's first message", field)

    async def add(self, data: bytes, upload: Upload) -> None:
        """Add the next chunk, unless it is too long; `upload` counts it.

        Raises:
            Overloaded: over a limit.
        """
        start = upload.size
        upload.count(len(data))
        if upload.size > self.type.nbytes:
            return
        if len(data) >= _LARGE:
            await asyncio.to_thread(self._place, data, start)
        else:
            self._place(data, start)

    def _place(self, data: bytes, start: int) -> None:
        self._digest.update(data)
        self.buffer[start : start + len(data)] = np.frombuffer(data, np.uint8)

    def reference(self) -> tensor_pb2.TensorRef:
        """Return what a complete array is called."""
        self.buffer.setflags(write=False)
        first = self._first
        return tensor_pb2.TensorRef(tensor_id=self._digest.hexdigest(), dtype=first.dtype, shape=first.shape)


def _declared(message: tensor_pb2.PutTensorRequest, limit: int) -> ArrayType:
    try:
        declared = ArrayType(wire.numpy_dtype(message.dtype).name, tuple(message.shape))
    except wire.WireError as error:
        raise InvalidInput(str(error), "dtype") from None
    if declared.nbytes > limit:
        raise Overloaded(
            f"the array has {declared.nbytes} bytes; the limit is {limit}",
            "tensor_bytes",
            limit,
            declared.nbytes,
        )
    return declared
