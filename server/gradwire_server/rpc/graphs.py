"""RegisterGraph and GetGraph."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

from gradwire_engine.errors import InvalidInput
from gradwire_server.compute.shared_values import RegisteredGraph, SharedValue
from gradwire_server.compute.single_flight import SingleFlight
from gradwire_server.rpc import translate
from gradwire_server.rpc.backend import Backend
from gradwire_wire.v1 import graph_pb2


class GraphRegistry:
    """Registers graphs; clients that send the same one at the same time share one registration."""

    def __init__(self, backend: Backend) -> None:
        """Keep graphs in the store of `backend`."""
        self._backend = backend
        self._registering: SingleFlight[tuple[str, bool], RegisteredGraph] = SingleFlight()

    async def register(
        self, requests: AsyncIterator[graph_pb2.RegisterGraphRequest]
    ) -> graph_pb2.RegisterGraphResponse:
        """Answer RegisterGraph.

        Raises:
            EngineError, ServiceError: rows of the error table.
        """
        store, settings = self._backend.store, self._backend.settings
        kinds: set[str] = set()
        with store.upload("graph_bytes", settings.graph_bytes) as upload:
            async for request in requests:
                kind = request.WhichOneof("part")
                if kind is None:
                    continue
                kinds.add(kind)
                if len(kinds) > 1:
                    raise InvalidInput("parts of one registration are all of kind model, or all text", "part")
                upload.add(request.model if kind == "model" else request.text.encode())
            if not upload.size:
                raise InvalidInput("the registration has no bytes: send model or text", "part")
            data = upload.joined()
            digest = await asyncio.to_thread(hashlib.sha256, data)
            graph_id = digest.hexdigest()
            if not store.has_graph(graph_id):
                text = "text" in kinds
                await self._registering.run((graph_id, text), lambda: self._register(data, text))
        return graph_pb2.RegisterGraphResponse(graph=translate.graph_message(store.graph(graph_id).info))

    async def _register(self, data: bytes, text: bool) -> RegisteredGraph:
        shared = SharedValue("registration", data, nbytes=len(data))
        graph = await self._backend.compiler.register(shared, text)
        self._backend.store.add_graph(graph)
        return graph

    def get(self, request: graph_pb2.GetGraphRequest) -> graph_pb2.GetGraphResponse:
        """Answer GetGraph; raises `UnknownId`."""
        info = self._backend.store.graph(request.graph_id).info
        return graph_pb2.GetGraphResponse(graph=translate.graph_message(info))
