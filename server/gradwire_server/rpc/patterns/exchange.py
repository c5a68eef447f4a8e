"""Sends and receives the coordinates of sparse derivatives."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

import gradwire_wire as wire
from gradwire_engine.errors import InvalidInput
from gradwire_engine.planning.kernels import COLUMN_COLORS, ROW_COLORS
from gradwire_engine.planning.plan import PATTERN_COLUMNS, PATTERN_ROWS
from gradwire_server.compute.caches.store import Store
from gradwire_server.compute.shared_values import SharedStructure, SharedValue
from gradwire_wire import framing
from gradwire_wire.v1 import derivative_pb2, tensor_pb2

Array = np.ndarray[Any, Any]


def check_pattern_options(
    request: derivative_pb2.DifferentiateRequest, structure: SharedStructure | None
) -> None:
    """Refuse options about the pattern of a dense derivative; "auto" may give one.

    Raises:
        InvalidInput: there is no pattern.
    """
    if structure is not None:
        return
    auto = request.options.sparsity == derivative_pb2.SPARSITY_AUTO
    for field, asked in (
        ("pattern_only", request.pattern_only),
        ("pattern_colors", request.pattern_colors and not auto),
    ):
        if asked:
            raise InvalidInput("only a sparse derivative has a pattern: set options.sparsity", field)


async def pattern_messages(
    request: derivative_pb2.DifferentiateRequest, structure: SharedStructure
) -> AsyncIterator[bytes]:
    """Yield the serialized DifferentiateResponse messages that carry what the client lacks of a pattern."""
    parts = []
    if structure.pattern_id != request.pattern_id:
        parts += [
            (derivative_pb2.PATTERN_PART_ROWS, structure.rows),
            (derivative_pb2.PATTERN_PART_COLUMNS, structure.columns),
        ]
    if request.pattern_colors:
        parts += [
            (part, structure.inputs[name])
            for part, name in (
                (derivative_pb2.PATTERN_PART_COLUMN_COLORS, COLUMN_COLORS),
                (derivative_pb2.PATTERN_PART_ROW_COLORS, ROW_COLORS),
            )
            if name in structure.inputs
        ]
    for part, value in parts:
        for message in framing.pattern_chunks(part, await value.value()):
            yield message


def given_pattern(
    options: derivative_pb2.PlanOptions, store: Store
) -> tuple[str, dict[str, Array | SharedValue]]:
    """Return the name and the coordinates of a client's own pattern; "" and none without one.

    Raises:
        InvalidInput: a tensor cannot be read.
        UnknownId: it is not held here.
    """
    if not options.HasField("pattern"):
        if options.pattern_trusted:
            raise InvalidInput("pattern_trusted is of a pattern that is given", "options.pattern_trusted")
        return "", {}
    digest = hashlib.sha256()
    arrays: dict[str, Array | SharedValue] = {}
    for name, tensor in ((PATTERN_ROWS, options.pattern.rows), (PATTERN_COLUMNS, options.pattern.columns)):
        identifier, arrays[name] = _coordinates(tensor, store)
        digest.update(identifier.encode())
    return digest.hexdigest(), arrays


def _coordinates(tensor: tensor_pb2.Tensor, store: Store) -> tuple[str, Array | SharedValue]:
    """Return an id of the content, and the content."""
    if tensor.HasField("tensor_id"):
        return store.scoped(tensor.tensor_id), store.tensor(tensor.tensor_id).elements
    try:
        array = wire.from_tensor(tensor)
    except wire.WireError as error:
        raise InvalidInput(f"pattern: {error}", "options.pattern") from None
    return wire.tensor_id(array), array
