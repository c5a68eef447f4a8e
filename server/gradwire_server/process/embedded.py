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

from gradwire_server.process import trees
from gradwire_server.process.supervisor import PARENT
from gradwire_server.settings import Settings

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


@dataclass(eq=False)
class EmbeddedServer:
    """A running embedded server.

    Attributes:
        address: where it listens, "127.0.0.1:port".
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
    """Start a server with a local Ray on a free port of 127.0.0.1.

    It answers at once: until Ray is up, a single helper process does the work.

    Args:
        workers: processes that compute.
        settings: any other field of `Settings`.

    Raises:
        RuntimeError: it did not start; its log on standard error says why.
        SettingsError: a setting is unknown or not valid.
    """
    chosen = {"drain_seconds": 1.0, "log_level": "warning", **settings}
    flags = Settings.read(host="127.0.0.1", port=0, workers=workers, **chosen).flags()
    ours, theirs = socket.socketpair()
    environment = {**os.environ, PARENT: str(theirs.fileno())}
    process = subprocess.Popen(
        [sys.executable, "-m", "gradwire_server", *flags],
        env=environment,
        pass_fds=(theirs.fileno(),),
        stdin=subprocess.DEVNULL,
        # Ctrl-C goes to the program that embeds the server; it decides when the server ends.
        start_new_session=True,
    )
    theirs.close()
    ours.settimeout(_START_SECONDS)
    try:
        port = int(ours.makefile().readline())
    except (OSError, ValueError):
        _end(process, ours)
        raise RuntimeError("the embedded server did not start; its log is on standard error") from None
    return EmbeddedServer(f"127.0.0.1:{port}", process, ours)


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
