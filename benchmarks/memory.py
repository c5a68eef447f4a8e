"""Memory while a part of a 60,000 x 60,000 float32 Jacobian (14 GB) streams to a sink that drops it.

python -m benchmarks.memory [GIGABYTES]
"""

from __future__ import annotations

import sys
from contextlib import suppress

import numpy as np
import psutil

import gradwire as gw
from benchmarks.report import Figure, table

SIZE = 60_000
GIGABYTES = 4.0


def _server_bytes(root: psutil.Process) -> int:
    """Return the bytes of the server and all it started: private memory, and each shared page once."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            total += process.memory_full_info().pss
    return total


def _client_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def figures(gigabytes: float = GIGABYTES) -> list[Figure]:
    """Return two rows: server with its workers, and client."""
    x = np.linspace(-1, 1, SIZE, dtype=np.float32)
    with gw.local(workers=2) as client:
        root = next(p for p in psutil.Process().children() if "gradwire_server" in " ".join(p.cmdline()))
        client.wait_ready()
        f = client.function(lambda x: np.tanh(x) + np.sin(np.sum(x)), gw.spec(SIZE, np.float32))
        f.plan(x)
        idle_server, idle_client = _server_bytes(root), _client_bytes()
        peaks, received = [], 0
        for count, block in enumerate(f.jacobian_blocks(x)):
            received += sum(piece.data.nbytes for piece in block.pieces)
            if count % 20 == 0:
                peaks.append((_server_bytes(root) - idle_server, _client_bytes() - idle_client))
            if received > gigabytes * 1e9:
                break
    half = len(peaks) // 2
    rows = []
    for index, (name, limit) in enumerate((("server and workers", 2 << 30), ("client", 300 << 20))):
        values = [peak[index] for peak in peaks]
        early, late = max(values[:half]), max(values[half:])
        rows.append(
            Figure(
                f"{received / 1e9:.1f} of 14.4 GB streamed and dropped: {name}",
                f"{late / 2**20:.0f} MiB above idle in the second half",
                f"{early / 2**20:.0f} MiB in the first half",
                late / max(1, early),
                f"under {limit / 2**20:.0f} MiB, flat",
                late < limit,
            )
        )
    return rows


if __name__ == "__main__":
    print(table(figures(float(sys.argv[1]) if len(sys.argv) > 1 else GIGABYTES)))
