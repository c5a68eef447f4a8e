"""The parts of a server that its calls work with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cachetools import LRUCache

from gradwire_server.compute.account import Account
from gradwire_server.compute.caches.kernel_cache import KernelCache
from gradwire_server.compute.caches.store import Store, Stores
from gradwire_server.compute.compiler import Compiler
from gradwire_server.compute.fast_path import FastPath
from gradwire_server.compute.scheduler import Scheduler
from gradwire_server.observe.events import Events
from gradwire_server.settings import Settings

_VERIFIED = 4096
"""Plans to remember whose pattern was checked."""


@dataclass(frozen=True)
class Backend:
    """What every call may need.

    Attributes:
        settings: of the server.
        store: graphs and arrays that a tenant's clients refer to by id.
        stores: those of all tenants.
        account: bytes held for clients that cannot be dropped.
        compiler: registers, plans and compiles on workers.
        kernels: compiled kernels, plans and signatures.
        fast_path: kernels that run in this process.
        scheduler: hands tasks to workers.
        events: tells those who listen what happens.
        verified: ids of plans whose pattern, given by a client, was checked.
    """

    settings: Settings
    store: Store
    stores: Stores
    account: Account
    compiler: Compiler
    kernels: KernelCache
    fast_path: FastPath
    scheduler: Scheduler
    events: Events = field(default_factory=Events)
    verified: LRUCache[str, bool] = field(default_factory=lambda: LRUCache(_VERIFIED))

    def of(self, tenant: str) -> Backend:
        """Return the parts for one tenant: the same, but for a store of its own."""
        return replace(self, store=self.stores.of(tenant)) if tenant else self
