"""Depthwise sums of shifted products against XLA's own convolution, in all derivatives and batches."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from gradwire_engine.lowering.rules.networks import depthwise


def _as_a_convolution(x: Any, w: Any) -> Any:
    return jax.lax.conv_general_dilated(
        x, w, (2, 1), [(1, 0), (-1, 2)], (1, 2), (2, 1), feature_group_count=3, precision="highest"
    )


def _as_products(x: Any, w: Any) -> Any:
    return depthwise.convolve(x, w, (2, 1), [(1, 0), (-1, 2)], 3, (1, 2), (2, 1))


X, W = (
    np.random.default_rng(seed).standard_normal(shape)
    for seed, shape in ((0, (2, 3, 7, 5)), (1, (6, 1, 2, 3)))
)


@pytest.mark.parametrize(
    "derive",
    [
        lambda f: f(X, W),
        lambda f: jax.vmap(f, (0, None))(np.stack([X, 2 * X, -X]), W),
        lambda f: jax.vmap(f, (None, 1))(X, np.stack([W, 3 * W], 1)),
        lambda f: jax.vmap(f)(np.stack([X, 2 * X]), np.stack([W, 3 * W])),
        lambda f: jax.jacfwd(f, (0, 1))(X[:1], W),
        lambda f: jax.jacrev(f, (0, 1))(X[:1], W),
        lambda f: jax.jacrev(jax.grad(lambda x, w: (f(x, w) ** 3).sum(), (0, 1)), (0, 1))(X[:1], W),
        lambda f: jax.jacfwd(jax.grad(lambda x, w: (f(x, w) ** 3).sum(), (0, 1)), (0, 1))(X[:1], W),
    ],
    ids=["value", "images", "kernels", "both", "forward", "reverse", "reverse twice", "forward over reverse"],
)
def test_derivatives_and_batches_of_a_depthwise_sum_are_those_of_a_convolution(derive: Any) -> None:
    found, expected = map(jax.tree.leaves, (derive(_as_products), derive(_as_a_convolution)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


def test_a_depthwise_pullback_keeps_the_image_and_the_kernel_alone() -> None:
    x, w = np.ones((1, 8, 20, 20)), np.ones((8, 1, 5, 5))
    _, pull = jax.vjp(lambda x, w: depthwise.convolve(x, w, (1, 1), [(2, 2)] * 2, 8), x, w)
    kept = sum(leaf.size for leaf in jax.tree.leaves(pull) if hasattr(leaf, "size"))
    assert kept <= x.size + 2 * w.size
