"""Starts a local Ray in a child process, and ends it with the server.

Starting Ray forks and waits with the GIL held, which would stop the server from answering; and Ray's
processes should end even when the server is killed. So a small child starts Ray, reports its address, and
ends it when its parent is gone. It also tells its parent when a part of Ray ends or freezes: Ray itself would
end the server some time later, without a word.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from gradwire_server.folders import private_folder
from gradwire_server.process import trees
from gradwire_server.process.environment import for_compute
from gradwire_server.process.heartbeat import Watch

_STOP_SECONDS = 10.0
_SESSION_PATH = 72
"""Bytes of the longest path of a socket of Ray, below the folder given to it."""

_PARTS = ("gcs_server", "raylet")
_STARTER = "the process that starts Ray"
_LOOK_SECONDS = 2.0
_FROZEN_SECONDS = 10.0
_END_SECONDS = 3.0


class RayHead:
    """The child process that holds a local Ray."""

    def __init__(self, cpus: int, gpus: int, object_store_bytes: int) -> None:
        """Start the child; Ray is up when `address` returns.

        Args:
            cpus, gpus: that Ray may use.
            object_store_bytes: shared memory of Ray's object store.
        """
        self._socket, theirs = socket.socketpair()
        self._folder = private_folder(_SESSION_PATH)
        command = [sys.executable, "-P", "-m", "gradwire_server.process.ray_head", str(theirs.fileno())]
        wanted = [str(cpus), str(gpus), str(object_store_bytes), str(self._folder)]
        self._process = subprocess.Popen(
            command + wanted,
            pass_fds=(theirs.fileno(),),
            env=for_compute(os.environ),
            stdin=subprocess.DEVNULL,
            # Ctrl-C goes to the server alone, which drains first.
            start_new_session=True,
        )
        theirs.close()
        self._lines = self._socket.makefile()
        self._up = False
        self.parts: dict[str, int] = {}
        """Ids of the processes that Ray cannot lose, by name; first the one with which the others end."""

    def address(self) -> str:
        """Wait until Ray is up, and return the address to connect to.

        Raises:
            RuntimeError: Ray did not start.
        """
        line = self._lines.readline()
        if not line:
            raise RuntimeError("the process that starts Ray ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        self._up = True
        self.parts = {_STARTER: self._process.pid, **answer["parts"]}
        return str(answer["address"])

    def ended(self) -> str:
        """Wait until a part of Ray, or the child, has ended; say which, and how."""
        line = self._lines.readline()
        return str(json.loads(line)["ended"]) if line else f"{_STARTER} died"

    def stop(self) -> None:
        """End Ray and the child, and wait until they are gone; a Ray that is still starting is killed."""
        if not self._up and self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)  # it starts no more processes
        children = trees.descendants(self._process.pid)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_STOP_SECONDS if self._up else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        trees.kill(children)
        self._lines.close()
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)  # where the child could not


def main(arguments: list[str]) -> None:
    """Run a local Ray until the parent is gone: `ray_head DESCRIPTOR CPUS GPUS OBJECT_STORE_BYTES FOLDER`."""
    import ray

    descriptor, cpus, gpus, store = map(int, arguments[:4])
    folder = arguments[4]
    parent = socket.socket(fileno=descriptor)
    parent.set_inheritable(False)
    server = os.getppid()
    try:
        context: Any = ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            include_dashboard=False,
            object_store_memory=store,
            logging_level=logging.ERROR,
            log_to_driver=False,
            namespace="gradwire",
            # Ray lets everybody write to its folders: they lie in one that nobody else may enter.
            _temp_dir=f"{folder}/ray",
        )
    except Exception as error:
        parent.sendall(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        os._exit(1)
    with contextlib.suppress(OSError):
        there = {process.name(): process.pid for process in trees.descendants(os.getpid())}
        parts = {name: there[name] for name in _PARTS if name in there}
        told = {"address": context.address_info["address"], "parts": parts}
        parent.sendall(json.dumps(told).encode() + b"\n")
        if (ended := _watch(parent, parts)) is not None:
            parent.sendall(json.dumps({"ended": ended}).encode() + b"\n")
            # A call into Ray may hold the server up, which then cannot end by itself.
            if not select.select([parent.fileno()], [], [], _END_SECONDS)[0]:
                os.kill(server, signal.SIGKILL)
            trees.kill(trees.descendants(os.getpid()))
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(1)
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def _watch(parent: socket.socket, parts: Mapping[str, int]) -> str | None:
    """Wait until a part of Ray is dead or frozen, and say which; None when the parent is gone first."""
    names = {process_id: name for name, process_id in parts.items()}
    watch = Watch(_FROZEN_SECONDS)
    # Readable when the process has ended.
    ends: list[int] = [os.pidfd_open(process_id) for process_id in names] if hasattr(os, "pidfd_open") else []
    while True:
        ready, _, _ = select.select([parent.fileno(), *ends], [], [], _LOOK_SECONDS)
        if parent.fileno() in ready:
            return None
        for process_id, state in watch.look(tuple(names), time.monotonic()).items():
            return f"{names[process_id]} {state}"


if __name__ == "__main__":
    main(sys.argv[1:])
