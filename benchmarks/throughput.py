"""The rate at which a 256 MiB Jacobian arrives, against a bare grpc.aio stream of 1 MiB chunks.

python -m benchmarks.throughput
"""

from __future__ import annotations

import numpy as np

import gradwire as gw
from benchmarks.bare import bare_client, bare_server
from benchmarks.report import Figure, interleaved, table

SIZE = 5793  # SIZE**2 float64 values are 256 MiB
ROUNDS = 9


def figures() -> list[Figure]:
    """Return one row."""
    rng = np.random.default_rng(0)
    b, x = rng.standard_normal(SIZE), rng.standard_normal(SIZE)
    out = np.empty((SIZE, SIZE))
    chunks = out.nbytes >> 20
    with gw.local(workers=2) as client, bare_server() as address, bare_client(address) as download:
        client.wait_ready()
        # A product of an outer kind: every entry of the Jacobian is made, at the price of moving it.
        f = client.function(lambda x: np.tanh(x) + b * np.sum(np.sin(x)), gw.spec(SIZE))
        f.jacobian(x, out=out)
        expected = np.diag(1 - np.tanh(x) ** 2) + np.outer(b, np.cos(x))
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-14)
        ours, theirs = interleaved(ROUNDS, lambda: f.jacobian(x, out=out), lambda: download(chunks))
    rate, bare_rate = out.nbytes / ours / 1e9, (chunks << 20) / theirs / 1e9
    return [
        Figure(
            "256 MiB Jacobian, arrival",
            f"{rate:.2f} GB/s into the client's array",
            f"bare grpc.aio stream, received and dropped, {bare_rate:.2f} GB/s",
            rate / bare_rate,
            "at least 0.7",
            rate >= 0.7 * bare_rate,
        )
    ]


if __name__ == "__main__":
    print(table(figures()))
