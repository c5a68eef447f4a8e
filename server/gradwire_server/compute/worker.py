"""A worker: the workbench in a Ray actor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    OwnerDiedError,
    RayActorError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)

from gradwire_server.compute.shared import Box, open_boxes
from gradwire_server.errors import DataLost, WorkerLost
from gradwire_server.process.environment import prepare_compute

if TYPE_CHECKING:
    from gradwire_engine.limits import Limits
    from gradwire_server.settings import Settings

_LOST = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError, RaySystemError)


class Actor:
    """What runs in the worker's process. JAX is imported only once its settings are made."""

    def __init__(self, device: str, threads: int, niceness: int, limits: Limits) -> None:
        """Prepare the process, then import the engine."""
        prepare_compute(device, threads, niceness)
        from gradwire_server.compute.workbench import Workbench

        self._workbench = Workbench(limits)

    def call(self, method: str, *arguments: Any) -> Any:
        """Run a method of the workbench."""
        return getattr(self._workbench, method)(*arguments)


class RayWorker:
    """The server's end of a worker."""

    def __init__(self, name: str, settings: Settings) -> None:
        """Ask Ray for the process; it is ready when ``hello`` returns."""
        self._name = name
        self.process_id = 0
        self.device = ""
        gpus = 1 if settings.device == "gpu" else 0
        actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0, max_task_retries=0)(Actor)
        self._actor: Any = actor.remote(
            settings.device, settings.threads_per_worker, settings.worker_niceness, settings.limits
        )

    @property
    def name(self) -> str:
        """How results and logs call it."""
        return self._name

    async def hello(self) -> None:
        """Wait until the process is ready."""
        self.device, self.process_id = await self.call("hello", ())

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Run a method of the workbench there.

        Raises:
            WorkerLost: the process died.
            DataLost: an object it needed died with another node.
            Exception: whatever the method raised.
        """
        sources = [await open_boxes(argument, Box.stored) for argument in arguments]
        try:
            if method == "register":
                return await self._register(sources, arguments[0].nbytes)
            return await self._actor.call.remote(method, *sources)
        except RayTaskError as error:
            if isinstance(error.cause, ObjectLostError | OwnerDiedError):
                raise DataLost("data of this request was lost with a node; send it again") from None
            if isinstance(error.cause, Exception):
                raise error.cause from None
            raise
        except _LOST as error:
            raise WorkerLost(f"{self._name}: {type(error).__name__}") from None

    async def _register(self, sources: list[Any], size: int) -> tuple[Any, Box, Box]:
        """Only the signature comes here; model and weights stay where workers find them."""
        call = self._actor.call.options(num_returns=3)
        info, model, weights = call.remote("register", *sources)
        found = await info
        return (
            found,
            Box(f"model {found.graph_id}", ref=model, nbytes=max(size - found.weight_bytes, 0)),
            Box(f"weights {found.graph_id}", ref=weights, nbytes=found.weight_bytes),
        )

    def kill(self) -> None:
        """End the process, whatever it does."""
        if ray.is_initialized():
            ray.kill(self._actor)
