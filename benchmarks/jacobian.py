"""A 1000 x 1000 Jacobian of sin(A x), 8 MB, in the client's hands, against JAX in this process.

python -m benchmarks.jacobian
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import gradwire as gw
from benchmarks.report import Figure, interleaved, table

SIZE = 1000
ROUNDS = 31


def figures() -> list[Figure]:
    """Return one row."""
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    a, x = rng.standard_normal((SIZE, SIZE)) / np.sqrt(SIZE), rng.standard_normal(SIZE)
    placed = jnp.asarray(a)
    in_process = jax.jit(jax.jacfwd(lambda x: jnp.sin(placed @ x)))
    with gw.local(workers=2) as client:
        client.wait_ready()
        f = client.function(lambda x: np.sin(a @ x), gw.spec(SIZE))
        np.testing.assert_allclose(f.jacobian(x), np.asarray(in_process(x)), rtol=1e-12, atol=1e-14)
        for _ in range(5):
            f.jacobian(x)
        out = np.empty((SIZE, SIZE))
        ours, theirs = interleaved(ROUNDS, lambda: f.jacobian(x, out=out), lambda: np.asarray(in_process(x)))
    return [
        Figure(
            "Jacobian of sin(A x), 1000 x 1000",
            f"{ours * 1e3:.1f} ms over the wire",
            f"jit(jacfwd) and np.asarray in process, {theirs * 1e3:.1f} ms",
            ours / theirs,
            "at most 1.5",
            ours <= 1.5 * theirs,
        )
    ]


if __name__ == "__main__":
    print(table(figures()))
