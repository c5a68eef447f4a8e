"""LU and SVD of the gradwire.sci domain: factors against what they factor, and derivatives."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.linalg
from engine.lowering.derivative_checks import check_op, run

from gradwire_engine.errors import InvalidGraph

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
