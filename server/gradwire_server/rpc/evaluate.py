"""Evaluate: on the fast path where the kernel and its inputs are small, by a worker otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from cachetools import LRUCache
from google.protobuf.message import Message

import gradwire_wire as wire
from gradwire_engine.planning.kernels import EvaluateSpec
from gradwire_server.compute.account import Holding
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

COUNTED = 1 << 16
"""Bytes from which the inputs and outputs of an evaluation are counted."""

_SIZES = 1024
"""Kernels to know the size of outputs of."""

_IMMEDIATE = 1024
"""Forms of requests to keep tiny kernels for."""


@dataclass(frozen=True)
class Answer:
    """A function's outputs.

    Attributes:
        names: of the outputs.
        computed: the outputs in the same order, and the seconds they took.
        worker: name of the process that computed them.
        holding: their bytes in the account, if they are large.
    """

    names: tuple[str, ...]
    computed: Computed
    worker: str
    holding: Holding | None = None

    def give_back(self) -> None:
        """Count the outputs no longer: they were sent."""
        if self.holding is not None:
            self.holding.give_back()

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
        self._results = backend.account.results
        self._sizes: LRUCache[str, int] = LRUCache(_SIZES)
        """Bytes of the outputs of kernels that were run, by their keys."""
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
        message = answer.message()[0]
        answer.give_back()
        return message

    def forget(self) -> None:
        """Answer nothing without looking again which graphs are held."""
        self._immediate.clear()

    async def hold_inputs(self, request: Message) -> Holding:
        """Count a request's bytes while it is in progress, once there is room.

        Raises:
            TryLater: there is none for long.
        """
        requests, size = self._backend.account.requests, request.ByteSize()
        return await requests.wait_for(size) if size >= COUNTED else requests.open()

    def immediate(self, request: function_pb2.EvaluateRequest) -> Answer | None:
        """Evaluate without waiting if a tiny kernel for requests of this form is loaded here; None if not."""
        kernel = self._immediate.get(_form_of(request))
        # Held no longer, a graph is unknown here too.
        if kernel is None or not self._backend.store.has_graph(request.function.graph_id):
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
            store = self._backend.store
            if not store.has_tensor(tensor.tensor_id):
                return None
            placed = self._backend.fast_path.tensor(store.scoped(tensor.tensor_id))
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
        if kernel is not None and kernel.inline:
            self._immediate[_form_of(request)] = kernel
        key = executable.data.key
        # An upper bound the first time.
        expected = self._sizes.get(key, executable.facts.cost.memory_bytes)
        holding = await self._results.wait_for(expected) if expected >= COUNTED else self._results.open()
        answer = await self._answer(graph, executable, kernel, inputs)
        self._sizes[key] = answer.nbytes
        holding.set(answer.nbytes if answer.nbytes >= COUNTED else 0)
        return replace(answer, holding=holding)

    async def outputs(self, graph: RegisteredGraph, spec: EvaluateSpec, inputs: translate.Inputs) -> Answer:
        """Evaluate a spec, at inputs at which something else is computed as well.

        It does not wait for room: what else is computed may have it, and would wait for these outputs.
        """
        executable = await self._backend.kernels.kernel(graph, spec)
        kernel = await self._on_fast_path(graph, executable, inputs)
        answer = await self._answer(graph, executable, kernel, inputs)
        holding = self._results.open()
        holding.set(answer.nbytes)
        return replace(answer, holding=holding)

    async def _answer(
        self,
        graph: RegisteredGraph,
        executable: Executable,
        kernel: LoadedKernel | None,
        inputs: translate.Inputs,
    ) -> Answer:
        """Run a kernel: here if it is loaded, else on a worker."""
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
