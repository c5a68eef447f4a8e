"""What is done to a server: each fault by name, as a function of the site that it is done to."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from gradwire_server.process import trees
from tests.chaos.proxy import Proxy
from tests.conftest import wait_until_serving
from tests.server import processes


@dataclass
class Site:
    """A server under load.

    Attributes:
        address: where it listens.
        process_id: of its supervisor.
        workers: how many it has, spares included.
        proxy: what the client's connection goes through.
        random: decides which worker is hit.
    """

    address: str
    process_id: int
    workers: int
    proxy: Proxy
    random: random.Random

    def part(self, name: str) -> psutil.Process:
        """Return the process of a part of the server."""
        for process in trees.descendants(self.process_id):
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if process.name() == name or (len(command) > 2 and command[2].endswith(f".{name}")):
                    return process
        raise LookupError(name)

    def whole_again(self, limit: float = 60.0) -> float:
        """Wait until it serves with every worker, none of them stopped; return the seconds that took."""
        began = time.monotonic()
        while time.monotonic() < began + limit:
            wait_until_serving(self.address, limit)
            with contextlib.suppress(psutil.Error):
                there = processes.workers(self.process_id)
                if len(there) >= self.workers and not any(one.status() == "stopped" for one in there):
                    return time.monotonic() - began
            time.sleep(0.05)
        return limit


def _a_worker(site: Site) -> psutil.Process:
    there = processes.workers(site.process_id)
    busy = [worker for worker in there if worker.cpu_percent(0.05) > 10]
    return site.random.choice(busy or there)


def kill_a_worker(site: Site) -> None:
    _a_worker(site).kill()


def kill_all_workers(site: Site) -> None:
    for worker in processes.workers(site.process_id):
        worker.kill()


def freeze_a_worker(site: Site) -> None:
    _a_worker(site).send_signal(signal.SIGSTOP)


def pause_a_worker(site: Site) -> None:
    worker = _a_worker(site)
    worker.send_signal(signal.SIGSTOP)
    time.sleep(1)
    worker.send_signal(signal.SIGCONT)


def kill(name: str) -> Callable[[Site], None]:
    """Make the fault that kills a part of the server."""
    return lambda site: site.part(name).kill()


def freeze_the_raylet(site: Site) -> None:
    """Stop it and wait until the server has noticed: workers go on without it, and would seem whole."""
    raylet = site.part("raylet")
    raylet.send_signal(signal.SIGSTOP)
    psutil.wait_procs([raylet], 30)


def cut_the_connection(site: Site) -> None:
    site.proxy.cut(1.5)


def stop_and_continue_the_server(site: Site) -> None:
    process_id = site.part("serving").pid
    os.kill(process_id, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(process_id, signal.SIGCONT)


FAULTS: dict[str, Callable[[Site], None]] = {
    "kill -9 of a worker": kill_a_worker,
    "kill -9 of all workers and the spare": kill_all_workers,
    "SIGSTOP of a worker": freeze_a_worker,
    "SIGSTOP of a worker, SIGCONT after 1 s": pause_a_worker,
    "SIGSTOP of the serving process, SIGCONT after 1.5 s": stop_and_continue_the_server,
    "connection cut, refused for 1.5 s": cut_the_connection,
    "kill -9 of the serving process": kill("serving"),
    "kill -9 of the raylet": kill("raylet"),
    "kill -9 of the GCS": kill("gcs_server"),
    "kill -9 of Ray's head process": kill("ray_head"),
    "SIGSTOP of the raylet (whole again once it is noticed)": freeze_the_raylet,
}
