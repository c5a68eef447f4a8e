"""Caches what is made once: kernels, plans and signatures in memory; kernels, plans and graphs on disk.

Each is made once: concurrent requests for one wait for the same computation.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import structlog
from cachetools import LRUCache

from gradwire_engine.planning.kernels import Spec, device_fingerprint
from gradwire_engine.planning.plan import Plan, Problem, Structure
from gradwire_engine.planning.transforms import FunctionSpec
from gradwire_engine.values import GraphInfo, Signature
from gradwire_server.compute.caches.disk import Disk
from gradwire_server.compute.caches.lru import lru_of_bytes
from gradwire_server.compute.compiler import Compiler
from gradwire_server.compute.shared_values import (
    HeldPlan,
    RegisteredGraph,
    SharedStructure,
    SharedValue,
    registered,
    shared,
)
from gradwire_server.compute.single_flight import SingleFlight
from gradwire_server.compute.worker import Compiled, Executable, RegisterRequest, SharedInputs
from gradwire_server.observe.events import Event, Looked, unheard
from gradwire_server.observe.readings import Held

_log = structlog.get_logger()

_KEPT_GRAPH_BYTES = 16 << 20
"""Graphs of up to this size are kept on disk."""

_PLAN_BLOCKS = 4096
"""Blocks that count as one plan; one of a million takes the room of many."""

_ABANDONED = 8
"""Compilations, and plans, that go on for nobody."""

_SIGNATURES = 64
"""Signatures of transformed functions to keep."""


@lru_cache(maxsize=1)
def engine_fingerprint() -> str:
    """Hash the engine's code: what it compiles and plans depends on every line of it."""
    found = find_spec("gradwire_engine")
    assert found is not None and found.submodule_search_locations
    digest = hashlib.sha256()
    for folder in found.submodule_search_locations:
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


class KernelCache:
    """Kernels, plans and signatures, made on demand."""

    def __init__(
        self,
        compiler: Compiler,
        conditions: str,
        memory_bytes: int,
        plans: int,
        structure_bytes: int,
        disk: Disk | None,
    ) -> None:
        """Start with what is on disk.

        Args:
            compiler: makes what is not held.
            conditions: what else kernels and plans depend on, in addition to the machine and the engine.
            memory_bytes: bytes of kernels to keep in memory.
            plans: how many plans to keep in memory.
            structure_bytes: bytes of the structures of sparse derivatives to keep in memory.
            disk: where to keep both, if anywhere.
        """
        self._compiler = compiler
        self._conditions = f"{engine_fingerprint()} {device_fingerprint()} {conditions}"
        self._kernels: LRUCache[str, Executable] = lru_of_bytes(memory_bytes, lambda made: made.data.nbytes)
        self._plans: LRUCache[str, Plan] = lru_of_bytes(
            plans * _PLAN_BLOCKS, lambda plan: max(_PLAN_BLOCKS, len(plan.blocks))
        )
        self._structures: LRUCache[str, SharedStructure] = lru_of_bytes(
            structure_bytes, lambda structure: structure.nbytes
        )
        self._signatures: LRUCache[FunctionSpec, Signature] = LRUCache(_SIGNATURES)
        self._disk = disk
        self.on_event: Callable[[Event], None] = unheard
        """Called with events of lookups."""
        self._compiling: SingleFlight[str, Executable] = SingleFlight(_ABANDONED)
        self._planning: SingleFlight[str, HeldPlan] = SingleFlight(_ABANDONED)
        self._saving: set[asyncio.Future[None]] = set()

    def _key(self, kind: str, subject: object) -> str:
        return hashlib.sha256(f"{kind} {self._conditions} {subject!r}".encode()).hexdigest()

    def held(self) -> dict[str, Held]:
        """Return the bytes of kernels and structures in memory."""
        caches: dict[str, LRUCache[Any, Any]] = {"kernels": self._kernels, "structures": self._structures}
        return {name: Held(int(cache.currsize), int(cache.maxsize)) for name, cache in caches.items()}

    async def register(self, request: RegisterRequest) -> RegisteredGraph:
        """Return a graph, from disk if an earlier start registered the same one.

        Raises:
            EngineError, ServiceError: rows of the error table.
        """
        key = self._key("graph", (request.graph_id, request.text))
        loaded: tuple[GraphInfo, bytes, dict[str, Any]] | None = await self._load(key)
        if loaded is not None and loaded[0].graph_id == request.graph_id:
            return registered(*loaded)
        graph = await self._compiler.register(request)
        if self._disk and graph.nbytes <= _KEPT_GRAPH_BYTES:
            saving = asyncio.ensure_future(self._save_graph(key, graph))
            self._saving.add(saving)
            saving.add_done_callback(self._saving.discard)
        return graph

    async def forget(self, graph_id: str) -> None:
        """Delete a graph from disk, where it is kept for the next start."""
        if self._disk:
            for text in (False, True):
                await asyncio.to_thread(self._disk.remove, self._key("graph", (graph_id, text)))

    async def _save_graph(self, key: str, graph: RegisteredGraph) -> None:
        """Save a graph, for which nobody waits, as its model and weights may have to come from the store."""
        try:
            model, weights = await graph.model.value(), await graph.weights.value()
        except Exception as error:
            _log.warning("a graph is not kept on disk", graph=graph.info.graph_id, reason=str(error))
            return
        await self._save(key, (graph.info, model, weights))

    async def kernel(self, graph: RegisteredGraph, spec: Spec) -> Executable:
        """Return the kernel of a spec, compiled now if it is not held.

        Raises:
            EngineError, ServiceError: rows of the error table.
        """
        key = self._key("kernel", spec)
        found = self._kernels.get(key)
        if found is not None:
            self.on_event(Looked("kernels", "memory"))
            return found
        return await self._compiling.run(key, lambda: self._compile(key, graph, spec))

    async def _compile(self, key: str, graph: RegisteredGraph, spec: Spec) -> Executable:
        compiled: Compiled | None = await self._load(key)
        held = compiled is not None and compiled.spec == spec
        self.on_event(Looked("kernels", "disk" if held else "nowhere"))
        if compiled is None or compiled.spec != spec:
            compiled = await self._compiler.compile(graph, spec)
            await self._save(key, compiled)
        return self._keep(key, compiled)

    async def plan(self, graph: RegisteredGraph, problem: Problem, known: SharedInputs) -> HeldPlan:
        """Return the plan of a problem and its structure, made now if they are not held.

        Args:
            graph: the function's.
            problem: the derivative asked for.
            known: the inputs that `problem.known` names.

        Raises:
            EngineError, ServiceError: rows of the error table.
        """
        key = self._key("plan", problem)
        found = self._plans.get(key)
        if found is not None:
            structure = self._structures.get(key)
            if structure is not None or found.sparse is None:
                self.on_event(Looked("plans", "memory"))
                return HeldPlan(found, structure)
        return await self._planning.run(key, lambda: self._plan(key, graph, problem, known))

    async def _plan(
        self, key: str, graph: RegisteredGraph, problem: Problem, known: SharedInputs
    ) -> HeldPlan:
        loaded: tuple[Plan, Structure | None] | None = await self._load(key)
        on_disk = loaded is not None and loaded[0].problem == problem
        self.on_event(Looked("plans", "disk" if on_disk else "nowhere"))
        if loaded is None or loaded[0].problem != problem:
            planned = await self._compiler.plan(graph, problem, known)
            loaded = planned.plan, planned.structure
            await self._save(key, loaded)
            for compiled in planned.kernels:
                kernel_key = self._key("kernel", compiled.spec)
                await self._save(kernel_key, compiled)
                self._keep(kernel_key, compiled)
        held = shared(*loaded)
        self._plans[key] = held.plan
        if held.structure is not None:
            self._structures[key] = held.structure
        return held

    async def signature(self, graph: RegisteredGraph, function: FunctionSpec) -> Signature:
        """Return a function's signature, as far as it is known without the shapes of its inputs.

        Raises:
            EngineError, ServiceError: rows of the error table.
        """
        signature = graph.info.signature
        if not function.transforms:
            return signature
        found = self._signatures.get(function)
        if found is None:
            found = await self._compiler.signature(signature, function.transforms)
            self._signatures[function] = found
        return found

    def _keep(self, key: str, compiled: Compiled) -> Executable:
        data = SharedValue(key, compiled.executable, nbytes=len(compiled.executable))
        made = self._kernels[key] = Executable(compiled.spec, compiled.facts, data)
        return made

    async def _load(self, key: str) -> Any:
        return await asyncio.to_thread(self._disk.load, key) if self._disk else None

    async def _save(self, key: str, value: object) -> None:
        if self._disk:
            await asyncio.to_thread(self._disk.save, key, value)
