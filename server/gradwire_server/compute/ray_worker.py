"""A worker's process as a Ray actor, and the server's link to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

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

from gradwire_server.compute.shared_values import RegisteredGraph, SharedValue, ValueSource
from gradwire_server.errors import DataLost, WorkerLost
from gradwire_server.process.environment import forget_secrets, prepare_compute
from gradwire_server.process.heartbeat import Place, beat

if TYPE_CHECKING:
    # JAX reads its settings when it is imported: in the worker's process `WorkerActor` makes them first.
    from gradwire_engine.limits import Limits
    from gradwire_server.compute.workbench import Workbench
    from gradwire_server.compute.worker import RegisterRequest
    from gradwire_server.settings import Settings

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

_LOST = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError, RaySystemError)


class WorkerActor:
    """What runs in the worker's process."""

    def __init__(self, device: str, threads: int, niceness: int, limits: Limits, cache_bytes: int) -> None:
        """Prepare the process, then import the engine.

        Args:
            device: "cpu" or "gpu".
            threads: of one kernel.
            niceness: of the process.
            limits: that graphs and kernels are held to.
            cache_bytes: to keep between calls.
        """
        prepare_compute(device, threads, niceness)
        forget_secrets()
        beat()
        from gradwire_server.compute.workbench import Workbench

        self._workbench = Workbench(limits, cache_bytes)

    def call(self, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Call a method of the workbench."""
        return method(self._workbench, *arguments)


class RayLink:
    """A `Link` to a Ray actor."""

    def __init__(self, name: str, settings: Settings, cpus: int = 1) -> None:
        """Ask Ray for the process, with `cpus` of its CPUs; it is ready when `ready` returns."""
        self._name = name
        self.cpus = cpus
        self.place: Place | None = None
        gpus = 1 if settings.device == "gpu" else 0
        actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(WorkerActor)
        self._actor: Any = actor.remote(
            settings.device,
            settings.threads_per_worker,
            settings.worker_niceness,
            settings.limits,
            settings.worker_cache,
        )

    @property
    def name(self) -> str:
        """The name of the process in results and logs."""
        return self._name

    async def ready(self) -> None:
        """Wait until the process is ready."""
        from gradwire_server.compute.workbench import Workbench

        self.place = await self.call(Workbench.identify)

    async def source(self, value: SharedValue) -> ValueSource:
        """Put a value into the object store."""
        return await value.stored()

    async def call(self, method: Callable[[Workbench, *Ts], R], *arguments: *Ts) -> R:
        """Call a method of the workbench.

        Raises:
            WorkerLost: the process died.
            DataLost: an object that the call needs died with another node.
            Exception: whatever the method raised.
        """
        answer: R = await self._awaited(self._actor.call.remote(method, arguments))
        return answer

    async def register(self, data: ValueSource, request: RegisterRequest) -> RegisteredGraph:
        """Register a graph: only its description comes here, model and weights stay stored."""
        from gradwire_server.compute.workbench import Workbench

        call = self._actor.call.options(num_returns=3)
        description, model, weights = call.remote(
            Workbench.register, (data, request.text, request.choices, request.graph_id)
        )
        info = await self._awaited(description)
        model_bytes = max(request.data.nbytes - info.weight_bytes, 0)
        return RegisteredGraph(
            info,
            SharedValue(f"model {info.graph_id}", ref=model, nbytes=model_bytes),
            SharedValue(f"weights {info.graph_id}", ref=weights, nbytes=info.weight_bytes),
        )

    async def _awaited(self, answer: Any) -> Any:
        try:
            return await answer
        except RayTaskError as error:
            if isinstance(error.cause, ObjectLostError | OwnerDiedError):
                raise DataLost("data of this request was lost with a node; send it again") from None
            if isinstance(error.cause, Exception):
                raise error.cause from None
            raise
        except _LOST as error:
            raise WorkerLost(f"{self._name}: {type(error).__name__}") from None

    def kill(self) -> None:
        """End the process, whatever it does."""
        if ray.is_initialized():
            ray.kill(self._actor)
        if self.place is not None:
            self.place.kill()  # Ray asks the process, which does not answer while it is stopped
