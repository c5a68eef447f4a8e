"""Matrix products, einsum, determinants and triangles."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_op, one_node, run

TWICE = {"order": 2}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


SHAPES = [
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((2, 2, 3), (2, 3, 1)),
    ((4, 1, 2, 3), (2, 3, 2)),
    ((2, 0), (0, 3)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_matmul_has_numpys_shapes_and_differentiates_twice(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = normal(*a), normal(*b, seed=1)
    np.testing.assert_allclose(run("MatMul", x, y), x @ y, rtol=1e-13)
    if x.size:
        check_op("MatMul", x, y, check=TWICE)


def test_matmul_of_integers_is_exact_traced_and_static() -> None:
    x, y = np.array([[2**40, 1]]), np.array([[3], [5]])
    model = one_node("MatMul", x, y)
    for wrap in (np.asarray, jnp.asarray):
        (result,) = evaluate(model, {"x0": wrap(x), "x1": wrap(y)})
        assert result.dtype == np.int64 and int(result[0, 0]) == 3 * 2**40 + 5


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("c", [(), (4,), (2, 1), (2, 4), None])
def test_gemm_transposes_scales_and_broadcasts(trans_a: int, trans_b: int, c: tuple[int, ...] | None) -> None:
    a, b = normal(*((3, 2) if trans_a else (2, 3))), normal(*((4, 3) if trans_b else (3, 4)))
    inputs: list[Any] = [a, b] if c is None else [a, b, np.asarray(normal(*c))]
    options = {"alpha": 0.7, "beta": 1.3, "transA": trans_a, "transB": trans_b}
    alpha, beta = float(np.float32(0.7)), float(np.float32(1.3))
    expected = alpha * ((a.T if trans_a else a) @ (b.T if trans_b else b))
    expected = expected + (0 if c is None else beta * inputs[2])
    np.testing.assert_allclose(run("Gemm", *inputs, **options), expected, rtol=1e-13)
    if trans_a != trans_b:
        check_op("Gemm", *inputs, check=TWICE, **options)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bij, bjk -> bik", [(2, 2, 3), (2, 3, 2)]),
        ("...ii->...i", [(2, 3, 3)]),
        ("ij,ji", [(2, 3), (3, 2)]),
        ("bA,bA", [(2, 3), (2, 3)]),
        ("i,j,k->kji", [(2,), (3,), (2,)]),
    ],
)
def test_einsum_agrees_with_numpy_and_differentiates(equation: str, shapes: list[tuple[int, ...]]) -> None:
    operands = [normal(*shape, seed=index) for index, shape in enumerate(shapes)]
    expected = np.einsum(equation, *operands)
    np.testing.assert_allclose(run("Einsum", *operands, equation=equation), expected, rtol=1e-13)
    check_op("Einsum", *operands, equation=equation)


def test_the_determinant_differentiates_twice_and_at_singular_matrices() -> None:
    a = normal(2, 3, 3)
    np.testing.assert_allclose(run("Det", a), np.linalg.det(a), rtol=1e-13)
    check_op("Det", a, check=TWICE)
    check_op("Det", normal(5, 5), check=TWICE)
    singular = np.diag([1.0, 2.0, 0.0])
    jacobian = check_op("Det", singular)
    np.testing.assert_allclose(jacobian.reshape(3, 3), np.diag([0.0, 0.0, 2.0]), atol=1e-14)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [-5, -1, 0, 2, 5, None])
def test_a_triangle_is_numpys_whether_the_diagonal_is_static_or_traced(upper: int, k: int | None) -> None:
    x = normal(2, 3, 4)
    expected = (np.triu if upper else np.tril)(x, k or 0)
    diagonal = None if k is None else np.array(k)
    np.testing.assert_array_equal(run("Trilu", x, diagonal, upper=upper), expected)
    if k is not None:
        (traced,) = evaluate(one_node("Trilu", x, diagonal, upper=upper), {"x0": x, "x1": jnp.asarray(k)})
        np.testing.assert_array_equal(traced, expected)
    check_op("Trilu", x, diagonal, upper=upper, wrt=[0])


def test_a_triangle_of_a_vector_is_refused_by_name() -> None:
    with pytest.raises(InvalidGraph, match=r"Trilu.*\(3,\)"):
        run("Trilu", np.ones(3))


def test_eye_like_takes_its_shape_from_the_input_and_its_dtype_from_either() -> None:
    eye = run("EyeLike", np.ones((2, 3)), k=1)
    np.testing.assert_array_equal(eye, np.eye(2, 3, 1))
    assert run("EyeLike", np.ones((2, 2)), dtype=onnx.TensorProto.INT32).dtype == np.int32


def test_integer_products_subtract_zero_points_per_row_and_column() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 3), np.uint8), rng.integers(-128, 128, (3, 4), np.int8)
    az, bz = np.array([3, 200], np.uint8), np.array([-7, 0, 5, 1], np.int8)
    result = run("MatMulInteger", a, b, az, bz)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, (a.astype(int) - az[:, None]) @ (b.astype(int) - bz))
