"""Which constants of a traced function are referred to, which are stored, and that both mean the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import gradwire as gw
from gradwire.frontends.numpy import trace, trace_function
from gradwire.graphs.constants import BoundModel
from gradwire.graphs.spec import spec_of
from tests.client.frontends.numpy.oracle import agree

RNG = np.random.default_rng(0)
A = RNG.normal(size=(400, 400))
X = RNG.normal(size=400)


def bound(fn: Any, *arrays: Any) -> BoundModel:
    return trace_function(fn, [spec_of(array) for array in arrays]).bound


def value(model: BoundModel, **inputs: Any) -> Any:
    """What the graph computes, its constants given as inputs."""
    onnx.checker.check_model(model.proto, full_check=True)
    evaluator = onnx.reference.ReferenceEvaluator(model.proto)
    constants = {name: constant.array for name, constant in model.bound.items()}
    return evaluator.run(None, {**inputs, **constants})[0]


def operators(model: BoundModel) -> list[str]:
    return [node.op_type for node in model.proto.graph.node]


def test_a_large_array_is_an_input_after_the_functions_own() -> None:
    model = bound(lambda x: np.sin(A @ x), X)
    assert [item.name for item in model.proto.graph.input] == ["x", "constant.0"]
    assert not model.proto.graph.initializer
    np.testing.assert_allclose(value(model, x=X), np.sin(A @ X), rtol=1e-12)


def test_a_traced_model_for_other_tools_holds_everything() -> None:
    model = trace(lambda x: A @ x, [gw.spec(400)])
    onnx.checker.check_model(model, full_check=True)
    assert [item.name for item in model.graph.input] == ["x"]
    (y,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": X})
    np.testing.assert_allclose(y, A @ X, rtol=1e-12)


def test_constants_are_numbered_in_the_order_of_their_first_use() -> None:
    first, second = A + 1, A + 2
    model = bound(lambda x: second @ (first @ x) + second @ x, X)
    assert list(model.bound) == ["constant.0", "constant.1"]
    np.testing.assert_array_equal(model.bound["constant.0"].array, first)


def test_the_graph_does_not_depend_on_the_contents() -> None:
    first, second = (bound(lambda x, a=a: np.tanh(a @ x), X) for a in (A, A + 1))
    assert first.proto.SerializeToString() == second.proto.SerializeToString()
    assert first.bound["constant.0"].tensor_id != second.bound["constant.0"].tensor_id


def test_equal_arrays_are_one_constant_in_one_piece_of_memory() -> None:
    copy = A.copy()
    model = bound(lambda x: A @ x + copy @ x, X)
    assert list(model.bound) == ["constant.0"]
    assert bound(lambda x: x @ A, X).bound["constant.0"] is model.bound["constant.0"]


@pytest.mark.parametrize(
    "fn",
    [lambda x: A.T @ (A @ x), lambda x: A @ (A.T @ x), lambda x: A.T @ x + A @ x + A.T @ (A.T @ x)],
    ids=["least squares", "transposed first", "three times"],
)
def test_an_array_and_its_transpose_are_one_constant(fn: Any) -> None:
    model = bound(fn, X)
    assert list(model.bound) == ["constant.0"]
    assert operators(model).count("Transpose") == 1
    np.testing.assert_allclose(value(model, x=X), fn(X), rtol=1e-11)


def test_an_array_that_changes_while_the_function_runs_is_two_constants() -> None:
    def fn(x: Any) -> Any:
        work = A.copy()
        y = work @ x
        work *= 2
        return y + work @ x

    model = bound(fn, X)
    assert list(model.bound) == ["constant.0", "constant.1"]
    np.testing.assert_allclose(value(model, x=X), 3 * (A @ X), rtol=1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f8"])
def test_memory_layout_and_byte_order_do_not_matter(order: Any, dtype: Any) -> None:
    matrix = np.asarray(RNG.normal(size=(600, 500)), dtype, order=order)
    x = X[:300].astype(matrix.dtype.newbyteorder("="))
    part = matrix[::2, 50:350]
    big = np.concatenate([part] * 4)
    model = bound(lambda x: big @ x, x)
    assert len(model.bound) == 1
    np.testing.assert_allclose(value(model, x=x), big @ x, rtol=2e-4)


def test_uniform_arrays_are_made_where_they_are_used() -> None:
    ones = np.ones((400, 400))
    model = bound(lambda x: ones @ x, X)
    assert not model.bound and model.proto.ByteSize() < 1000
    np.testing.assert_allclose(value(model, x=X), ones @ X, rtol=1e-12)


def test_signed_zeros_are_not_uniform() -> None:
    zeros = np.zeros((400, 400))
    zeros[3, 5] = -0.0
    assert len(bound(lambda x: zeros * x, X).bound) == 1


def test_positions_stay_in_the_graph_where_the_structure_of_a_derivative_shows() -> None:
    positions = RNG.integers(0, 400, size=200_000)
    model = bound(lambda x: x[positions], X)
    assert not model.bound and model.proto.ByteSize() > positions.nbytes
    np.testing.assert_array_equal(value(model, x=X), X[positions])


def test_a_constant_that_no_output_needs_is_not_sent() -> None:
    def fn(x: Any) -> Any:
        A @ x
        return (A + 1) @ x

    assert list(bound(fn, X).bound) == ["constant.1"]


def test_a_constant_may_be_an_output() -> None:
    model = bound(lambda x: A, X)
    np.testing.assert_array_equal(value(model, x=X), A)


def test_a_body_of_a_loop_reads_a_constant_from_outside() -> None:
    scaled = A / 40
    agree(lambda x: gw.fori(0, 3, lambda i, y: np.tanh(scaled @ y), x), X)
    model = bound(lambda x: gw.fori(0, 3, lambda i, y: np.tanh(scaled @ y), x), X)
    assert list(model.bound) == ["constant.0"]
