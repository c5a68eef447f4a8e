"""Runs the serving process, and starts it again when it ends unexpectedly.

Ray ends a process that has lost it, and what Ray and JAX do in C++ can end one too. So the process that
serves is a child of this one, which imports nothing heavy and has nothing that could fail. It is started
again on the port that it had: clients find their connections closed, ask again, and streams go on with the
blocks that they lack. One that ends again and again at once is given up.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from gradwire_server.process.heartbeat import is_out

PARENT = "GRADWIRE_PARENT_FD"
"""Names a socket to the process that started this one: it is told the address, and its end ends this one."""

SOCKET = "GRADWIRE_SOCKET"
"""Names the socket that an embedder made a folder for, which goes with the server."""

LOST_RAY = 75
"""The exit code of a process that has said which part of Ray it lost: a temporary failure, in sysexits.h."""

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SETTLED_SECONDS = 10.0
"""A process that served for so long did not end at once."""

_STARTS = 5
"""Starts in a row that may end at once."""

_FIRST_PAUSE = 0.5


class Supervisor:
    """The process that serves, one after the other."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Serve with these command-line flags."""
        self._arguments = tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._lost = ""
        self._stopping = threading.Event()
        self._address = ""
        self._socket = os.environ.pop(SOCKET, "")
        descriptor = os.environ.pop(PARENT, "")
        self._parent = socket.socket(fileno=int(descriptor)) if descriptor else None

    def run(self) -> int:
        """Run until told to stop; return the exit code."""
        for number in _PASSED_ON:
            signal.signal(number, self._pass_on)
        if self._parent is not None:
            self._parent.set_inheritable(False)
            threading.Thread(target=self._wait_for_parent, daemon=True).start()
        at_once = 0
        while True:
            began = time.monotonic()
            code = self._serve()
            if self._stopping.is_set():
                return max(code, 0)  # it may have been told before it listened to signals
            if code == 0 or not self._address:
                return code
            at_once = 1 if time.monotonic() - began > _SETTLED_SECONDS else at_once + 1
            if at_once >= _STARTS:
                self._log("the server ended again and again; it is not started any more", code)
                return 1
            self._log("the serving process ended; it is started again", code)
            # Once at once, and then after pauses.
            if at_once > 1 and self._stopping.wait(_FIRST_PAUSE * 2 ** (at_once - 2)):
                return 0

    def _serve(self) -> int:
        """Run the process that serves; return its exit code, negative for a signal."""
        ours, theirs = socket.socketpair()
        port = self._address.rpartition(":")[2]
        again = [f"--port={port}"] if port.isdecimal() else []
        with ours, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gradwire_server.process.serving", *self._arguments, *again],
                env={**os.environ, PARENT: str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
            )
            theirs.close()
            if self._stopping.is_set():
                self._process.terminate()
            parts: dict[str, int] = {}
            with contextlib.suppress(OSError), ours.makefile() as lines:
                for line in lines:  # until it ends
                    told = json.loads(line)
                    parts = told.get("parts", parts)
                    self._tell(told.get("address", self._address))
            # The others end with the first one that does.
            self._lost = next((name for name, process_id in parts.items() if is_out(process_id)), "")
            return self._process.wait()

    def _tell(self, address: str) -> None:
        """Tell the parent the address, the first time."""
        first, self._address = not self._address, address
        if first and self._parent is not None:
            with contextlib.suppress(OSError):
                self._parent.sendall(f"{address}\n".encode())

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGHUP:
            self._stopping.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def _wait_for_parent(self) -> None:
        """Have the server end with the process that embeds it."""
        assert self._parent is not None
        with contextlib.suppress(OSError):
            self._parent.recv(1)
        os.kill(os.getpid(), signal.SIGTERM)

    def _log(self, message: str, code: int) -> None:
        # Imported only now: a supervisor that has nothing to say stays small.
        import structlog

        from gradwire_server.process import logs
        from gradwire_server.settings import Settings

        settings = Settings.read(self._arguments)
        logs.configure(settings.log_format, settings.log_level)
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        lost = {"lost": self._lost} if self._lost and code != LOST_RAY else {}
        structlog.get_logger().error(message, ended=how, **lost)

    def close(self) -> None:
        """Remove a socket made for this server alone, and its folder."""
        if self._socket:
            Path(self._socket).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                Path(self._socket).parent.rmdir()


def main(arguments: Sequence[str]) -> int:
    """Run a server until it is told to stop; return the exit code."""
    supervisor = Supervisor(arguments)
    try:
        return supervisor.run()
    finally:
        supervisor.close()
