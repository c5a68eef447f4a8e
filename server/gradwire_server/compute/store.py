"""Graphs and arrays that clients refer to by id; the least recently used are forgotten."""

from __future__ import annotations

from dataclasses import dataclass

from gradwire_engine.values import ArrayType
from gradwire_server.compute.lru import Lru
from gradwire_server.compute.shared import Box, Registered
from gradwire_server.errors import Overloaded, UnknownId


@dataclass(frozen=True)
class StoredTensor:
    """An uploaded array: its type and where workers read it."""

    type: ArrayType
    box: Box


class Budget:
    """Bytes that all clients together may hold for one purpose."""

    def __init__(self, what: str, name: str, limit: int) -> None:
        """``what`` holds the bytes, of which the limit called ``name`` allows so many."""
        self._what = what
        self._name = name
        self._limit = limit
        self._held = 0

    def reserve(self, size: int) -> None:
        """Count bytes that are held from now on (negative: no longer); raises Overloaded over the limit."""
        if size > 0 and self._held + size > self._limit:
            raise Overloaded(
                f"{self._what} would hold {self._held + size} bytes; the limit is "
                f"{self._limit} for all clients together; try again later",
                self._name,
                self._limit,
                self._held + size,
            )
        self._held += size


class Store:
    """What the server holds for clients; content-addressed, so losing any of it costs a new upload."""

    def __init__(self, graph_bytes: int, tensor_bytes: int, upload_bytes: int) -> None:
        """Bounds: graphs and tensors kept, and uploads under way all together."""
        self._graphs: Lru[str, Registered] = Lru(graph_bytes, lambda graph: graph.nbytes)
        self._tensors: Lru[str, StoredTensor] = Lru(tensor_bytes, lambda tensor: tensor.type.nbytes)
        self._uploading = Budget("uploads under way", "upload_bytes", upload_bytes)

    def graph(self, graph_id: str) -> Registered:
        """A registered graph; raises UnknownId."""
        graph = self._graphs.get(graph_id)
        if graph is None:
            raise UnknownId("graph", graph_id)
        return graph

    def has_graph(self, graph_id: str) -> bool:
        """Whether a graph is held."""
        return graph_id in self._graphs

    def add_graph(self, graph: Registered) -> None:
        """Keep a graph."""
        self._graphs.put(graph.info.graph_id, graph)

    def forget_graphs(self) -> None:
        """Hold no graph any more; clients are told NOT_FOUND and send theirs again."""
        self._graphs.clear()

    def tensor(self, tensor_id: str) -> StoredTensor:
        """An uploaded array; raises UnknownId."""
        tensor = self._tensors.get(tensor_id)
        if tensor is None:
            raise UnknownId("tensor", tensor_id)
        return tensor

    def add_tensor(self, tensor_id: str, tensor: StoredTensor) -> None:
        """Keep an array."""
        self._tensors.put(tensor_id, tensor)

    def upload(self, what: str, limit: int) -> Upload:
        """Start to receive bytes; use it as a context manager."""
        return Upload(self, what, limit)

    def reserve(self, size: int) -> None:
        """Count bytes of uploads under way (negative: no longer); raises Overloaded over the bound."""
        self._uploading.reserve(size)


class Upload:
    """Bytes that arrive in pieces, bounded while they do."""

    def __init__(self, store: Store, what: str, limit: int) -> None:
        """Receive at most ``limit`` bytes, a limit called ``what``."""
        self._store = store
        self._what = what
        self._limit = limit
        self._parts: list[bytes] = []
        self.size = 0

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.reserve(-self.size)
        self._parts.clear()

    def add(self, part: bytes) -> None:
        """Take one more piece; raises Overloaded when it is too much."""
        total = self.size + len(part)
        if total > self._limit:
            raise Overloaded(
                f"the upload has over {self._limit} bytes, the limit of {self._what}; "
                f"{total} bytes had arrived when it was stopped",
                self._what,
                self._limit,
                total,
            )
        self._store.reserve(len(part))
        self.size = total
        self._parts.append(part)

    def joined(self) -> bytes:
        """Everything received."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
