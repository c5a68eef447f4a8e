"""A batch of an accumulation whose tensors are arriving."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

import gradwire_wire as wire
from gradwire_engine.errors import InvalidInput
from gradwire_engine.values import Arguments, ArrayType
from gradwire_server.compute.account import Holding
from gradwire_server.compute.caches.store import Store
from gradwire_server.compute.shared_values import SharedValue
from gradwire_server.errors import Overloaded
from gradwire_server.rpc import translate
from gradwire_server.rpc.objective import LossFunction, Objective, refusals_about, rows_of
from gradwire_wire.v1 import accumulate_pb2, tensor_pb2

Array = np.ndarray[Any, Any]
_LARGE = 1 << 20
"""Bytes from which an array goes to workers through the object store, off the event loop."""


@dataclass
class _ArrivingTensor:
    """A tensor that arrives in chunks; `filled` bytes are there."""

    message: tensor_pb2.Tensor
    buffer: np.ndarray[Any, np.dtype[np.uint8]]
    filled: int = 0


class IncomingBatch:
    """A batch: its types are known at once, its elements when it is complete."""

    def __init__(
        self,
        index: int,
        batch: accumulate_pb2.Batch,
        objective: Objective,
        loss: LossFunction,
        store: Store,
        limit: int,
    ) -> None:
        """Check the message that announces a batch.

        Args:
            index: of the batch, counted from 0 after the last start or zero.
            batch: the message.
            objective: what the accumulation is of.
            loss: the function that it is evaluated by.
            store: holds tensors by id, and counts the bytes of uploads in progress.
            limit: bytes that one tensor may have.

        Raises:
            InvalidInput: its inputs do not complete the function's, or do not say how many rows it has.
            UnknownId: an array is not held here.
            Overloaded: a tensor is over the limit.
        """
        self.index = index
        self.loss = loss
        self._loss_field = "batch.function" if batch.HasField("function") else "start"
        self._store = store
        self._holding = store.arriving()
        self.held: Holding | None = None
        """Its bytes, and those of its gradient, until they are added."""
        announced = {
            name: tensor for name, tensor in batch.inputs.items() if tensor.WhichOneof("content") is None
        }
        with self.refusals():
            inputs = translate.inputs_from(
                {name: tensor for name, tensor in batch.inputs.items() if name not in announced}, store
            )
            types = {name: translate.tensor_type(name, tensor) for name, tensor in announced.items()}
            self.arguments: Arguments = tuple(sorted((*inputs.arguments, *types.items())))
            objective.check(loss, self.arguments)
            self.rows = rows_of(self.arguments, batch.rows)
        for name, declared in types.items():
            _check_size(f"batch {index}: input {name!r}", declared, limit)
        self.nbytes = sum(value.nbytes for _, value in self.arguments)
        self._key = f"{objective.point.key} {index}"
        self._given = inputs.values
        self._arriving = {
            name: _ArrivingTensor(announced[name], np.empty(declared.nbytes, np.uint8))
            for name, declared in types.items()
        }

    def refusals(self) -> AbstractContextManager[None]:
        """Make refusals raised within name this batch."""
        return refusals_about(f"batch {self.index}", "batch", self._loss_field)

    @property
    def missing(self) -> str:
        """What has not arrived yet, in words; "" when the batch is complete."""
        return ", ".join(
            f"input {name!r} has {tensor.filled} of {tensor.buffer.nbytes} bytes"
            for name, tensor in sorted(self._arriving.items())
            if tensor.filled < tensor.buffer.nbytes
        )

    def add(self, chunk: accumulate_pb2.BatchChunk) -> None:
        """Append a chunk to its tensor.

        Raises:
            InvalidInput: no tensor of that name waits for data, or the chunk does not follow the one before.
            Overloaded: the uploads in progress have too many bytes.
        """
        where = f"batch {self.index}: a chunk of input {chunk.input!r}"
        tensor = self._arriving.get(chunk.input)
        if tensor is None:
            raise InvalidInput(
                f"{where} came, but the batch did not announce such an input without content", "chunk.input"
            )
        if chunk.offset != tensor.filled:
            raise InvalidInput(
                f"{where} begins at byte {chunk.offset}, but {tensor.filled} bytes were sent before it: "
                "a tensor's chunks come in order, without gaps",
                "chunk.offset",
            )
        stop = tensor.filled + len(chunk.data)
        if stop > tensor.buffer.nbytes:
            raise InvalidInput(
                f"{where} ends at byte {stop}, but the input has {tensor.buffer.nbytes} bytes", "chunk.data"
            )
        self._holding.resize(self._holding.nbytes + len(chunk.data))
        tensor.buffer[tensor.filled : stop] = np.frombuffer(chunk.data, np.uint8)
        tensor.filled = stop

    def values(self) -> Mapping[str, Array | SharedValue]:
        """Return the elements of a complete batch; large arrays as shared values."""
        filled = {
            name: wire.array_from_bytes(tensor.buffer.data, tensor.message.dtype, tensor.message.shape)
            for name, tensor in self._arriving.items()
        }
        return {name: self._shared(name, value) for name, value in {**self._given, **filled}.items()}

    def _shared(self, name: str, value: Array | SharedValue) -> Array | SharedValue:
        if isinstance(value, SharedValue) or value.nbytes <= _LARGE:
            return value
        return SharedValue(f"{self._key} {name}", value, nbytes=value.nbytes)

    def close(self) -> None:
        """Count its bytes no longer as an upload in progress."""
        self._holding.give_back()


def _check_size(what: str, declared: ArrayType, limit: int) -> None:
    if declared.nbytes > limit:
        raise Overloaded(
            f"{what} has {declared.nbytes} bytes; the limit is {limit}: send smaller batches",
            "tensor_bytes",
            limit,
            declared.nbytes,
        )
