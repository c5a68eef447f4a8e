"""Builds requests: the parts that stay the same from call to call once, the arrays for each call."""

import asyncio
from collections.abc import Mapping, Sequence

import gradwire_wire as wire
from gradwire.graphs.constants import Constant
from gradwire.graphs.signature import FunctionSpec
from gradwire.transport.connection import LARGE_BYTES
from gradwire.transport.sightings import MOST_BYTES, Sightings
from gradwire_wire.v1 import function_pb2, tensor_pb2

# Templates that are kept for a function whose shapes keep changing.
_KEPT = 64


async def tensor_ids(arrays: Mapping[str, wire.Array], sightings: Sightings) -> dict[str, str]:
    """Return the ids, by name, of those arrays that are not sent in the request.

    Large ones are referred to by id, so that they travel once for many requests. A point that is new with
    every request would travel once in any case, and cost two more messages: what has not been seen before is
    sent in the request, as long as there is room. Indices and masks have ids always: a sparsity pattern
    follows those that are held.
    """
    ids, room = {}, MOST_BYTES
    for name, array in arrays.items():
        if array.nbytes <= LARGE_BYTES:
            continue
        if wire.is_float(array.dtype) and array.nbytes <= room and sightings.first(array):
            room -= array.nbytes
            continue
        # In a thread: a gigabyte takes a second to hash, and the loop has other calls to serve.
        ids[name] = await asyncio.to_thread(wire.tensor_id, array)
    return ids


def tensors(arrays: Mapping[str, wire.Array], ids: Mapping[str, str]) -> dict[str, tensor_pb2.Tensor]:
    """Return one message for each array: its id where it has one, else its elements."""
    return {
        name: wire.tensor_by_id(ids[name], array.dtype, array.shape) if name in ids else wire.to_tensor(array)
        for name, array in arrays.items()
    }


def constants_by_id(bound: Mapping[str, Constant]) -> dict[str, tensor_pb2.Tensor]:
    """Return one message for each of a model's constants, by id."""
    return {
        name: wire.tensor_by_id(constant.tensor_id, constant.array.dtype, constant.array.shape)
        for name, constant in bound.items()
    }


class EvaluateTemplate:
    """An `EvaluateRequest` of a function for arrays of certain types.

    The message is reused: serialize it before the next `fill`.

    Args:
        spec: the function.
        constants: the messages of its constants, by input.
        arrays: examples of the arguments, by input; only their dtypes and shapes matter.
        outputs: the outputs asked for; empty for all.
        batched: the inputs with a leading batch axis.
    """

    def __init__(
        self,
        spec: FunctionSpec,
        constants: Mapping[str, tensor_pb2.Tensor],
        arrays: Mapping[str, wire.Array],
        outputs: Sequence[str],
        batched: Sequence[str],
    ) -> None:
        self.message = function_pb2.EvaluateStreamRequest()
        self.evaluate = self.message.evaluate
        self.evaluate.function.CopyFrom(spec.proto)
        self.evaluate.outputs.extend(outputs)
        self.evaluate.batched.extend(batched)
        for name, constant in constants.items():
            self.evaluate.inputs[name].CopyFrom(constant)
        for name, array in arrays.items():
            self.evaluate.inputs[name].CopyFrom(wire.tensor_type(array.dtype, array.shape))
        self._tensors = [(name, self.evaluate.inputs[name]) for name in arrays]

    def fill(self, arrays: Mapping[str, wire.Array], ids: Mapping[str, str]) -> None:
        """Fill in the elements, or the ids, of these arrays."""
        for name, tensor in self._tensors:
            if name in ids:
                tensor.tensor_id = ids[name]
            else:
                tensor.data = wire.wire_array(arrays[name]).tobytes()


class Templates:
    """Caches the templates of one function by the types of its arguments."""

    def __init__(self, spec: FunctionSpec, constants: Mapping[str, tensor_pb2.Tensor]) -> None:
        self._spec, self._constants = spec, constants
        self._kept: dict[object, EvaluateTemplate] = {}

    def get(
        self, arrays: Mapping[str, wire.Array], outputs: Sequence[str], batched: tuple[str, ...]
    ) -> EvaluateTemplate:
        """Return the template for arrays of these types."""
        key = (tuple([(a.dtype, a.shape) for a in arrays.values()]), tuple(outputs), batched)
        template = self._kept.get(key)
        if template is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            template = self._kept[key] = EvaluateTemplate(
                self._spec, self._constants, arrays, outputs, batched
            )
        return template
