"""Programs with loops, branches and batches, written once for NumPy and for JAX: see `oracle`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

RNG = np.random.default_rng(0)
X = RNG.normal(size=3)
ROWS = RNG.normal(size=(4, 3))
MATRIX = RNG.normal(size=(3, 3)) + 3 * np.eye(3)


def accumulate(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.scan(lambda c, row: (np.sin(c) * row + x, np.dot(c, row)), x * 0.5, rows)


def accumulate_backwards(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.scan(lambda c, row: (np.sin(c) * row + x, c), x * 0.5, rows, reverse=True)


def trees(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    def step(carry: Any, item: Any) -> Any:
        position, (velocity, time) = carry["q"], carry["rest"]
        row, [number] = item["row"], item["numbers"]
        force = -position * row * number
        after = {"rest": (velocity + 0.1 * force, time + 0.1), "q": position + 0.1 * velocity}
        return after, [force.sum(), (time, None)]

    start = {"q": x, "rest": (x * 0, 0.0)}
    return gw.scan(step, start, {"row": rows, "numbers": [np.arange(4.0)]})


def steps_without_arrays(np: Any, gw: Any, x: Any) -> Any:
    return gw.scan(lambda c, _: (np.tanh(c * x) + 1, c[0]), x, length=5)


def steps_without_arrays_backwards(np: Any, gw: Any, x: Any) -> Any:
    return gw.scan(lambda c, _: (np.tanh(c * x) + 1, c), x, None, 5, True)


def only_outputs(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.scan(lambda _, row: (None, np.exp(row) @ x), None, rows)[1]


def only_a_carry(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.scan(lambda c, row: (c * row, None), x, rows)[0]


def the_carry_unchanged_and_twice(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.scan(lambda c, row: ((c[1], c[1]), (row, row, x)), (x, x * 2), rows)


def no_steps(np: Any, gw: Any, x: Any) -> Any:
    (a, b), ys = gw.scan(lambda c, _: ((c[0] * c[1], c[1]), np.outer(c[0], x)), (x, 2.0), length=0)
    return a * 2, b, ys, gw.fori(3, 1, lambda i, c: c * c, x)


def counted(np: Any, gw: Any, x: Any) -> Any:
    return gw.fori(0, 5, lambda i, c: c * np.cos(c) + x[i % 3] * i, x)


def counted_from_below_zero(np: Any, gw: Any, x: Any) -> Any:
    return gw.fori(-2, 3, lambda i, c: (c[0] + x * i, c[1] * 0.5 + c[0]), (x, x * 0))


def loops_in_loops(np: Any, gw: Any, x: Any) -> Any:
    def outer(i: Any, c: Any) -> Any:
        shift = np.sin(c)
        return gw.fori(0, 3, lambda j, d: np.tanh(d + shift * (i + j)), c)

    return gw.fori(0, 2, outer, x)


def branch(np: Any, gw: Any, x: Any) -> Any:
    weight = np.exp(x)
    return gw.cond(x.sum() > 0, lambda y: (y * weight, y[0]), lambda y: (np.sin(y), 2.0 * x[1]), x * 2)


def branches_that_only_capture(np: Any, gw: Any, x: Any) -> Any:
    return gw.cond(np.any(x > 10), lambda: {"a": x, "b": x}, lambda: {"b": x * x, "a": MATRIX @ x})


def branches_that_protect(np: Any, gw: Any, x: Any) -> Any:
    return gw.cond(x[0] > 0, lambda: np.log(x[0]), lambda: x[0] * 3)


def batch(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.vmap(lambda row: (np.dot(row, np.sin(x)), row * MATRIX[0]))(rows)


def batch_along_axes(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    def one(column: Any, parts: Any, whole: Any) -> Any:
        return {"p": column * parts["s"] + parts["w"].sum(), "q": np.outer(column, whole)}

    mapped = gw.vmap(one, in_axes=(1, {"s": 0, "w": None}, None), out_axes={"p": 1, "q": -1})
    return mapped(rows, {"s": x, "w": rows}, x)


def batch_of_batches(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    inner = gw.vmap(lambda a, b: np.sin(a) * b, in_axes=(None, 0))
    return gw.vmap(inner, in_axes=(0, None), out_axes=-1)(x, rows)


def batch_of_systems(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.vmap(lambda row: np.linalg.solve(MATRIX + np.outer(row, row), x))(rows)


def batch_of_scans(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.vmap(lambda row: gw.scan(lambda c, r: (c * r + x[0], c), row[0], row))(rows)


def scan_of_batches(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    def step(c: Any, row: Any) -> Any:
        return gw.vmap(lambda a, b: np.tanh(a * b) + x[1])(c, row), gw.vmap(np.sin)(row)

    return gw.scan(step, x, rows)


def scan_in_a_branch_in_a_scan(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    shift = np.cos(x)

    def inner(c: Any, number: Any) -> Any:
        return np.sin(c) * number + shift, c.sum()

    def step(c: Any, row: Any) -> Any:
        scanned, sums = gw.cond(
            row[0] > 0,
            lambda: gw.scan(inner, c * x, row),
            lambda: (c + shift, row * c[0]),
        )
        return scanned, sums

    return gw.scan(step, x, rows)


def batch_of_branches(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.vmap(lambda row: gw.cond(row[0] > 0, lambda r: r * x, lambda r: np.sin(r) + x, row))(rows)


def assignment_inside(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    def step(c: Any, row: Any) -> Any:
        if isinstance(row, jax.Array):
            return c.at[0].add(row[1]).at[1:].set(row[:2] * c[0]), c * 2
        before = c * 2
        first = c[0].copy()
        c[0] += row[1]
        c[1:] = row[:2] * first
        return c, before

    return gw.scan(step, x, rows)


def complex_numbers(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    phase = np.exp(1j * x)

    def step(wave: Any, row: Any) -> Any:
        wave = np.fft.ifft(np.fft.fft(wave * np.exp(0.1j * row)) * phase)
        turned = gw.cond(row[0] > 0, lambda w: w * 1j, lambda w: w + x, wave)
        return turned, wave

    last, waves = gw.scan(step, x + 0.5j * rows[0], rows)
    turned = gw.vmap(lambda wave, angle: wave * np.exp(1j * angle))(last, np.real(last))
    settled = gw.fori(0, 3, lambda i, c: c * c + 0.1j, np.zeros(3, complex))
    return np.abs(last) ** 2, np.real(waves), np.imag(turned), np.real(settled) * x


def single_precision(np: Any, gw: Any, x: Any) -> Any:
    small = x.astype(np.float32)
    carried = gw.fori(0, 3, lambda i, c: (np.sin(c[0]) * 0.5, c[1] + i), (small, 0))
    scanned = gw.scan(lambda c, row: (c * 0.5, np.float32(2) * row), np.float32(1), small)
    chosen = gw.cond(x[0] > 0, lambda: small[0], lambda: np.float32(0))
    return carried, scanned, chosen


def integers(np: Any, gw: Any, x: Any) -> Any:
    steps = gw.scan(lambda c, i: (c + i, c * i), 1, np.arange(4))
    flags = gw.scan(lambda c, i: (c ^ (x[0] > 0), c), True, np.arange(3))
    return x * steps[0], steps[1], flags


def square_root(np: Any, gw: Any, x: Any, a: Any) -> Any:
    def improve(state: Any) -> Any:
        guess, _, trips = state
        better = 0.5 * (guess + a / guess)
        return better, guess, trips + 1

    return gw.while_(lambda state: np.abs(state[0] - state[1]) > 1e-15 * state[0], improve, (x, x * 2, 0))


PROGRAMS: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (accumulate, (X, ROWS)),
    (accumulate_backwards, (X, ROWS)),
    (trees, (X, ROWS)),
    (steps_without_arrays, (X,)),
    (steps_without_arrays_backwards, (X,)),
    (only_outputs, (X, ROWS)),
    (only_a_carry, (X, ROWS)),
    (the_carry_unchanged_and_twice, (X, ROWS)),
    (no_steps, (X,)),
    (counted, (X,)),
    (counted_from_below_zero, (X,)),
    (loops_in_loops, (X,)),
    (branch, (X,)),
    (branch, (np.abs(X),)),
    (branches_that_only_capture, (X,)),
    (branches_that_protect, (X,)),
    (branches_that_protect, (-X,)),
    (batch, (X, ROWS)),
    (batch_along_axes, (X, ROWS)),
    (batch_of_batches, (X, ROWS)),
    (batch_of_systems, (X, ROWS)),
    (batch_of_scans, (X, ROWS)),
    (scan_of_batches, (X, ROWS)),
    (scan_in_a_branch_in_a_scan, (X, ROWS)),
    (batch_of_branches, (X, ROWS)),
    (assignment_inside, (X, ROWS)),
    (integers, (X,)),
    (complex_numbers, (X, ROWS)),
]
