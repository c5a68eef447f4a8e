"""Runs coroutines for plain calls, on one event loop in a thread of its own.

The synchronous classes delegate to the asynchronous ones: gRPC's asynchronous streams are faster in Python
than its threaded ones, and there is one implementation. All clients of a process share the loop, since gRPC
serves several loops in one process badly.
"""

import asyncio
import atexit
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

from gradwire.tracebacks import shortened

T = TypeVar("T")

_STOP_SECONDS = 2.0


class Bridge:
    """An event loop in a daemon thread, with methods that run coroutines on it."""

    def __init__(self) -> None:
        self._stopped = False
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_report)
        self._thread = threading.Thread(target=self._loop.run_forever, name="gradwire", daemon=True)
        self._thread.start()
        atexit.register(self._stop)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine; cancelling the future cancels it."""
        if self._stopped:
            work.close()
            raise RuntimeError("the process is ending: no more calls can be made")
        return asyncio.run_coroutine_threadsafe(_for_users(work), self._loop)

    def refuse_to_wait(self) -> None:
        """Raise `RuntimeError` in the loop's own thread, which would wait for itself."""
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "a progress callback cannot call the client it is called by: it would wait for itself; "
                "use gw.aio, or do it after the call"
            )

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return its result. Ctrl-C, or any exception in this thread, cancels it."""
        __tracebackhide__ = True
        try:
            self.refuse_to_wait()
        except RuntimeError:
            work.close()
            raise
        future = self.submit(work)
        try:
            return future.result()
        except BaseException as error:
            future.cancel()
            error.__traceback__ = shortened(error)
            raise

    def finish(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine that cleans up; not at the end of the process, when all work is cancelled."""
        if self._stopped:
            work.close()
        else:
            self.run(work)

    def call(self, make: Callable[[], T]) -> T:
        """Run a plain function in the loop's thread and return its result."""

        async def work() -> T:
            return make()

        return self.run(work())

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Iterate over an asynchronous iterator, and close it in any case."""
        __tracebackhide__ = True
        try:
            while True:
                item = self.run(_next(items))
                if isinstance(item, _End):
                    return
                yield item
        finally:
            self.finish(_close(items))

    def _stop(self) -> None:
        self._stopped = True
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop)
        self._thread.join(_STOP_SECONDS)

    async def _cancel_all(self) -> None:
        # asyncio would report tasks that are still running as destroyed while pending.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        try:
            if others:
                await asyncio.wait(others, timeout=_STOP_SECONDS / 2)
        finally:
            self._loop.call_soon(self._loop.stop)


def in_thread(function: Callable[[T], Any] | None) -> Callable[[T], Coroutine[Any, Any, Any]] | None:
    """Return a coroutine function that runs a plain one in a thread, where it may use the client.

    What is no function is returned as it is: None, or a wrong argument that is refused where others are.
    """
    if not callable(function):
        return function

    async def run(value: T) -> Any:
        return await asyncio.to_thread(function, value)

    return run


@contextmanager
def entered(manager: AbstractAsyncContextManager[T], bridge: Bridge) -> Iterator[T]:
    """Enter and leave an asynchronous context on the bridge's loop."""
    value = bridge.run(_enter(manager))
    try:
        yield value
    except BaseException as error:
        bridge.finish(_leave(manager, error))
        raise
    bridge.finish(_leave(manager, None))


async def _for_users(work: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine; its errors have no frames but the user's."""
    try:
        return await work
    except Exception as error:
        error.__traceback__ = shortened(error)
        raise


async def _leave(manager: AbstractAsyncContextManager[Any], error: BaseException | None) -> None:
    await manager.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)


async def _enter(manager: AbstractAsyncContextManager[T]) -> T:
    return await manager.__aenter__()


class _End:
    """Marks the end of an asynchronous iterator."""


async def _next(items: AsyncIterator[T]) -> T | _End:
    return await anext(items, _End())


async def _close(items: AsyncIterator[Any]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # gRPC wakes every loop of the process for each event; loops that find nothing to do get this error.
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)


_lock = threading.Lock()
_shared: Bridge | None = None


def shared_bridge() -> Bridge:
    """Return the process's bridge, started with the first use."""
    global _shared
    with _lock:
        if _shared is None or not _shared._thread.is_alive():  # never started, or lost in a fork
            _shared = Bridge()
        return _shared
