"""The pool: workers are started, replaced when they are lost, and ended.

Until Ray is there a helper process works alone; a worker that cannot be started is tried again after a
growing pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import ray
import structlog

from gradwire_server.compute.helper import Helper
from gradwire_server.compute.scheduler import Scheduler, Worker
from gradwire_server.compute.worker import RayWorker
from gradwire_server.errors import Unavailable
from gradwire_server.process.ray_head import RayHead
from gradwire_server.settings import Settings

_log = structlog.get_logger()
_START_SECONDS = 120.0
_LONGEST_PAUSE = 30.0


class Pool:
    """Keeps the scheduler supplied with workers."""

    def __init__(self, settings: Settings, scheduler: Scheduler) -> None:
        """Nothing is started yet."""
        self._settings = settings
        self._scheduler = scheduler
        self._helper: Helper | None = None
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._head: RayHead | None = None
        self._ray_thread = ThreadPoolExecutor(1, thread_name_prefix="ray")
        self.started = asyncio.Event()
        """Set once the first Ray worker takes work."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when workers came or went."""
        scheduler.on_lost = self._lost

    @property
    def serving(self) -> bool:
        """Whether any Ray worker takes work."""
        return any(worker is not self._helper for worker in self._scheduler.workers)

    def start_helper(self) -> None:
        """Start the helper process."""
        self._helper = Helper(self._settings)
        self._scheduler.add(self._helper)

    async def connect(self) -> None:
        """Start a local Ray, or join a cluster.

        Raises:
            Exception: Ray did not start.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._ray_thread, _connect, await self._ray_address())

    async def start_workers(self) -> None:
        """Start the workers; returns when the first takes work."""
        for _ in range(self._worker_count()):
            self._spawn(self._supply())
        await self.started.wait()

    async def _ray_address(self) -> str:
        settings = self._settings
        if settings.ray_address:
            return settings.ray_address
        count = settings.worker_count
        self._head = RayHead(count, count if settings.device == "gpu" else 0, settings.object_store_bytes)
        return await asyncio.to_thread(self._head.address)

    def _worker_count(self) -> int:
        if self._settings.workers != "auto" or not self._settings.ray_address:
            return self._settings.worker_count
        kind = "GPU" if self._settings.device == "gpu" else "CPU"
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return max(1, int(resources.get(kind, 1)))

    async def _supply(self) -> None:
        """Start one worker, however often it takes."""
        pause = 1.0
        while not self._closing:
            self._count += 1
            worker = RayWorker(f"worker-{self._count}", self._settings)
            try:
                async with asyncio.timeout(_START_SECONDS):
                    await worker.hello()
            except Exception as error:
                worker.kill()
                _log.error("worker did not start", worker=worker.name, reason=str(error))
                if not self._scheduler.workers:
                    self._scheduler.expecting = False
                    self._scheduler.fail_waiting(Unavailable("no workers can be started; try again later"))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            _log.info("worker ready", worker=worker.name, process=worker.process_id)
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
        elif isinstance(worker, RayWorker):
            self._spawn(self._supply())
        self.on_change()

    def _spawn(self, coroutine: object) -> None:
        task = asyncio.ensure_future(coroutine)  # type: ignore[call-overload]
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
