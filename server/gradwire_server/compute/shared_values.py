"""Values that workers read: held in the server until Ray is up, in its object store from then on.

The server holds a `SharedValue`; a worker is sent a `ValueSource` of it. Both carry a key that names the
content, so that a worker which has the content already does not fetch it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ray

from gradwire_engine.planning.plan import Plan, Structure
from gradwire_engine.values import GraphInfo

_LARGE = 1 << 20
"""Bytes from which storing a value leaves the event loop."""


class ValueSource(Protocol):
    """Where a worker reads a shared value from."""

    @property
    def key(self) -> str:
        """Names the content."""

    @property
    def lasting(self) -> bool:
        """Whether later requests refer to the content too, so that a worker should keep it."""

    def get(self) -> Any:
        """Return the content."""


@dataclass(frozen=True)
class InlineSource:
    """Content that travels with the call."""

    key: str
    value: Any
    lasting: bool = False

    def get(self) -> Any:
        """Return the content."""
        return self.value


@dataclass(frozen=True)
class StoredSource:
    """Content in Ray's object store; arrays in it are read in place."""

    key: str
    ref: ray.ObjectRef[Any]
    lasting: bool = False

    def get(self) -> Any:
        """Return the content; raise Ray's `ObjectLostError` when the node that held it is gone."""
        return ray.get(self.ref)


class SharedValue:
    """A value that workers read, as the server holds it."""

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

        Args:
            key: names the content; equal keys have equal contents.
            value: the content, unless `ref` is given.
            nbytes: about how many bytes the content has.
            ref: the content in Ray's object store.
            lasting: whether more than one request uses the content, so that workers should keep it.
        """
        self.key = key
        self.nbytes = nbytes
        self.lasting = lasting
        self._value = value
        self._ref = ref

    async def stored(self) -> StoredSource:
        """Put the value into the object store, unless it is there; large values are then held there alone."""
        if self._ref is None:
            value = self._value
            self._ref = await asyncio.to_thread(ray.put, value) if self.nbytes > _LARGE else ray.put(value)
            if self.nbytes > _LARGE:
                self._value = None
        return StoredSource(self.key, self._ref, self.lasting)

    async def inline(self) -> InlineSource:
        """Return a source that carries the value itself."""
        return InlineSource(self.key, await self.value(), self.lasting)

    async def value(self) -> Any:
        """Return the value, fetched into this process if it is only in the object store."""
        if self._value is not None or self._ref is None:
            return self._value
        return await self._ref


@dataclass(frozen=True)
class RegisteredGraph:
    """A registered graph as the server holds it: its description, and its model and weights for workers."""

    info: GraphInfo
    model: SharedValue
    weights: SharedValue

    @property
    def nbytes(self) -> int:
        """Bytes of the model and its weights."""
        return self.model.nbytes + self.weights.nbytes


def registered(info: GraphInfo, model: bytes, weights: Mapping[str, Any]) -> RegisteredGraph:
    """Hold a graph whose model and weights are in this process."""
    return RegisteredGraph(
        info,
        SharedValue(f"model {info.graph_id}", model, nbytes=len(model)),
        SharedValue(f"weights {info.graph_id}", weights, nbytes=info.weight_bytes),
    )


@dataclass(frozen=True)
class GraphSource:
    """Where a worker reads a registered graph from."""

    info: GraphInfo
    model: ValueSource
    weights: ValueSource


@dataclass(frozen=True, eq=False)
class SharedStructure:
    """A structure whose arrays workers read.

    Attributes:
        pattern_id: names the pattern.
        rows, columns: the coordinates of the values, in their order, int32.
        inputs: what kernels take beside the point, by name.
        nbytes: bytes of all arrays.
    """

    pattern_id: str
    rows: SharedValue
    columns: SharedValue
    inputs: Mapping[str, SharedValue]
    nbytes: int


@dataclass(frozen=True, eq=False)
class HeldPlan:
    """A plan, and the structure if it is of a sparse derivative."""

    plan: Plan
    structure: SharedStructure | None


def shared(plan: Plan, structure: Structure | None) -> HeldPlan:
    """Hold a plan and its structure; the arrays outlast requests, so that workers keep them placed."""
    if structure is None:
        return HeldPlan(plan, None)

    def value(name: str, array: object, nbytes: int) -> SharedValue:
        return SharedValue(f"{plan.plan_id} {name}", array, nbytes=nbytes, lasting=True)

    return HeldPlan(
        plan,
        SharedStructure(
            structure.pattern_id,
            value("rows", structure.rows, structure.rows.nbytes),
            value("columns", structure.columns, structure.columns.nbytes),
            {name: value(name, array, array.nbytes) for name, array in structure.inputs.items()},
            structure.nbytes,
        ),
    )
