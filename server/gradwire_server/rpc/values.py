"""Value messages: the function's own outputs, sent on the stream of its derivative."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

from gradwire_server.rpc.evaluate import Answer
from gradwire_wire import framing
from gradwire_wire.v1 import derivative_pb2


class ValueMessages:
    """The messages of an evaluation that runs while blocks are computed; taken once, between two blocks."""

    def __init__(self, evaluation: Coroutine[Any, Any, Answer]) -> None:
        """Start the evaluation."""
        self._task = asyncio.ensure_future(evaluation)
        # Marks an error as retrieved: a derivative that fails first leaves it unread.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._taken = False

    async def take(self, wait: bool) -> Iterator[bytes]:
        """Return the messages if the outputs are there and were not taken yet; with `wait`, wait for them.

        They are made as they are read, so that large outputs are not held twice.

        Raises:
            EngineError, ServiceError: the evaluation failed.
        """
        if self._taken or not (wait or self._task.done()):
            return iter(())
        answer = await self._task
        self._taken = True
        return _messages(answer)

    def close(self) -> None:
        """Stop the evaluation if it still runs."""
        self._task.cancel()


def _messages(answer: Answer) -> Iterator[bytes]:
    response, chunked = answer.message(whole=False)
    yield derivative_pb2.DifferentiateResponse(values=response).SerializeToString()
    for index in chunked:
        yield from framing.value_chunks(index, answer.arrays[index])
