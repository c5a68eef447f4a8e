"""Graphs as they are registered: serialized bytes, their hash, signature and large constants."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from gradwire.graphs.constants import Constant
from gradwire.graphs.reference import Reference
from gradwire.graphs.signature import Signature
from gradwire.graphs.spec import ArraySpec


@dataclass(frozen=True)
class Model:
    """A graph ready to be registered.

    Attributes:
        data: its serialized bytes.
        graph_id: their SHA-256.
        signature: its inputs, without the hidden ones, and outputs.
        bound: large constants, by the name of the hidden input that they are the value of.
        again: loads the same source for other shapes; None for a model, which has its own shapes.
        reference: the function that it was traced from; None for a model.
    """

    data: bytes
    graph_id: str
    signature: Signature
    bound: Mapping[str, Constant] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    again: "Callable[[Sequence[ArraySpec]], Model] | None" = field(default=None, compare=False, repr=False)
    reference: Reference | None = field(default=None, compare=False, repr=False)
