"""What a registration makes of a model: constants, inputs, outputs and rounding, and the id of the graph."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from gradwire_wire.tensors import Array, from_tensor, tensor_id, to_tensor
from gradwire_wire.v1 import graph_pb2

ROUNDINGS: Mapping[str, graph_pb2.Rounding] = {
    "": graph_pb2.ROUNDING_UNSPECIFIED,
    "straight_through": graph_pb2.ROUNDING_STRAIGHT_THROUGH,
}
ROUNDING_NAMES: Mapping[int, str] = {number: name for name, number in ROUNDINGS.items()}


@dataclass(frozen=True, eq=False)
class GraphChoices:
    """The fields of `RegisterGraphRequest` that are no part of the model; none by default."""

    fixed: Mapping[str, Array] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    rounding: str = ""

    def __bool__(self) -> bool:
        return bool(self.fixed or self.inputs or self.outputs or self.rounding)

    @classmethod
    def of(cls, message: graph_pb2.RegisterGraphRequest) -> Self:
        """Return the choices of a registration; raise `WireError` if a constant is not whole."""
        fixed = {name: from_tensor(tensor) for name, tensor in message.fixed.items()}
        rounding = ROUNDING_NAMES[message.rounding]
        return cls(fixed, tuple(message.inputs), tuple(message.outputs), rounding)

    def message(self) -> graph_pb2.RegisterGraphRequest:
        """Return a registration's first message, without a part of the model."""
        return graph_pb2.RegisterGraphRequest(
            fixed={name: to_tensor(array) for name, array in self.fixed.items()},
            inputs=self.inputs,
            outputs=self.outputs,
            rounding=ROUNDINGS[self.rounding],
        )

    def graph_id(self, model_id: str) -> str:
        """Return the id of the graph that these choices make, as `Graph.graph_id` documents.

        Args:
            model_id: the id of the graph without choices.
        """
        if not self:
            return model_id
        lines = [f"graph {model_id}".encode()]
        fixed = sorted((name.encode(), array) for name, array in self.fixed.items())
        lines += [b"fixed %d:%b=%b" % (len(name), name, tensor_id(array).encode()) for name, array in fixed]
        for role, names in ((b"input", self.inputs), (b"output", self.outputs)):
            lines += [b"%b %d:%b" % (role, len(name), name) for name in map(str.encode, names)]
        if self.rounding:
            lines.append(b"rounding %d" % ROUNDINGS[self.rounding])
        return hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()
