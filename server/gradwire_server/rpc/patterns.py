"""Sends the arrays of a sparse derivative's pattern."""

from __future__ import annotations

from collections.abc import AsyncIterator

from gradwire_engine.errors import InvalidInput
from gradwire_engine.planning.kernels import COLUMN_COLORS, ROW_COLORS
from gradwire_server.compute.shared_values import SharedStructure
from gradwire_wire import framing
from gradwire_wire.v1 import derivative_pb2


def check_pattern_wishes(
    request: derivative_pb2.DifferentiateRequest, structure: SharedStructure | None
) -> None:
    """Refuse wishes about the pattern of a dense derivative; "auto" may give one.

    Raises:
        InvalidInput: there is no pattern.
    """
    if structure is not None:
        return
    auto = request.options.sparsity == derivative_pb2.SPARSITY_AUTO
    for field, wished in (
        ("pattern_only", request.pattern_only),
        ("pattern_colors", request.pattern_colors and not auto),
    ):
        if wished:
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
