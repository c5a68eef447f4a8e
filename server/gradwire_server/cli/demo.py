"""`gradwire demo`: Jacobians and Hessians from a local server, each checked against its closed form."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

import gradwire as gw

Array = np.ndarray[Any, Any]

WIDTH = 2000
"""Inputs, hidden units and outputs of the network whose Jacobian is streamed."""


def run(workers: int) -> int:
    """Run the demonstration on a local server; return 0 if every check held."""
    rng = np.random.default_rng(0)
    began = perf_counter()
    print(f"Starting a local server with {workers} workers (Ray starts behind it) ...", flush=True)
    with gw.local(workers=workers) as client:
        print(f"  answering after {perf_counter() - began:.1f} s at {client.address}\n")
        checks = [
            _log_jacobian(client, rng),
            _sqrt_hessian(client, rng),
            _matrix_product(client, rng),
            _network(client, rng),
        ]
    if all(checks):
        print(f"All {len(checks)} results are right. {perf_counter() - began:.1f} s in all.")
        return 0
    print("Some results are wrong.", file=sys.stderr)
    return 1


def _timed(compute: Callable[[], Any]) -> tuple[Any, float]:
    start = perf_counter()
    result = compute()
    return result, perf_counter() - start


def _verdict(what: str, error: float, bound: float) -> bool:
    right = bool(error <= bound)
    verdict = "right" if right else "WRONG"
    print(f"  largest difference from {what}: {error:.1e} ({verdict}, bound {bound:.0e})\n")
    return right


def _log_jacobian(client: gw.Client, rng: np.random.Generator) -> bool:
    x = rng.random((2, 2)) + 0.5
    print("Jacobian of log(x), x of shape (2, 2)")
    J, seconds = _timed(lambda: client.jacobian(lambda x: np.log(x), x))
    expected = np.zeros((2, 2, 2, 2))
    for index in np.ndindex(2, 2):
        expected[index + index] = 1 / x[index]
    print(f"  shape {J.shape}, {seconds * 1e3:.0f} ms (tracing and compiling included)\n{_indented(J)}")
    return _verdict("1/x on the diagonal", float(np.abs(J - expected).max()), 1e-15)


def _sqrt_hessian(client: gw.Client, rng: np.random.Generator) -> bool:
    x = rng.random((2, 2)) + 0.5
    print("Hessian of sum(sqrt(x)), x of shape (2, 2)")
    H, seconds = _timed(lambda: client.hessian(lambda x: np.sum(np.sqrt(x)), x))
    expected = np.zeros((2, 2, 2, 2))
    for index in np.ndindex(2, 2):
        expected[index + index] = -0.25 * x[index] ** -1.5
    print(f"  shape {H.shape}, {seconds * 1e3:.0f} ms\n{_indented(H)}")
    return _verdict("-1/4 x^(-3/2) on the diagonal", float(np.abs(H - expected).max()), 1e-14)


def _matrix_product(client: gw.Client, rng: np.random.Generator) -> bool:
    w, x = rng.standard_normal((3, 4)), rng.standard_normal(4)
    print("Jacobians of w @ x with respect to both, w of shape (3, 4)")
    (J_w, J_x), seconds = _timed(lambda: client.jacobian(lambda w, x: w @ x, w, x))
    print(f"  shapes {J_w.shape} and {J_x.shape}, {seconds * 1e3:.0f} ms")
    expected = np.einsum("ik,j->ikj", np.eye(3), x)
    error = max(float(np.abs(J_x - w).max()), float(np.abs(J_w - expected).max()))
    return _verdict("w, and x in each row", error, 1e-15)


def _network(client: gw.Client, rng: np.random.Generator) -> bool:
    n = WIDTH
    w1, w2 = (rng.standard_normal((n, n)) / np.sqrt(n) for _ in range(2))
    x = rng.standard_normal(n)
    print(f"Jacobian of tanh(w2 @ tanh(w1 @ x)), {n} x {n} in float64, {n * n * 8 / 2**20:.0f} MiB, streamed")
    f = client.function(lambda x: np.tanh(w2 @ np.tanh(w1 @ x)), gw.spec(n))
    _, waited = _timed(client.wait_ready)
    print(f"  waited {waited:.1f} s more for Ray and the workers; until now a helper process did the work")
    (J, info), seconds = _timed(lambda: f.jacobian(x, progress=True, return_info=True))
    workers = ", ".join(f"{name}: {count}" for name, count in sorted(info.summary.blocks_by_worker.items()))
    print(f"  {seconds:.2f} s in all, of which {info.summary.compile:.2f} s compiling; mode {info.plan.mode}")
    print(
        f"  {info.plan.blocks} blocks of {info.plan.block_width} columns or rows; blocks by worker: {workers}"
    )
    h = np.tanh(w1 @ x)
    y = np.tanh(w2 @ h)
    exact = ((1 - y**2)[:, None] * w2 * (1 - h**2)) @ w1
    again, repeated = _timed(lambda: f.jacobian(x))
    print(
        f"  a second time, everything compiled: {repeated:.2f} s, the same bits: {np.array_equal(J, again)}"
    )
    v, step = rng.standard_normal(n), 1e-6
    difference = (_forward(w1, w2, x + step * v) - _forward(w1, w2, x - step * v)) / (2 * step)
    print(f"  along a random direction, from a finite difference: {np.abs(J @ v - difference).max():.1e}")
    return _verdict("the closed form", float(np.abs(J - exact).max()), 1e-12) and np.array_equal(J, again)


def _forward(w1: Array, w2: Array, x: Array) -> Array:
    y: Array = np.tanh(w2 @ np.tanh(w1 @ x))
    return y


def _indented(array: Array) -> str:
    text = np.array2string(array.reshape(4, 4), precision=4, suppress_small=True)
    return "\n".join("    " + line for line in text.splitlines())
