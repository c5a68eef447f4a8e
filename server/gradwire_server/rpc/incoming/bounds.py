"""Bounds on one message, checked before anything is built from it, multiplied or looped over.

What a message may hold is small beside what it may say: a shape of a hundred bytes names more elements than
there are, and a list of empty names takes two bytes an item. All checks stop at the first item too many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

import gradwire_wire as wire
from gradwire_engine.errors import InvalidInput
from gradwire_engine.planning.transforms import check_depth
from gradwire_server.errors import Overloaded
from gradwire_server.settings import Settings
from gradwire_wire.v1 import (
    accumulate_pb2,
    derivative_pb2,
    function_pb2,
    graph_pb2,
    server_info_pb2,
    tensor_pb2,
)


@dataclass(frozen=True)
class Bounds:
    """What a message may hold.

    Attributes:
        fields: of a message of some size, those of messages within it included.
        names: items of a list of names, and inputs.
        name_bytes: of a name or an id.
        transforms: of a function.
        array_bytes: of any array that a shape declares.
        blocks: that a request may name.
    """

    fields: int
    names: int
    name_bytes: int
    transforms: int
    array_bytes: int
    blocks: int

    @classmethod
    def of(cls, settings: Settings) -> Bounds:
        """Return the bounds that a server's settings give."""
        return cls(
            settings.message_fields,
            settings.names,
            settings.name_bytes,
            settings.transforms,
            settings.array_bytes,
            settings.plan_blocks,
        )

    def check(self, message: Message) -> None:
        """Check a message of any call.

        Raises:
            InvalidInput: a shape is none that an array can have, or a list names something twice.
            Overloaded, LimitExceeded: the message is over a limit, which the error names.
        """
        _CHECKS[type(message)](self, message)

    def check_size(self, data: bytes, kind: type[Message]) -> None:
        """Check how many fields a large serialized message of a kind has; raise `Overloaded` over the limit.

        Parsing takes far longer for a field than for a byte: 4 MiB of empty fields take a tenth of a second.
        """
        if len(data) > _READ_AT_ONCE and _has_more_fields(data, kind, self.fields):
            raise Overloaded(
                f"the message of {len(data)} bytes has over {self.fields} fields: upload large inputs with "
                "PutTensor, and name fewer things",
                "message_fields",
                self.fields,
                self.fields + 1,
            )

    def _name(self, name: str, field: str) -> None:
        if len(name) * 4 > self.name_bytes and len(name.encode()) > self.name_bytes:
            raise Overloaded(
                f"a name in {field} has {len(name.encode())} bytes; the limit is {self.name_bytes}",
                "name_bytes",
                self.name_bytes,
                len(name.encode()),
            )

    def _names(self, names: Sequence[str], field: str) -> None:
        self._count(len(names), field)
        for name in names:
            self._name(name, field)

    def _distinct(self, names: Sequence[str], field: str) -> None:
        self._names(names, field)
        if len(names) > 1 and len(set(names)) < len(names):
            twice, _ = Counter(names).most_common(1)[0]
            raise InvalidInput(f"{field} names {twice!r} twice", field)

    def _count(self, count: int, field: str) -> None:
        if count > self.names:
            raise Overloaded(
                f"{field} has {count} items; the limit is {self.names}", "names", self.names, count
            )

    def _blocks(self, blocks: Sequence[int], field: str) -> None:
        if len(blocks) > self.blocks:
            raise Overloaded(
                f"{field} names {len(blocks)} blocks; the limit is {self.blocks}",
                "plan_blocks",
                self.blocks,
                len(blocks),
            )

    def _tensors(self, tensors: Mapping[str, tensor_pb2.Tensor], field: str) -> None:
        self._count(len(tensors), field)
        for name, tensor in tensors.items():
            self._name(name, field)
            self._tensor(tensor, f"{name!r}", f'{field}["{name}"]')

    def _tensor(self, tensor: tensor_pb2.Tensor, what: str, field: str) -> None:
        self._shape(tensor.shape, tensor.dtype, what, field)
        self._name(tensor.tensor_id, field)

    def _shape(self, shape: Sequence[int], dtype: int, what: str, field: str) -> None:
        try:
            nbytes = wire.check_shape(shape, dtype)
        except wire.WireError as error:
            raise InvalidInput(f"{what}: {error}", field) from None
        if nbytes > self.array_bytes:
            raise Overloaded(
                f"{what}: the shape {list(shape)} is of {nbytes} bytes, extents of 0 left out; the limit of "
                f"any array is {self.array_bytes}",
                "array_bytes",
                self.array_bytes,
                nbytes,
            )

    def _function(self, function: function_pb2.Function, field: str) -> None:
        self._name(function.graph_id, f"{field}.graph_id")
        check_depth(len(function.transforms), self.transforms)
        for index, transform in enumerate(function.transforms):
            kind = transform.WhichOneof("kind")
            if kind is None:
                continue  # refused by its index when it is read
            chosen: Any = getattr(transform, kind)
            where = f"{field}.transforms[{index}]"
            self._names(chosen.wrt, f"{where}.wrt")
            if isinstance(chosen.of, str):
                self._name(chosen.of, f"{where}.of")
            else:
                self._names(chosen.of, f"{where}.of")

    def _get(self, message: graph_pb2.GetGraphRequest | graph_pb2.DeleteGraphRequest) -> None:
        self._name(message.graph_id, "graph_id")

    def _delete(self, message: tensor_pb2.DeleteTensorRequest) -> None:
        self._name(message.tensor_id, "tensor_id")

    def _register(self, message: graph_pb2.RegisterGraphRequest) -> None:
        self._tensors(message.fixed, "fixed")
        self._names(message.inputs, "inputs")
        self._names(message.outputs, "outputs")

    def _put(self, message: tensor_pb2.PutTensorRequest) -> None:
        self._shape(message.shape, message.dtype, "the upload", "shape")

    def _evaluate(self, message: function_pb2.EvaluateRequest) -> None:
        self._function(message.function, "function")
        self._tensors(message.inputs, "inputs")
        self._distinct(message.outputs, "outputs")
        self._distinct(message.batched, "batched")

    def _evaluate_stream(self, message: function_pb2.EvaluateStreamRequest) -> None:
        self._evaluate(message.evaluate)

    def _plan(self, message: derivative_pb2.PlanRequest | derivative_pb2.DifferentiateRequest) -> None:
        self._function(message.function, "function")
        self._tensors(message.inputs, "inputs")
        self._names(message.wrt, "wrt")
        self._names(message.of, "of")
        self._distinct(message.batched, "batched")
        pattern = message.options.pattern
        self._tensor(pattern.rows, "the pattern's rows", "options.pattern.rows")
        self._tensor(pattern.columns, "the pattern's columns", "options.pattern.columns")

    def _differentiate(self, message: derivative_pb2.DifferentiateRequest) -> None:
        self._plan(message)
        self._blocks(message.skip, "skip")
        self._blocks(message.blocks, "blocks")
        for field in ("plan_id", "resume_id", "pattern_id"):
            self._name(getattr(message, field), field)
        self._tensors(message.rows, "rows")
        self._tensors(message.columns, "columns")

    def _accumulate(self, message: accumulate_pb2.AccumulateRequest) -> None:
        kind = message.WhichOneof("action")
        if kind == "start":
            self._function(message.start.function, "start.function")
            self._tensors(message.start.inputs, "start.inputs")
            self._names(message.start.wrt, "start.wrt")
            self._name(message.start.of, "start.of")
        elif kind == "batch":
            self._function(message.batch.function, "batch.function")
            self._tensors(message.batch.inputs, "batch.inputs")
        elif kind == "chunk":
            self._name(message.chunk.input, "chunk.input")


_CHECKS: Mapping[type[Message], Callable[[Bounds, Any], None]] = {
    server_info_pb2.GetServerInfoRequest: lambda bounds, message: None,  # it has no fields
    graph_pb2.GetGraphRequest: Bounds._get,
    graph_pb2.DeleteGraphRequest: Bounds._get,
    tensor_pb2.DeleteTensorRequest: Bounds._delete,
    graph_pb2.RegisterGraphRequest: Bounds._register,
    tensor_pb2.PutTensorRequest: Bounds._put,
    derivative_pb2.PlanRequest: Bounds._plan,
    derivative_pb2.DifferentiateRequest: Bounds._differentiate,
    function_pb2.EvaluateRequest: Bounds._evaluate,
    function_pb2.EvaluateStreamRequest: Bounds._evaluate_stream,
    accumulate_pb2.AccumulateRequest: Bounds._accumulate,
}


@cache
def _inner(descriptor: Descriptor) -> Mapping[int, Descriptor]:
    """Map the numbers of fields that hold messages to their types."""
    return {field.number: field.message_type for field in descriptor.fields if field.message_type}


@cache
def _packed(descriptor: Descriptor) -> frozenset[int]:
    """Return the numbers of fields that hold a list of numbers."""
    return frozenset(
        field.number
        for field in descriptor.fields
        if field.is_repeated and field.cpp_type not in (field.CPPTYPE_STRING, field.CPPTYPE_MESSAGE)
    )


_READ_AT_ONCE = 1 << 18
"""Bytes of a message whose fields need not be counted: at worst it is parsed in a few milliseconds."""

_SMALL = 128
"""Bytes up to which a message within another counts as one field, as so much of a list of numbers does."""

_SIZES = {1: 8, 5: 4}
"""Bytes of fields of a fixed size, by how they are coded."""

_LENGTH_DELIMITED = 2


def _has_more_fields(data: bytes, kind: type[Message], most: int) -> bool:
    """Tell whether a serialized message has more fields than `most`, as far as it can be read."""
    count = 0
    waiting: list[tuple[int, int, Any]] = [(0, len(data), kind.DESCRIPTOR)]
    while waiting:
        at, end, outer = waiting.pop()
        inner, packed = _inner(outer), _packed(outer)
        while at < end:
            count += 1
            if count > most:
                return True
            key = data[at]
            at += 1
            if key >= 0x80:
                key, at = _varint(data, at - 1, end)
            coding = key & 7
            if coding == _LENGTH_DELIMITED:
                size, at = _varint(data, at, end)
                if size > _SMALL and key >> 3 in inner:
                    waiting.append((at, min(end, at + size), inner[key >> 3]))
                elif key >> 3 in packed:
                    count += size // _SMALL
                at += size
            elif coding == 0:
                _, at = _varint(data, at, end)
            else:
                at += _SIZES.get(coding, 0)
    return count > most


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Read a number of variable length; return the place after it too, `end` if it is none."""
    value = 0
    for place in range(at, min(end, at + 10)):
        byte = data[place]
        value |= (byte & 0x7F) << 7 * (place - at)
        if byte < 0x80:
            return value, place + 1
    return 0, end
