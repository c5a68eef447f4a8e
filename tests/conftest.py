"""Shared by all tests: one embedded server with two workers for the whole run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from tests.quick_compiling import compile_plainly

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer


compile_plainly()

# Loops over index sets are compiled once for all runs and servers.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parent.parent / "build" / "loops"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with everything that talks to a server; each process of a run has a server of its own."""
    items.sort(key=lambda item: not _needs_server(item))


def _needs_server(item: pytest.Item) -> bool:
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    return "server" in getattr(item, "fixturenames", ()) or folder in ("server", "end_to_end")


_first_states: dict[tuple[str, str], Any] = {}


@pytest.fixture(autouse=True)
def _same_draws_whatever_ran_before(request: pytest.FixtureRequest) -> None:
    """Rewind the generators of a test's module: its numbers do not depend on the tests that ran before it."""
    module = getattr(request, "module", None)
    for name, value in vars(module).items() if module else ():
        if isinstance(value, np.random.Generator):
            state = _first_states.setdefault((module.__name__, name), value.bit_generator.state)
            value.bit_generator.state = state


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server whose Ray and both workers are up; its kernels are cached for this run alone."""
    from gradwire_server.process import embedded

    # At a port, as most clients have it; `gw.local()` is at a socket.
    handle = embedded.start(
        workers=2, port=0, cache_dir=tmp_path_factory.mktemp("kernels"), log_level="error"
    )
    try:
        wait_until_serving(handle.address)
        yield handle
    finally:
        handle.stop()


@pytest.fixture(scope="session")
def channel(server: EmbeddedServer) -> Iterator[grpc.Channel]:
    """A plain channel to the shared server."""
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def wait_until_serving(address: str, seconds: float = 90) -> float:
    """Wait for health SERVING; how long it took."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    started = time.monotonic()
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < started + seconds:
            status = stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=seconds).status
            if status == health_pb2.HealthCheckResponse.SERVING:
                return time.monotonic() - started
            time.sleep(0.1)
    raise TimeoutError(f"the server at {address} is not serving after {seconds} s")
