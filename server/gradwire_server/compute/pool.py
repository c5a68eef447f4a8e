"""Starts workers, replaces those that are lost, and ends them.

Until Ray is up a helper process works alone. A worker that cannot be started is tried again after a pause
that doubles each time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
import structlog

from gradwire_server.compute.helper import HelperLink
from gradwire_server.compute.ray_worker import RayLink
from gradwire_server.compute.remote_worker import RemoteWorker
from gradwire_server.compute.scheduler import Scheduler
from gradwire_server.compute.worker import Worker
from gradwire_server.errors import Unavailable
from gradwire_server.observe.events import Event, WorkerReady, unheard
from gradwire_server.process.ray_head import RayHead
from gradwire_server.settings import Settings

_log = structlog.get_logger()
_START_SECONDS = 120.0
_LONGEST_PAUSE = 30.0


class Pool:
    """Keeps the scheduler supplied with workers."""

    def __init__(self, settings: Settings, scheduler: Scheduler) -> None:
        """Start nothing yet."""
        self._settings = settings
        self._scheduler = scheduler
        self._helper: Worker | None = None
        self._ray_workers: set[Worker] = set()
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._head: RayHead | None = None
        self._ray_thread = ThreadPoolExecutor(1, thread_name_prefix="ray")
        self.started = asyncio.Event()
        """Set once the first Ray worker takes tasks."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when workers came or went."""
        self.on_event: Callable[[Event], None] = unheard
        """Called with events of workers."""
        scheduler.on_lost = self._lost

    @property
    def serving(self) -> bool:
        """Whether any Ray worker takes tasks."""
        return not self._ray_workers.isdisjoint(self._scheduler.workers)

    def start_helper(self) -> None:
        """Start the helper process."""
        self._helper = RemoteWorker(HelperLink(self._settings))
        self._scheduler.add(self._helper)

    async def connect(self) -> None:
        """Start a local Ray, or join a cluster.

        Raises:
            Exception: Ray did not start.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._ray_thread, _connect, await self._ray_address())

    async def start_workers(self) -> None:
        """Start the workers; return when the first takes tasks."""
        for _ in range(self._worker_count()):
            self._spawn(self._supply())
        await self.started.wait()

    async def _ray_address(self) -> str:
        settings = self._settings
        if settings.ray_address:
            return settings.ray_address
        count = settings.worker_count
        self._head = RayHead(count, count if settings.device == "gpu" else 0, settings.object_store)
        return await asyncio.to_thread(self._head.address)

    def _worker_count(self) -> int:
        if self._settings.workers != "auto" or not self._settings.ray_address:
            return self._settings.worker_count
        kind = "GPU" if self._settings.device == "gpu" else "CPU"
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return max(1, int(resources.get(kind, 1)))

    async def _supply(self) -> None:
        """Start one worker, trying again until it starts."""
        pause, wanted = 1.0, time.monotonic()
        while not self._closing:
            self._count += 1
            link = RayLink(f"worker-{self._count}", self._settings)
            try:
                async with asyncio.timeout(_START_SECONDS):
                    await link.ready()
            except Exception as error:
                link.kill()
                _log.error("worker did not start", worker=link.name, reason=str(error))
                if not self._scheduler.workers:
                    self._scheduler.expecting = False
                    self._scheduler.fail_waiting(Unavailable("no workers can be started; try again later"))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            _log.info("worker ready", worker=link.name, process=link.process_id)
            self.on_event(WorkerReady(link.name, time.monotonic() - wanted, request=None))
            worker = RemoteWorker(link)
            self._ray_workers.add(worker)
            self._scheduler.expecting = True
            self._scheduler.add(worker)
            if self._helper is not None:
                self._scheduler.retire(self._helper)
                self._helper = None
            self.started.set()
            self.on_change()
            return

    def _lost(self, worker: Worker) -> None:
        if self._closing:
            return
        if worker is self._helper:
            self.start_helper()
        elif worker in self._ray_workers:
            self._ray_workers.remove(worker)
            self._spawn(self._supply())
        self.on_change()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End all workers, and a local Ray with them."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        if self._helper is not None:
            self._helper.kill()
        for worker in self._scheduler.workers:
            worker.kill()
        await asyncio.get_running_loop().run_in_executor(self._ray_thread, ray.shutdown)
        self._ray_thread.shutdown(wait=False)
        if self._head is not None:
            await asyncio.to_thread(self._head.stop)


def _connect(address: str) -> None:
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, namespace="gradwire")
