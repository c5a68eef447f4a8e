"""Blocks of the identity pushed through linear functions without being formed: the same as when formed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from gradwire_engine.jaxprs.seeds import Seeds, push_units

Array = Any
SHAPE = (3, 4)
SIZE = 12

RANDOM = np.random.default_rng(5)
SCALE = RANDOM.normal(size=SHAPE)
MATRIX = RANDOM.normal(size=(5, SIZE))
TENSOR = RANDOM.normal(size=(4, 2, 3))
SMALL = RANDOM.normal(size=(2, 4))

LINEAR: dict[str, Callable[[Array], Any]] = {
    "identity": lambda t: t,
    "zero": lambda t: jnp.zeros(3),
    "scaled": lambda t: SCALE * t,
    "scaled twice": lambda t: (SCALE * t) * SCALE,
    "stretched by a factor": lambda t: lax.mul(t[None], np.stack([SCALE, 1 - SCALE])),
    "stretched by a divisor": lambda t: lax.div(t[:, None], np.stack([SCALE, 1 - SCALE], axis=1)),
    "stretched by itself": lambda t: (
        lax.add(t.reshape(3, 1, 4), t.reshape(3, 1, 4)) * TENSOR[0, 0, :, None, None]
    ),
    "stretched in a sum": lambda t: lax.sub(t[:1], t),
    "divided": lambda t: t / SCALE,
    "scaled and divided": lambda t: (t * SCALE) / (1 + SCALE**2),
    "negated": lambda t: -t,
    "negated after scaling": lambda t: -(SCALE * t),
    "sum of itself": lambda t: t + SCALE * t,
    "difference": lambda t: SCALE * t - t,
    "flattened": lambda t: t.reshape(-1),
    "axis added and scaled": lambda t: t[:, None, :] * SCALE[:, None, :],
    "transposed": lambda t: t.T,
    "broadcast": lambda t: jnp.broadcast_to(t, (2, *SHAPE)),
    "converted": lambda t: t.astype(jnp.float32),
    "matrix": lambda t: MATRIX @ t.reshape(-1),
    "matrix from the right": lambda t: t.reshape(-1) @ MATRIX.T,
    "matrix of scaled": lambda t: MATRIX @ (SCALE * t).reshape(-1),
    "contracted in all axes": lambda t: jnp.tensordot(t, TENSOR, ((0, 1), (2, 0))),
    "contracted in one axis": lambda t: SMALL @ t.T,
    "contracted with itself beside": lambda t: (MATRIX @ t.reshape(-1), t),
    "summed": lambda t: t.sum(),
    "summed along an axis": lambda t: t.sum(0),
    "gathered": lambda t: t[np.array([2, 0])],
    "sliced": lambda t: t[1:, ::2],
    "concatenated": lambda t: jnp.concatenate([t, SCALE * t], axis=1),
    "two outputs": lambda t: {"a": SCALE * t, "b": t.sum(1)},
    "jitted": lambda t: jax.jit(lambda u: SCALE * u)(t),
    "jitted with more after": lambda t: MATRIX @ jax.jit(lambda u: (SCALE * u).reshape(-1))(t),
    "scanned": lambda t: jax.lax.scan(lambda carry, row: (carry + row, carry * 2), jnp.zeros(4), t)[1],
    "scanned, its sum alone": lambda t: jax.lax.scan(lambda c, row: (c + row, c * 2), jnp.zeros(4), t)[0],
    "cumulated": lambda t: jnp.cumsum(t, axis=1),
    "unit used again late": lambda t: jnp.sin(SCALE) * t + (SMALL @ t.T).sum() * t,
}


def written_out(function: Callable[[Array], Any], start: int, width: int, dtype: Any) -> list[Array]:
    units = np.eye(SIZE, dtype=dtype)[start : start + width].reshape(width, *SHAPE)
    return jax.tree.leaves(jax.vmap(function)(units))


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize(("start", "width"), [(0, SIZE), (5, 3), (11, 1)])
def test_images_are_those_of_unit_vectors(name: str, start: int, width: int) -> None:
    function = LINEAR[name]

    def push(first: Array) -> list[Array]:
        return push_units(function, SHAPE, jnp.float64, Seeds(first, width))

    expected = written_out(function, start, width, np.float64)
    images = jax.jit(push)(start)
    assert len(images) == len(expected)
    for image, wanted in zip(images, expected, strict=True):
        assert image.shape == wanted.shape
        assert image.dtype == wanted.dtype
        np.testing.assert_allclose(image, wanted, rtol=1e-13, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(
        st.sampled_from(["scaled", "divided", "negated", "sum of itself", "difference"]), max_size=4
    ),
    start=st.integers(0, SIZE - 2),
)
def test_chains_of_folds_are_those_of_unit_vectors(names: list[str], start: int) -> None:
    def chain(t: Array) -> Array:
        for name in names:
            t = LINEAR[name](t)
        return MATRIX @ t.reshape(-1)

    (image,) = push_units(chain, SHAPE, jnp.float64, Seeds(jnp.int64(start), 2))
    np.testing.assert_allclose(image, written_out(chain, start, 2, np.float64)[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_narrow_types_stay_what_they_are(dtype: Any) -> None:
    scale, matrix = SCALE.astype(dtype), MATRIX.astype(dtype)
    (image,) = push_units(lambda t: matrix @ (scale * t).reshape(-1), SHAPE, dtype, Seeds(jnp.int64(4), 5))
    assert image.dtype == dtype
    wanted = (matrix * scale.reshape(-1)).T[4:9].astype(np.float64)
    np.testing.assert_allclose(image.astype(np.float64), wanted, rtol=float(jnp.finfo(dtype).eps) * 2)


def test_infinite_coefficients_elsewhere_do_not_turn_zeros_into_nan() -> None:
    """Written-out unit vectors give 0 * inf = nan in every column; a column holds its own coefficient."""
    scale = np.array([1.0, np.inf, 2.0])
    (image,) = push_units(lambda t: scale * t, (3,), jnp.float64, Seeds(jnp.int64(0), 3))
    np.testing.assert_array_equal(image, np.diag(scale))


def test_quotients_are_divided_once() -> None:
    """49 times the reciprocal of 49 is not 1 in double precision."""
    (image,) = push_units(lambda t: (49.0 * t) / np.array([49.0]), (1,), jnp.float64, Seeds(jnp.int64(0), 1))
    np.testing.assert_array_equal(image, [[1.0]])


def test_a_leading_matrix_product_costs_no_matrix_product() -> None:
    """The images of unit vectors under a matrix are its columns: the program holds no dot."""
    matrix = jnp.asarray(RANDOM.normal(size=(50, 40)))

    def push(first: Array) -> Array:
        return push_units(lambda t: SCALE[0, 0] * (matrix @ t), (40,), jnp.float64, Seeds(first, 8))[0]

    assert "dot_general" not in str(jax.make_jaxpr(push)(0))


def test_a_scalar_has_one_seed() -> None:
    (image,) = push_units(lambda t: 3 * t, (), jnp.float64, Seeds(jnp.int64(0), 1))
    np.testing.assert_array_equal(image, [3.0])
