"""`python -m gradwire_server` runs a server; its settings are given as flags."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

SOCKET = "GRADWIRE_SOCKET"
"""Names the socket that an embedder made a folder for, which goes with the server."""

PARENT = "GRADWIRE_PARENT_FD"
"""Names a socket to the embedding process: it is told the address, and its end ends the server."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server until it is told to stop; return the exit code."""
    from gradwire_server.process import environment, logs
    from gradwire_server.settings import Settings
    from gradwire_server.settings_sources import SettingsError

    try:
        settings = Settings.read(sys.argv[1:] if arguments is None else arguments)
    except SettingsError as error:
        print(f"the settings are not valid\n{error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_format, settings.log_level)
    environment.prepare_server(
        settings.threads_per_worker,
        settings.worker_niceness,
        not settings.ray_address,
        settings.cache_dir,
    )
    # Imported only now: it imports JAX and Ray, which read what was just set.
    from gradwire_server.process.app import serve

    descriptor = os.environ.pop(PARENT, "")
    if not descriptor:
        return serve(settings)
    parent = int(descriptor)
    os.set_inheritable(parent, False)

    def started(address: str, stop: asyncio.Event) -> None:
        os.write(parent, f"{address}\n".encode())
        asyncio.get_running_loop().add_reader(parent, _parent_gone, parent, stop)

    try:
        return serve(settings, started)
    finally:
        _remove_socket(os.environ.pop(SOCKET, ""))


def _remove_socket(path: str) -> None:
    """Remove a socket made for this server alone, and its folder."""
    if path:
        Path(path).unlink(missing_ok=True)
        Path(path).parent.rmdir()


def _parent_gone(parent: int, stop: asyncio.Event) -> None:
    asyncio.get_running_loop().remove_reader(parent)
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
