"""Two workers against one on blocks that compute: the Jacobian of a 2000-wide tanh network.

python -m benchmarks.scaling
"""

from __future__ import annotations

from statistics import median
from time import perf_counter

import numpy as np

import gradwire as gw
from benchmarks.report import Figure, table

SIZE = 2000
LAYERS = 10
ROUNDS = 5


def _seconds(
    workers: int, weights: list[np.ndarray[tuple[int, int], np.dtype[np.float64]]], x: np.ndarray
) -> float:
    def network(x: np.ndarray) -> np.ndarray:
        for w in weights:
            x = np.tanh(w @ x)
        return x

    with gw.local(workers=workers) as client:
        f = client.function(network, gw.spec(SIZE))
        out = np.empty((SIZE, SIZE))
        f.jacobian(x, out=out)
        client.wait_ready()
        f.jacobian(x, out=out)
        taken = []
        for _ in range(ROUNDS):
            start = perf_counter()
            f.jacobian(x, out=out)
            taken.append(perf_counter() - start)
    return median(taken)


def figures() -> list[Figure]:
    """Return one row."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((SIZE, SIZE)) / np.sqrt(SIZE) for _ in range(LAYERS)]
    x = rng.standard_normal(SIZE)
    one, two = _seconds(1, weights, x), _seconds(2, weights, x)
    return [
        Figure(
            f"Jacobian of a {SIZE}-wide tanh network, {LAYERS} layers",
            f"2 workers, {two:.2f} s",
            f"1 worker, {one:.2f} s",
            one / two,
            "at least 1.7",
            one >= 1.7 * two,
        )
    ]


if __name__ == "__main__":
    print(table(figures()))
