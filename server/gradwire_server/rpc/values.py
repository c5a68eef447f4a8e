"""The function's own outputs, evaluated beside the blocks of its derivative and sent on the same stream."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

from gradwire_server.rpc.evaluate import Answer
from gradwire_wire import framing
from gradwire_wire.v1 import derivative_pb2


class Beside:
    """An evaluation under way; its messages are taken once, as soon as it is done and no block is open."""

    def __init__(self, evaluation: Coroutine[Any, Any, Answer]) -> None:
        """Begin the evaluation."""
        self._task = asyncio.ensure_future(evaluation)
        # A derivative that fails first leaves this error unread; the client is told one of them.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._taken = False

    async def messages(self, wait: bool) -> Iterator[bytes]:
        """The messages if the outputs are there (or once they are, with ``wait``) and were not taken yet.

        They are made as they are read: large outputs are not held twice.

        Raises:
            EngineError, ServiceError: the evaluation failed.
        """
        if self._taken or not (wait or self._task.done()):
            return iter(())
        answer = await self._task
        self._taken = True
        return _messages(answer)

    def close(self) -> None:
        """Stop the evaluation if nobody waits for it any more."""
        self._task.cancel()


def _messages(answer: Answer) -> Iterator[bytes]:
    response, chunked = answer.message(whole=False)
    yield derivative_pb2.DifferentiateResponse(values=response).SerializeToString()
    for index in chunked:
        yield from framing.value_chunks(index, answer.arrays[index])
