"""A function as one of lists: one array for each input, in order, gives one for each output."""

from collections.abc import Sequence
from typing import Any

import gradwire_wire as wire
from gradwire.graphs.signature import Signature

Arrays = Sequence[wire.Array]


class FlatFunction:
    """A function on the server, called with lists of arrays; derivatives are by every floating-point input.

    Args:
        function: an `AsyncFunction`.
        timeout: seconds that each call may take.
    """

    def __init__(self, function: Any, timeout: float | None = None) -> None:
        self._function, self._timeout = function, timeout

    @property
    def signature(self) -> Signature:
        """The function's inputs and outputs."""
        signature: Signature = self._function.signature
        return signature

    async def values(self, point: Arrays) -> list[wire.Array]:
        """Return all outputs."""
        return await self._evaluated(self._function, point)

    async def tangents(self, point: Arrays, tangents: Arrays) -> list[wire.Array]:
        """Return J v for every floating-point output, in forward mode."""
        return await self._evaluated(self._function.as_jvp(), [*point, *tangents])

    async def products(self, point: Arrays, cotangents: Arrays) -> list[wire.Array]:
        """Return J'w for every floating-point input, in reverse mode."""
        return await self._evaluated(self._function.as_vjp(), [*point, *cotangents])

    async def curvatures(self, point: Arrays, cotangents: Arrays, tangents: Arrays) -> list[wire.Array]:
        """Return the derivative of J'w along tangents of the floating-point inputs."""
        varied = [value.name for value in self.signature.inputs if value.floating]
        second = self._function.as_vjp().as_jvp(wrt=varied)
        return await self._evaluated(second, [*point, *cotangents, *tangents])

    async def jacobians(self, point: Arrays, mode: str) -> list[wire.Array]:
        """Return the Jacobian of each floating-point output by each floating-point input, row by row."""
        named = dict(zip((value.name for value in self.signature.inputs), point, strict=True))
        outputs = [value.name for value in self.signature.outputs if value.floating]
        inputs = [value.name for value in self.signature.inputs if value.floating]
        rows = await self._function.jacobian(named, wrt=inputs, of=outputs, mode=mode, timeout=self._timeout)
        return [array for row in rows for array in row]

    async def _evaluated(self, function: Any, given: Arrays) -> list[wire.Array]:
        names = [value.name for value in function.signature.inputs]
        arrays = dict(zip(names, given, strict=True))
        results: list[wire.Array] = await function._evaluate(arrays, None, self._timeout)
        return results
