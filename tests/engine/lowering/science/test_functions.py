"""Elementwise functions, Sort and StopGradient of the gradwire.sci domain against NumPy and SciPy."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.special

from tests.engine.lowering.derivative_checks import check_op, gradient_of, run

DOMAIN = "gradwire.sci"
evaluate = partial(run, domain=DOMAIN)
check = partial(check_op, domain=DOMAIN)
TWICE = {"order": 2}


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


def test_ldexp_is_right_where_the_power_alone_overflows_or_vanishes() -> None:
    x = np.array([1e300, 1e-300, 3.0, -7.25, 1e-300, 5.0, np.inf, 0.0])
    n = np.array([-1100, 1500, -5, 1000, -1000, 5000, -5000, 5000])
    with np.errstate(over="ignore", under="ignore"):
        expected = np.ldexp(x, n)
    np.testing.assert_array_equal(evaluate("Ldexp", x, n), expected)
    single = np.array([1e30, 1e-30, 3.0], np.float32), np.array([-140, 180, 100])
    np.testing.assert_array_equal(evaluate("Ldexp", *single), np.ldexp(*single))
    check("Ldexp", np.array([0.3, -1.5]), np.array([3, -2]), wrt=[0])


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


def test_stop_gradient_keeps_the_value_and_has_derivative_zero() -> None:
    x = np.array([-1.5, 0.0, 2.0])
    np.testing.assert_array_equal(evaluate("StopGradient", x), x)
    for jacobian in gradient_of("StopGradient", x, domain=DOMAIN):
        np.testing.assert_array_equal(jacobian, np.zeros((3, 3)))
