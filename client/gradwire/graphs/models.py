"""Graphs as they are registered: serialized bytes, their hash, signature and large constants."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import onnx

from gradwire.errors import TraceError
from gradwire.graphs.constants import BoundModel, Constant
from gradwire.graphs.reference import Reference
from gradwire.graphs.signature import Signature
from gradwire.graphs.spec import ArraySpec
from gradwire.graphs.trees import Structure
from gradwire_wire.choices import GraphChoices


@dataclass(frozen=True)
class Model:
    """A graph ready to be registered.

    Attributes:
        data: its serialized bytes; empty for a graph of which only the server has them.
        graph_id: their SHA-256; that of the choices besides, if there are any.
        signature: its inputs, without the hidden ones, and outputs.
        bound: large constants, by the name of the hidden input that they are the value of.
        choices: what the server makes of the model.
        again: loads the same source for other shapes; None for a model, which has its own shapes.
        reference: the function that it was traced from; None for a model.
        structure: how the function's arguments and result are nested; None where it is not known.
    """

    data: bytes
    graph_id: str
    signature: Signature
    bound: Mapping[str, Constant] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    choices: GraphChoices = field(default_factory=GraphChoices, compare=False)
    again: "Callable[[Sequence[ArraySpec]], Model] | None" = field(default=None, compare=False, repr=False)
    reference: Reference | None = field(default=None, compare=False, repr=False)
    structure: Structure | None = field(default=None, compare=False, repr=False)

    def alone(self) -> "Model":
        """Return the graph without the source that it was made from."""
        return replace(self, bound=dict(self.bound), again=None, reference=None)

    def embedded(self) -> onnx.ModelProto:
        """Return the graph with all constants stored in it.

        Raises:
            TraceError: they do not fit into one model; only the server has the graph; or it makes another
                graph of the model, as `fixed=`, `inputs=`, `outputs=` or `rounding=` ask for.
        """
        if self.choices:
            raise TraceError(
                "the server makes this graph of the model by fixed=, inputs=, outputs= or rounding=, which a "
                "file cannot hold: keep the model and these arguments, or pickle the function"
            )
        if not self.data:
            raise TraceError(
                f"only the server holds the graph {self.graph_id}: take the model that it was registered from"
            )
        return BoundModel(onnx.ModelProto.FromString(self.data), self.bound).embedded()
