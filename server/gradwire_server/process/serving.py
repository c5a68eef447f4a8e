"""The serving process: a child of the supervisor, which it tells its port and with which it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from gradwire_server.process.supervisor import PARENT


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

    parent = int(os.environ.pop(PARENT))
    os.set_inheritable(parent, False)

    def started(port: int, stop: asyncio.Event) -> None:
        os.write(parent, f"{port}\n".encode())
        asyncio.get_running_loop().add_reader(parent, _parent_gone, parent, stop)

    return serve(settings, started)


def _parent_gone(parent: int, stop: asyncio.Event) -> None:
    asyncio.get_running_loop().remove_reader(parent)
    stop.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
