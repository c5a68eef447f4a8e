"""A function with a constant matrix of 64 MB, which is sent once and then referred to by its hash.

    python examples/large_constants.py

The matrix is not stored in the graph: it becomes a hidden input, which the SDK gives by the matrix's SHA-256.
Products with the Jacobian, blocks of it, transformed functions, and another function over the same matrix all
refer to what the first call sent. A matrix with other elements needs no compilation, since the graph is the
same.
"""

import time
from collections.abc import Callable

import numpy as np

import gradwire as gw

N = 2896
rng = np.random.default_rng(0)
matrix = rng.standard_normal((N, N)) / np.sqrt(N)
x, v, w = rng.standard_normal((3, N))


def timed(what: str, call: Callable[[], np.ndarray]) -> np.ndarray:
    """Return the result of a call, and print its time."""
    began = time.perf_counter()
    result = call()
    print(f"{what:52} {1e3 * (time.perf_counter() - began):7.1f} ms")
    return result


with gw.local(workers=2) as client:
    client.wait_ready()
    f = client.function(lambda x: np.tanh(matrix @ x), gw.spec(N))
    slope = 1 - np.tanh(matrix @ x) ** 2

    for name, array in f.constants.items():
        print(f"{name}: {array.dtype} {array.shape}, {array.nbytes / 1e6:.0f} MB, copied when traced")
    assert f.describe().weight_bytes == 0, "the graph does not contain it"

    product = timed("a JVP: sends the matrix, compiles", lambda: f.jvp(x, v))
    np.testing.assert_allclose(product, slope * (matrix @ v), rtol=1e-9, atol=1e-12)
    product = timed("another: refers to the matrix", lambda: f.jvp(x, w))
    np.testing.assert_allclose(product, slope * (matrix @ w), rtol=1e-9, atol=1e-12)
    product = timed("a VJP: refers to it, compiles", lambda: f.vjp(x, w))
    np.testing.assert_allclose(product, (w * slope) @ matrix, rtol=1e-9, atol=1e-12)

    blocks = f.jacobian_blocks(x, mode="reverse")
    rows = timed("the first block of the Jacobian", lambda: next(blocks).pieces[0])
    blocks.close()
    expected = slope[rows.rows, None] * matrix[rows.rows]
    np.testing.assert_allclose(rows.data, expected, rtol=1e-9, atol=1e-12)
    print(f"    rows {rows.rows.start} to {rows.rows.stop} of {N}")

    # A matrix with other elements is sent, and nothing is compiled.
    turned = matrix[::-1]
    g = client.function(lambda x: np.tanh(turned @ x), gw.spec(N))
    assert g.graph_id == f.graph_id
    product = timed("a JVP over another matrix: sends it", lambda: g.jvp(x, v))
    np.testing.assert_allclose(product, (slope * (matrix @ v))[::-1], rtol=1e-9, atol=1e-12)

    # Another function over the first matrix: only a small graph is sent.
    least = client.function(lambda x: 0.5 * np.sum((matrix @ x - v) ** 2), gw.spec(N))
    gradient = timed("a gradient of another function over the first", lambda: least.grad(x))
    np.testing.assert_allclose(gradient, matrix.T @ (matrix @ x - v), rtol=1e-9, atol=1e-10)
