"""Has workers register graphs, derive signatures, plan and compile, within the time allowed for it."""

from __future__ import annotations

from typing import TypeVar

from gradwire_engine.planning.kernels import Spec
from gradwire_engine.planning.plan import Problem
from gradwire_engine.planning.transforms import Transform
from gradwire_engine.values import Signature
from gradwire_server.compute.scheduler import Scheduler
from gradwire_server.compute.shared_values import RegisteredGraph
from gradwire_server.compute.worker import (
    Compiled,
    CompileRequest,
    Planned,
    PlanRequest,
    RegisterRequest,
    SharedInputs,
    SignatureRequest,
    WorkerRequest,
)

R = TypeVar("R")


class Compiler:
    """Runs the calls that come before any evaluation, each on whichever worker is free."""

    def __init__(self, scheduler: Scheduler, seconds: float) -> None:
        """Use the workers of a scheduler, for at most `seconds` a call."""
        self._scheduler = scheduler
        self._seconds = seconds

    async def register(self, request: RegisterRequest) -> RegisteredGraph:
        """Parse and check a graph."""
        return await self._run(request)

    async def signature(self, signature: Signature, transforms: tuple[Transform, ...]) -> Signature:
        """Derive a signature after transforms."""
        return await self._run(SignatureRequest(signature, transforms))

    async def plan(self, graph: RegisteredGraph, problem: Problem, known: SharedInputs) -> Planned:
        """Plan a derivative; `known` holds the inputs that `problem.known` names."""
        return await self._run(PlanRequest(graph, problem, known))

    async def compile(self, graph: RegisteredGraph, spec: Spec) -> Compiled:
        """Compile a kernel."""
        return await self._run(CompileRequest(graph, spec))

    async def _run(self, request: WorkerRequest[R]) -> R:
        result, _ = await self._scheduler.run(request, seconds=self._seconds)
        return result
