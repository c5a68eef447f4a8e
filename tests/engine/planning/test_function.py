"""Arguments against signatures: names, dtypes, shapes and symbols, and values that are not arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwire_engine.errors import InvalidGraph, InvalidInput, LimitExceeded
from gradwire_engine.limits import Limits
from gradwire_engine.planning.transforms import Gradient, Jvp, Vjp
from gradwire_engine.values import dtype_of
from tests.engine.small_graphs import graph_of, kernel_of, plan_of, value_of

LINEAR = "(double[m, n] a, double[n] x) => (double[m] y) { y = MatMul(a, x) }"


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (5, 1), (1, 1), (0, 3)])
def test_symbols_take_any_extent_that_they_take_throughout(rows: int, columns: int) -> None:
    a, x = np.ones((rows, columns)), np.arange(float(columns))
    np.testing.assert_array_equal(value_of(graph_of(LINEAR), {"a": a, "x": x})["y"], a @ x)


@pytest.mark.parametrize(
    ("inputs", "message", "field"),
    [
        ({"a": np.ones((2, 3)), "x": np.ones(4)}, "'x' has n = 4 on axis 0, but input 'a' has n = 3", "x"),
        ({"a": np.ones((2, 3))}, r"input 'x' \(float64\[n\]\) is missing", "x"),
        ({"a": np.ones(2), "x": np.ones(2)}, r"'a' should be float64\[m, n\], not float64\[2\]", "a"),
        ({"a": np.ones((2, 2)), "x": np.ones(2, np.float32)}, "'x' should be float64, not float32", "x"),
        ({"a": np.ones((2, 2)), "x": np.ones(2), "z": np.ones(1)}, "no input 'z'; the inputs are: a, x", "z"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(
    inputs: dict[str, Any], message: str, field: str
) -> None:
    graph = graph_of(LINEAR)
    for build in (kernel_of, plan_of):
        with pytest.raises(InvalidInput, match=message) as refusal:
            build(graph, inputs)
        assert refusal.value.field == f'inputs["{field}"]'


def test_a_fixed_extent_is_held_to() -> None:
    graph = graph_of("(double[2, 3] x) => (double[2, 3] y) { y = Sin(x) }")
    with pytest.raises(InvalidInput, match=r"should be float64\[2, 3\], not float64\[2, 4\]: axis 1 differs"):
        kernel_of(graph, {"x": np.ones((2, 4))})


@pytest.mark.parametrize("transform", [Jvp(), Vjp()])
def test_inputs_that_a_transform_adds_are_checked_like_any_other(transform: Jvp | Vjp) -> None:
    graph = graph_of("(double[n] x) => (double[n] y) { y = Sin(x) }")
    added = "x.tangent" if isinstance(transform, Jvp) else "y.cotangent"
    with pytest.raises(InvalidInput, match=f"input '{added}' .* is missing"):
        kernel_of(graph, {"x": np.ones(3)}, transform)
    with pytest.raises(InvalidInput, match=rf"'{added}' should be float64\[3\], not float64\[4\]"):
        kernel_of(graph, {"x": np.ones(3), added: np.ones(4)}, transform)
    with pytest.raises(InvalidInput, match=r"no input 'x\.nonsense'"):
        kernel_of(graph, {"x": np.ones(3), added: np.ones(3), "x.nonsense": np.ones(3)}, transform)


def test_shapes_that_a_node_cannot_take_are_refused_by_node_in_one_line() -> None:
    graph = graph_of("(double[n] x, double[m] z) => (double[k] y) { y = Add(x, z) }")
    with pytest.raises(InvalidGraph, match=r"node #0 \(Add\).*float64\[2\], float64\[3\]") as refusal:
        kernel_of(graph, {"x": np.ones(2), "z": np.ones(3)})
    assert "\n" not in str(refusal.value)


def test_the_limit_on_arrays_holds_for_the_shapes_at_hand() -> None:
    graph = graph_of(
        "(double[n, 1] x, double[1, n] z) => (double s) { p = Mul(x, z) s = ReduceSum<keepdims = 0>(p) }"
    )
    inputs = {"x": np.ones((2000, 1)), "z": np.ones((1, 2000))}
    assert value_of(graph, inputs)["s"] == 4e6
    with pytest.raises(LimitExceeded) as refusal:
        plan_of(graph, inputs, limits=Limits(array_bytes=1 << 20))
    assert (refusal.value.limit, refusal.value.requested) == ("array_bytes", 32_000_000)


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"]
)
def test_values_of_every_dtype_pass_through_unchanged(dtype: str) -> None:
    name = {"float64": "double", "float32": "float"}.get(dtype, dtype)
    graph = graph_of(
        f"({name}[4] x) => ({name}[2, 2] y) {{ s = Constant<value_ints = [2, 2]>() y = Reshape(x, s) }}"
    )
    x = np.array([0, 1, 2, 3]).astype(dtype_of(dtype))
    result = value_of(graph, {"x": x})["y"]
    assert result.dtype == dtype_of(dtype)
    np.testing.assert_array_equal(result, x.reshape(2, 2))


def test_an_input_that_is_no_tensor_cannot_be_given() -> None:
    graph = graph_of(
        "(seq(double[2]) s) => (double[2] y) { i = Constant<value_int = 0>() y = SequenceAt(s, i) }"
    )
    with pytest.raises(InvalidInput, match="'s' is not a numeric tensor"):
        kernel_of(graph, {"s": np.ones(2)})


def test_an_output_that_is_no_tensor_is_left_out() -> None:
    graph = graph_of(
        "(double[4] x) => (double[4] y, seq(double[2]) s) "
        "{ y = Sin(x) l = Constant<value_int = 2>() s = SplitToSequence(x, l) }"
    )
    assert list(value_of(graph, {"x": np.zeros(4)})) == ["y"]


def test_an_unused_input_is_still_an_input() -> None:
    graph = graph_of("(double[2] x, double[3] unused) => (double[2] y) { y = Sin(x) }")
    inputs = {"x": np.zeros(2), "unused": np.ones(3)}
    assert list(value_of(graph, inputs)) == ["y"]
    with pytest.raises(InvalidInput, match="'unused'"):
        kernel_of(graph, {"x": np.zeros(2)})


def test_an_input_may_be_an_output_and_an_output_a_constant() -> None:
    graph = graph_of(
        "(double x) => (double y, double c) { y = Identity(x) c = Constant<value = double {3.0}>() }"
    )
    results = value_of(graph, {"x": np.array(2.0)}, Gradient(of="c", keep_values=True))
    assert results == {"x.gradient": 0.0, "y": 2.0, "c": 3.0}
