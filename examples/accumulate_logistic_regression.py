"""The full-batch gradient of a logistic regression over a million rows that are never in memory together.

    python examples/accumulate_logistic_regression.py

Batches are generated, sent, differentiated by the workers and added up by the server. As in PyTorch,
gradients accumulate until `zero()`, which can also set new parameters.
"""

import math
import time
from collections.abc import Iterator

import numpy as np

import gradwire as gw

ROWS, COLUMNS, BATCH = 1_000_000, 20, 30_000
TRUTH = np.linspace(-1.0, 1.0, COLUMNS)


def loss(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the negative log-likelihood of labels y (1 or -1), summed over the rows."""
    return np.sum(np.logaddexp(0.0, -y * (x @ w)))


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the same batches each time; the last is smaller, as 1,000,000 is no multiple of 30,000."""
    for number, start in enumerate(range(0, ROWS, BATCH)):
        rng = np.random.default_rng(number)
        x = rng.standard_normal((min(BATCH, ROWS - start), COLUMNS))
        yield x, np.where(rng.random(len(x)) * (1 + np.exp(-(x @ TRUTH))) < 1, 1.0, -1.0)


def exact(w: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and gradient in closed form: batches in extended precision, their sum exactly rounded."""
    values, gradients = [], []
    for x, y in batches():
        margin = (y * (x @ w)).astype(np.longdouble)
        values.append(float(np.sum(np.logaddexp(0, -margin))))
        weight = -y / (1 + np.exp(margin))
        gradients.append([float(np.sum(weight * column)) for column in x.T])
    return math.fsum(values), np.array([math.fsum(column) for column in zip(*gradients, strict=True)])


with gw.local(workers=2) as client:
    # The shapes are those of a full batch. The last one is smaller: the function is traced again for it.
    f = client.function(loss, gw.spec(COLUMNS), gw.spec((BATCH, COLUMNS)), gw.spec(BATCH))
    w = np.zeros(COLUMNS)
    with f.accumulator(w=w) as acc:
        for step in range(2):
            started = time.perf_counter()
            acc.add_all(batches())
            value, gradient = acc.value, acc.grad
            seconds = time.perf_counter() - started
            print(
                f"step {step}: loss {value / ROWS:.6f} over {acc.rows:,} rows "
                f"in {acc.batches} batches, {seconds:.1f} s"
            )

            expected_value, expected = exact(w)
            error = np.max(np.abs(gradient - expected)) / np.max(np.abs(expected))
            print(f"        the gradient differs from the in-memory one by {error:.1e} of its size")
            assert acc.rows == ROWS
            assert abs(value - expected_value) <= 1e-12 * expected_value
            assert error <= 1e-12

            # A gradient step: zero(w=w) continues at the new parameters, zero() would keep the old ones.
            w = w - gradient * (4 / ROWS)
            acc.zero(w=w)

    assert acc.batches == 0
    print(
        "after two steps:", np.round(w[:3], 3), "...; the data were made with", np.round(TRUTH[:3], 3), "..."
    )
    assert np.linalg.norm(w - TRUTH) < 0.7 * np.linalg.norm(TRUTH)
