"""Large constants by reference: arrays that a traced function closes over, sent once and then named.

Such an array becomes an input of the graph that users do not see. The graph stays small, is the same for
other contents of the array, and is compiled once for all of them; the array is uploaded under its SHA-256,
when a server does not hold it already.

Only floating-point arrays are referred to. Integers and bools are positions and masks, on which the structure
of a derivative depends: they stay in the graph.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from weakref import WeakValueDictionary

import numpy as np
import onnx
from onnx import helper

import gradwire_wire as wire
from gradwire.errors import TraceError

REFERENCED_BYTES = 1 << 20
"""Constants of at least this many bytes are referred to; a graph of smaller ones travels as quickly."""

_MODEL_BYTES = (1 << 31) - (1 << 20)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Constant:
    """An array as it was when a function was traced.

    Attributes:
        array: a copy, read-only and row-major: what is sent is what was traced, whatever
            becomes of the original.
        tensor_id: names the contents, dtype and shape.
    """

    array: wire.Array
    tensor_id: str

    def __str__(self) -> str:
        return f"{self.array.dtype.name}{list(self.array.shape)}"


_held: WeakValueDictionary[str, Constant] = WeakValueDictionary()


def is_large(array: wire.Array) -> bool:
    """Whether a constant is worth referring to."""
    return array.nbytes >= REFERENCED_BYTES and wire.is_float(array.dtype)


def snapshot(array: wire.Array) -> Constant:
    """The array as it is now; equal ones share their memory while one of them is in use."""
    copy = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    copy.setflags(write=False)
    made = Constant(copy, wire.tensor_id(copy))
    return _held.setdefault(made.tensor_id, made)


@dataclass(frozen=True)
class BoundModel:
    """A traced graph, and the arrays for those of its inputs that users do not see.

    Attributes:
        proto: the graph.
        bound: constants, by the name of the input that they are given for.
    """

    proto: onnx.ModelProto
    bound: Mapping[str, Constant] = field(default_factory=lambda: MappingProxyType({}))

    def embedded(self) -> onnx.ModelProto:
        """A model that holds its constants itself, as other tools want it.

        Raises:
            TraceError: they do not fit in one model.
        """
        if not self.bound:
            return self.proto
        size = self.proto.ByteSize() + sum(constant.array.nbytes for constant in self.bound.values())
        if size > _MODEL_BYTES:
            raise TraceError(
                f"a model that holds the function's {size} bytes of constants cannot be made: a model ends "
                "at 2 GiB; pass the function itself to client.function, or the large arrays as arguments"
            )
        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        shown = [info for info in self.proto.graph.input if info.name not in self.bound]
        del model.graph.input[:]
        model.graph.input.extend(shown)
        for name, constant in self.bound.items():
            array = constant.array
            model.graph.initializer.add(
                name=name,
                data_type=int(helper.np_dtype_to_tensor_dtype(array.dtype)),
                dims=array.shape,
                raw_data=array.tobytes(),
            )
        return model


def name_for(count: int, taken: Collection[str]) -> str:
    """The name of the input that holds a function's large constant number `count`, in order of first use."""
    name = f"constant.{count}"
    while name in taken:
        name += "_"
    return name


def bits(array: wire.Array) -> wire.Array:
    """The elements as integers: -0.0 differs from 0.0 then, and NaN does not from itself."""
    return array.view(f"u{array.itemsize}")
