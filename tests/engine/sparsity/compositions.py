"""Random programs of JAX operations, each a short chain on one array; steps are drawn by name and seed.

A step takes the generator and the shape of the array, and gives a function of the array. Arrays stay small,
so that dense Jacobians are cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Shape = tuple[int, ...]
Random = np.random.Generator
Function = Callable[[Any], Any]
Step = Callable[[Random, Shape], Function]

LARGEST = 24
"""Elements of an array after any step."""

MODES = ("clip", "drop", "fill", "promise_in_bounds")


FORWARD_ONLY = frozenset({"while_on_data", "batched_loop"})
"""Steps without a reverse mode."""


def composed(steps: Sequence[tuple[str, int]], shape: Shape) -> Function:
    """Return the function that takes the steps in turn, those left out that do not fit."""
    functions: list[Function] = []
    size = shape
    for name, seed in steps:
        function = STEPS[name](np.random.default_rng(seed), size)
        try:
            result = jax.eval_shape(function, jax.ShapeDtypeStruct(size, float))
        except (TypeError, ValueError, IndexError):
            continue
        if 0 < result.size <= LARGEST and result.dtype == float:
            functions.append(function)
            size = result.shape

    def whole(x: Any) -> Any:
        for function in functions:
            x = function(x)
        return x

    return whole


def _axis(draw: Random, shape: Shape) -> int:
    return int(draw.integers(len(shape)))


def _indices(draw: Random, extent: int, count: int | None = None) -> Any:
    count = int(draw.integers(1, extent + 2)) if count is None else count
    return draw.integers(-extent - 1, extent + 2, count)


def _matrix(draw: Random, rows: int, columns: int) -> Any:
    """Draw a matrix with a random share of zeros."""
    values = draw.uniform(0.5, 1.5, (rows, columns))
    return np.where(draw.random((rows, columns)) < draw.choice([0.0, 0.3, 0.8]), 0, values)


def _mode(draw: Random) -> Any:
    return str(draw.choice(MODES))


# Elementwise


def sine(draw: Random, shape: Shape) -> Function:
    return jnp.sin


def product_with_permuted(draw: Random, shape: Shape) -> Function:
    axis = _axis(draw, shape)
    order = draw.permutation(shape[axis])
    return lambda x: x * jnp.take(x, order, axis)


def known_mask(draw: Random, shape: Shape) -> Function:
    mask = draw.integers(0, 2, shape)
    return lambda x: x * mask


def computed_mask(draw: Random, shape: Shape) -> Function:
    modulus, width = int(draw.integers(2, 5)), float(draw.integers(2, 9))
    return jax.jit(
        lambda x: x * jnp.floor(lax.iota(float, x.size) / width % modulus).reshape(x.shape) + 0.5 * x[::-1]
    )


def known_choice(draw: Random, shape: Shape) -> Function:
    mask = draw.integers(0, 2, shape).astype(bool)
    return lambda x: jnp.where(mask, x, jnp.flip(x) ** 2 if x.ndim == 1 else jnp.flip(x, 0) ** 2)


def unknown_choice(draw: Random, shape: Shape) -> Function:
    return lambda x: jnp.where(x > 0.1, x, jnp.flip(x) if x.ndim == 1 else jnp.flip(x, -1) ** 2)


def straight_through(draw: Random, shape: Shape) -> Function:
    return lambda x: jnp.flip(x, 0) + lax.stop_gradient(jnp.round(x) - x)


def rule_of_its_own(draw: Random, shape: Shape) -> Function:
    @jax.custom_jvp
    def own(x: Any) -> Any:
        return jnp.cumsum(x, 0)

    own.defjvp(lambda primals, tangents: (own(*primals), jnp.flip(tangents[0], 0) * primals[0]))
    return own


def through_complex(draw: Random, shape: Shape) -> Function:
    return lambda x: (lax.complex(x, jnp.flip(x, 0)) * (0.5 + 1j)).imag


def in_single_precision(draw: Random, shape: Shape) -> Function:
    return lambda x: (x.astype(jnp.float32) * jnp.float32(0.1)).astype(float) + x


# Structure


def transposed(draw: Random, shape: Shape) -> Function:
    order = draw.permutation(len(shape))
    return lambda x: x.transpose(order)


def reshaped(draw: Random, shape: Shape) -> Function:
    size = int(np.prod(shape))
    rows = int(draw.choice([k for k in range(1, size + 1) if size % k == 0]))
    order = tuple(map(int, draw.permutation(len(shape))))
    return lambda x: lax.reshape(x, (rows, size // rows), order)


def flattened(draw: Random, shape: Shape) -> Function:
    return jnp.ravel


def sliced(draw: Random, shape: Shape) -> Function:
    axis, step = _axis(draw, shape), int(draw.choice([-2, -1, 1, 2]))
    return lambda x: jnp.moveaxis(jnp.moveaxis(x, axis, 0)[::step], 0, axis)


def padded(draw: Random, shape: Shape) -> Function:
    config = [tuple(map(int, (*draw.integers(-1, 2, 2), draw.integers(0, 2)))) for _ in shape]
    return lambda x: lax.pad(x, x.ravel()[0], config)


def padded_by_mode(draw: Random, shape: Shape) -> Function:
    mode = str(draw.choice(["reflect", "wrap", "edge", "symmetric"]))
    return lambda x: jnp.pad(x, 1, mode=mode)


def joined(draw: Random, shape: Shape) -> Function:
    axis = _axis(draw, shape)
    return lambda x: jnp.concatenate([x, jnp.ones_like(x), 2 * x], axis)


def rolled(draw: Random, shape: Shape) -> Function:
    axis, shift = _axis(draw, shape), int(draw.integers(-3, 4))
    return lambda x: jnp.roll(x, shift, axis) + x**2


# Reductions and orders


def centered(draw: Random, shape: Shape) -> Function:
    axis = _axis(draw, shape)
    return lambda x: x - x.sum(axis, keepdims=True)


def summed(draw: Random, shape: Shape) -> Function:
    axis = _axis(draw, shape)
    return lambda x: (x**2).sum(axis) if x.ndim > 1 else x


def accumulated(draw: Random, shape: Shape) -> Function:
    axis, back = _axis(draw, shape), bool(draw.integers(2))
    function = draw.choice(np.array([lax.cumsum, lax.cumprod, lax.cummax, lax.cumlogsumexp], object))
    return lambda x: function(x, axis=axis, reverse=back)


def associative(draw: Random, shape: Shape) -> Function:
    axis, back = _axis(draw, shape), bool(draw.integers(2))
    return lambda x: lax.associative_scan(lambda a, b: a * b + b, x, reverse=back, axis=axis)


def extremes(draw: Random, shape: Shape) -> Function:
    axis = _axis(draw, shape)
    return lambda x: x * x.max(axis, keepdims=True)


def ordered(draw: Random, shape: Shape) -> Function:
    axis = _axis(draw, shape)
    return lambda x: lax.sort((x, jnp.cos(x)), dimension=axis, num_keys=1)[int(draw.integers(2))]


def largest(draw: Random, shape: Shape) -> Function:
    return lambda x: lax.top_k(x, 1)[0]


def windows(draw: Random, shape: Shape) -> Function:
    sizes, strides = draw.integers(1, 3, len(shape)), draw.integers(1, 3, len(shape))
    padding = [tuple(map(int, draw.integers(0, 2, 2))) for _ in shape]
    largest = bool(draw.integers(2))
    init, reducer = (-jnp.inf, lax.max) if largest else (0.0, lax.add)
    options = {} if largest else {"window_dilation": tuple(map(int, draw.integers(1, 3, len(shape))))}

    def apply(x: Any) -> Any:
        found = lax.reduce_window(
            x, init, reducer, tuple(map(int, sizes)), tuple(map(int, strides)), padding, **options
        )
        return jnp.where(jnp.isfinite(found), found, 0)

    return apply


# Indexing


def gathered(draw: Random, shape: Shape) -> Function:
    axis = _axis(draw, shape)
    indices, mode = _indices(draw, shape[axis]), _mode(draw)
    return lambda x: jnp.moveaxis(jnp.moveaxis(x, axis, 0).at[indices].get(mode=mode, fill_value=0), 0, axis)


def gathered_by_data(draw: Random, shape: Shape) -> Function:
    axis = _axis(draw, shape)
    return lambda x: jnp.take_along_axis(x, jnp.argsort(-x, axis), axis) * x


def gathered_partly_by_data(draw: Random, shape: Shape) -> Function:
    return lambda x: x.reshape(len(x), -1)[jnp.arange(len(x)), jnp.argmax(x.reshape(len(x), -1), 1)]


def scattered(draw: Random, shape: Shape) -> Function:
    indices, mode = _indices(draw, shape[0], shape[0]), _mode(draw)
    kind = str(draw.choice(["set", "add", "min"])) if mode != "clip" else "add"
    return lambda x: getattr(x.at[indices], kind)(jnp.cos(x), mode=mode)


def scattered_by_data(draw: Random, shape: Shape) -> Function:
    kind = str(draw.choice(["set", "add"]))

    def apply(x: Any) -> Any:
        order = jnp.argsort(x.reshape(len(x), -1)[:, 0])
        return getattr(x.at[order], kind)(jnp.cos(x))

    return apply


def batched_index(draw: Random, shape: Shape) -> Function:
    indices = _indices(draw, shape[-1], shape[0])
    return lambda x: jax.vmap(lambda row, i: row[i] * row)(x.reshape(len(x), -1), indices)


def dynamic_window(draw: Random, shape: Shape) -> Function:
    size = int(draw.integers(1, shape[0] + 1))
    start = int(draw.integers(-2, shape[0] + 2)) if draw.integers(2) else None

    def apply(x: Any) -> Any:
        at = jnp.argmax(x.ravel()) % len(x) if start is None else start
        window = lax.dynamic_slice_in_dim(x, at, size)
        return lax.dynamic_update_slice_in_dim(x, window[::-1] ** 2, at, 0)

    return apply


def segments(draw: Random, shape: Shape) -> Function:
    places = draw.integers(0, shape[0] + 1, shape[0])
    return lambda x: jax.ops.segment_sum(x, places, shape[0])


def interpolated(draw: Random, shape: Shape) -> Function:
    return lambda x: jnp.interp(x, jnp.linspace(-1, 1, x.size), x.ravel())


# Products, solves and transforms


def matrix_product(draw: Random, shape: Shape) -> Function:
    matrix = jnp.asarray(_matrix(draw, shape[-1], int(draw.integers(1, 4))))
    return lambda x: x @ matrix


def own_product(draw: Random, shape: Shape) -> Function:
    return lambda x: jnp.einsum("ab,cb->ca", x.reshape(len(x), -1), jnp.sin(x.reshape(len(x), -1)))


def repeated_letters(draw: Random, shape: Shape) -> Function:
    return lambda x: jnp.einsum("ii->i", jnp.outer(x.ravel(), x.ravel()[::-1]))


def triangular(draw: Random, shape: Shape) -> Function:
    lower, transposed = bool(draw.integers(2)), bool(draw.integers(2))
    matrix = jnp.asarray(_matrix(draw, shape[0], shape[0]) + 3 * np.eye(shape[0]))

    def apply(x: Any) -> Any:
        sides = x.reshape(len(x), -1)
        return lax.linalg.triangular_solve(matrix, sides, left_side=True, lower=lower, transpose_a=transposed)

    return apply


def solved(draw: Random, shape: Shape) -> Function:
    def apply(x: Any) -> Any:
        moved = jnp.outer(x.ravel()[: len(x)], jnp.ones(len(x)))
        return jnp.linalg.solve(4 * jnp.eye(len(x)) + moved, x)

    return apply


def convolved(draw: Random, shape: Shape) -> Function:
    groups = int(draw.choice([1, 2]))
    options: dict[str, Any] = {
        "window_strides": (int(draw.integers(1, 3)),),
        "padding": [tuple(map(int, draw.integers(-1, 3, 2)))],
        "lhs_dilation": (int(draw.integers(1, 3)),),
        "rhs_dilation": (int(draw.integers(1, 3)),),
    }
    kind = str(draw.choice(["feature_group_count", "batch_group_count"]))
    batch, channels = (1, groups) if kind == "feature_group_count" else (groups, 1)
    filters = jnp.asarray(_matrix(draw, 2, 2).reshape(2, 1, 2))

    def apply(x: Any) -> Any:
        image = x.reshape(batch, channels, -1)
        numbers = ("NCH", "OIH", "HNC")
        return lax.conv_general_dilated(
            image, filters, dimension_numbers=numbers, **options, **{kind: groups}
        )

    return apply


def transformed(draw: Random, shape: Shape) -> Function:
    length, real = int(draw.integers(1, 5)), bool(draw.integers(2))
    axis = _axis(draw, shape)
    if real:
        return lambda x: jnp.fft.irfft(jnp.fft.rfft(x, axis=axis) * 0.5, n=length, axis=axis)
    return lambda x: jnp.fft.fft(x, n=length, axis=axis).imag


# Control flow


def carried(draw: Random, shape: Shape) -> Function:
    back = bool(draw.integers(2))

    def apply(x: Any) -> Any:
        last, rows = lax.scan(
            lambda c, row: (c * row + c[::-1], c), x[0] * jnp.ones(2), x.ravel()[:4], reverse=back
        )
        return jnp.append(rows, last)

    return apply if len(shape) == 1 else lambda x: apply(x.ravel())


def nested_scans(draw: Random, shape: Shape) -> Function:
    back = bool(draw.integers(2))

    def apply(x: Any) -> Any:
        def inner(c: Any, i: Any) -> Any:
            return c.at[i % len(x)].multiply(c[(i + 1) % len(x)]), c[0]

        def outer(c: Any, i: Any) -> Any:
            c, found = lax.scan(inner, c, jnp.arange(2) + i, reverse=back)
            return c, found.sum()

        return lax.scan(outer, x, jnp.arange(2), reverse=not back)[0]

    return apply


def counted(draw: Random, shape: Shape) -> Function:
    trips = int(draw.integers(0, 4))
    return lambda x: lax.fori_loop(0, trips, lambda i, c: c.at[i % len(x)].set(c[(i + 1) % len(x)] ** 2), x)


def while_on_data(draw: Random, shape: Shape) -> Function:
    def again(state: Any) -> Any:
        return (state[1] < 3) & (jnp.abs(state[0]).sum() < 20)

    return lambda x: lax.while_loop(again, lambda s: (s[0] + jnp.roll(s[0], 1, 0) * s[0], s[1] + 1), (x, 0))[
        0
    ]


def branches(draw: Random, shape: Shape) -> Function:
    known = int(draw.integers(-1, 4)) if draw.integers(2) else None
    cases = [lambda x: x, lambda x: jnp.flip(x, 0) * x, lambda x: jnp.cumsum(x, 0)]
    return lambda x: lax.switch((x.ravel()[0] > 0) + 1 if known is None else known, cases, x)


def mapped(draw: Random, shape: Shape) -> Function:
    return lambda x: lax.map(lambda row: row * row.sum(), x)


def checkpointed(draw: Random, shape: Shape) -> Function:
    return jax.checkpoint(lambda x: jnp.sin(x) * jnp.flip(x, 0))


def batched_loop(draw: Random, shape: Shape) -> Function:
    def each(row: Any) -> Any:
        return lax.while_loop(lambda c: c.sum() < 2, lambda c: c**2 + 1, jnp.atleast_1d(row))

    return jax.vmap(each)


def differentiated(draw: Random, shape: Shape) -> Function:
    return jax.grad(lambda x: (x**3 * jnp.flip(x, 0)).sum())


STEPS: dict[str, Step] = {
    step.__name__: step
    for step in (
        sine,
        product_with_permuted,
        known_mask,
        computed_mask,
        known_choice,
        unknown_choice,
        straight_through,
        rule_of_its_own,
        through_complex,
        in_single_precision,
        transposed,
        reshaped,
        flattened,
        sliced,
        padded,
        padded_by_mode,
        joined,
        rolled,
        centered,
        summed,
        accumulated,
        associative,
        extremes,
        ordered,
        largest,
        windows,
        gathered,
        gathered_by_data,
        gathered_partly_by_data,
        scattered,
        scattered_by_data,
        batched_index,
        dynamic_window,
        segments,
        interpolated,
        matrix_product,
        own_product,
        repeated_letters,
        triangular,
        solved,
        convolved,
        transformed,
        carried,
        nested_scans,
        counted,
        while_on_data,
        branches,
        mapped,
        checkpointed,
        batched_loop,
        differentiated,
    )
}
