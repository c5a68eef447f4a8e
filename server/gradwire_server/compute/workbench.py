"""What a worker can do: parse, plan, compile, evaluate and compute blocks, with all it needs kept at hand.

The same in a Ray actor and in the helper process; nothing here knows which.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import gradwire_wire as wire
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.jaxprs.cost import Cost
from gradwire_engine.limits import Limits
from gradwire_engine.planning.kernels import (
    BlockSpec,
    EvaluateSpec,
    Kernel,
    Spec,
    compile_kernel,
    device_fingerprint,
    load_kernel,
    place,
)
from gradwire_engine.planning.plan import Plan, Problem, make_plan
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.transforms import Transform, transformed
from gradwire_engine.values import Block, GraphInfo, Signature, dtype_of
from gradwire_server.compute.lru import Lru
from gradwire_server.compute.shared import GraphSource, Source

Array = np.ndarray[Any, Any]
Inputs = Mapping[str, "Array | Source"]

_TRIAL_FLOPS = 5e8
_TRIAL_BYTES = 128 << 20
"""Kernels up to this are tried: those that the serving process may want to run itself."""

_LONG_TRIAL_SECONDS = 0.2
"""One run as long as this is enough to know."""

_TENSOR_BYTES = 256 << 20
"""Uploaded arrays that stay on a worker's device from request to request."""


@dataclass(frozen=True)
class KernelFacts:
    """What the service needs to know of a kernel to decide where it runs.

    Attributes:
        device: fingerprint of the device kind that can load it.
        cost: of one run.
        output_names: of an evaluation.
        seconds: what tracing and compiling it took.
        trial: seconds of a run, measured where it could be stopped; infinite for a kernel too large to try.
    """

    device: str
    cost: Cost
    output_names: tuple[str, ...]
    seconds: float
    trial: float


@dataclass(frozen=True)
class Compiled:
    """A kernel in transit."""

    spec: Spec
    facts: KernelFacts
    executable: bytes


@dataclass(frozen=True)
class Planned:
    """A plan, and the kernels that making it compiled."""

    plan: Plan
    kernels: tuple[Compiled, ...]


@dataclass(frozen=True)
class Computed:
    """Arrays, and the time it took to compute them."""

    arrays: tuple[Array, ...]
    seconds: float


class Workbench:
    """Graphs, kernels and inputs of this process, and the calls on them."""

    def __init__(self, limits: Limits, *, graphs: int = 32, kernels: int = 128, inputs: int = 4) -> None:
        """Start empty; the numbers bound what is kept."""
        wire.keep_freed_memory()
        self._limits = limits
        self._graphs: Lru[str, Graph] = Lru(graphs)
        self._weights: Lru[str, dict[str, Any]] = Lru(graphs)
        self._kernels: Lru[Spec, _Held] = Lru(kernels)
        self._inputs: Lru[str, dict[str, Any]] = Lru(inputs)
        self._tensors: Lru[str, Any] = Lru(_TENSOR_BYTES, lambda tensor: int(tensor.nbytes))

    def hello(self) -> tuple[str, int]:
        """The device fingerprint and the process id, once the process is ready to work."""
        return device_fingerprint(), os.getpid()

    def register(self, data: Source, text: bool) -> tuple[GraphInfo, bytes, dict[str, Array]]:
        """Parse and check a graph: its signature, its model and its weights."""
        graph = register(data.get(), text=text, limits=self._limits)
        self._graphs.put(graph.info.graph_id, graph)
        return graph.info, graph.model, graph.weights

    def plan(self, graph: GraphSource, problem: Problem) -> Planned:
        """Plan a derivative; its kernels are compiled in passing."""
        source = self._graph(graph)

        def build(spec: BlockSpec) -> Kernel:
            return self._compiled(source, spec).kernel

        plan = make_plan(source, problem, self._limits, build)
        made = tuple(self._transit(spec) for spec in dict.fromkeys(plan.kernels) if spec in self._kernels)
        return Planned(plan, made)

    def signature(self, signature: Signature, transforms: tuple[Transform, ...]) -> Signature:
        """A signature after transforms."""
        return transformed(signature, transforms)

    def compile(self, graph: GraphSource, spec: Spec) -> Compiled:
        """Trace and compile a kernel, for all workers of this device kind."""
        self._compiled(self._graph(graph), spec)
        return self._transit(spec)

    def evaluate(
        self, graph: GraphSource, spec: EvaluateSpec, facts: KernelFacts, executable: Source, inputs: Inputs
    ) -> Computed:
        """Run an evaluation."""
        return self._run(graph, spec, facts, executable, self._resolved(inputs), None)

    def block(
        self,
        graph: GraphSource,
        spec: BlockSpec,
        facts: KernelFacts,
        executable: Source,
        point: str,
        inputs: Inputs,
        block: Block,
    ) -> Computed:
        """Compute a block at a point, which is kept for the next: one row-major array for each piece."""
        return self._run(graph, spec, facts, executable, self._placed(point, inputs), block)

    def batch(
        self,
        graph: GraphSource,
        spec: EvaluateSpec,
        facts: KernelFacts,
        executable: Source,
        point: str,
        shared: Inputs,
        inputs: Inputs,
    ) -> Computed:
        """Run an evaluation some of whose inputs, ``shared``, are those of a point, kept for the next."""
        values = {**self._placed(point, shared), **self._resolved(inputs)}
        return self._run(graph, spec, facts, executable, values, None)

    def _placed(self, point: str, inputs: Inputs) -> dict[str, Any]:
        placed = self._inputs.get(point)
        if placed is None:
            placed = self._inputs.put(point, place(self._resolved(inputs)))
        return placed

    def _resolved(self, inputs: Inputs) -> dict[str, Any]:
        return {
            name: value if isinstance(value, np.ndarray) else self._content(value)
            for name, value in inputs.items()
        }

    def _content(self, source: Source) -> Any:
        if not source.lasting:
            return source.get()
        tensor = self._tensors.get(source.key)
        if tensor is None:
            tensor = self._tensors.put(source.key, place({source.key: source.get()})[source.key])
        return tensor

    def _run(
        self,
        graph: GraphSource,
        spec: Spec,
        facts: KernelFacts,
        executable: Source,
        inputs: Mapping[str, Any],
        block: Block | None,
    ) -> Computed:
        kernel = self._loaded(graph, spec, facts, executable)
        weights = self._placed_weights(graph)
        start = time.perf_counter()
        arrays = kernel.run(weights, inputs, block)
        return Computed(arrays, time.perf_counter() - start)

    def _graph(self, source: GraphSource) -> Graph:
        graph = self._graphs.get(source.info.graph_id)
        if graph is None:
            graph = Graph(source.info, source.model.get(), source.weights.get())
            self._graphs.put(source.info.graph_id, graph)
        return graph

    def _placed_weights(self, source: GraphSource) -> dict[str, Any]:
        placed = self._weights.get(source.info.graph_id)
        if placed is None:
            placed = self._weights.put(source.info.graph_id, place(source.weights.get()))
        return placed

    def _compiled(self, graph: Graph, spec: Spec) -> _Held:
        found = self._kernels.get(spec)
        if found is None:
            start = time.perf_counter()
            kernel = compile_kernel(graph, spec, self._limits)
            seconds = time.perf_counter() - start
            # Some kernels, those that sort, cannot be serialized any more once they have run.
            executable = kernel.serialize()
            found = self._kernels.put(spec, _Held(kernel, seconds, _trial(kernel, graph), executable))
        return found

    def _transit(self, spec: Spec) -> Compiled:
        held = self._kernels.get(spec)
        assert held is not None
        kernel = held.kernel
        facts = KernelFacts(device_fingerprint(), kernel.cost, kernel.output_names, held.seconds, held.trial)
        return Compiled(spec, facts, held.executable)

    def _loaded(self, graph: GraphSource, spec: Spec, facts: KernelFacts, executable: Source) -> Kernel:
        found = self._kernels.get(spec)
        if found is None:
            if facts.device != device_fingerprint():
                return self._compiled(self._graph(graph), spec).kernel
            data = executable.get()
            found = self._kernels.put(spec, _Held(load_kernel(data), facts.seconds, facts.trial, data))
        return found.kernel


@dataclass(frozen=True)
class _Held:
    """A kernel of this process, and what is known of it: see KernelFacts."""

    kernel: Kernel
    seconds: float
    trial: float
    executable: bytes


def _trial(kernel: Kernel, graph: Graph) -> float:
    """How long a run takes, the best of three; what a kernel costs cannot always be told from its operations.

    A run that does not end ends with its worker, when the time for compiling is over.
    """
    cost = kernel.cost
    if not cost.bounded or cost.flops > _TRIAL_FLOPS or cost.memory_bytes > _TRIAL_BYTES:
        return math.inf
    spec = kernel.spec
    inputs = {name: np.zeros(value.shape, dtype_of(value.dtype)) for name, value in spec.arguments}
    block = Block(0, 0, 0, spec.width) if isinstance(spec, BlockSpec) else None
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        kernel.run(graph.weights, inputs, block)
        best = min(best, time.perf_counter() - start)
        if best > _LONG_TRIAL_SECONDS:
            break
    return best
