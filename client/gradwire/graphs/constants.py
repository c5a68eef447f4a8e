"""Large constants of traced functions, which are sent once and then referred to by their hash.

Such an array becomes a hidden input of the graph. The graph stays small, does not depend on the array's
contents, and is compiled once for all of them; the array is uploaded under its SHA-256 if the server does not
hold it already.

Only floating-point arrays are referred to. Integers and bools are indices and masks, on which the structure
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
from gradwire.graphs.reference import Reference
from gradwire.graphs.trees import Structure

REFERENCED_BYTES = 1 << 20
"""Constants of at least this many bytes are referred to; smaller ones cost little in the graph."""

MODEL_BYTES = (1 << 31) - (1 << 20)
"""Constants of at most this many bytes go into one model: protobuf ends at 2 GiB, and nodes take some."""


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Constant:
    """An array as it was when a function was traced.

    Attributes:
        array: a read-only, row-major copy; later changes of the original do not matter.
        tensor_id: hash of the contents, dtype and shape.
    """

    array: wire.Array
    tensor_id: str

    def __str__(self) -> str:
        return f"{self.array.dtype.name}{list(self.array.shape)}"


_held: WeakValueDictionary[str, Constant] = WeakValueDictionary()


def is_large(array: wire.Array) -> bool:
    """Return whether a constant is referred to instead of being stored in the graph."""
    return array.nbytes >= REFERENCED_BYTES and wire.is_float(array.dtype)


def snapshot(array: wire.Array) -> Constant:
    """Copy the array; copies of equal arrays share memory while one of them is in use."""
    copy = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    copy.setflags(write=False)
    made = Constant(copy, wire.tensor_id(copy))
    return _held.setdefault(made.tensor_id, made)


@dataclass(frozen=True)
class BoundModel:
    """A traced graph, and the arrays for its hidden inputs.

    Attributes:
        proto: the graph.
        bound: constants, by the name of the hidden input that they are the value of.
        reference: the function that it was traced from; None for a model.
        structure: how the function's arguments and result are nested; None where it is not known.
    """

    proto: onnx.ModelProto
    bound: Mapping[str, Constant] = field(default_factory=lambda: MappingProxyType({}))
    reference: Reference | None = field(default=None, compare=False)
    structure: Structure | None = None

    def embedded(self) -> onnx.ModelProto:
        """Return a model without hidden inputs, whose constants are stored in it.

        Raises:
            TraceError: the constants do not fit in one model.
        """
        if not self.bound:
            return self.proto
        size = self.proto.ByteSize() + sum(constant.array.nbytes for constant in self.bound.values())
        if size > MODEL_BYTES:
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
    """Return the name of the hidden input for large constant number `count`, in order of first use."""
    name = f"constant.{count}"
    while name in taken:
        name += "_"
    return name


def bits(array: wire.Array) -> wire.Array:
    """View the elements as integers, so that -0.0 differs from 0.0 and a NaN equals itself."""
    return array.view(f"u{array.itemsize}")
