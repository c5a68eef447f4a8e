"""Start the bare server and client that figures are compared with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO


@contextmanager
def _process(module: str, *arguments: str) -> Iterator[tuple[IO[str], IO[str]]]:
    """Yield standard input and output of a module run as a process, which ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdin, process.stdout
    finally:
        process.stdin.close()
        process.wait(10)


@contextmanager
def bare_server() -> Iterator[str]:
    """Yield the address of a bare grpc.aio server."""
    with _process("benchmarks.bare_server") as (_, output):
        yield f"127.0.0.1:{int(output.readline())}"


@contextmanager
def bare_client(address: str) -> Iterator[Callable[[int], None]]:
    """Yield a call that has a bare client receive so many chunks of 1 MiB from a bare server."""
    with _process("benchmarks.bare_client", address) as (input, output):

        def download(chunks: int) -> None:
            print(chunks, file=input, flush=True)
            output.readline()

        yield download
