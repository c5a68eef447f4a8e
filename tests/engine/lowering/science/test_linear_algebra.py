"""Linear algebra of the gradwire.sci domain against NumPy and SciPy, and its derivatives."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.linalg

from gradwire_engine.errors import InvalidGraph
from tests.engine.lowering.derivative_checks import check_op, gradient_of, run

DOMAIN = "gradwire.sci"
evaluate = partial(run, domain=DOMAIN)
check = partial(check_op, domain=DOMAIN)
TWICE = {"order": 2}


def matrix(*shape: int, seed: int = 0) -> np.ndarray:
    """Well conditioned, with distinct eigenvalues and singular values."""
    return np.random.default_rng(seed).normal(size=shape) + 3 * np.eye(*shape[-2:])


def positive_definite(n: int, seed: int = 0, batch: tuple[int, ...] = ()) -> np.ndarray:
    a = np.random.default_rng(seed).normal(size=(*batch, n, n))
    return a @ np.swapaxes(a, -1, -2) + np.diag(np.arange(1.0, n + 1))


@pytest.mark.parametrize(
    ("a", "b"),
    [((3, 3), (3,)), ((3, 3), (3, 2)), ((2, 3, 3), (2, 3, 1)), ((2, 3, 3), (3,)), ((3, 3), (2, 3, 2))],
)
def test_solve_has_numpys_reading_of_vectors_and_stacks(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    left, right = matrix(*a), np.random.default_rng(1).normal(size=b)
    np.testing.assert_allclose(evaluate("Solve", left, right), np.linalg.solve(left, right), rtol=1e-12)
    check("Solve", left, right, check=TWICE)


def test_inverse_and_log_determinants_agree_with_numpy_and_differentiate_twice() -> None:
    a = matrix(2, 3, 3)
    np.testing.assert_allclose(evaluate("Inverse", a), np.linalg.inv(a), rtol=1e-12)
    np.testing.assert_allclose(evaluate("LogDet", a), np.linalg.slogdet(a)[1], rtol=1e-12)
    sign, logarithm = evaluate("SlogDet", a, outputs=2)
    np.testing.assert_allclose(sign, np.linalg.slogdet(a)[0])
    np.testing.assert_allclose(logarithm, np.linalg.slogdet(a)[1], rtol=1e-12)
    for op, outputs in (("Inverse", 1), ("LogDet", 1), ("SlogDet", 2)):
        check(op, a, outputs=outputs, check=TWICE)


@pytest.mark.parametrize("upper", [0, 1])
def test_cholesky_reads_one_triangle_only_as_numpy_does(upper: int) -> None:
    a = positive_definite(3, batch=(2,))
    spoiled = a + (np.tril if upper else np.triu)(np.full((3, 3), 7.0), -1 if upper else 1)
    expected = np.linalg.cholesky(a, upper=bool(upper))
    np.testing.assert_allclose(evaluate("Cholesky", spoiled, upper=upper), expected, rtol=1e-12)
    check("Cholesky", spoiled, upper=upper, check=TWICE)


@pytest.mark.parametrize(("op", "outputs"), [("Cholesky", 1), ("EigvalsH", 1), ("Eigh", 2)])
def test_symmetrize_shares_the_derivative_between_the_triangles(op: str, outputs: int) -> None:
    a = positive_definite(3, seed=2)
    shared = check(op, a, outputs=outputs, symmetrize=1).reshape(-1, 3, 3)
    one_sided = check(op, a, outputs=outputs).reshape(-1, 3, 3)
    np.testing.assert_allclose(shared, np.swapaxes(shared, 1, 2), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(shared, (one_sided + np.swapaxes(one_sided, 1, 2)) / 2, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("lower", [0, 1])
@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("unit_diagonal", [0, 1])
def test_triangular_solve_agrees_with_scipy(lower: int, trans: int, unit_diagonal: int) -> None:
    a, b = matrix(3, 3), np.random.default_rng(1).normal(size=(3, 2))
    options = {"lower": lower, "trans": trans, "unit_diagonal": unit_diagonal}
    expected = scipy.linalg.solve_triangular(
        a, b, lower=bool(lower), trans=trans, unit_diagonal=bool(unit_diagonal)
    )
    np.testing.assert_allclose(evaluate("TriangularSolve", a, b, **options), expected, rtol=1e-12)
    check("TriangularSolve", a, b, check=TWICE, **options)
    check("TriangularSolve", np.stack([a, a + 1]), b[:, 0], **options)


@pytest.mark.parametrize("lower", [0, 1])
def test_eigenvalues_and_vectors_agree_with_numpy(lower: int) -> None:
    a = matrix(2, 3, 3, seed=5)
    uplo = "L" if lower else "U"
    values, vectors = evaluate("Eigh", a, outputs=2, lower=lower)
    expected = np.linalg.eigh(a, UPLO=uplo)
    np.testing.assert_allclose(values, expected[0], rtol=1e-12)
    np.testing.assert_allclose(np.abs(vectors), np.abs(expected[1]), rtol=1e-10)
    np.testing.assert_allclose(evaluate("EigvalsH", a, lower=lower), expected[0], rtol=1e-12)
    check("Eigh", a, outputs=2, lower=lower)
    check("EigvalsH", a, lower=lower, check=TWICE)


def test_eigenvalues_of_a_multiple_of_the_identity_have_a_finite_derivative() -> None:
    for jacobian in gradient_of("EigvalsH", 2 * np.eye(3), domain=DOMAIN):
        assert np.all(np.isfinite(jacobian))
        np.testing.assert_allclose(jacobian.sum(0).reshape(3, 3), np.eye(3), atol=1e-14)


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (2, 3, 2)])
def test_qr_is_numpys_and_differentiates_for_tall_square_and_wide(shape: tuple[int, ...]) -> None:
    a = matrix(*shape, seed=6)
    q, r = evaluate("QR", a, outputs=2)
    expected = np.linalg.qr(a)
    np.testing.assert_allclose(q, expected[0], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(r, expected[1], rtol=1e-11, atol=1e-13)
    check("QR", a, outputs=2)


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (2, 3, 2)])
def test_singular_values_agree_with_numpy_and_differentiate_twice(shape: tuple[int, ...]) -> None:
    a = matrix(*shape, seed=7)
    np.testing.assert_allclose(evaluate("SvdValues", a), np.linalg.svd(a, compute_uv=False), rtol=1e-12)
    check("SvdValues", a, check=TWICE)


def test_a_matrix_that_is_not_square_is_refused_by_name() -> None:
    with pytest.raises(InvalidGraph, match=r"Inverse.*\(2, 3\).*square"):
        evaluate("Inverse", np.ones((2, 3)))


def test_a_half_precision_matrix_is_refused_by_name() -> None:
    with pytest.raises(InvalidGraph, match=r"Cholesky.*float16.*cast"):
        evaluate("Cholesky", np.eye(2, dtype=np.float16))
