"""What a worker does: parse, plan, compile, evaluate and compute blocks, over what it holds.

The same in a Ray actor and in the helper process; nothing here knows which.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from cachetools import LRUCache

import gradwire_wire as wire
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.limits import Limits
from gradwire_engine.planning.kernels import (
    CompressedSpec,
    DerivativeSpec,
    EvaluateSpec,
    Kernel,
    Spec,
    arguments_of,
    compile_kernel,
    device_fingerprint,
    load_kernel,
    place,
)
from gradwire_engine.planning.plan import DENSE, Problem, make_plan
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.sample_plan import make_sample_plan
from gradwire_engine.planning.transforms import Transform, transformed
from gradwire_engine.values import Block, Choices, GraphInfo, Signature, dtype_of
from gradwire_server.compute.caches.lru import lru_of_bytes
from gradwire_server.compute.shared_values import GraphSource, ValueSource
from gradwire_server.compute.worker import Array, Compiled, Computed, KernelFacts, Planned
from gradwire_server.machine import give_back_freed_memory
from gradwire_server.process.heartbeat import Place

V = TypeVar("V")
InputSources = Mapping[str, "Array | ValueSource"]

GRAPHS = 32
"""Graphs, and weights of graphs, that a worker holds."""

KERNELS = 128
"""Kernels that a worker holds."""

POINTS = 4
"""Points whose inputs a worker holds."""

_TRIAL_FLOPS = 5e8
_TRIAL_BYTES = 128 << 20
"""Kernels of up to so many operations and bytes are tried: those that the server may run itself."""

_LONG_TRIAL_SECONDS = 0.2
"""A kernel of which one run takes so long is not tried again."""

_LEAST_TRIALS, _MOST_TRIALS = 3, 20
_TRIALS_SECONDS = 0.02
"""Others are tried so often, the more the shorter they are: as long as this takes in all."""


class NotHeld(Exception):
    """A call named a kernel or a point that this worker does not hold (any more)."""


@dataclass(frozen=True)
class KernelSource:
    """Where a worker reads a kernel and the weights it takes.

    Attributes:
        key: names the kernel in later calls.
        graph: the graph, whose weights are arguments of the kernel.
        spec: what the kernel computes.
        facts: what is known of the kernel.
        executable: the serialized kernel.
    """

    key: str
    graph: GraphSource
    spec: Spec
    facts: KernelFacts
    executable: ValueSource


@dataclass(frozen=True)
class PointSource:
    """Where a worker reads the inputs of a point, which `key` names in later calls."""

    key: str
    inputs: Mapping[str, ValueSource]


@dataclass(frozen=True)
class Delivery:
    """What travels with a call because the worker is not known to hold it."""

    kernel: KernelSource | None = None
    point: PointSource | None = None


class Workbench:
    """The graphs, kernels and inputs that a process holds, and the calls that use them."""

    def __init__(self, limits: Limits, cache_bytes: int) -> None:
        """Start empty.

        Args:
            limits: that graphs and kernels are held to.
            cache_bytes: to keep between calls.
        """
        wire.keep_freed_memory()
        self._freed = 0
        give_back_freed_memory(lambda: self._freed)
        self._limits = limits
        part = cache_bytes // 4
        self._graphs: LRUCache[str, Graph] = _bounded(GRAPHS, part, _graph_bytes)
        self._weights: LRUCache[str, dict[str, Any]] = _bounded(GRAPHS, part, _bytes)
        self._kernels: LRUCache[Spec, _Held] = _bounded(KERNELS, part // 2, _kernel_bytes)
        self._specs: LRUCache[str, Spec] = LRUCache(KERNELS)
        """Of kernels that were delivered, by key."""
        self._points: LRUCache[str, dict[str, Any]] = _bounded(POINTS, part, _bytes)
        self._tensors: LRUCache[str, Any] = lru_of_bytes(part // 2, lambda tensor: int(tensor.nbytes))

    def identify(self) -> Place:
        """Return where the process runs, once it is ready to work."""
        # Slow the first time, and would be so in the first call.
        device_fingerprint()
        return Place.of(os.getpid())

    def register(
        self, data: ValueSource, text: bool, choices: Choices | None = None, graph_id: str = ""
    ) -> tuple[GraphInfo, bytes, dict[str, Array]]:
        """Parse and check a graph; returns its description, its model and its weights.

        Args:
            data: the model.
            text: whether it is in ONNX's textual form.
            choices: its constants, inputs, outputs and rounding; the model's own where None.
            graph_id: what to call it; its fingerprint by default.
        """
        graph = register(data.get(), text=text, limits=self._limits, choices=choices, graph_id=graph_id)
        self._graphs[graph.info.graph_id] = graph
        return graph.info, graph.model, graph.weights

    def signature(self, signature: Signature, transforms: tuple[Transform, ...]) -> Signature:
        """Derive a signature after transforms."""
        return transformed(signature, transforms, self._limits)

    def plan(self, graph: GraphSource, problem: Problem, known: InputSources) -> Planned:
        """Plan a derivative; its kernels are compiled in passing.

        Args:
            graph: the function's.
            problem: the derivative asked for.
            known: the inputs that `problem.known` names: arrays, or where to read them.
        """
        source = self._graph(graph)
        values = {
            name: value if isinstance(value, np.ndarray) else value.get() for name, value in known.items()
        }

        def build(spec: DerivativeSpec) -> Kernel:
            return self._compiled(source, spec).kernel

        if problem.batched:
            plan, structure = make_sample_plan(source, problem, self._limits, build), None
        elif problem.options.sparsity == DENSE:
            plan, structure = make_plan(source, problem, self._limits, build), None
        else:
            # Here: it brings numba, which dense derivatives have no use for.
            from gradwire_engine.planning.sparse_plan import plan_derivative

            planned = plan_derivative(source, problem, values, self._limits, build)
            plan, structure = planned.plan, planned.structure
        specs = dict.fromkeys(plan.kernels)
        made = tuple(self._transit(spec) for spec in specs if spec in self._kernels)
        return Planned(plan, structure, made)

    def compile(self, graph: GraphSource, spec: Spec) -> Compiled:
        """Trace and compile a kernel, for all workers of this device kind."""
        self._compiled(self._graph(graph), spec)
        return self._transit(spec)

    def evaluate(self, delivery: Delivery, kernel: str, inputs: InputSources) -> Computed:
        """Run an evaluation.

        Args:
            delivery: taken in before anything else.
            kernel: the key of the kernel.
            inputs: arrays by name, or where to read them.

        Raises:
            NotHeld: the kernel or its weights are not here.
        """
        self._take(delivery)
        return self._run(kernel, self._read(inputs), None)

    def block(self, delivery: Delivery, kernel: str, point: str, block: Block) -> Computed:
        """Compute a block of a derivative: one row-major matrix for each piece.

        Args:
            delivery: taken in before anything else.
            kernel, point: the keys of both.
            block: which seeds.

        Raises:
            NotHeld: the kernel, its weights or the point are not here.
        """
        self._take(delivery)
        return self._run(kernel, self._placed(point), block)

    def batch(self, delivery: Delivery, kernel: str, point: str, inputs: InputSources) -> Computed:
        """Run an evaluation at the inputs of a point together with others.

        Args:
            delivery: taken in before anything else.
            kernel, point: the keys of both.
            inputs: the other inputs: arrays by name, or where to read them.

        Raises:
            NotHeld: the kernel, its weights or the point are not here.
        """
        self._take(delivery)
        return self._run(kernel, {**self._placed(point), **self._read(inputs)}, None)

    def _take(self, delivery: Delivery) -> None:
        if (kernel := delivery.kernel) is not None:
            self._load(kernel)
            self._specs[kernel.key] = kernel.spec
            graph_id = kernel.graph.info.graph_id
            if graph_id not in self._weights:
                self._weights[graph_id] = place(kernel.graph.weights.get())
        if (point := delivery.point) is not None and point.key not in self._points:
            self._points[point.key] = place(self._read(point.inputs))

    def _placed(self, point: str) -> dict[str, Any]:
        inputs = self._points.get(point)
        if inputs is None:
            raise NotHeld
        return inputs

    def _run(self, key: str, inputs: Mapping[str, Any], block: Block | None) -> Computed:
        spec = self._specs.get(key)
        held = None if spec is None else self._kernels.get(spec)
        weights = None if spec is None else self._weights.get(spec.function.graph_id)
        if held is None or weights is None:
            raise NotHeld
        start = time.perf_counter()
        arrays = held.kernel.run(weights, inputs, block)
        self._freed += sum(array.nbytes for array in arrays)
        return Computed(arrays, time.perf_counter() - start)

    def _read(self, inputs: InputSources) -> dict[str, Any]:
        return {
            name: value if isinstance(value, np.ndarray) else self._content(value)
            for name, value in inputs.items()
        }

    def _content(self, source: ValueSource) -> Any:
        if not source.lasting:
            return source.get()
        tensor = self._tensors.get(source.key)
        if tensor is None:
            tensor = self._tensors[source.key] = place({source.key: source.get()})[source.key]
        return tensor

    def _graph(self, source: GraphSource) -> Graph:
        graph = self._graphs.get(source.info.graph_id)
        if graph is None:
            graph = Graph(source.info, source.model.get(), source.weights.get())
            self._graphs[source.info.graph_id] = graph
        return graph

    def _compiled(self, graph: Graph, spec: Spec) -> _Held:
        held = self._kernels.get(spec)
        if held is None:
            start = time.perf_counter()
            kernel = compile_kernel(graph, spec, self._limits)
            seconds = time.perf_counter() - start
            # Some kernels, those that sort, cannot be serialized any more once they have run.
            executable = kernel.serialize()
            held = self._kernels[spec] = _Held(kernel, seconds, _trial(kernel, graph), executable)
        return held

    def _transit(self, spec: Spec) -> Compiled:
        held = self._kernels[spec]
        kernel = held.kernel
        facts = KernelFacts(device_fingerprint(), kernel.cost, kernel.output_names, held.seconds, held.trial)
        return Compiled(spec, facts, held.executable)

    def _load(self, source: KernelSource) -> None:
        if source.spec in self._kernels:
            return
        if source.facts.device != device_fingerprint():
            self._compiled(self._graph(source.graph), source.spec)
            return
        data, facts = source.executable.get(), source.facts
        self._kernels[source.spec] = _Held(load_kernel(data), facts.seconds, facts.trial, data)


@dataclass(frozen=True)
class _Held:
    """A kernel loaded in this process; `seconds` and `trial` as in `KernelFacts`."""

    kernel: Kernel
    seconds: float
    trial: float
    executable: bytes


def _bounded(count: int, capacity: int, size_of: Callable[[V], int]) -> LRUCache[Any, V]:
    """Make a cache of at most so many values, and about so many bytes."""
    return lru_of_bytes(capacity, lambda value: max(size_of(value), capacity // count, 1))


def _graph_bytes(graph: Graph) -> int:
    return len(graph.model) + _bytes(graph.weights)


def _kernel_bytes(kernel: _Held) -> int:
    return len(kernel.executable)


def _bytes(arrays: Mapping[str, Any]) -> int:
    return sum(int(array.nbytes) for array in arrays.values())


def _trial(kernel: Kernel, graph: Graph) -> float:
    """Measure a run in seconds, the best of several; the cost cannot always be told from the operations.

    It decides where a kernel runs, and should not depend on what else the machine did: short ones are tried
    often.

    A run that does not end is stopped with its worker, when the time for compiling is over.
    """
    cost = kernel.cost
    if not cost.bounded or cost.flops > _TRIAL_FLOPS or cost.memory_bytes > _TRIAL_BYTES:
        return math.inf
    spec = kernel.spec
    inputs = {name: np.zeros(value.shape, dtype_of(value.dtype)) for name, value in arguments_of(spec)}
    entries = spec.form.entries if isinstance(spec, CompressedSpec) else 0
    block = None if isinstance(spec, EvaluateSpec) else Block(0, 0, 0, spec.width, 0, entries)
    best, begun = math.inf, time.perf_counter()
    for count in range(1, _MOST_TRIALS + 1):
        start = time.perf_counter()
        kernel.run(graph.weights, inputs, block)
        end = time.perf_counter()
        best = min(best, end - start)
        if best > _LONG_TRIAL_SECONDS or (count >= _LEAST_TRIALS and end - begun > _TRIALS_SECONDS):
            break
    return best
