"""Starts workers, replaces those that are lost, and ends them.

Until Ray is up a helper process works alone. After that, spare workers stand by: one of them takes the place
of a worker that is lost at once, and another is started behind it. A worker that cannot be started is tried
again after a pause that doubles each time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
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
from gradwire_server.process.heartbeat import Watch
from gradwire_server.process.ray_head import RayHead
from gradwire_server.settings import Settings

_log = structlog.get_logger()
_START_SECONDS = 120.0
_LONGEST_PAUSE = 30.0
_LOOKS = 5
"""Looks at each process within the time after which it counts as frozen."""


class Pool:
    """Keeps the scheduler supplied with workers."""

    def __init__(self, settings: Settings, scheduler: Scheduler) -> None:
        """Start nothing yet."""
        self._settings = settings
        self._scheduler = scheduler
        self._helper: RemoteWorker | None = None
        # The workers that take tasks and those that stand by, each with the CPUs that Ray counts for it. A
        # spare needs none, so that it leaves all of them to workers; one that takes a place keeps what it
        # has, and its successor gets what the lost one had.
        self._ray_workers: dict[RemoteWorker, int] = {}
        self._spares: dict[RemoteWorker, int] = {}
        self._vacant: deque[float] = deque()
        """When each place became vacant that no worker has taken yet."""
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._head: RayHead | None = None
        self._ray_thread = ThreadPoolExecutor(1, thread_name_prefix="ray")
        self._head_thread = ThreadPoolExecutor(1, thread_name_prefix="ray-head")
        self.connected = asyncio.Event()
        """Set once the server is connected to Ray."""
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
        return not self._ray_workers.keys().isdisjoint(self._scheduler.workers)

    def start_helper(self) -> None:
        """Start the helper process."""
        self._helper = RemoteWorker(HelperLink(self._settings))
        self._scheduler.add(self._helper)

    def start_watch(self) -> None:
        """Look at the workers of this machine from now on, and replace those that are frozen or gone."""
        if self._settings.heartbeat_seconds:
            self._spawn(self._watch(self._settings.heartbeat_seconds))

    async def connect(self) -> None:
        """Start a local Ray, or join a cluster.

        Raises:
            Exception: Ray did not start.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._ray_thread, _connect, await self._ray_address())
        self.connected.set()

    @property
    def ray_parts(self) -> dict[str, int]:
        """The ids of the processes that a local Ray cannot lose, by name; none with a cluster."""
        return {} if self._head is None else self._head.parts

    async def lost_ray(self) -> str:
        """Wait until a local Ray has lost a part, and say which; for ever with a cluster."""
        await self.connected.wait()
        if self._head is None:
            await asyncio.Event().wait()
        assert self._head is not None
        return await asyncio.get_running_loop().run_in_executor(self._head_thread, self._head.ended)

    async def start_workers(self) -> None:
        """Start the workers, and spares after them; return when the first takes tasks."""
        self._spawn(self._start_workers(self._worker_count()))
        await self.started.wait()

    async def _start_workers(self, count: int) -> None:
        self._scheduler.size = count
        self._vacant.extend([time.monotonic()] * count)
        await asyncio.gather(*(self._supply(1) for _ in range(count)))
        await asyncio.gather(*(self._supply(0) for _ in range(self._settings.spare_count)))

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

    async def _supply(self, cpus: int) -> None:
        """Start one worker, trying again until it starts; Ray counts `cpus` CPUs for it."""
        pause = 1.0
        while not self._closing:
            self._count += 1
            link = RayLink(f"worker-{self._count}", self._settings, cpus)
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
            process_id = link.place.process_id if link.place else 0
            _log.info("worker ready", worker=link.name, process=process_id, spare=not self._vacant)
            self._spares[RemoteWorker(link)] = cpus
            self._fill_places()
            return

    def _fill_places(self) -> None:
        """Have spare workers take the vacant places."""
        while self._vacant and self._spares:
            worker = next(iter(self._spares))
            self._ray_workers[worker] = self._spares.pop(worker)
            self.on_event(WorkerReady(worker.name, time.monotonic() - self._vacant.popleft(), request=None))
            self._scheduler.expecting = True
            self._scheduler.add(worker)
            if self._helper is not None:
                self._scheduler.retire(self._helper)
                self._helper = None
            self.started.set()
            self.on_change()

    async def _watch(self, seconds: float) -> None:
        """Look at the processes of this machine, and lose those that are frozen or gone."""
        watch = Watch(seconds)
        while True:
            await asyncio.sleep(seconds / _LOOKS)
            helpers = [] if self._helper is None else [self._helper]
            there = {
                worker.place.process_id: worker
                for worker in (*self._ray_workers, *self._spares, *helpers)
                if worker.place is not None and worker.place.is_here
            }
            found = await asyncio.to_thread(watch.look, tuple(there), time.monotonic())
            for process_id, state in found.items():
                worker = there[process_id]
                if worker in self._spares:
                    _log.warning("spare worker lost", worker=worker.name, reason=state)
                    worker.kill()
                    self._spawn(self._supply(self._spares.pop(worker)))
                else:
                    self._scheduler.lose(worker, state)

    def _lost(self, worker: Worker) -> None:
        if self._closing:
            return
        if worker is self._helper:
            self.start_helper()
        elif worker in self._ray_workers:
            self._vacant.append(time.monotonic())
            cpus = self._ray_workers.pop(worker)
            self._fill_places()
            self._spawn(self._supply(cpus))
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
        for worker in (*self._scheduler.workers, *self._spares):
            worker.kill()
        await asyncio.get_running_loop().run_in_executor(self._ray_thread, ray.shutdown)
        self._ray_thread.shutdown(wait=False)
        if self._head is not None:
            await asyncio.to_thread(self._head.stop)
        self._head_thread.shutdown(wait=False)


def _connect(address: str) -> None:
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, namespace="gradwire")
