"""Ends calls of clients that have stopped to send or to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from gradwire_server.errors import Stalled


async def received(requests: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    """Yield the messages of an upload.

    Raises:
        Stalled: none came for so many seconds.
    """
    iterator = aiter(requests)
    while True:
        try:
            async with asyncio.timeout(seconds):
                data = await anext(iterator)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Stalled(
                f"the upload stopped: nothing came for {seconds:g} s (stalled_seconds of this server)"
            ) from None
        yield data


async def write(context: grpc.aio.ServicerContext[Any, Any], message: Any, seconds: float) -> None:
    """Write a message to a stream; the call is of no more use where that takes too long.

    Raises:
        Stalled: the client did not read for so many seconds.
    """
    try:
        async with asyncio.timeout(seconds):
            await context.write(message)
    except TimeoutError:
        raise Stalled(
            f"the client has not read for {seconds:g} s (unread_seconds of this server): ask again"
        ) from None
