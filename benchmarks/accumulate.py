"""Gradients that add up over batches: against JAX, and two workers against one.

A logistic regression over 10^6 rows computes next to nothing with what it moves: the first figure is the
price of moving it. A network computes: the second is what a worker more is good for.

python -m benchmarks.accumulate
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np

import gradwire as gw
from benchmarks.report import Figure, table

ROWS = 1_000_000
WIDTH = 20
BATCH = 20_000
NETWORK_ROWS = 60_000
NETWORK_BATCH = 2000
HIDDEN = 512
ROUNDS = 5

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Loss = Callable[..., Array]


def _logistic(w: Array, x: Array, y: Array) -> Array:
    return np.sum(np.logaddexp(0, -y * (x @ w)))


def _network(w: Array, v: Array, x: Array, y: Array) -> Array:
    return np.sum((np.tanh(np.tanh(x @ w) @ v) - y[:, None]) ** 2)


def _tuple(gradient: Array | tuple[Array, ...]) -> tuple[Array, ...]:
    return gradient if isinstance(gradient, tuple) else (gradient,)


def _streamed(
    workers: int, loss: Loss, params: tuple[Array, ...], x: Array, y: Array, batch: int
) -> tuple[float, bytes]:
    """Return seconds from the first batch to the gradient, and the gradient's bits."""
    shapes = [*(each.shape for each in params), (batch, WIDTH), (batch,)]
    with gw.local(workers=workers) as client:
        f = client.function(loss, *(gw.spec(shape) for shape in shapes))
        client.wait_ready()
        taken = []
        with f.accumulator(*params) as acc:
            for _ in range(ROUNDS + 1):
                start = perf_counter()
                for first in range(0, len(x), batch):
                    acc.add(x[first : first + batch], y[first : first + batch])
                gradient = np.concatenate([np.ravel(part) for part in _tuple(acc.grad)])
                taken.append(perf_counter() - start)
                acc.zero()
    return median(taken[1:]), gradient.tobytes()


def _in_process(w: Array, x: Array, y: Array) -> tuple[float, Array]:
    """Compute the same with JAX alone: no wire, no other process."""
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(lambda w, x, y: jnp.sum(jnp.logaddexp(0, -y * (x @ w)))))
        taken = []
        for _ in range(ROUNDS + 1):
            start = perf_counter()
            total = np.zeros(WIDTH)
            for first in range(0, ROWS, BATCH):
                total += gradient(w, x[first : first + BATCH], y[first : first + BATCH])
            taken.append(perf_counter() - start)
    return median(taken[1:]), total


def figures() -> list[Figure]:
    """Return two rows: the stream, and JAX alone."""
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal(WIDTH) / 3, rng.standard_normal((ROWS, WIDTH))
    y = rng.choice([-1.0, 1.0], ROWS)
    ours, bits = _streamed(2, _logistic, (w,), x, y, BATCH)
    alone, expected = _in_process(w, x, y)
    np.testing.assert_allclose(np.frombuffer(bits), expected, rtol=1e-11)
    params = rng.standard_normal((WIDTH, HIDDEN)) / 5, rng.standard_normal((HIDDEN, HIDDEN)) / 16
    x, y = x[:NETWORK_ROWS], y[:NETWORK_ROWS]
    (one, single), (two, double) = (
        _streamed(workers, _network, params, x, y, NETWORK_BATCH) for workers in (1, 2)
    )
    assert single == double
    return [
        Figure(
            f"gradient of a logistic regression, {ROWS} x {WIDTH}",
            f"streamed to 2 workers, {ROWS / ours:.2g} rows/s",
            f"JAX in the client's process, {ROWS / alone:.2g} rows/s",
            alone / ours,
            "at least 0.1",
            alone >= 0.1 * ours,
        ),
        Figure(
            f"gradient of a network {WIDTH}-{HIDDEN}-{HIDDEN}, {NETWORK_ROWS} rows in batches",
            f"2 workers, {two:.2f} s",
            f"1 worker, {one:.2f} s",
            one / two,
            "at least 1.7",
            one >= 1.7 * two,
        ),
    ]


if __name__ == "__main__":
    print(table(figures()))
