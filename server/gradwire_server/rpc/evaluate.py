"""Evaluate: on the fast path where the kernel and its inputs are small, by a worker otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from cachetools import LRUCache

import gradwire_wire as wire
from gradwire_engine.planning.kernels import EvaluateSpec
from gradwire_server.compute.fast_path import LoadedKernel
from gradwire_server.compute.shared_values import RegisteredGraph
from gradwire_server.compute.worker import Computed, EvaluateRequest, Executable, LoadableKernel
from gradwire_server.errors import Overloaded
from gradwire_server.rpc import translate
from gradwire_server.rpc.backend import Backend
from gradwire_wire.outputs import add_outputs
from gradwire_wire.v1 import function_pb2, tensor_pb2

Array = np.ndarray[Any, Any]
SERVER = "server"
"""The name of the server's own process in results, where others have a worker's."""

_IMMEDIATE = 1024
"""Forms of requests to keep tiny kernels for."""


@dataclass(frozen=True)
class Answer:
    """A function's outputs.

    Attributes:
        names: of the outputs.
        computed: the outputs in the same order, and the seconds they took.
        worker: name of the process that computed them.
    """

    names: tuple[str, ...]
    computed: Computed
    worker: str

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The outputs, in the order of `names`."""
        return self.computed.arrays

    @property
    def nbytes(self) -> int:
        """Bytes of all outputs."""
        return sum(array.nbytes for array in self.arrays)

    def message(self, *, whole: bool = True) -> tuple[function_pb2.EvaluateResponse, list[int]]:
        """Make the response; return also the positions of outputs that follow in chunks: none if `whole`."""
        response = function_pb2.EvaluateResponse()
        chunked = add_outputs(response, self.names, self.arrays, whole=whole)
        response.statistics.worker = self.worker
        response.statistics.compute.CopyFrom(translate.duration(self.computed.seconds))
        return response, chunked


class Evaluator:
    """Evaluates functions at points."""

    def __init__(self, backend: Backend) -> None:
        """Evaluate with the parts of a server."""
        self._backend = backend
        self._immediate: LRUCache[object, LoadedKernel] = LRUCache(_IMMEDIATE)

    async def unary(self, request: function_pb2.EvaluateRequest) -> function_pb2.EvaluateResponse:
        """Answer Evaluate.

        Raises:
            EngineError, ServiceError: rows of the error table.
        """
        answer = self.immediate(request) or await self.evaluate(request)
        limit = self._backend.settings.message_bytes
        if answer.nbytes > limit:
            raise Overloaded(
                f"the outputs have {answer.nbytes} bytes; a unary answer holds {limit}: use EvaluateStream",
                "message_bytes",
                limit,
                answer.nbytes,
            )
        return answer.message()[0]

    def immediate(self, request: function_pb2.EvaluateRequest) -> Answer | None:
        """Evaluate without waiting if a tiny kernel for requests of this form is loaded here; None if not."""
        kernel = self._immediate.get(_form_of(request))
        if kernel is None:
            return None
        inputs = {}
        for name, tensor in request.inputs.items():
            content = self._available(tensor)
            if content is None:
                return None  # `evaluate` fetches it, or says which input is wrong
            inputs[name] = content
        return Answer(kernel.output_names, kernel.run(inputs), SERVER)

    def _available(self, tensor: tensor_pb2.Tensor) -> Any:
        """Return an input that came with the request or is placed here; None if it did not, or is wrong."""
        try:
            if tensor.HasField("data"):
                return wire.from_tensor(tensor)
            placed = self._backend.fast_path.tensor(self._backend.store.scoped(tensor.tensor_id))
            declared = wire.numpy_dtype(tensor.dtype), tuple(tensor.shape)
        except wire.WireError:
            return None
        fits = placed is not None and (placed.dtype, placed.shape) == declared
        return placed if fits else None

    async def evaluate(self, request: function_pb2.EvaluateRequest) -> Answer:
        """Evaluate the function that a request names.

        Raises:
            EngineError, ServiceError: rows of the error table.
        """
        inputs = translate.inputs_from(request.inputs, self._backend.store)
        graph = self._backend.store.graph(request.function.graph_id)
        spec = translate.evaluation_from(request, inputs.arguments, graph)
        executable = await self._backend.kernels.kernel(graph, spec)
        kernel = await self._on_fast_path(graph, executable, inputs)
        if kernel is None:
            return await self._on_worker(graph, executable, inputs)
        if kernel.inline:
            self._immediate[_form_of(request)] = kernel
        return await self._here(kernel, inputs)

    async def outputs(self, graph: RegisteredGraph, spec: EvaluateSpec, inputs: translate.Inputs) -> Answer:
        """Evaluate a spec, at inputs at which something else is computed as well."""
        executable = await self._backend.kernels.kernel(graph, spec)
        kernel = await self._on_fast_path(graph, executable, inputs)
        if kernel is None:
            return await self._on_worker(graph, executable, inputs)
        return await self._here(kernel, inputs)

    async def _on_fast_path(
        self, graph: RegisteredGraph, executable: Executable, inputs: translate.Inputs
    ) -> LoadedKernel | None:
        """Load the kernel in this process, if it and its inputs are small."""
        fast_path = self._backend.fast_path
        if inputs.nbytes > self._backend.settings.fast_path_memory_bytes:
            return None
        return await fast_path.load(graph, executable) if fast_path.fits(executable, graph.info) else None

    async def _here(self, kernel: LoadedKernel, inputs: translate.Inputs) -> Answer:
        fast_path = self._backend.fast_path
        computed = await fast_path.run(kernel, await fast_path.inputs(inputs.values))
        return Answer(kernel.output_names, computed, SERVER)

    async def _on_worker(
        self, graph: RegisteredGraph, executable: Executable, inputs: translate.Inputs
    ) -> Answer:
        computed, worker = await self._backend.scheduler.run(
            EvaluateRequest(LoadableKernel(graph, executable), inputs.values),
            seconds=self._backend.settings.evaluate_seconds,
        )
        return Answer(executable.facts.output_names, computed, worker)


def _form_of(request: function_pb2.EvaluateRequest) -> object:
    """Return all of a request but the elements of its inputs; equal forms have the same kernel."""
    types = [(name, tensor.dtype, *tensor.shape) for name, tensor in request.inputs.items()]
    types.sort()
    function = request.function.SerializeToString()
    return function, tuple(request.outputs), tuple(request.batched), tuple(types)
