"""Incomplete gamma, beta, Bessel and normal distribution functions against SciPy, and their derivatives."""

from __future__ import annotations

import math
from functools import partial

import jax
import numpy as np
import pytest
import scipy.special

from gradwire_engine.errors import NotDifferentiable
from tests.engine.lowering.derivative_checks import check_op, function_of, one_node, run

DOMAIN = "gradwire.sci"
evaluate = partial(run, domain=DOMAIN)
check = partial(check_op, domain=DOMAIN)

A, B, X = np.array([0.5, 1.5, 4.0]), np.array([2.0, 0.7, 3.0]), np.array([0.3, 0.6, 0.9])


@pytest.mark.parametrize(
    ("op", "function", "inputs"),
    [
        ("Igamma", scipy.special.gammainc, (A, X)),
        ("Igammac", scipy.special.gammaincc, (A, X)),
        ("Betainc", scipy.special.betainc, (A, B, X)),
        ("BesselI0e", scipy.special.i0e, (np.array([-3.0, 0.0, 0.5, 20.0]),)),
        ("BesselI1e", scipy.special.i1e, (np.array([-3.0, 0.0, 0.5, 20.0]),)),
        ("LogNdtr", scipy.special.log_ndtr, (np.array([-200.0, -20.1, -19.9, -1.0, 0.0, 8.0, 12.0]),)),
        ("Ndtri", scipy.special.ndtri, (np.array([1e-30, 1e-5, 0.3, 0.5, 0.999]),)),
        ("Betaln", scipy.special.betaln, (np.array([0.5, 3.0, 2.0]), np.array([1e8, 1e-10, 1e15]))),
    ],
)
def test_values_are_those_of_scipy(op: str, function: np.ufunc, inputs: tuple[np.ndarray, ...]) -> None:
    np.testing.assert_allclose(evaluate(op, *inputs), function(*inputs), rtol=1e-12, atol=1e-15)
    single = [value.astype(np.float32) for value in inputs]
    assert evaluate(op, *single).dtype == np.float32


def test_arrays_are_broadcast() -> None:
    np.testing.assert_allclose(
        evaluate("Igamma", A[:, None], X), scipy.special.gammainc(A[:, None], X), rtol=1e-12
    )


@pytest.mark.parametrize("op", ["Igamma", "Igammac"])
def test_incomplete_gamma_differentiates_in_both_arguments(op: str) -> None:
    check(op, A, X)


def test_bessel_functions_differentiate_twice() -> None:
    for op in ("BesselI0e", "BesselI1e"):
        check(op, np.array([-3.0, 0.5, 2.0]), check={"order": 2})


def test_the_beta_function_keeps_its_digits_where_the_gamma_functions_cancel() -> None:
    a = np.array([1e5, 1e10, 1e200])
    np.testing.assert_allclose(evaluate("Betaln", a, np.ones(3)), -np.log(a), rtol=1e-15)
    # For whole n: B(n, b) = (n - 1)! / (b (b + 1) ... (b + n - 1)).
    counts, sizes = (1, 2, 5, 9, 10, 15, 50), (0.1, 0.5, 1.5, 8.0, 9.99, 10.0, 15.5, 50.0, 1e3, 1e5)
    exact = [
        [
            math.fsum([*(math.log(k) for k in range(1, n)), *(-math.log(b + k) for k in range(n))])
            for b in sizes
        ]
        for n in counts
    ]
    found = evaluate("Betaln", np.array(counts, float)[:, None], np.array(sizes))
    np.testing.assert_allclose(found, exact, rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(
        found, evaluate("Betaln", np.array(sizes), np.array(counts, float)[:, None])
    )


def test_the_beta_function_differentiates_on_its_diagonal_and_across_its_branches() -> None:
    sizes = np.array([0.7, 9.0, 10.5, 40.0])
    a, b = (grid.ravel() for grid in np.meshgrid(sizes, sizes))
    check("Betaln", a, b, check={"order": 2})


def test_the_normal_distribution_and_the_beta_function_differentiate_twice() -> None:
    check("LogNdtr", np.array([-25.0, -3.0, 0.5, 2.0]), check={"order": 2})
    check("Ndtri", np.array([0.01, 0.4, 0.9]), check={"order": 2})
    check("Betaln", A, B, check={"order": 2})


def test_incomplete_beta_differentiates_in_x_and_refuses_the_others_by_name() -> None:
    model = one_node("Betainc", A, B, X, domain=DOMAIN)
    in_x = function_of(model, (A, B, X), wrt=[2])
    slope = np.diag(jax.jacfwd(lambda x: in_x(x)[0])(X))
    density = X ** (A - 1) * (1 - X) ** (B - 1) / scipy.special.beta(A, B)
    np.testing.assert_allclose(slope, density, rtol=1e-12)
    in_a = function_of(model, (A, B, X), wrt=[0])
    with pytest.raises(NotDifferentiable, match=r"Betainc.* no derivative with respect to a"):
        jax.jacfwd(lambda a: in_a(a)[0])(A)
