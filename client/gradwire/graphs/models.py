"""Graphs as they are registered: serialized bytes, their hash, signature and large constants."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from gradwire.graphs.constants import Constant
from gradwire.graphs.signature import Signature
from gradwire.graphs.spec import ArraySpec
from gradwire.graphs.trees import Structure


@dataclass(frozen=True)
class Model:
    """A graph ready to be registered.

    Attributes:
        data: its serialized bytes.
        graph_id: their SHA-256.
        signature: its inputs, without the hidden ones, and outputs.
        bound: large constants, by the name of the hidden input that they are the value of.
        again: loads the same source for other shapes; None for a model, which has its own shapes.
        structure: how the function's arguments and result are nested; None where it is not known.
    """

    data: bytes
    graph_id: str
    signature: Signature
    bound: Mapping[str, Constant] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    again: "Callable[[Sequence[ArraySpec]], Model] | None" = field(default=None, compare=False, repr=False)
    structure: Structure | None = field(default=None, compare=False, repr=False)
