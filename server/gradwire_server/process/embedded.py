"""An embedded server: a child process that ends with this one."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from gradwire_server.folders import private_folder
from gradwire_server.process import trees
from gradwire_server.process.supervisor import PARENT, SOCKET
from gradwire_server.settings import Settings

AT_A_PORT = frozenset({"host", "port", "tls_cert"})
"""Settings with which an embedded server listens at a port."""

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


@dataclass(eq=False)
class EmbeddedServer:
    """A running embedded server.

    Attributes:
        address: where it listens, "unix:" and a path, or "127.0.0.1:port".
    """

    address: str
    _process: subprocess.Popen[bytes]
    _lifeline: socket.socket
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def process_id(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def stop(self) -> None:
        """End the server and every process it started; may be called again."""
        with self._lock:
            _end(self._process, self._lifeline)


def start(workers: int = 2, **settings: Any) -> EmbeddedServer:
    """Start a server with a local Ray, at a socket that only this user reaches.

    It answers at once: until Ray is up, a single helper process does the work.

    Args:
        workers: processes that compute.
        settings: any other field of `Settings`. With `host`, `port` or a certificate the server listens at a
            port, by default a free one of 127.0.0.1.

    Raises:
        RuntimeError: it did not start; its log on standard error says why.
        SettingsError: a setting is unknown or not valid.
    """
    private = None if AT_A_PORT.intersection(settings) else private_folder(len("/socket")) / "socket"
    place = {"host": "127.0.0.1", "port": 0} if private is None else {"host": f"unix:{private}"}
    chosen = {**place, "drain_seconds": 1.0, "log_level": "warning", **settings}
    flags = Settings.read(workers=workers, **chosen).flags()
    ours, theirs = socket.socketpair()
    environment = {**os.environ, PARENT: str(theirs.fileno())}
    if private is not None:
        environment[SOCKET] = str(private)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "gradwire_server", *flags],
        env=environment,
        pass_fds=(theirs.fileno(),),
        stdin=subprocess.DEVNULL,
        # Ctrl-C goes to the program that embeds the server; it decides when the server ends.
        start_new_session=True,
    )
    theirs.close()
    ours.settimeout(_START_SECONDS)
    try:
        address = ours.makefile().readline().strip()
    except OSError:
        address = ""
    if not address:
        _end(process, ours)
        raise RuntimeError("the embedded server did not start; its log is on standard error")
    return EmbeddedServer(address, process, ours)


def _end(process: subprocess.Popen[bytes], lifeline: socket.socket) -> None:
    """Ask the server to stop; kill it and its descendants if it does not."""
    children = trees.descendants(process.pid)
    if process.poll() is None:
        process.terminate()
    with contextlib.suppress(OSError):
        lifeline.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    trees.kill(children)
