"""Which error a stream reports when a write failed because the server had ended it."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from gradwire.transport.status import StatusRecorder

OF_WRITING = (grpc.StatusCode.INTERNAL, "Internal error from Core")
OF_THE_SERVER = (grpc.StatusCode.UNAVAILABLE, "draining")


class Call:
    """A call whose status is set, and then set again, as gRPC does it."""

    def __init__(self) -> None:
        self._status = OF_WRITING
        self._callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def end(self, status: tuple[grpc.StatusCode, str]) -> None:
        self._status = status
        for callback in self._callbacks:
            callback(self)

    async def code(self) -> grpc.StatusCode:
        return self._status[0]

    async def details(self) -> str:
        return self._status[1]

    async def trailing_metadata(self) -> Any:
        return grpc.aio.Metadata(("key", "value"))


def error_of(status: tuple[grpc.StatusCode, str]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(status[0], grpc.aio.Metadata(), grpc.aio.Metadata(), status[1])


@pytest.mark.parametrize("server_first", [True, False])
def test_the_server_s_own_reason_is_reported_whenever_it_came(server_first: bool) -> None:
    async def work() -> grpc.aio.AioRpcError:
        call: Any = Call()
        status = StatusRecorder(call)
        call.end(OF_THE_SERVER if server_first else OF_WRITING)
        if server_first:
            call.end(OF_WRITING)
        else:
            asyncio.get_running_loop().call_later(0.05, call.end, OF_THE_SERVER)
        return await status.reason(error_of(OF_WRITING))

    found = asyncio.run(work())
    assert (found.code(), found.details()) == OF_THE_SERVER
    assert dict(found.trailing_metadata() or ()) == {"key": "value"}


def test_a_failed_write_is_the_reason_when_the_server_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwire.transport.status._WAITS", 2)

    async def work() -> grpc.aio.AioRpcError:
        call: Any = Call()
        status = StatusRecorder(call)
        call.end(OF_WRITING)
        return await status.reason(error_of(OF_WRITING))

    assert asyncio.run(work()).code() is grpc.StatusCode.INTERNAL
