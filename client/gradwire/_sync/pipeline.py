"""Evaluations over one open stream, as futures: the synchronous face of `AsyncFunction.stream`."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

from gradwire._face.evaluation import Arrays
from gradwire._face.function import AsyncFunction
from gradwire._sync.bridge import Bridge
from gradwire.graphs.signature import Selection

T = TypeVar("T")


@contextmanager
def opened(manager: AbstractAsyncContextManager[T], bridge: Bridge) -> Iterator[T]:
    """An asynchronous context entered and left on the bridge's loop."""
    entered = bridge.run(_entered(manager))
    try:
        yield entered
    except BaseException as error:
        bridge.finish(_left(manager, error))
        raise
    bridge.finish(_left(manager, None))


async def _left(manager: AbstractAsyncContextManager[Any], error: BaseException | None) -> None:
    await manager.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)


async def _entered(manager: AbstractAsyncContextManager[T]) -> T:
    return await manager.__aenter__()


class Pipeline:
    """A function over an open stream. Every call returns a future at once; many may be in flight.

    `future.result()` waits and raises what the call raised; `future.cancel()` stops it.
    """

    def __init__(self, function: AsyncFunction, bridge: Bridge) -> None:
        self._function, self._bridge = function, bridge

    def __call__(
        self,
        /,
        *args: Any,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Future[Arrays]:
        """As `Function.__call__`."""
        return self._bridge.submit(self._function.value(*args, batched=batched, timeout=timeout, **inputs))

    def value(
        self,
        /,
        *args: Any,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Future[Arrays]:
        """As `Function.value`."""
        return self._bridge.submit(self._function.value(*args, batched=batched, timeout=timeout, **inputs))

    def jvp(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Future[Arrays]:
        """As `Function.jvp`."""
        return self._bridge.submit(
            self._function.jvp(*args, wrt=wrt, of=of, batched=batched, timeout=timeout, **inputs)
        )

    def vjp(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: Selection = None,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Future[Arrays]:
        """As `Function.vjp`."""
        return self._bridge.submit(
            self._function.vjp(*args, wrt=wrt, of=of, batched=batched, timeout=timeout, **inputs)
        )

    def hvp(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Future[Arrays]:
        """As `Function.hvp`."""
        return self._bridge.submit(
            self._function.hvp(*args, wrt=wrt, of=of, batched=batched, timeout=timeout, **inputs)
        )

    def grad(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Future[Arrays]:
        """As `Function.grad`."""
        return self._bridge.submit(
            self._function.grad(*args, wrt=wrt, of=of, batched=batched, timeout=timeout, **inputs)
        )

    def value_and_grad(
        self,
        /,
        *args: Any,
        wrt: Selection = None,
        of: str | int | None = None,
        batched: Selection = None,
        timeout: float | None = None,
        **inputs: Any,
    ) -> Future[tuple[Arrays, Arrays]]:
        """As `Function.value_and_grad`."""
        return self._bridge.submit(
            self._function.value_and_grad(*args, wrt=wrt, of=of, batched=batched, timeout=timeout, **inputs)
        )
