"""Where a server listens, and what it says when it cannot."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from gradwire.transport import address as client_address
from gradwire_server.process.listening import CannotListen, listen, target


@pytest.fixture
async def server() -> AsyncIterator[grpc.aio.Server]:
    """A server that knows its health and is not started."""
    made = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), made)
    yield made
    await made.stop(0)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


IPV6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", pytest.param("::1", marks=IPV6), pytest.param("[::1]", marks=IPV6), "unix:"],
)
async def test_clients_reach_a_server_at_the_address_that_it_reports(
    server: grpc.aio.Server, host: str, tmp_path: Path
) -> None:
    reported = listen(server, f"unix:{tmp_path / 'socket'}" if host == "unix:" else host, 0)
    await server.start()
    assert client_address.checked(reported) == reported
    async with grpc.aio.insecure_channel(reported) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("::1", "[::1]:7"),
        ("[::1]", "[::1]:7"),
        ("::", "[::]:7"),
        ("10.0.0.1", "10.0.0.1:7"),
        ("unix:/run/s", "unix:/run/s"),
    ],
)
def test_addresses_are_written_as_clients_take_them(host: str, written: str) -> None:
    assert target(host, 7) == written


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("203.0.113.7", "no such address"),
        ("127.0.0.1:50051", "no name or address of a host"),
        ("no.such.host.invalid", "no name or address of a host"),
        ("unix:/no/such/folder/socket", "No such file or directory"),
    ],
)
async def test_an_address_that_cannot_be_had_is_refused_with_the_reason(
    server: grpc.aio.Server, host: str, says: str
) -> None:
    with pytest.raises(CannotListen, match=says) as caught:
        listen(server, host, 0)
    assert str(caught.value).startswith(f"cannot listen at {target(host, 0)}: ")


async def test_a_socket_of_a_server_that_lives_is_not_taken_from_it(
    server: grpc.aio.Server, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(CannotListen, match="another server does"):
            listen(server, f"unix:{path}", 0)
    # It has ended now and left its socket behind.
    assert listen(server, f"unix:{path}", 0) == f"unix:{path}"
    (tmp_path / "file").write_text("of someone else")
    with pytest.raises(CannotListen, match="no socket"):
        listen(server, f"unix:{tmp_path / 'file'}", 0)


def test_a_port_in_use_ends_the_server_at_once_with_the_reason(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "gradwire_server", f"--port={port}", f"--cache-dir={tmp_path}"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    assert ended.returncode == 1
    output = ended.stdout + ended.stderr
    assert f"cannot listen at 127.0.0.1:{port}: the port is in use" in output
    assert "--port" in output and "Traceback" not in output
