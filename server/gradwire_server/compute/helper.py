"""A workbench in one child process, which works until Ray has started, and the server's link to it.

The two ends talk over a socket pair: pickled (method, arguments) one way, (succeeded, result) the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from gradwire_server.compute.shared_values import RegisteredGraph, SharedValue, ValueSource, registered
from gradwire_server.errors import WorkerLost
from gradwire_server.process.environment import RAY_TOKEN, for_compute, prepare_compute
from gradwire_server.process.heartbeat import Place, beat

if TYPE_CHECKING:
    # JAX reads its settings when it is imported: `main` makes them first.
    from gradwire_server.compute.workbench import Workbench
    from gradwire_server.compute.worker import RegisterRequest
    from gradwire_server.settings import Settings

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class HelperLink:
    """A `Link` to the helper process."""

    def __init__(self, settings: Settings) -> None:
        """Start the process; its first answer waits for its imports."""
        ours, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-P",  # no module of the folder that the server was started in
            "-m",
            "gradwire_server.compute.helper",
            str(theirs.fileno()),
            str(settings.threads_per_worker),
            str(settings.worker_niceness),
        ]
        self._process = subprocess.Popen(
            command,
            pass_fds=(theirs.fileno(),),
            env={name: value for name, value in for_compute(os.environ).items() if name != RAY_TOKEN},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        self._connection.send((settings.limits, settings.worker_cache))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="helper")
        self.place = Place.of(self._process.pid)

    @property
    def name(self) -> str:
        """The name of the process in results and logs."""
        return "helper"

    async def source(self, value: SharedValue) -> ValueSource:
        """Have a value travel with the call."""
        return await value.inline()

    async def call(self, method: Callable[[Workbench, *Ts], R], *arguments: *Ts) -> R:
        """Call a method of the workbench.

        Raises:
            WorkerLost: the process died.
            Exception: whatever the method raised.
        """
        loop = asyncio.get_running_loop()
        succeeded, result = await loop.run_in_executor(self._thread, self._exchange, method, arguments)
        if not succeeded:
            raise result
        answer: R = result
        return answer

    async def register(self, data: ValueSource, request: RegisterRequest) -> RegisteredGraph:
        """Register a graph; its model and weights are held in this process."""
        from gradwire_server.compute.workbench import Workbench

        info, model, weights = await self.call(
            Workbench.register, data, request.text, request.choices, request.graph_id
        )
        return registered(info, model, weights)

    def _exchange(self, method: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        try:
            self._connection.send_bytes(pickle.dumps((method, arguments), protocol=5))
            answer: tuple[bool, Any] = pickle.loads(self._connection.recv_bytes())  # noqa: S301  (from our own child)
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
    """Serve calls until the other end is closed: `helper DESCRIPTOR THREADS NICENESS`."""
    descriptor, threads, niceness = map(int, arguments)
    prepare_compute("cpu", threads, niceness)
    beat()
    from gradwire_server.compute.workbench import Workbench

    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):
        workbench = Workbench(*connection.recv())
        while True:
            method, sources = pickle.loads(connection.recv_bytes())  # noqa: S301  (from our own parent)
            connection.send_bytes(_answer(workbench, method, sources))
    os._exit(0)


def _answer(workbench: Workbench, method: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    try:
        return pickle.dumps((True, method(workbench, *arguments)), protocol=5)
    except Exception as error:
        try:
            return pickle.dumps((False, error))
        except Exception:
            return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))


if __name__ == "__main__":
    main(sys.argv[1:])
