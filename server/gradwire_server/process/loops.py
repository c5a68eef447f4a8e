"""Compiles the loops of sparse derivatives beside a server whose cache lacks them.

They take seconds, once for each installation, and the first sparse derivative should not wait for them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

from gradwire_server.process.environment import prepare_compute

_NICENESS = 19


def start_compiling(engine: str) -> subprocess.Popen[bytes] | None:
    """Start a process that compiles them, which ends with this one; None if they are there or have no place.

    Args:
        engine: names the engine's code.
    """
    folder = os.environ.get("NUMBA_CACHE_DIR")
    if folder is None:
        return None
    done = Path(folder) / f"compiled-{version('numba')}-{engine[:16]}"
    if done.exists():
        return None
    command = [sys.executable, "-m", "gradwire_server.process.loops", str(done)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def main(done: Path) -> None:
    """Compile them and make the file `done`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare_compute("cpu", 1, _NICENESS)
    from gradwire_engine.sparsity.warming import compile_loops

    compile_loops()
    done.touch()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
