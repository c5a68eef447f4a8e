"""GetServerInfo: versions, limits, workers and devices."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import version

from google.protobuf.message import Message

from gradwire_engine.planning.kernels import device_fingerprint
from gradwire_server.compute.caches.kernel_cache import engine_fingerprint
from gradwire_server.rpc import translate
from gradwire_server.rpc.backend import Backend
from gradwire_server.settings import Settings
from gradwire_wire.v1 import server_info_pb2

_LIMIT = "limit: "


def server_info(backend: Backend, tenant: str) -> Message:
    """Answer GetServerInfo for a tenant."""
    settings = backend.settings
    return server_info_pb2.GetServerInfoResponse(
        version=version("gradwire"),
        jax_version=version("jax"),
        onnx_version=version("onnx"),
        workers=len(backend.scheduler.workers),
        device=settings.device,
        threads_per_worker=settings.threads_per_worker,
        fingerprint=_fingerprint(settings.device, settings.threads_per_worker),
        limits=limits_of(settings),
        evaluate_time=translate.duration(settings.evaluate_seconds),
        compile_time=translate.duration(settings.compile_seconds),
        tenant=tenant,
    )


def limits_of(settings: Settings) -> dict[str, int]:
    """Return the settings that are limits of whole numbers, by name."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields} | settings.derived
    return {
        name: values[name]
        for name, field in type(settings).model_fields.items()
        if (field.description or "").startswith(_LIMIT) and isinstance(values[name], int)
    }


@lru_cache(maxsize=1)
def _fingerprint(device: str, threads: int) -> str:
    # The server's own process computes on the CPU whatever its workers do; their kind is in their kernels.
    facts = f"{engine_fingerprint()} {device_fingerprint()} {device} {threads}"
    return hashlib.sha256(facts.encode()).hexdigest()[:32]
