"""Data that workers read: kept here until Ray is there, in its object store from then on.

A box is the server's side; what a worker gets of it is a source. Sources name their content, so that a
worker that has it already does not fetch it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ray

from gradwire_engine.values import GraphInfo

_LARGE = 1 << 20
"""Bytes from which storing or fetching leaves the event loop."""


class Source(Protocol):
    """What a worker gets of a box."""

    @property
    def key(self) -> str:
        """Names the content."""

    @property
    def lasting(self) -> bool:
        """Whether later requests refer to it too, so that it is worth keeping where it is used."""

    def get(self) -> Any:
        """The content."""


@dataclass(frozen=True)
class Sent:
    """Content that travels with the call."""

    key: str
    value: Any
    lasting: bool = False

    def get(self) -> Any:
        """The content."""
        return self.value


@dataclass(frozen=True)
class Stored:
    """Content in Ray's object store; arrays in it are read in place."""

    key: str
    ref: ray.ObjectRef[Any]
    lasting: bool = False

    def get(self) -> Any:
        """The content; raises Ray's ObjectLostError when the node that held it is gone."""
        return ray.get(self.ref)


class Box:
    """A value that workers read."""

    def __init__(
        self,
        key: str,
        value: Any = None,
        *,
        nbytes: int = 0,
        ref: ray.ObjectRef[Any] | None = None,
        lasting: bool = False,
    ) -> None:
        """Hold a value, or the reference of one that is in the object store already.

        ``lasting``: the key names the content for ever, and more than one request uses it.
        """
        self.key = key
        self.nbytes = nbytes
        self.lasting = lasting
        self._value = value
        self._ref = ref

    async def stored(self) -> Stored:
        """The value in the object store; from now on it is held there alone."""
        if self._ref is None:
            value = self._value
            self._ref = await asyncio.to_thread(ray.put, value) if self.nbytes > _LARGE else ray.put(value)
            if self.nbytes > _LARGE:
                self._value = None
        return Stored(self.key, self._ref, self.lasting)

    async def sent(self) -> Sent:
        """The value itself."""
        return Sent(self.key, await self.value(), self.lasting)

    async def value(self) -> Any:
        """The value in this process."""
        if self._value is not None or self._ref is None:
            return self._value
        return await self._ref


@dataclass(frozen=True)
class Registered:
    """A registered graph, as the serving process holds it: its signature and two closed boxes."""

    info: GraphInfo
    model: Box
    weights: Box

    @property
    def nbytes(self) -> int:
        """What it weighs in a cache."""
        return self.model.nbytes + self.weights.nbytes


@dataclass(frozen=True)
class GraphSource:
    """A registered graph, as a worker gets it."""

    info: GraphInfo
    model: Source
    weights: Source


async def open_boxes(value: Any, convert: Callable[[Box], Any]) -> Any:
    """A call's argument with every box in it replaced by ``await convert(box)``."""
    if isinstance(value, Box):
        return await convert(value)
    if isinstance(value, Registered):
        return GraphSource(value.info, await convert(value.model), await convert(value.weights))
    if isinstance(value, Mapping):
        return {name: await open_boxes(item, convert) for name, item in value.items()}
    return value
