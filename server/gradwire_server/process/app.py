"""The server: puts its parts together, opens its port, reports its health, and shuts down."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
from collections.abc import Mapping
from typing import NoReturn, Protocol

import grpc
import psutil
import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import SERVICE_NAME as HEALTH_NAME
from grpc_health.v1.health import aio as health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

import gradwire_wire as wire
from gradwire_engine.planning.kernels import device_fingerprint
from gradwire_server.access.opening import Exposed, access_of
from gradwire_server.access.tls import CertificateError
from gradwire_server.access.tokens import TokenError
from gradwire_server.compute.account import Account
from gradwire_server.compute.caches.disk import Disk
from gradwire_server.compute.caches.kernel_cache import KernelCache, engine_fingerprint
from gradwire_server.compute.caches.store import Stores
from gradwire_server.compute.compiler import Compiler
from gradwire_server.compute.fast_path import FastPath
from gradwire_server.compute.pool import Pool
from gradwire_server.compute.scheduler import Scheduler
from gradwire_server.machine import give_back_freed_memory
from gradwire_server.observe.readings import Reading
from gradwire_server.process import loops, trees
from gradwire_server.process.guard import Guard
from gradwire_server.process.listening import listen
from gradwire_server.process.observing import MissingExtra, Observation, resident_bytes
from gradwire_server.process.supervisor import LOST_RAY
from gradwire_server.rpc.backend import Backend
from gradwire_server.rpc.service import NAME, GradientService
from gradwire_server.settings import Settings
from gradwire_server.sizes import text_of_bytes

_log = structlog.get_logger()
_Status = health_pb2.HealthCheckResponse
_CLOSE_SECONDS = 20.0
_LAST_SECONDS = 0.2


class Server:
    """One gradwire server."""

    def __init__(self, settings: Settings) -> None:
        """Put the parts together; start nothing yet."""
        self._settings = settings
        self._scheduler = Scheduler(
            attempts=settings.attempts,
            grace=settings.cancel_grace_seconds,
            queue_length=settings.queue_length,
        )
        self._pool = Pool(settings, self._scheduler)
        self._pool.on_change = self._announce
        bounds = settings.bounds
        compiler = Compiler(self._scheduler, settings.compile_seconds)
        kernels = KernelCache(
            compiler,
            f"{settings.device} {settings.threads_per_worker} {settings.limits}",
            bounds["kernels"],
            settings.plan_cache_entries,
            bounds["structures"],
            Disk.at(settings.cache_dir, settings.kernel_disk_bytes),
        )
        self._fast_path = FastPath(settings)
        self._kernels = kernels
        self._account = Account(bounds, settings.share, settings.stalled_seconds)
        self._stores = Stores(bounds["graphs"], bounds["tensors"], self._account.uploads)
        self._scheduler.on_data_lost = self._stores.forget_graphs
        self._observation = Observation(settings, self._read)
        events = self._observation.events
        self._scheduler.on_event = self._pool.on_event = kernels.on_event = events
        backend = Backend(
            settings,
            self._stores.of(""),
            self._stores,
            self._account,
            compiler,
            kernels,
            self._fast_path,
            self._scheduler,
            events,
        )
        self._access, self._certificates = access_of(settings)
        self._health = health.HealthServicer()
        self._expiring: asyncio.Future[None] | None = None
        self._announcements: set[asyncio.Task[None]] = set()
        self._compiling_loops: subprocess.Popen[bytes] | None = None
        self._grpc = grpc.aio.server(
            options=_options(settings),
            interceptors=[Guard(self._access, {NAME, HEALTH_NAME})],
        )
        self._service = GradientService(backend, self._access)
        self._grpc.add_generic_rpc_handlers((self._service.handler(),))
        add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection((NAME, HEALTH_NAME, reflection.SERVICE_NAME), self._grpc)

    async def start(self) -> str:
        """Open the port and return the address; the helper process does the work until Ray is up."""
        wire.keep_freed_memory()
        give_back_freed_memory(lambda: self._account.freed)
        address = listen(
            self._grpc,
            self._settings.host,
            self._settings.port,
            self._certificates.credentials() if self._certificates else None,
        )
        self._pool.start_helper()
        self._pool.start_watch()
        # Both are slow the first time, and would be so on the first request.
        device_fingerprint(), engine_fingerprint()
        # What was imported stays: a full collection that walks it holds the event loop for 0.2 s.
        gc.freeze()
        await self._set_health(_Status.NOT_SERVING)
        await self._grpc.start()
        await self._observation.start(self._access, self._health)
        if self._settings.held_seconds is not None:
            self._expiring = asyncio.ensure_future(self._service.forget_unused(self._settings.held_seconds))
        self._compiling_loops = loops.start_compiling(engine_fingerprint())
        _log.info(
            "listening",
            address=address,
            tls=self._certificates is not None,
            tokens=self._settings.token_file is not None,
        )
        _log.info("memory for clients", **_budget(self._settings))
        return address

    def reload(self) -> None:
        """Read the tokens again; certificates are read for each new connection anyway."""
        _log.info("reloading")
        self._access.reload()

    async def run(self, stop: asyncio.Event, parent: Parent) -> int:
        """Start Ray, serve until `stop` is set, then drain; return the process's exit code.

        When a part of a local Ray is lost, the process ends at once, so that it is started again.
        """
        ray = asyncio.ensure_future(self._start_workers(stop, parent))
        lost = asyncio.ensure_future(self._pool.lost_ray())
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((ray, lost, stopping), return_when=asyncio.FIRST_COMPLETED)
            if ray.done() and ray.exception() is not None:
                _log.error("Ray did not start", reason=str(ray.exception()))
                return 1
            await asyncio.wait((lost, stopping), return_when=asyncio.FIRST_COMPLETED)
            if lost.done() and not stop.is_set():
                _end_at_once(lost.result())
            return 0
        finally:
            for task in (stopping, ray, lost):
                task.cancel()
            await self.close()

    async def _start_workers(self, stop: asyncio.Event, parent: Parent) -> None:
        await self._pool.connect()
        parent.ray_started(self._pool.ray_parts)
        # Connecting replaced our handlers by Ray's.
        _stop_on_signals(stop)
        await self._pool.start_workers()
        gc.freeze()

    async def close(self) -> None:
        """Take no more calls, let those in progress finish within the time to drain, end every process."""
        _log.info("draining", seconds=self._settings.drain_seconds)
        # Later changes of the status are ignored.
        await self._health.enter_graceful_shutdown()
        stopping = asyncio.ensure_future(self._grpc.stop(self._settings.drain_seconds))
        drained = asyncio.ensure_future(self._service.drain())
        await asyncio.wait((stopping, drained), return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()
        # What is still open, such as a health watch, has no work that is worth waiting for.
        await self._grpc.stop(_LAST_SECONDS)
        await stopping
        if self._expiring is not None:
            self._expiring.cancel()
        await self._observation.close()
        self._fast_path.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._pool.close()
        except TimeoutError:
            _log.warning("Ray did not stop in time")
        trees.kill(trees.descendants(os.getpid()))
        _log.info("stopped")

    def _read(self) -> Reading:
        held = {**self._stores.held(), **self._account.held(), **self._kernels.held()}
        workers, queued = len(self._scheduler.workers), self._scheduler.queued
        return Reading(self._pool.serving, workers, queued, held, resident_bytes())

    def _announce(self) -> None:
        status = _Status.SERVING if self._pool.serving else _Status.NOT_SERVING
        task = asyncio.ensure_future(self._set_health(status))
        self._announcements.add(task)
        task.add_done_callback(self._announcements.discard)

    async def _set_health(self, status: int) -> None:
        for service in ("", NAME):
            await self._health.set(service, status)


def _end_at_once(ended: str) -> NoReturn:
    """End this process and those below it: without Ray, no call that is open can be answered.

    Clients find their connections closed, which is UNAVAILABLE to them, and ask again.
    """
    _log.error("a part of Ray was lost: the server starts again", part=ended)
    for process in trees.descendants(os.getpid()):
        with contextlib.suppress(psutil.Error):
            process.kill()
    os._exit(LOST_RAY)


def _budget(settings: Settings) -> dict[str, str]:
    """Return what a server may hold for clients, as people read it."""
    bounds = {purpose: text_of_bytes(bound) for purpose, bound in settings.bounds.items()}
    machine = {"object_store": settings.object_store, "each_worker": settings.worker_cache}
    return {"all": text_of_bytes(settings.memory_bytes), **bounds} | {
        name: text_of_bytes(size) for name, size in machine.items()
    }


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


class Parent(Protocol):
    """Who started the server, and is told of it; called on the event loop."""

    def listening(self, address: str, stop: asyncio.Event) -> None:
        """Hear of the address, and of the event that stops the server."""

    def ray_started(self, parts: Mapping[str, int]) -> None:
        """Hear of the processes that a local Ray cannot lose: ids by name."""


def serve(settings: Settings, parent: Parent) -> int:
    """Run a server until SIGTERM or SIGINT; return the process's exit code."""
    return asyncio.run(_serve(settings, parent))


async def _serve(settings: Settings, parent: Parent) -> int:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    try:
        server = Server(settings)
    except (TokenError, CertificateError, Exposed, MissingExtra) as error:
        _log.error("the server did not start", reason=str(error))
        return 1
    _reload_on_hangup(server)
    try:
        address = await server.start()
    except Exception as error:
        _log.error("the server did not start", reason=str(error))
        await server.close()
        return 1
    parent.listening(address, stop)
    return await server.run(stop, parent)


def _reload_on_hangup(server: Server) -> None:
    """Have SIGHUP read tokens and certificates again; by default it would end the process."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, server.reload)


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
