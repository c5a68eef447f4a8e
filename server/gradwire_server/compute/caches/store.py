"""Holds graphs and arrays that clients refer to by id; the least recently used are dropped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from gradwire_engine.values import ArrayType
from gradwire_server.compute.caches.lru import SharedCache
from gradwire_server.compute.shared_values import RegisteredGraph, SharedValue
from gradwire_server.errors import Overloaded, UnknownId
from gradwire_server.observe.readings import Held


@dataclass(frozen=True)
class StoredTensor:
    """An uploaded array: its type, and its elements for workers."""

    type: ArrayType
    elements: SharedValue


class Budget:
    """A limit on the bytes that all clients together hold for one purpose."""

    def __init__(self, what: str, name: str, limit: int) -> None:
        """Start with nothing held.

        Args:
            what: what holds the bytes, for the message of an error.
            name: of the limit, for the details of an error.
            limit: bytes that may be held.
        """
        self._what = what
        self._name = name
        self._limit = limit
        self._held = 0

    def held(self) -> Held:
        """Return what is held and may be held."""
        return Held(self._held, self._limit)

    def reserve(self, size: int) -> None:
        """Count bytes held from now on (negative: released); raise `Overloaded` over the limit."""
        if size > 0 and self._held + size > self._limit:
            raise Overloaded(
                f"{self._what} would hold {self._held + size} bytes; the limit is "
                f"{self._limit} for all clients together; try again later",
                self._name,
                self._limit,
                self._held + size,
            )
        self._held += size


class Stores:
    """The stores of all tenants, bounded together."""

    def __init__(self, graph_bytes: int, tensor_bytes: int, upload_bytes: int) -> None:
        """Start empty, with bounds on the graphs kept, the tensors kept and the uploads in progress."""
        self._graphs: SharedCache[RegisteredGraph] = SharedCache(graph_bytes, lambda graph: graph.nbytes)
        self._tensors: SharedCache[StoredTensor] = SharedCache(
            tensor_bytes, lambda tensor: tensor.type.nbytes
        )
        self._uploading = Budget("uploads under way", "upload_bytes", upload_bytes)

    def of(self, tenant: str) -> Store:
        """Return a tenant's store; "" is that of a server that asks for no tokens."""
        return Store(tenant, self._graphs, self._tensors, self._uploading)

    def held(self) -> dict[str, Held]:
        """Return the bytes of graphs, arrays and uploads under way."""
        return {
            "graphs": self._graphs.held(),
            "tensors": self._tensors.held(),
            "uploads": self._uploading.held(),
        }

    def forget_graphs(self) -> None:
        """Drop all graphs; clients are told NOT_FOUND and register theirs again."""
        self._graphs.clear()


class Store:
    """What the server holds for one tenant. It is content-addressed: losing any of it costs one more upload.

    Ids are those of the tenant's clients, who find nothing of what others hold. Everywhere else in the server
    (kernels, plans, workers) a graph or array goes by its scoped id, which has the tenant in it.
    """

    def __init__(
        self,
        tenant: str,
        graphs: SharedCache[RegisteredGraph],
        tensors: SharedCache[StoredTensor],
        uploading: Budget,
    ) -> None:
        """Keep what a tenant sends in caches that all tenants share."""
        self._tenant = tenant
        self._graphs = graphs.of(tenant)
        self._tensors = tensors.of(tenant)
        self._uploading = uploading

    def scoped(self, identifier: str) -> str:
        """Return the id by which the rest of the server knows a graph or array of this tenant."""
        if not self._tenant:
            return identifier
        return hashlib.sha256(f"{self._tenant} {identifier}".encode()).hexdigest()

    def graph(self, graph_id: str) -> RegisteredGraph:
        """Return a registered graph; raise `UnknownId`."""
        graph = self._graphs.get(graph_id)
        if graph is None:
            raise UnknownId("graph", graph_id)
        return graph

    def has_graph(self, graph_id: str) -> bool:
        """Tell whether a graph is held."""
        return graph_id in self._graphs

    def add_graph(self, graph_id: str, graph: RegisteredGraph) -> None:
        """Keep a graph, which the tenant's clients call `graph_id`."""
        self._graphs[graph_id] = graph

    def tensor(self, tensor_id: str) -> StoredTensor:
        """Return an uploaded array; raise `UnknownId`."""
        tensor = self._tensors.get(tensor_id)
        if tensor is None:
            raise UnknownId("tensor", tensor_id)
        return tensor

    def add_tensor(self, tensor_id: str, tensor: StoredTensor) -> None:
        """Keep an array."""
        self._tensors[tensor_id] = tensor

    def upload(self, what: str, limit: int) -> Upload:
        """Start to receive at most `limit` bytes, a limit called `what`; use it as a context manager."""
        return Upload(self, what, limit)

    def reserve(self, size: int) -> None:
        """Count bytes of uploads in progress (negative: released); raise `Overloaded` over the bound."""
        self._uploading.reserve(size)


class Upload:
    """An upload in progress, bounded in bytes."""

    def __init__(self, store: Store, what: str, limit: int) -> None:
        """Receive at most `limit` bytes, a limit called `what`."""
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
        """Append bytes; raise `Overloaded` over the limit of this upload or of all."""
        self.count(len(part))
        self._parts.append(part)

    def count(self, size: int) -> None:
        """Count bytes that are kept elsewhere; raise `Overloaded` over the limit of this upload or of all."""
        total = self.size + size
        if total > self._limit:
            raise Overloaded(
                f"the upload has over {self._limit} bytes, the limit of {self._what}; "
                f"{total} bytes had arrived when it was stopped",
                self._what,
                self._limit,
                total,
            )
        self._store.reserve(size)
        self.size = total

    def joined(self) -> bytes:
        """Return everything received."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
