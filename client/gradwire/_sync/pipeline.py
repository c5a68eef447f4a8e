# Generated from _face/evaluation.py
# by `python scripts/generate_sync.py`: do not edit.
"""Evaluations over one open stream, as futures."""

from concurrent.futures import Future
from typing import Any

from gradwire._face.evaluation import Arrays
from gradwire._face.function import AsyncFunction
from gradwire._sync.bridge import Bridge
from gradwire.graphs.signature import Selection


class Pipeline:
    """A function over an open stream. Every call returns a future at once; many may be in flight.

    `future.result()` waits and raises what the call raised; `future.cancel()` stops it.
    """

    def __init__(self, function: AsyncFunction, bridge: Bridge) -> None:
        self._function, self._bridge = function, bridge

    def __call__(
        self, /, *args: Any, batched: Selection = None, timeout: float | None = None, **inputs: Any
    ) -> Future[Arrays]:
        """Do what `Function.__call__` does; the future has its result."""
        return self._bridge.submit(self._function.__call__(*args, batched=batched, timeout=timeout, **inputs))

    def value(
        self, /, *args: Any, batched: Selection = None, timeout: float | None = None, **inputs: Any
    ) -> Future[Arrays]:
        """Do what `Function.value` does; the future has its result."""
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
        """Do what `Function.jvp` does; the future has its result."""
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
        """Do what `Function.vjp` does; the future has its result."""
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
        """Do what `Function.hvp` does; the future has its result."""
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
        """Do what `Function.grad` does; the future has its result."""
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
        """Do what `Function.value_and_grad` does; the future has its result."""
        return self._bridge.submit(
            self._function.value_and_grad(*args, wrt=wrt, of=of, batched=batched, timeout=timeout, **inputs)
        )
