"""What a process must set before JAX or Ray is imported in it."""

from __future__ import annotations

import os
import secrets


def prepare_compute(device: str, threads: int, niceness: int) -> None:
    """Set what JAX reads when it is first imported, and step back in the scheduler's order.

    One process must not spread over the cores that others compute on, and must partition its loops the
    same way wherever it runs, so that results have the same bits.
    """
    os.environ["PJRT_NPROC"] = os.environ["NPROC"] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cuda" if device == "gpu" else "cpu"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.nice(max(0, niceness - os.nice(0)))


def prepare_server(threads: int, niceness: int, local_ray: bool) -> None:
    """Set what the serving process needs: it computes small things on the CPU, and starts Ray."""
    prepare_compute("cpu", threads, 0)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A refused registration fails three results, of which one is read.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if local_ray:
        # Keeps every socket of a Ray that serves this machine alone on the loopback address.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["RAY_worker_niceness"] = str(niceness)  # noqa: SIM112  (Ray spells it so)
        # Ray runs what it is sent: nobody else on this machine may send it anything.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
