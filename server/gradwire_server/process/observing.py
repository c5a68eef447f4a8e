"""Lets a running server be seen: its metrics over HTTP, its status over a port for administrators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import structlog
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1.health import SERVICE_NAME as HEALTH_NAME
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from gradwire_server.access.callers import Access
from gradwire_server.access.tokens import ADMIN
from gradwire_server.observe.activity import Activity
from gradwire_server.observe.admin import ADMIN_SERVICE, AdminService
from gradwire_server.observe.events import Events
from gradwire_server.observe.http import HttpPort
from gradwire_server.observe.metrics import Metrics
from gradwire_server.observe.readings import Reading
from gradwire_server.process.guard import Guard
from gradwire_server.process.listening import listen
from gradwire_server.settings import Settings
from gradwire_wire.v1 import admin_pb2_grpc

if TYPE_CHECKING:
    from gradwire_server.observe.traces import Traces

_log = structlog.get_logger()
_CHANNELZ = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name
_STOP_SECONDS = 1.0


class MissingExtra(ValueError):
    """A setting needs what is not installed; the message says how to install it."""


class Observation:
    """What makes one server visible."""

    def __init__(self, settings: Settings, read: Callable[[], Reading]) -> None:
        """Follow events from now on; open no port yet.

        Args:
            settings: of the server.
            read: says what the server holds.
        """
        self._settings = settings
        self._read = read
        self.events = Events()
        self._activity = Activity()
        self._metrics = Metrics(read, version("gradwire"))
        self.events.listen(self._activity.follow)
        self.events.listen(self._metrics.count)
        self._traces = _traces(settings.trace_endpoint)
        if self._traces is not None:
            self.events.listen(self._traces.follow)
        self._http: HttpPort | None = None
        self._admin: grpc.aio.Server | None = None

    async def start(self, access: Access, health: Any) -> None:
        """Open the ports that the settings ask for.

        Args:
            access: says who may see the server.
            health: answers probes.

        Raises:
            OSError, CannotListen: a port is taken.
        """
        settings, host = self._settings, self._settings.admin_host
        if settings.metrics_port is not None:
            self._http = HttpPort(host, settings.metrics_port, self._metrics, lambda: self._read().serving)
            _log.info("metrics", address=f"http://{host}:{self._http.port}/metrics")
        if settings.admin_port is not None:
            guard = Guard(access, {HEALTH_NAME}, ADMIN)
            self._admin = grpc.aio.server(interceptors=[guard], options=[("grpc.so_reuseport", 0)])
            service = AdminService(self._activity, self._read, version("gradwire"))
            admin_pb2_grpc.add_AdminServiceServicer_to_server(service, self._admin)  # type: ignore[no-untyped-call]
            add_HealthServicer_to_server(health, self._admin)
            channelz.add_channelz_servicer(self._admin)
            names = (ADMIN_SERVICE, HEALTH_NAME, _CHANNELZ, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._admin)
            address = listen(self._admin, host, settings.admin_port)
            await self._admin.start()
            _log.info("administration", address=address)

    async def close(self) -> None:
        """Close the ports."""
        if self._admin is not None:
            await self._admin.stop(_STOP_SECONDS)
        if self._http is not None:
            self._http.close()
        if self._traces is not None:
            await asyncio.to_thread(self._traces.close)


def _traces(endpoint: str) -> Traces | None:
    if not endpoint:
        return None
    try:
        from gradwire_server.observe.traces import Traces
    except ImportError as error:
        raise MissingExtra(
            f"trace-endpoint needs OpenTelemetry ({error}): pip install 'gradwire[traces]'"
        ) from None
    return Traces(endpoint, version("gradwire"))


def resident_bytes() -> int:
    """Return the memory of this process."""
    return int(psutil.Process().memory_info().rss)
