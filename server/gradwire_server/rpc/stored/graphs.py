"""RegisterGraph and GetGraph."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from gradwire_engine.errors import InvalidInput
from gradwire_engine.values import Choices
from gradwire_server.compute.shared_values import RegisteredGraph, SharedValue
from gradwire_server.compute.single_flight import SingleFlight
from gradwire_server.compute.worker import RegisterRequest
from gradwire_server.observe.events import BytesReceived
from gradwire_server.rpc import translate
from gradwire_server.rpc.backend import Backend
from gradwire_wire.choices import GraphChoices
from gradwire_wire.v1 import graph_pb2

_ABANDONED = 2
"""Registrations that go on for nobody: each holds a graph."""


class GraphRegistry:
    """Registers graphs; clients that send the same one at the same time share one registration."""

    def __init__(self, backend: Backend) -> None:
        """Keep graphs in the store of `backend`."""
        self._backend = backend
        self._registering: SingleFlight[tuple[str, bool], RegisteredGraph] = SingleFlight(_ABANDONED)

    async def register(
        self, requests: AsyncIterator[graph_pb2.RegisterGraphRequest]
    ) -> graph_pb2.RegisterGraphResponse:
        """Answer RegisterGraph.

        Raises:
            EngineError, ServiceError: rows of the error table.
        """
        store, settings = self._backend.store, self._backend.settings
        kinds: set[str] = set()
        choices: GraphChoices | None = None
        with store.upload("graph_bytes", settings.graph_bytes) as upload:
            async for request in requests:
                made = translate.graph_choices(request)
                if choices is None:
                    choices = made
                elif made:
                    raise InvalidInput(
                        "fixed, inputs, outputs and rounding belong in the first message of a registration"
                    )
                kind = request.WhichOneof("part")
                if kind is None:
                    continue
                kinds.add(kind)
                if len(kinds) > 1:
                    raise InvalidInput("parts of one registration are all of kind model, or all text", "part")
                upload.add(request.model if kind == "model" else request.text.encode())
            if not upload.size:
                raise InvalidInput("the registration has no bytes: send model or text", "part")
            # In a thread: joining and hashing release the interpreter, which has other calls to serve.
            data = await asyncio.to_thread(upload.joined)
            self._backend.events(BytesReceived(upload.size))
            digest = await asyncio.to_thread(hashlib.sha256, data)
            chosen = choices or GraphChoices()
            graph_id = chosen.graph_id(digest.hexdigest())
            if not store.has_graph(graph_id):
                text = "text" in kinds
                registration = RegisterRequest(
                    SharedValue("registration", data, nbytes=len(data)),
                    text,
                    Choices(chosen.fixed, chosen.inputs, chosen.outputs, chosen.rounding),
                    store.scoped(graph_id),
                )
                await self._registering.run((graph_id, text), lambda: self._register(graph_id, registration))
        message = translate.graph_message(store.graph(graph_id).info, graph_id)
        return graph_pb2.RegisterGraphResponse(graph=message)

    async def _register(self, graph_id: str, request: RegisterRequest) -> RegisteredGraph:
        graph = await self._backend.kernels.register(request)
        self._backend.store.add_graph(graph_id, graph)
        return graph

    def get(self, request: graph_pb2.GetGraphRequest) -> graph_pb2.GetGraphResponse:
        """Answer GetGraph; raises `UnknownId`."""
        info = self._backend.store.graph(request.graph_id).info
        return graph_pb2.GetGraphResponse(graph=translate.graph_message(info, request.graph_id))
