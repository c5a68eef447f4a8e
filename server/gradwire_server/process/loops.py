"""Compiles the loops of sparse derivatives beside a server whose cache lacks them.

They take seconds, once for each installation, and the first sparse derivative should not wait for them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

from gradwire_server.process.environment import LOOPS, prepare_compute

_NICENESS = 19
_FOLDER = re.compile(r"\w+_[0-9a-f]{40}")
_FILE = re.compile(r"[\w.<>-]+\.nb[ic](\.tmp\.[0-9a-f-]+)?")
"""The names that numba gives."""

_DONE = "compiled-"


def start_compiling(engine: str) -> subprocess.Popen[bytes] | None:
    """Start a process that compiles them, which ends with this one; None if they are there or have no place.

    Args:
        engine: names the engine's code.
    """
    folder = os.environ.get("NUMBA_CACHE_DIR")
    if folder is None:
        return None
    done = Path(folder) / f"{_DONE}{version('numba')}-{engine[:16]}"
    if done.exists():
        return None
    command = [sys.executable, "-P", "-m", "gradwire_server.process.loops", str(done)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def kept_files(cache: Path) -> list[Path]:
    """Return the files of compiled loops in a folder that servers are given as `cache_dir`, and no others."""
    folder = cache / LOOPS
    if not folder.is_dir():
        return []
    numba = [path for room in folder.iterdir() if _FOLDER.fullmatch(room.name) for path in room.iterdir()]
    return [path for path in numba if _FILE.fullmatch(path.name)] + list(folder.glob(f"{_DONE}*"))


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
