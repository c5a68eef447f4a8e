"""One batch of an accumulation while its tensors arrive."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

import gradwire_wire as wire
from gradwire_engine.errors import InvalidInput
from gradwire_engine.values import Arguments, ArrayType
from gradwire_server.compute.shared import Box
from gradwire_server.compute.store import Store
from gradwire_server.errors import Overloaded
from gradwire_server.rpc import translate
from gradwire_server.rpc.objective import Loss, Objective, blaming, rows_of
from gradwire_wire.v1 import accumulate_pb2, tensor_pb2

Array = np.ndarray[Any, Any]
_BOXED = 1 << 20
"""Bytes from which an array goes to workers through the object store, off the event loop."""


@dataclass
class _Filling:
    """A tensor that chunks fill."""

    message: tensor_pb2.Tensor
    buffer: np.ndarray[Any, np.dtype[np.uint8]]
    filled: int = 0


class Assembly:
    """A batch: its types at once, its elements when it is complete."""

    def __init__(
        self,
        index: int,
        batch: accumulate_pb2.Batch,
        objective: Objective,
        loss: Loss,
        store: Store,
        limit: int,
    ) -> None:
        """Check a batch as it was announced.

        Args:
            index: of the batch, counted from 0 since the last start or zero.
            batch: the message.
            objective: what it is a batch of.
            loss: the function that it is evaluated by.
            store: that holds tensors by id, and counts bytes under way.
            limit: bytes of one tensor.

        Raises:
            InvalidInput: its inputs do not complete the function's, or do not say how many rows it has.
            UnknownId: an array is not held here.
            Overloaded: a tensor is over the limit.
        """
        self.index = index
        self.loss = loss
        self._loss_field = "batch.function" if batch.HasField("function") else "start"
        self._store = store
        self._received = 0
        announced = {
            name: tensor for name, tensor in batch.inputs.items() if tensor.WhichOneof("content") is None
        }
        with self.blaming():
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
        self._key = f"{objective.point} {index}"
        self._given = inputs.values
        self._fillings = {
            name: _Filling(announced[name], np.empty(declared.nbytes, np.uint8))
            for name, declared in types.items()
        }

    def blaming(self) -> AbstractContextManager[None]:
        """Have refusals within name this batch."""
        return blaming(f"batch {self.index}", "batch", self._loss_field)

    @property
    def missing(self) -> str:
        """What has not arrived yet, in words; "" once the batch is complete."""
        return ", ".join(
            f"input {name!r} has {filling.filled} of {filling.buffer.nbytes} bytes"
            for name, filling in sorted(self._fillings.items())
            if filling.filled < filling.buffer.nbytes
        )

    def add(self, chunk: accumulate_pb2.BatchChunk) -> None:
        """Take one piece of one tensor.

        Raises:
            InvalidInput: it belongs to no tensor that waits for data, or not to the place it names.
            Overloaded: too many bytes are under way.
        """
        where = f"batch {self.index}: a chunk of input {chunk.input!r}"
        filling = self._fillings.get(chunk.input)
        if filling is None:
            raise InvalidInput(
                f"{where} came, but the batch did not announce such an input without content", "chunk.input"
            )
        if chunk.offset != filling.filled:
            raise InvalidInput(
                f"{where} begins at byte {chunk.offset}, but {filling.filled} bytes were sent before it: "
                "a tensor's chunks come in order, without gaps",
                "chunk.offset",
            )
        stop = filling.filled + len(chunk.data)
        if stop > filling.buffer.nbytes:
            raise InvalidInput(
                f"{where} ends at byte {stop}, but the input has {filling.buffer.nbytes} bytes", "chunk.data"
            )
        self._store.reserve(len(chunk.data))
        self._received += len(chunk.data)
        filling.buffer[filling.filled : stop] = np.frombuffer(chunk.data, np.uint8)
        filling.filled = stop

    def values(self) -> Mapping[str, Array | Box]:
        """The elements of a complete batch; the large ones boxed."""
        filled = {
            name: wire.array_from_bytes(filling.buffer.data, filling.message.dtype, filling.message.shape)
            for name, filling in self._fillings.items()
        }
        return {name: self._boxed(name, value) for name, value in {**self._given, **filled}.items()}

    def _boxed(self, name: str, value: Array | Box) -> Array | Box:
        if isinstance(value, Box) or value.nbytes <= _BOXED:
            return value
        return Box(f"{self._key} {name}", value, nbytes=value.nbytes)

    def close(self) -> None:
        """Its bytes are not on their way any more."""
        self._store.reserve(-self._received)
        self._received = 0


def _check_size(what: str, declared: ArrayType, limit: int) -> None:
    if declared.nbytes > limit:
        raise Overloaded(
            f"{what} has {declared.nbytes} bytes; the limit is {limit}: send smaller batches",
            "tensor_bytes",
            limit,
            declared.nbytes,
        )
