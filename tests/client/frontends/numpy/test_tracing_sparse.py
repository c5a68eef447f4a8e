"""Matrices of scipy.sparse that a traced function closes over multiply as they do plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import scipy.sparse

from gradwire.errors import TraceError
from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec
from gradwire_engine.lowering import evaluate
from tests.client.frontends.numpy.oracle import agree, operators

RANDOM = np.random.default_rng(4)
DENSE = np.where(RANDOM.random((5, 4)) < 0.4, RANDOM.normal(size=(5, 4)), 0.0)
X, Y = RANDOM.normal(size=4), RANDOM.normal(size=5)
WIDE = RANDOM.normal(size=(4, 3))
STACK = RANDOM.normal(size=(2, 4, 3))

CLASSES = [
    getattr(scipy.sparse, f"{form}_{kind}")
    for form in ("csr", "csc", "coo", "dia", "bsr", "lil", "dok")
    for kind in ("array", "matrix")
]


@pytest.mark.parametrize("make", CLASSES, ids=lambda kind: kind.__name__)
def test_products_with_every_format_are_scipys(make: Any) -> None:
    a = make(DENSE)
    agree(
        lambda x, y, w: (a @ x, a.T @ y, y @ a, x @ a.T, a @ w, w.T @ a.T, a @ w[:, :1]),
        X, Y, WIDE,
    )  # fmt: skip


def test_matrices_multiply_by_a_star_and_arrays_do_not() -> None:
    matrix, array = scipy.sparse.csr_matrix(DENSE), scipy.sparse.csr_array(DENSE)
    agree(lambda x, y: (matrix * x, y * matrix), X, Y)
    with pytest.raises(TraceError, match=r"A @ x, x @ A.*A\.toarray\(\)"):
        trace(lambda x: x * array, [spec(4)])
    with pytest.raises(TraceError, match="traced"):
        trace(lambda x: array * x, [spec(4)])


PLAIN = scipy.sparse.csr_array(DENSE)
TWICE = scipy.sparse.coo_array(([1.0, 2.0, 4.0], ([0, 0, 1], [2, 2, 0])), (3, 4))
LAPLACIAN = scipy.sparse.diags_array([2.0, -1.0, -1.0], offsets=[0, 1, -1], shape=(4, 4))

PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "entries given twice": lambda x: (
        scipy.sparse.coo_array(([1.0, 2.0, 4.0], ([0, 0, 1], [2, 2, 0])), (3, 4)) @ x
    ),
    "no entries": lambda x: scipy.sparse.csr_array((3, 4)) @ x,
    "entries that are zero": lambda x: scipy.sparse.coo_array(([0.0], ([0], [1])), (3, 4)) @ x,
    "whole numbers": lambda x: scipy.sparse.csr_array(np.eye(3, 4, dtype=np.int32)) @ x,
    "truth values": lambda x: scipy.sparse.csr_array(np.eye(3, 4) > 0) @ x,
    "diagonals": lambda x: scipy.sparse.diags_array([1.0, -2.0], offsets=[0, 1], shape=(3, 4)) @ x,
    "a Laplacian": lambda x: x @ (LAPLACIAN @ x),
    "blocks": lambda x: scipy.sparse.kron(scipy.sparse.eye_array(2), DENSE[:2, :2]) @ x,
    "a sliced matrix": lambda x: scipy.sparse.csr_array(DENSE)[1:3] @ x,
    "an in-place product": lambda x: np.matmul(
        scipy.sparse.csr_array(DENSE), x, out=np.zeros_like(x, shape=5)
    ),
}


@pytest.mark.parametrize("name", [name for name in PROGRAMS if "in-place" not in name])
def test_products_of_made_matrices_are_scipys(name: str) -> None:
    agree(PROGRAMS[name], X)


def test_products_are_stored_where_out_says() -> None:
    model = trace(PROGRAMS["an in-place product"], [spec(4)])
    np.testing.assert_allclose(evaluate(model, {"x": X})[0], DENSE @ X, rtol=1e-14)


def test_products_with_complex_numbers() -> None:
    z = scipy.sparse.csr_array(DENSE * (1 + 2j))
    a = scipy.sparse.csr_array(DENSE)
    agree(
        lambda x, y: (
            (z @ x).real, (z @ x).imag, (y @ z).imag, (a @ (x * (2 - 1j))).imag, (z @ (x * 1j)).real,
            (z @ (x * (1 - 3j))).imag,
        ),
        X, Y,
    )  # fmt: skip


def test_stacks_of_matrices_multiply_as_dense_ones_do() -> None:
    a = scipy.sparse.csr_array(DENSE)
    model = trace(lambda s: (a @ s, s.swapaxes(1, 2) @ a.T), [spec((2, 4, 3))])
    left, right = evaluate(model, {"s": STACK})
    np.testing.assert_allclose(left, DENSE @ STACK, rtol=1e-13)
    np.testing.assert_allclose(right, STACK.swapaxes(1, 2) @ DENSE.T, rtol=1e-13)


def test_derivatives_are_the_matrix_and_products_follow_its_entries() -> None:
    a = scipy.sparse.random_array((300, 200), density=0.01, rng=RANDOM, format="csr")
    model = trace(lambda x: np.sin(a @ x), [spec(200)])
    assert set(operators(model)) == {"ConstantOfShape", "Gather", "Mul", "ScatterND", "Sin"}
    x = RANDOM.normal(size=200)
    expected = np.cos(a @ x)[:, None] * a.toarray()
    for of in (jax.jacfwd, jax.jacrev):
        found = of(lambda x: evaluate(model, {"x": x})[0])(x)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


REFUSED: dict[str, Callable[[Any, Any], Any]] = {
    "sums": lambda a, x: a + x,
    "elementwise products": lambda a, x: a.multiply(x),
    "reversed sums": lambda a, x: x + a,
    "functions": lambda a, x: np.dot(x, a),
    "choices": lambda a, x: np.where(x > 0, x, a),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_product_is_refused(name: str) -> None:
    with pytest.raises(TraceError, match="traced"):
        trace(lambda x: REFUSED[name](scipy.sparse.csr_array(DENSE[:4]), x), [spec(4)])


def test_shapes_that_do_not_fit_raise_where_scipy_would() -> None:
    with pytest.raises(ValueError, match="matmul"):
        trace(lambda x: scipy.sparse.csr_array(DENSE) @ x, [spec(5)])
