"""The serving process: a child of the supervisor, which it tells of its parts and with which it ends."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence

from gradwire_server.process.supervisor import PARENT


class _Supervisor:
    """The process that started this one, at the other end of a socket: one JSON object a line."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)

    def listening(self, address: str, stop: asyncio.Event) -> None:
        """Tell the address; have its end stop the server."""
        self._tell({"address": address})
        asyncio.get_running_loop().add_reader(self._socket, self._gone, stop)

    def ray_started(self, parts: Mapping[str, int]) -> None:
        """Tell the ids of Ray's processes."""
        self._tell({"parts": dict(parts)})

    def _tell(self, what: object) -> None:
        self._socket.sendall(json.dumps(what).encode() + b"\n")

    def _gone(self, stop: asyncio.Event) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        stop.set()


def main(arguments: Sequence[str]) -> int:
    """Serve until told to stop; return the exit code."""
    from gradwire_server.process import environment, logs
    from gradwire_server.settings import Settings
    from gradwire_server.settings_sources import SettingsError

    try:
        settings = Settings.read(arguments)
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

    return serve(settings, _Supervisor(int(os.environ.pop(PARENT))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
