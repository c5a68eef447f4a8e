"""Sends the coordinates of a sparse derivative."""

from __future__ import annotations

from collections.abc import AsyncIterator

from gradwire_server.compute.structures import SharedStructure
from gradwire_wire import framing


async def pattern_messages(structure: SharedStructure) -> AsyncIterator[bytes]:
    """Yield the serialized DifferentiateResponse messages that carry all coordinates: rows, then columns."""
    for columns, value in ((False, structure.rows), (True, structure.columns)):
        for message in framing.pattern_chunks(columns, await value.value()):
            yield message
