"""Linear algebra: NumPy's numbers, and derivatives that differences confirm."""

from __future__ import annotations

from typing import Any

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


A, B, C = np.arange(24.0).reshape(2, 3, 4) / 7, np.arange(40.0).reshape(2, 4, 5) / 9, np.arange(5.0) - 1
SUMS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "of batches": ("...ij,...jk->...ik", (A, B)),
    "of a batch and a matrix": ("...ij,...jk", (A, B[0])),
    "with axes of one element": ("bij,bjk->bik", (A[:1], B)),
    "along an axis of one element": ("bij,bjk->bik", (A[:, :, :1], B)),
    "of three with ellipses of three lengths": ("...ij,...j,...k->...ik", (A, A[:, 0], C)),
    "of diagonals of batches": ("...ii->...i", (A[:, :, :3],)),
    "of traces of batches": ("...ii", (A[:, :, :3],)),
    "with the ellipsis inside": ("i...j,i...->j...", (A, A[:, :1, 0])),
    "of ellipses alone": ("...,...->...", (A, A[0])),
}


@pytest.mark.parametrize("name", SUMS)
def test_einsum_has_numpys_ellipses_and_broadcasting(name: str) -> None:
    equation, operands = SUMS[name]
    agree(lambda *arrays: np.einsum(equation, *arrays), *operands)


EMPTY = np.zeros((2, 0, 0))


def test_matrices_of_no_elements_have_numpys_determinants_and_decompositions() -> None:
    agree(
        lambda a: (
            np.linalg.det(a), np.linalg.det(a[0]), *np.linalg.slogdet(a), np.linalg.inv(a),
            np.linalg.cholesky(a), *np.linalg.eigh(a), *np.linalg.qr(a), np.linalg.norm(a),
        ),
        EMPTY,
    )  # fmt: skip
