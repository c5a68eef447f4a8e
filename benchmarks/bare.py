"""Start the bare server that figures are compared with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bare_server() -> Iterator[str]:
    """The address of a bare grpc.aio server in a process of its own; it ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(10)
