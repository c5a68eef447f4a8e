"""Holds graphs and arrays that clients refer to by id; the least recently used are dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from gradwire_engine.values import ArrayType
from gradwire_server.compute.account import Holding, Purpose
from gradwire_server.compute.caches.lru import SharedCache
from gradwire_server.compute.shared_values import RegisteredGraph, SharedValue
from gradwire_server.errors import Overloaded, UnknownId
from gradwire_server.observe.readings import Held


@dataclass(frozen=True)
class StoredTensor:
    """An uploaded array: its type, and its elements for workers."""

    type: ArrayType
    elements: SharedValue


class Stores:
    """The stores of all tenants, bounded together."""

    def __init__(self, graph_bytes: int, tensor_bytes: int, uploads: Purpose) -> None:
        """Start empty, with bounds on the graphs and tensors kept; `uploads` counts those in progress."""
        self._graphs: SharedCache[RegisteredGraph] = SharedCache(graph_bytes, lambda graph: graph.nbytes)
        self._tensors: SharedCache[StoredTensor] = SharedCache(
            tensor_bytes, lambda tensor: tensor.type.nbytes
        )
        self._uploads = uploads
        self._own: dict[str, int] = {}
        """Bounds that tenants have of their own."""

    def of(self, tenant: str) -> Store:
        """Return a tenant's store; "" is that of a server that asks for no tokens."""
        return Store(tenant, self._graphs, self._tensors, self._uploads, self._own)

    def bound(self, tenant: str, nbytes: int | None) -> None:
        """Let a tenant hold at most so many bytes; None: what the caches have room for."""
        if nbytes is None:
            self._own.pop(tenant, None)
        else:
            self._own[tenant] = nbytes

    def held(self) -> dict[str, Held]:
        """Return the bytes of graphs and arrays."""
        return {"graphs": self._graphs.held(), "tensors": self._tensors.held()}

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
        uploads: Purpose,
        own: Mapping[str, int],
    ) -> None:
        """Keep what a tenant sends in caches that all tenants share."""
        self._tenant = tenant
        self._graphs = graphs.of(tenant)
        self._tensors = tensors.of(tenant)
        self._uploads = uploads
        self._own = own

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
        """Tell whether a graph is held; that is a use of it."""
        return self._graphs.get(graph_id) is not None

    def has_tensor(self, tensor_id: str) -> bool:
        """Tell whether an array is held; that is a use of it."""
        return self._tensors.get(tensor_id) is not None

    def add_graph(self, graph_id: str, graph: RegisteredGraph) -> None:
        """Keep a graph, which the tenant's clients call `graph_id`."""
        self._graphs[graph_id] = graph
        self._shrink()

    def drop_graph(self, graph_id: str) -> bool:
        """Hold a graph no longer; return whether it was held."""
        return self._graphs.pop(graph_id) is not None

    def drop_tensor(self, tensor_id: str) -> bool:
        """Hold an array no longer; return whether it was held."""
        return self._tensors.pop(tensor_id) is not None

    def expire(self, seconds: float) -> tuple[list[str], list[str]]:
        """Drop what was not used for so long; return the ids of graphs and of arrays."""
        return self._graphs.expire(seconds), self._tensors.expire(seconds)

    def tensor(self, tensor_id: str) -> StoredTensor:
        """Return an uploaded array; raise `UnknownId`."""
        tensor = self._tensors.get(tensor_id)
        if tensor is None:
            raise UnknownId("tensor", tensor_id)
        return tensor

    def add_tensor(self, tensor_id: str, tensor: StoredTensor) -> None:
        """Keep an array."""
        self._tensors[tensor_id] = tensor
        self._shrink()

    def _shrink(self) -> None:
        """Drop what this tenant used longest ago until it holds no more than its own bound, but not all."""
        own = self._own.get(self._tenant)
        while own is not None and self._graphs.nbytes + self._tensors.nbytes > own:
            if len(self._tensors) > 1 or (len(self._tensors) == 1 and len(self._graphs)):
                self._tensors.drop_oldest()
            elif len(self._graphs) > 1:
                self._graphs.drop_oldest()
            else:
                return

    def upload(self, what: str, limit: int) -> Upload:
        """Start to receive at most `limit` bytes, a limit called `what`; use it as a context manager."""
        return Upload(self, what, limit)

    def arriving(self) -> Holding:
        """Return a holding for bytes of uploads in progress."""
        return self._uploads.open()

    def check_own(self, nbytes: int) -> None:
        """Check that a tenant may hold something of so many bytes; raise `Overloaded`."""
        own = self._own.get(self._tenant)
        if own is not None and nbytes > own:
            raise Overloaded(
                f"this has {nbytes} bytes; the tenant {self._tenant} may have the server hold {own} "
                "(held_bytes of its token)",
                "held_bytes",
                own,
                nbytes,
            )


class Upload:
    """An upload in progress, bounded in bytes."""

    def __init__(self, store: Store, what: str, limit: int) -> None:
        """Receive at most `limit` bytes, a limit called `what`."""
        self._store = store
        self._what = what
        self._limit = limit
        self._parts: list[bytes] = []
        self._holding = store.arriving()

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self._holding.give_back()
        self._parts.clear()

    @property
    def size(self) -> int:
        """Bytes received."""
        return self._holding.nbytes

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
        self._store.check_own(total)
        self._holding.resize(total)

    def joined(self) -> bytes:
        """Return everything received."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
