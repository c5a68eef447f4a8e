"""Linear algebra: NumPy's numbers, and derivatives that differences confirm."""

from __future__ import annotations

import numpy as np
import pytest

from gradwire.errors import TraceError
from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec
from tests.client.frontends.numpy.cases.case import check_derivative, check_value
from tests.client.frontends.numpy.cases.linalg import CASES, TALL
from tests.client.frontends.numpy.oracle import agree


@pytest.mark.parametrize("name", CASES)
def test_values_are_numpys(name: str) -> None:
    check_value(CASES[name])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.slope_rtol is not None])
def test_derivatives_are_those_of_differences(name: str) -> None:
    check_derivative(CASES[name])


def test_a_pinv_leaves_out_the_singular_values_below_its_tolerance() -> None:
    singular = np.outer(TALL[:, 0], [1.0, 2.0, -1.0])
    agree(lambda a: (np.linalg.pinv(a, rcond=1e-10), np.linalg.lstsq(a, TALL[:, 1])[0]), singular, rtol=1e-9)


def test_the_rank_and_singular_values_of_lstsq_are_numpys() -> None:
    agree(lambda a: np.linalg.lstsq(a, TALL[:, 1])[2:], TALL)


def test_linear_algebra_keeps_single_precision_and_makes_integers_double() -> None:
    agree(
        lambda a: (np.linalg.pinv(a), *np.linalg.svd(a.T @ a)[1:2]),
        TALL.astype(np.float32),
        rtol=1e-4,
        atol=1e-5,
    )
    agree(lambda a: (np.linalg.pinv(a), np.linalg.cond(a)), np.array([[2, 1], [1, 3], [0, 1]]), rtol=1e-11)


@pytest.mark.parametrize(
    ("function", "advice"),
    [
        (np.linalg.svd, "full_matrices=False"),
        (np.linalg.eig, r"np\.linalg\.eigh"),
        (np.linalg.eigvals, r"np\.linalg\.eigh"),
        (lambda a: np.linalg.qr(a, "complete"), r'"reduced" or "r"'),
        (lambda a: np.linalg.pinv(a, rcond=a[0, 0]), "give one number"),
    ],
)
def test_what_has_no_derivative_is_refused_with_advice(function: object, advice: str) -> None:
    with pytest.raises(TraceError, match=advice):
        trace(function, [spec((4, 3))])  # type: ignore[arg-type]
