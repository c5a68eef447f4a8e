"""The gradwire.sci domain against NumPy and SciPy, and its derivatives."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.linalg
import scipy.special

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


ONE_ARRAY = {
    "Cbrt": (np.cbrt, [-2.0, 0.3, 5.0]),
    "Digamma": (scipy.special.digamma, [0.4, 1.5, 30.0, -1.3]),
    "Erfc": (scipy.special.erfc, [-2.0, 0.0, 0.5, 9.0]),
    "Erfinv": (scipy.special.erfinv, [-0.9, 0.0, 0.5]),
    "Exp2": (np.exp2, [-3.0, 0.0, 2.5]),
    "Expit": (scipy.special.expit, [-3.0, 0.0, 2.5]),
    "Expm1": (np.expm1, [-3.0, 0.0, 1e-9, 1.5]),
    "Lgamma": (scipy.special.gammaln, [0.4, 1.5, 30.0, 4.0]),
    "Log10": (np.log10, [0.1, 1.0, 7.0]),
    "Log1p": (np.log1p, [-0.5, 0.0, 1e-9, 3.0]),
    "Log2": (np.log2, [0.1, 1.0, 8.0]),
    "Sinc": (np.sinc, [-1.3, 0.0, 0.5, 1.0]),
}


@pytest.mark.parametrize("op", ONE_ARRAY)
def test_a_function_of_one_array_agrees_with_scipy_and_differentiates_twice(op: str) -> None:
    function, points = ONE_ARRAY[op]
    x = np.array(points)
    np.testing.assert_allclose(evaluate(op, x), function(x), rtol=2e-13, atol=1e-15)
    assert evaluate(op, x.astype(np.float32)).dtype == np.float32
    check(op, x, check=TWICE)


def test_the_second_derivative_of_lgamma_is_trigamma() -> None:
    x = np.array([0.7, 2.0, 11.0])
    jacobian = check("Digamma", x, check=TWICE)
    np.testing.assert_allclose(np.diag(jacobian), scipy.special.polygamma(1, x), rtol=1e-12)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_polygamma_agrees_with_scipy_and_its_derivative_is_the_next_one(n: int) -> None:
    x = np.array([0.7, 2.0, 11.0])
    np.testing.assert_allclose(evaluate("Polygamma", x, n=n), scipy.special.polygamma(n, x), rtol=1e-12)
    jacobian = check("Polygamma", x, n=n)
    np.testing.assert_allclose(np.diag(jacobian), scipy.special.polygamma(n + 1, x), rtol=1e-12)


TWO_ARRAYS = {"Atan2": np.arctan2, "Hypot": np.hypot, "LogAddExp": np.logaddexp, "Xlogy": scipy.special.xlogy}


@pytest.mark.parametrize("op", TWO_ARRAYS)
def test_a_function_of_two_arrays_broadcasts_and_differentiates_twice(op: str) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(0.5, 2, (3, 1)), rng.uniform(0.5, 2, 2)
    np.testing.assert_allclose(evaluate(op, x, y), TWO_ARRAYS[op](x, y), rtol=1e-14)
    check(op, x, y, check=TWICE)


def test_atan2_keeps_signed_zeros_and_sends_no_derivative_through_the_origin() -> None:
    y, x = np.array([0.0, -0.0, 0.0, -0.0]), np.array([0.0, 0.0, -0.0, -0.0])
    np.testing.assert_array_equal(evaluate("Atan2", y, x), np.arctan2(y, x))
    for jacobian in gradient_of("Atan2", y, x, domain=DOMAIN):
        np.testing.assert_array_equal(jacobian, 0)


def test_hypot_neither_overflows_nor_vanishes_and_is_flat_at_the_origin() -> None:
    x, y = np.array([3e200, 3e-200, np.inf, 0.0]), np.array([4e200, 4e-200, 1.0, 0.0])
    np.testing.assert_allclose(evaluate("Hypot", x, y), np.hypot(x, y), rtol=1e-15)
    for jacobian in gradient_of("Hypot", np.zeros(1), np.zeros(1), domain=DOMAIN):
        np.testing.assert_array_equal(jacobian, 0)


def test_hypot_is_smooth_on_an_axis() -> None:
    check("Hypot", np.array([0.0, 2.0]), np.array([1.5, 0.0]), check=TWICE)


def test_xlogy_is_zero_at_zero_with_a_finite_derivative() -> None:
    x, y = np.zeros(4), np.array([0.0, -1.0, np.inf, 2.0])
    np.testing.assert_array_equal(evaluate("Xlogy", x, y), 0)
    for jacobian in gradient_of("Xlogy", x, y, domain=DOMAIN):
        expected = np.zeros((4, 8))
        expected[3, 3] = np.log(2)
        np.testing.assert_allclose(jacobian, expected, rtol=1e-15)


def test_logaddexp_of_two_absent_numbers_is_absent() -> None:
    assert evaluate("LogAddExp", np.array(-np.inf), np.array(-np.inf)) == -np.inf


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


@pytest.mark.parametrize("axis", [0, -1])
def test_sort_is_stable_in_both_directions_and_its_derivative_follows_the_indices(axis: int) -> None:
    x = np.array([[3.0, 1.0, 2.0, 1.0], [0.0, 5.0, -1.0, 5.0]])
    values, indices = evaluate("Sort", x, outputs=2, axis=axis)
    np.testing.assert_array_equal(indices, np.argsort(x, axis, stable=True))
    np.testing.assert_array_equal(values, np.sort(x, axis))
    assert indices.dtype == np.int64
    values, indices = evaluate("Sort", x, outputs=2, axis=axis, descending=1)
    np.testing.assert_array_equal(indices, np.argsort(-x, axis, stable=True))
    np.testing.assert_array_equal(values, -np.sort(-x, axis))
    distinct = np.random.default_rng(0).permutation(8.0 * np.arange(8) / 3).reshape(2, 4)
    for descending in (0, 1):
        check("Sort", distinct, outputs=2, axis=axis, descending=descending, check=TWICE)


def test_sort_of_integers_goes_down_without_overflow() -> None:
    x = np.array([0, np.iinfo(np.int64).min, 5, np.iinfo(np.int64).max])
    values, _ = evaluate("Sort", x, outputs=2, descending=1)
    np.testing.assert_array_equal(values, np.sort(x)[::-1])


def test_a_half_precision_matrix_is_refused_by_name() -> None:
    with pytest.raises(InvalidGraph, match=r"Cholesky.*float16.*cast"):
        evaluate("Cholesky", np.eye(2, dtype=np.float16))


def test_stop_gradient_keeps_the_value_and_has_derivative_zero() -> None:
    x = np.array([-1.5, 0.0, 2.0])
    np.testing.assert_array_equal(evaluate("StopGradient", x), x)
    for jacobian in gradient_of("StopGradient", x, domain=DOMAIN):
        np.testing.assert_array_equal(jacobian, np.zeros((3, 3)))
