"""Functions of parts of a model: inputs that are constants, chosen inputs and outputs, what rounding is."""

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches

import onnx

from gradwire.errors import InvalidArgumentError
from gradwire.graphs.files.inference import types_of
from gradwire.graphs.files.pruning import needed_by
from gradwire.graphs.files.reading import value_of
from gradwire.graphs.models import Model
from gradwire.graphs.signature import Signature, Value
from gradwire_wire.choices import ROUNDINGS, GraphChoices

_MOST_BYTES = 1 << 20


def choose(model: Model, choices: GraphChoices) -> Model:
    """Return a model with choices, which make another graph of it; the server carries them out.

    Raises:
        InvalidArgumentError: a name does not exist in the graph, or the constants are too large.
    """
    if choices.rounding not in ROUNDINGS:
        known = " or ".join(repr(name) for name in ROUNDINGS if name)
        raise InvalidArgumentError(f"rounding={choices.rounding!r} is not {known}")
    if sum(array.nbytes for array in choices.fixed.values()) > _MOST_BYTES:
        raise InvalidArgumentError("fixed: the arrays have more than 1 MiB; make them constants of the model")
    again = model.again
    return replace(
        model,
        graph_id=choices.graph_id(model.graph_id),
        signature=_signature(model, choices) if choices.fixed or _cuts(choices) else model.signature,
        choices=choices,
        again=None if again is None else lambda specs: choose(again(specs), choices),
    )


def _cuts(choices: GraphChoices) -> bool:
    return bool(choices.inputs or choices.outputs)


def _signature(model: Model, choices: GraphChoices) -> Signature:
    inputs = tuple(value for value in model.signature.inputs if value.name not in choices.fixed)
    outputs = model.signature.outputs
    if not _cuts(choices):
        return Signature(inputs, outputs)
    proto = onnx.load_model_from_string(model.data)
    declared = {value.name: value.type for value in (*proto.graph.value_info, *proto.graph.output)}
    types = declared | types_of(proto)
    inner = {name: onnx.TypeProto() for node in proto.graph.node for name in node.output if name}
    known = inner | types
    own = {value.name: value for value in (*model.signature.inputs, *outputs)}

    def chosen(names: Iterable[str], role: str) -> tuple[Value, ...]:
        found = []
        for name in names:
            if name not in known:
                close = get_close_matches(name, known, 3)
                hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
                raise InvalidArgumentError(f"{role}: the graph has no value {name!r}{hint}")
            found.append(own.get(name) or value_of(onnx.ValueInfoProto(name=name, type=known[name])))
        return tuple(found)

    if choices.outputs:
        outputs = chosen(choices.outputs, "outputs")
        needed = needed_by(proto.graph, choices.outputs)
        inputs = tuple(value for value in inputs if value.name in needed)
    return Signature(chosen(choices.inputs, "inputs") if choices.inputs else inputs, outputs)
