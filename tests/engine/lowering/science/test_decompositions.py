"""LU and SVD of the gradwire.sci domain: factors against what they factor, and derivatives."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest
import scipy.linalg

from gradwire_engine.errors import InvalidGraph
from tests.engine.lowering.derivative_checks import check_op, function_of, one_node, run

DOMAIN = "gradwire.sci"
evaluate = partial(run, domain=DOMAIN)
check = partial(check_op, domain=DOMAIN)


def matrix(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) + 3 * np.eye(*shape[-2:])


@pytest.mark.parametrize("shape", [(4, 4), (2, 3, 3), (4, 3), (3, 4)])
def test_lu_factors_multiply_to_the_permuted_matrix(shape: tuple[int, ...]) -> None:
    a = matrix(*shape)[..., ::-1, :].copy()
    packed, pivots, permutation = evaluate("LU", a, outputs=3)
    count = min(shape[-2:])
    lower = np.tril(packed, -1)[..., :count] + np.eye(shape[-2], count)
    upper = np.triu(packed)[..., :count, :]
    permuted = np.take_along_axis(a, permutation[..., None], axis=-2)
    np.testing.assert_allclose(lower @ upper, permuted, rtol=1e-13, atol=1e-13)
    assert (pivots.dtype, permutation.dtype) == (np.int32, np.int32)
    if len(shape) == 2 and shape[0] == shape[1]:
        expected, places = scipy.linalg.lu_factor(a)
        np.testing.assert_allclose(packed, expected, rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(pivots, places)
    np.testing.assert_array_equal(evaluate("PivotsToPermutation", pivots, size=shape[-2]), permutation)


def test_lu_differentiates_twice() -> None:
    check("LU", matrix(3, 3), outputs=3, check={"order": 2})


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (2, 3, 3)])
def test_singular_vectors_and_values_multiply_to_the_matrix(shape: tuple[int, ...]) -> None:
    a = matrix(*shape)
    u, s, vh = evaluate("SVD", a, outputs=3)
    count = min(shape[-2:])
    assert u.shape[-1] == vh.shape[-2] == s.shape[-1] == count
    np.testing.assert_allclose(u * s[..., None, :] @ vh, a, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(s, np.linalg.svd(a, compute_uv=False), rtol=1e-13)
    identity = np.broadcast_to(np.eye(count), (*shape[:-2], count, count))
    np.testing.assert_allclose(np.swapaxes(u, -1, -2) @ u, identity, atol=1e-13)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (3, 3)])
def test_svd_differentiates(shape: tuple[int, ...]) -> None:
    check("SVD", matrix(*shape), outputs=3)


@pytest.mark.parametrize("op", ["LU", "SVD"])
def test_what_cannot_be_factored_is_refused(op: str) -> None:
    with pytest.raises(InvalidGraph, match=r"input A has shape \(3,\)"):
        evaluate(op, np.ones(3), outputs=3)
    with pytest.raises(InvalidGraph, match="input A is float16"):
        evaluate(op, np.ones((2, 2), np.float16), outputs=3)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (2, 3, 3)])
def test_pinv_is_numpys_and_differentiates_twice(shape: tuple[int, ...]) -> None:
    a, rtol = matrix(*shape), np.array(1e-15)
    np.testing.assert_allclose(evaluate("Pinv", a, rtol), np.linalg.pinv(a), rtol=1e-12, atol=1e-14)
    check("Pinv", a, rtol, check={"order": 2})


def test_pinv_of_a_matrix_without_full_rank_differentiates_along_matrices_of_its_rank() -> None:
    rng = np.random.default_rng(3)
    left, right = rng.normal(size=(5, 2)), rng.normal(size=(2, 4))
    moved_left, moved_right = rng.normal(size=(5, 2)), rng.normal(size=(2, 4))
    rtol = np.array(1e-10)
    pinv = function_of(one_node("Pinv", left @ right, rtol, domain=DOMAIN), (left @ right, rtol), wrt=[0])
    tangent = moved_left @ right + left @ moved_right
    value, slope = jax.jvp(lambda a: pinv(a)[0], (left @ right,), (tangent,))
    np.testing.assert_allclose(value, np.linalg.pinv(left @ right), rtol=1e-11, atol=1e-13)

    def along(step: float) -> np.ndarray:
        return np.linalg.pinv((left + step * moved_left) @ (right + step * moved_right), rtol=1e-10)

    difference = (8 * (along(1e-3) - along(-1e-3)) - (along(2e-3) - along(-2e-3))) / 12e-3
    np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-7)


def test_pinv_of_equal_singular_values_has_a_derivative() -> None:
    rng = np.random.default_rng(4)
    tangent, rtol = rng.normal(size=(3, 3)), np.array(1e-15)
    pinv = function_of(one_node("Pinv", np.eye(3), rtol, domain=DOMAIN), (np.eye(3), rtol), wrt=[0])
    _, slope = jax.jvp(lambda a: pinv(a)[0], (np.eye(3),), (tangent,))
    np.testing.assert_allclose(slope, -tangent, rtol=1e-12, atol=1e-13)
