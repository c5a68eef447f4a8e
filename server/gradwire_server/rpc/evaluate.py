"""Evaluations: in the short lane where they are small, on a worker otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import gradwire_wire as wire
from gradwire_engine.planning.kernels import EvaluateSpec, Spec
from gradwire_engine.planning.plan import Plan, Problem
from gradwire_engine.planning.transforms import FunctionSpec
from gradwire_engine.values import Signature
from gradwire_server.compute.fast_path import Lane, LaneKernel
from gradwire_server.compute.kernel_cache import Executable, KernelCache
from gradwire_server.compute.lru import Lru
from gradwire_server.compute.scheduler import Scheduler
from gradwire_server.compute.shared import Registered
from gradwire_server.compute.store import Store
from gradwire_server.compute.workbench import Computed
from gradwire_server.rpc import translate
from gradwire_server.settings import Settings
from gradwire_wire.outputs import add_outputs
from gradwire_wire.v1 import function_pb2, tensor_pb2

Array = np.ndarray[Any, Any]
SERVER = "server"
"""What results call the serving process."""


@dataclass(frozen=True)
class Answer:
    """A function's outputs."""

    names: tuple[str, ...]
    arrays: tuple[Array, ...]
    worker: str
    seconds: float

    @property
    def nbytes(self) -> int:
        """Bytes of all outputs."""
        return sum(array.nbytes for array in self.arrays)

    def message(self, *, whole: bool = True) -> tuple[function_pb2.EvaluateResponse, list[int]]:
        """The response, and the positions of the outputs that follow it in chunks: none if `whole`."""
        response = function_pb2.EvaluateResponse()
        chunked = add_outputs(response, self.names, self.arrays, whole=whole)
        response.statistics.worker = self.worker
        response.statistics.compute.nanos = int(self.seconds % 1 * 1e9)
        response.statistics.compute.seconds = int(self.seconds)
        return response, chunked


class Evaluator:
    """Evaluates functions, and gets the kernels and plans that evaluating takes."""

    def __init__(
        self, settings: Settings, store: Store, cache: KernelCache, lane: Lane, scheduler: Scheduler
    ) -> None:
        """Over the server's store, kernels, lane and workers."""
        self._settings = settings
        self._store = store
        self._cache = cache
        self.lane = lane
        self._scheduler = scheduler
        self._ready: Lru[object, LaneKernel] = Lru(1024)
        self._signatures: Lru[object, Signature] = Lru(64)

    def immediate(self, request: function_pb2.EvaluateRequest) -> Answer | None:
        """The answer, if a tiny kernel for just this is loaded here; None if it takes longer."""
        kernel = self._ready.get(_shape_of(request))
        if kernel is None:
            return None
        inputs = {}
        for name, tensor in request.inputs.items():
            content = self._at_hand(tensor)
            if content is None:
                return None  # the long way fetches it, or says which input is wrong
            inputs[name] = content
        arrays, seconds = kernel.run(inputs)
        return Answer(kernel.output_names, arrays, SERVER, seconds)

    def _at_hand(self, tensor: tensor_pb2.Tensor) -> Any:
        """An input's elements, if they came with the request or are placed here; None if not, or if wrong."""
        try:
            if tensor.HasField("data"):
                return wire.from_tensor(tensor)
            placed = self.lane.tensor(tensor.tensor_id)
            declared = wire.numpy_dtype(tensor.dtype), tuple(tensor.shape)
        except wire.WireError:
            return None
        fits = placed is not None and (placed.dtype, placed.shape) == declared
        return placed if fits else None

    async def evaluate(self, request: function_pb2.EvaluateRequest) -> Answer:
        """Evaluate a function at a point.

        Raises:
            EngineError, ServiceError: rows of the error table.
        """
        inputs = translate.inputs_from(request.inputs, self._store)
        graph = self._store.graph(request.function.graph_id)
        spec = translate.evaluation_from(request, inputs.arguments)
        executable = await self.kernel(graph, spec)
        kernel = await self._here(graph, executable, inputs)
        if kernel is None:
            return await self._on_worker(graph, spec, executable, inputs)
        if kernel.inline:
            self._ready.put(_shape_of(request), kernel)
        return await self._in_lane(kernel, inputs)

    async def outputs(self, graph: Registered, spec: EvaluateSpec, inputs: translate.Inputs) -> Answer:
        """A function's outputs at inputs that something else is computed at as well."""
        executable = await self.kernel(graph, spec)
        kernel = await self._here(graph, executable, inputs)
        if kernel is None:
            return await self._on_worker(graph, spec, executable, inputs)
        return await self._in_lane(kernel, inputs)

    async def _here(
        self, graph: Registered, executable: Executable, inputs: translate.Inputs
    ) -> LaneKernel | None:
        """The kernel loaded in this process, if it and its inputs are small."""
        if inputs.nbytes > self._settings.lane_memory_bytes or not self.lane.fits(executable, graph.info):
            return None
        return await self.lane.load(graph, executable)

    async def _in_lane(self, kernel: LaneKernel, inputs: translate.Inputs) -> Answer:
        arrays, seconds = await self.lane.run(kernel, await self.lane.inputs(inputs.values))
        return Answer(kernel.output_names, arrays, SERVER, seconds)

    async def _on_worker(
        self, graph: Registered, spec: EvaluateSpec, executable: Executable, inputs: translate.Inputs
    ) -> Answer:
        computed: Computed
        computed, worker = await self._scheduler.call(
            "evaluate",
            graph,
            spec,
            executable.facts,
            executable.box,
            inputs.values,
            seconds=self._settings.evaluate_seconds,
        )
        return Answer(executable.facts.output_names, computed.arrays, worker, computed.seconds)

    async def kernel(self, graph: Registered, spec: Spec) -> Executable:
        """A spec's kernel, compiled by a worker unless it is held."""
        return await self._cache.kernel(graph, spec, self._make)

    async def signature(self, graph: Registered, function: FunctionSpec) -> Signature:
        """A function's signature, as far as it is known without the shapes of its inputs.

        Raises:
            EngineError, ServiceError: rows of the error table.
        """
        signature = graph.info.signature
        if not function.transforms:
            return signature
        # Every transform may double the inputs: not here, where it would hold up everybody.
        key = function.graph_id, function.transforms
        found: Signature | None = self._signatures.get(key)
        if found is None:
            found = self._signatures.put(key, await self._make("signature", signature, function.transforms))
        return found

    async def plan(self, graph: Registered, problem: Problem) -> Plan:
        """A problem's plan, made by a worker unless it is held."""
        return await self._cache.plan(graph, problem, self._make)

    async def _make(self, method: str, *arguments: Any) -> Any:
        made, _ = await self._scheduler.call(method, *arguments, seconds=self._settings.compile_seconds)
        return made


def _shape_of(request: function_pb2.EvaluateRequest) -> object:
    """All of a request but the elements of its inputs; equal ones have the same kernel."""
    types = [(name, tensor.dtype, *tensor.shape) for name, tensor in request.inputs.items()]
    types.sort()
    function = request.function.SerializeToString()
    return function, tuple(request.outputs), tuple(request.batched), tuple(types)
