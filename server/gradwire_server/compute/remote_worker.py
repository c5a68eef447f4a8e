"""The server's end of a worker: turns requests into calls of the workbench in the worker's process.

A kernel with its weights, and the inputs of a point, travel with the first call that needs them; later
calls name them by key. What a worker holds is bounded, so it may have dropped some: it then answers
`NotHeld`, and the call is made again with everything it needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, TypeVarTuple

from cachetools import LRUCache

from gradwire_engine.values import Signature
from gradwire_server.compute.shared_values import GraphSource, RegisteredGraph, SharedValue, ValueSource
from gradwire_server.compute.workbench import (
    KERNELS,
    POINTS,
    Delivery,
    KernelSource,
    NotHeld,
    PointSource,
    Workbench,
)
from gradwire_server.compute.worker import (
    Array,
    BatchRequest,
    BlockRequest,
    Compiled,
    CompileRequest,
    Computed,
    EvaluateRequest,
    LoadableKernel,
    Planned,
    PlanRequest,
    Point,
    RegisterRequest,
    SharedInputs,
    SignatureRequest,
)
from gradwire_server.process.heartbeat import Place

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class Link(Protocol):
    """A way to a process that has a workbench; calls arrive in the order in which they are made."""

    @property
    def name(self) -> str:
        """The name of the process in results and logs."""

    @property
    def place(self) -> Place | None:
        """Where the process runs; None while it is not known."""

    async def source(self, value: SharedValue) -> ValueSource:
        """Make a shared value readable for the process."""

    async def call(self, method: Callable[[Workbench, *Ts], R], *arguments: *Ts) -> R:
        """Call a method of the workbench; raise what `Worker` says."""

    async def register(self, data: ValueSource, request: RegisterRequest) -> RegisteredGraph:
        """Call `Workbench.register`; model and weights stay where other workers can read them."""

    def kill(self) -> None:
        """End the process, whatever it does; no error if it is gone."""


class RemoteWorker:
    """A `Worker` in another process."""

    def __init__(self, link: Link) -> None:
        """Use a process that is ready, or will be when it answers its first call."""
        self._link = link
        # What the process holds, as far as it is known here: as many as it keeps.
        self._kernels: LRUCache[str, bool] = LRUCache(KERNELS)
        self._points: LRUCache[str, bool] = LRUCache(POINTS)

    @property
    def name(self) -> str:
        """The name in results and logs."""
        return self._link.name

    @property
    def place(self) -> Place | None:
        """Where the process runs; None while it is not known."""
        return self._link.place

    async def register(self, request: RegisterRequest) -> RegisteredGraph:
        """Parse and check a graph."""
        data = await self._link.source(request.data)
        return await self._link.register(data, request)

    async def signature(self, request: SignatureRequest) -> Signature:
        """Derive the signature of a transformed function."""
        return await self._link.call(Workbench.signature, request.signature, request.transforms)

    async def plan(self, request: PlanRequest) -> Planned:
        """Plan a derivative; its kernels are compiled in passing."""
        graph, known = await self._graph(request.graph), await self._inputs(request.known)
        return await self._link.call(Workbench.plan, graph, request.problem, known)

    async def compile(self, request: CompileRequest) -> Compiled:
        """Trace and compile a kernel, for all workers of this device kind."""
        return await self._link.call(Workbench.compile, await self._graph(request.graph), request.spec)

    async def evaluate(self, request: EvaluateRequest) -> Computed:
        """Run an evaluation."""
        key, inputs = request.kernel.key, await self._inputs(request.inputs)
        return await self._delivering(
            request.kernel,
            None,
            lambda delivery: self._link.call(Workbench.evaluate, delivery, key, inputs),
        )

    async def block(self, request: BlockRequest) -> Computed:
        """Compute one block of a derivative."""
        key, point, block = request.kernel.key, request.point.key, request.block
        return await self._delivering(
            request.kernel,
            request.point,
            lambda delivery: self._link.call(Workbench.block, delivery, key, point, block),
        )

    async def batch(self, request: BatchRequest) -> Computed:
        """Run an evaluation of which some inputs are those of a point."""
        key, point, inputs = request.kernel.key, request.point.key, await self._inputs(request.inputs)
        return await self._delivering(
            request.kernel,
            request.point,
            lambda delivery: self._link.call(Workbench.batch, delivery, key, point, inputs),
        )

    def kill(self) -> None:
        """End the process, whatever it does; no error if it is gone."""
        self._link.kill()

    async def _delivering(
        self, kernel: LoadableKernel, point: Point | None, call: Callable[[Delivery], Awaitable[Computed]]
    ) -> Computed:
        """Make a call, delivering what the process is not known to hold."""
        try:
            return await call(await self._delivery(kernel, point))
        except NotHeld:
            self._kernels.pop(kernel.key, None)
            if point is not None:
                self._points.pop(point.key, None)
            return await call(await self._delivery(kernel, point))

    async def _delivery(self, kernel: LoadableKernel, point: Point | None) -> Delivery:
        kernel_source = point_source = None
        if not self._kernels.get(kernel.key):
            executable = kernel.executable
            kernel_source = KernelSource(
                kernel.key,
                await self._graph(kernel.graph),
                executable.spec,
                executable.facts,
                await self._link.source(executable.data),
            )
        if point is not None and not self._points.get(point.key):
            inputs = {name: await self._link.source(value) for name, value in point.inputs.items()}
            point_source = PointSource(point.key, inputs)
        # Noted only just before the call is made: until then, other calls must not rely on it.
        self._kernels[kernel.key] = True
        if point is not None:
            self._points[point.key] = True
        return Delivery(kernel_source, point_source)

    async def _graph(self, graph: RegisteredGraph) -> GraphSource:
        source = self._link.source
        return GraphSource(graph.info, await source(graph.model), await source(graph.weights))

    async def _inputs(self, inputs: SharedInputs) -> dict[str, Array | ValueSource]:
        return {
            name: await self._link.source(value) if isinstance(value, SharedValue) else value
            for name, value in inputs.items()
        }
