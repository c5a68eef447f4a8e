"""Starts a local Ray in a child process, and ends it with the server.

Starting Ray forks and waits with the GIL held, which would stop the server from answering; and Ray's
processes should end even when the server is killed. So a small child starts Ray, reports its address, and
ends it when its parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from typing import Any

from gradwire_server.process import trees
from gradwire_server.process.environment import for_compute

_STOP_SECONDS = 10.0


class RayHead:
    """The child process that holds a local Ray."""

    def __init__(self, cpus: int, gpus: int, object_store_bytes: int) -> None:
        """Start the child; Ray is up when `address` returns.

        Args:
            cpus, gpus: that Ray may use.
            object_store_bytes: shared memory of Ray's object store.
        """
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, "-m", "gradwire_server.process.ray_head", str(theirs.fileno())]
        wanted = [str(cpus), str(gpus), str(object_store_bytes)]
        self._process = subprocess.Popen(
            command + wanted,
            pass_fds=(theirs.fileno(),),
            env=for_compute(os.environ),
            stdin=subprocess.DEVNULL,
            # Ctrl-C goes to the server alone, which drains first.
            start_new_session=True,
        )
        theirs.close()
        self._up = False

    def address(self) -> str:
        """Wait until Ray is up, and return the address to connect to.

        Raises:
            RuntimeError: Ray did not start.
        """
        line = self._socket.makefile().readline()
        if not line:
            raise RuntimeError("the process that starts Ray ended")
        answer: dict[str, str] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        self._up = True
        return answer["address"]

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
        self._socket.close()


def main(arguments: list[str]) -> None:
    """Run a local Ray until the parent is gone: `ray_head DESCRIPTOR CPUS GPUS OBJECT_STORE_BYTES`."""
    import ray

    descriptor, cpus, gpus, store = map(int, arguments)
    parent = socket.socket(fileno=descriptor)
    parent.set_inheritable(False)
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
        )
    except Exception as error:
        parent.sendall(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n")
        os._exit(1)
    with contextlib.suppress(OSError):
        parent.sendall(json.dumps({"address": context.address_info["address"]}).encode() + b"\n")
        parent.recv(1)
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
