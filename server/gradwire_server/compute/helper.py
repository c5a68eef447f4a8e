"""The helper: a workbench in one child process, which works until Ray has started.

The two ends speak over a socket pair: pickled (method, arguments) one way, (succeeded, result) the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from gradwire_server.compute.shared import Box, open_boxes
from gradwire_server.errors import WorkerLost
from gradwire_server.process.environment import prepare_compute
from gradwire_server.settings import Settings


class Helper:
    """The server's end of the helper process."""

    def __init__(self, settings: Settings) -> None:
        """Start the process; its first answer waits for its imports."""
        ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-m",
            "gradwire_server.compute.helper",
            str(theirs.fileno()),
            str(settings.threads_per_worker),
            str(settings.worker_niceness),
        ]
        self._process = subprocess.Popen(command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
        theirs.close()
        self._connection = Connection(ours.detach())
        self._connection.send(settings.limits)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="helper")

    @property
    def name(self) -> str:
        """How results and logs call it."""
        return "helper"

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        """Run a method of the workbench there; raises WorkerLost when the process dies."""
        sources = [await open_boxes(argument, Box.sent) for argument in arguments]
        loop = asyncio.get_running_loop()
        succeeded, result = await loop.run_in_executor(self._thread, self._exchange, method, sources)
        if not succeeded:
            raise result
        if method == "register":
            info, model, weights = result
            return (
                info,
                Box(f"model {info.graph_id}", model, nbytes=len(model)),
                Box(f"weights {info.graph_id}", weights, nbytes=info.weight_bytes),
            )
        return result

    def _exchange(self, method: str, arguments: list[Any]) -> tuple[bool, Any]:
        try:
            self._connection.send_bytes(pickle.dumps((method, arguments), protocol=5))
            answer: tuple[bool, Any] = pickle.loads(self._connection.recv_bytes())
        except (OSError, EOFError, ValueError):
            return False, WorkerLost("the helper process ended")
        return answer

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._thread.shutdown(wait=False)
        with contextlib.suppress(OSError):
            self._connection.close()


def main(arguments: list[str]) -> None:
    """Serve calls until the other end is gone: ``helper DESCRIPTOR THREADS NICENESS``."""
    descriptor, threads, niceness = map(int, arguments)
    prepare_compute("cpu", threads, niceness)
    from gradwire_server.compute.workbench import Workbench

    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):
        workbench = Workbench(connection.recv())
        while True:
            method, sources = pickle.loads(connection.recv_bytes())
            connection.send_bytes(_answer(workbench, method, sources))
    os._exit(0)


def _answer(workbench: Any, method: str, sources: list[Any]) -> bytes:
    try:
        return pickle.dumps((True, getattr(workbench, method)(*sources)), protocol=5)
    except Exception as error:
        try:
            return pickle.dumps((False, error))
        except Exception:
            return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


if __name__ == "__main__":
    main(sys.argv[1:])
