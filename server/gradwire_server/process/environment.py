"""Sets what JAX and Ray read when they are imported."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from gradwire_server.folders import make_private

_FOR_COMPUTE = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|XDG_\w+|LD_LIBRARY_PATH|PYTHON\w*|VIRTUAL_ENV|"
    r"(CONDA|RAY|JAX|XLA|TF|PJRT|NUMBA|OMP|MKL|OPENBLAS|CUDA|NVIDIA|NCCL)_\w+|NPROC"
)
"""Variables that processes which run clients' graphs need: all others may be secrets."""

LOOPS = "loops"
"""Where compiled loops are, in the folder of the setting `cache_dir`."""

RAY_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105  (its name)


def for_compute(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment that a process which runs clients' graphs is started with."""
    return {name: value for name, value in environment.items() if _FOR_COMPUTE.fullmatch(name)}


def forget_secrets() -> None:
    """Drop what this process need not have before it sees a client's graph, Ray's token included.

    A worker has connected to Ray by then. On a cluster that the server joined, nodes give their workers more
    than the server would.
    """
    for name in set(os.environ) - set(for_compute(os.environ)) | {RAY_TOKEN}:
        os.environ.pop(name, None)


def prepare_compute(device: str, threads: int, niceness: int) -> None:
    """Set what JAX reads when it is first imported, and the niceness of this process.

    One process must not use the cores that others compute on, and must partition its loops in the same way
    on every machine, so that results have the same bits.

    Args:
        device: "cpu" or "gpu".
        threads: of one kernel.
        niceness: of this process; never lowered.
    """
    os.environ["PJRT_NPROC"] = os.environ["NPROC"] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cuda" if device == "gpu" else "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.nice(max(0, niceness - os.nice(0)))


def prepare_server(threads: int, niceness: int, local_ray: bool, cache: Path | None) -> None:
    """Set what the server's process needs: it runs small kernels on the CPU, and starts Ray.

    Args:
        threads: of one kernel.
        niceness: of workers.
        local_ray: whether Ray is started on this machine, rather than joined.
        cache: the folder of compiled kernels, in which workers keep compiled loops too.
    """
    prepare_compute("cpu", threads, 0)
    _keep_loops(cache)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A refused registration fails three results, of which only one is read.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if local_ray:
        # A Ray for this machine alone keeps all its sockets on the loopback address.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["RAY_worker_niceness"] = str(niceness)  # noqa: SIM112  (Ray spells it so)
        # Ray runs whatever it is sent: other users of this machine must not reach it.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ[RAY_TOKEN] = secrets.token_hex(32)


def _keep_loops(cache: Path | None) -> None:
    """Have numba keep its machine code in the cache, unless the environment names another place."""
    if cache is None or "NUMBA_CACHE_DIR" in os.environ:
        return
    folder = cache / LOOPS
    try:
        make_private(folder)
    except OSError:
        return  # the log says so of the kernels; numba looks for a place of its own
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
