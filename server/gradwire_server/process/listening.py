"""Where a server listens: the address that gRPC is given, and why it cannot be had."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import grpc

_UNIX = "unix:"


class CannotListen(Exception):
    """The address cannot be listened at; the message says why and what to do."""


def target(host: str, port: int) -> str:
    """Return the address of a host and a port as gRPC writes it: of a unix socket without the port."""
    if host.startswith(_UNIX):
        return host
    bare = host.removeprefix("[").removesuffix("]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def listen(
    server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None = None
) -> str:
    """Open the port of a server, encrypted with credentials; return the address that clients use.

    Raises:
        CannotListen: it is taken, not allowed or not of this machine.
    """
    address = target(host, port)
    if host.startswith(_UNIX):
        # gRPC would take the socket away from a server that listens at it.
        _check_socket(host)
    try:
        if credentials is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise CannotListen(_reason(host, port, address) or f"cannot listen at {address}: {error}") from None
    return address if host.startswith(_UNIX) else target(host, bound)


def _reason(host: str, port: int, address: str) -> str:
    """Say why an address cannot be listened at; "" if it can."""
    if host.startswith(_UNIX):
        return _bind(socket.AF_UNIX, _path(host), address)
    bare = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"cannot listen at {address}: {host!r} is no name or address of a host ({error})"
    return next(filter(None, (_bind(family, where, address) for family, _, _, _, where in found)), "")


def _bind(family: socket.AddressFamily, where: object, address: str) -> str:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)  # type: ignore[arg-type]
            probe.listen()
    except OSError as error:
        return f"cannot listen at {address}: {_WORDS.get(error.errno or 0) or error.strerror or error}"
    if family == socket.AF_UNIX:
        os.unlink(str(where))
    return ""


_WORDS = {
    errno.EADDRINUSE: "the port is in use: end what listens there, or choose another with --port "
    "(0 picks a free one)",
    errno.EADDRNOTAVAIL: "this machine has no such address: see --host",
    errno.EACCES: "this user may not listen there: choose a port from 1024 on, or another path",
    errno.EAFNOSUPPORT: "this machine has no addresses of that family: see --host",
}


def _path(host: str) -> str:
    return host.removeprefix(_UNIX).removeprefix("//")


def _check_socket(host: str) -> None:
    """Check that no server listens at a unix socket; one that a dead server left is no obstacle.

    Raises:
        CannotListen: one does, or something else is there.
    """
    path = Path(_path(host))
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise CannotListen(f"cannot listen at {host}: {path} is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise CannotListen(f"cannot listen at {host}: another server does; end it, or choose another path")
