"""Reads what clients send: bytes become messages of the call's kind, within bounds, or a refusal by name.

gRPC is given no deserializer: it would answer bytes that are no message with INTERNAL and no details.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from gradwire_engine.errors import InvalidInput
from gradwire_server.rpc.incoming.bounds import Bounds
from gradwire_server.rpc.incoming.stalls import received

M = TypeVar("M", bound=Message)


class Reader(Generic[M]):
    """Reads the messages of one kind."""

    def __init__(self, kind: type[M], bounds: Bounds) -> None:
        """Read messages of `kind` within `bounds`."""
        self._kind = kind
        self._bounds = bounds

    def parse(self, data: bytes) -> M:
        """Return the message that bytes are; its content is not checked.

        Raises:
            InvalidInput: they are none of this kind.
            Overloaded: it has too many fields.
        """
        self._bounds.check_size(data, self._kind)
        try:
            return self._kind.FromString(data)
        except DecodeError:
            name = self._kind.DESCRIPTOR.full_name
            raise InvalidInput(
                f"the {len(data)} bytes sent are no message {name}: serialize one as protobuf does, with "
                "text in UTF-8"
            ) from None

    def check(self, message: M) -> None:
        """Check a message's content against the bounds (see `Bounds.check`)."""
        self._bounds.check(message)

    def message(self, data: bytes) -> M:
        """Return the message that bytes are, checked.

        Raises:
            EngineError, ServiceError: rows of the error table.
        """
        message = self.parse(data)
        self.check(message)
        return message

    async def messages(self, requests: AsyncIterator[bytes], seconds: float) -> AsyncIterator[M]:
        """Yield the messages of an upload, checked (see `message`); `Stalled` where none comes for long."""
        async for data in received(requests, seconds):
            yield self.message(data)

    async def next(self, context: grpc.aio.ServicerContext[Any, Any]) -> M | None:
        """Return the next message of a stream, not checked; None at its end (see `parse`)."""
        data: Any = await context.read()
        return None if data is grpc.aio.EOF else self.parse(data)
