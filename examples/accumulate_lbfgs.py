"""L-BFGS with a loss over batches of data that are uploaded once and evaluated by the workers.

    python examples/accumulate_lbfgs.py

Each evaluation of the loss is a pass over the data; after the upload, only the parameters are sent. The
result is compared with that of the same method over one array in memory.
"""

import time

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

import gradwire as gw

ROWS, COLUMNS, BATCH, RIDGE = 100_000, 20, 30_000, 1e-3
STOP = {"ftol": 1e-14, "gtol": 1e-8}

rng = np.random.default_rng(1)
X = rng.standard_normal((ROWS, COLUMNS)) * np.geomspace(0.4, 2.0, COLUMNS)  # badly scaled: takes some steps
Y = np.where(rng.random(ROWS) < expit(X @ np.linspace(-1.0, 1.0, COLUMNS)), 1.0, -1.0)


def loss(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the negative mean log-likelihood, plus a ridge penalty."""
    return np.mean(np.logaddexp(0.0, -y * (x @ w))) + RIDGE / 2 * np.sum(w * w)


def in_memory(w: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the loss over all rows at once, and its gradient in closed form."""
    margin = Y * (X @ w)
    value = np.logaddexp(0.0, -margin).mean() + RIDGE / 2 * w @ w
    return value, -X.T @ (Y * expit(-margin)) / ROWS + RIDGE * w


with gw.local(workers=2) as client:
    f = client.function(loss, gw.spec(COLUMNS), gw.spec((BATCH, COLUMNS)), gw.spec(BATCH))
    data = [
        (client.put(X[start : start + BATCH]), client.put(Y[start : start + BATCH]))
        for start in range(0, ROWS, BATCH)
    ]

    # A loss that is a mean over rows is averaged over batches, weighted by their numbers of rows.
    with f.accumulator(w=np.zeros(COLUMNS), reduction="mean") as acc:

        def over_batches(w: np.ndarray) -> tuple[float, np.ndarray]:
            """Return the loss and its gradient at `w`, from one pass over the batches."""
            acc.zero(w=w)
            acc.add_all(data)  # by id: only the parameters are sent
            return float(acc.value), acc.grad

        started = time.perf_counter()
        found = minimize(over_batches, np.zeros(COLUMNS), jac=True, method="L-BFGS-B", options=STOP)
        seconds = time.perf_counter() - started

    known = minimize(in_memory, np.zeros(COLUMNS), jac=True, method="L-BFGS-B", options=STOP)
    print(
        f"{found.nit} steps, {found.nfev} passes over {ROWS:,} rows in {len(data)} batches, {seconds:.1f} s"
    )
    print(f"loss {found.fun:.12f}, in memory {known.fun:.12f}")
    print(f"largest difference between the solutions: {np.max(np.abs(found.x - known.x)):.1e}")
    assert abs(found.fun - known.fun) <= 1e-12 * known.fun
    np.testing.assert_allclose(found.x, known.x, rtol=0, atol=1e-6)
