"""Reductions, arg-extremes, top-k and running sums: axes in every opset, kinks, empty sets."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from gradwire_engine.errors import InvalidGraph
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_op, gradient_of, one_node, run

X = np.random.default_rng(0).uniform(0.3, 2.0, (2, 3, 4))

REDUCTIONS: dict[str, Any] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceProd": np.prod,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceL1": lambda x, axis: np.abs(x).sum(axis),
    "ReduceL2": lambda x, axis: np.sqrt(np.square(x).sum(axis)),
    "ReduceSumSquare": lambda x, axis: np.square(x).sum(axis),
    "ReduceLogSum": lambda x, axis: np.log(x.sum(axis)),
    "ReduceLogSumExp": lambda x, axis: scipy.special.logsumexp(x, axis),
}


@pytest.mark.parametrize("op", REDUCTIONS)
def test_a_reduction_reads_its_axes_as_attribute_or_input_and_differentiates_twice(op: str) -> None:
    expected = REDUCTIONS[op](X, axis=(0, 2))
    np.testing.assert_allclose(run(op, X, np.array([-1, 0]), keepdims=0), expected, rtol=1e-14)
    np.testing.assert_allclose(run(op, X, opset=11, axes=[0, 2], keepdims=0), expected, rtol=1e-14)
    assert run(op, X, np.array([1])).shape == (2, 1, 4)
    assert run(op, X).shape == (1, 1, 1)
    check_op(op, X, np.array([1, 2]), wrt=[0], check={"order": 2})


@pytest.mark.parametrize("op", REDUCTIONS)
def test_no_axes_with_noop_leaves_only_the_pointwise_part(op: str) -> None:
    pointwise = {"ReduceSumSquare": np.square, "ReduceLogSum": np.log}.get(op, np.positive)
    result = run(op, X, np.array([], np.int64), noop_with_empty_axes=1)
    np.testing.assert_allclose(result, pointwise(X), rtol=1e-15)


EMPTY = {
    "ReduceSum": 0.0,
    "ReduceProd": 1.0,
    "ReduceMax": -np.inf,
    "ReduceMin": np.inf,
    "ReduceL1": 0.0,
    "ReduceL2": 0.0,
    "ReduceLogSum": -np.inf,
    "ReduceLogSumExp": -np.inf,
}


@pytest.mark.parametrize("op", EMPTY)
def test_an_empty_set_reduces_to_the_neutral_element(op: str) -> None:
    result = run(op, np.ones((2, 0)), np.array([1]), keepdims=0)
    np.testing.assert_array_equal(result, [EMPTY[op]] * 2)


def test_an_empty_set_of_integers_has_the_widest_extremes() -> None:
    for op, bound in (("ReduceMax", np.iinfo(np.int32).min), ("ReduceMin", np.iinfo(np.int32).max)):
        assert run(op, np.ones((0,), np.int32), keepdims=0) == bound


def test_extremes_of_booleans_are_any_and_all() -> None:
    x = np.array([[True, False], [True, True]])
    for value in (x, jnp.asarray(x)):
        for op, expected in (("ReduceMax", [True, True]), ("ReduceMin", [False, True])):
            (result,) = evaluate(
                one_node(op, x, np.array([1]), keepdims=0), {"x0": value, "x1": np.array([1])}
            )
            np.testing.assert_array_equal(result, expected)


def test_equal_extremes_share_the_derivative_equally() -> None:
    for op in ("ReduceMax", "ReduceMin"):
        for jacobian in gradient_of(op, np.ones(4)):
            np.testing.assert_allclose(jacobian, np.full((1, 4), 0.25))


@pytest.mark.parametrize("op", ["ReduceL1", "ReduceL2"])
def test_a_norm_has_derivative_zero_at_the_zero_vector(op: str) -> None:
    for jacobian in gradient_of(op, np.zeros(3)):
        np.testing.assert_array_equal(jacobian, 0)


def test_a_product_with_zeros_differentiates() -> None:
    for x in (np.array([0.0, 2.0, 3.0]), np.array([0.0, 0.0, 3.0])):
        jacobian = check_op("ReduceProd", x, check={"order": 2})
        np.testing.assert_allclose(jacobian[0], [np.prod(np.delete(x, i)) for i in range(3)])


def test_log_sum_exp_neither_overflows_nor_gives_nan_for_absent_terms() -> None:
    x = np.array([[1e4, 1e4], [-np.inf, 0.0], [-np.inf, -np.inf], [np.inf, 0.0]])
    result = run("ReduceLogSumExp", x, np.array([1]), keepdims=0)
    np.testing.assert_allclose(result, scipy.special.logsumexp(x, 1), rtol=1e-15)
    for jacobian in gradient_of("ReduceLogSumExp", x[:3], np.array([1]), wrt=[0]):
        expected = np.zeros((3, 3, 2))
        expected[0, 0], expected[1, 1] = 0.5, [0, 1]
        np.testing.assert_allclose(jacobian.reshape(3, 3, 2), expected)


def test_halves_are_summed_in_float32() -> None:
    x = np.full(5000, 1.0, np.float16)
    assert run("ReduceMean", x, keepdims=0) == 1
    assert run("ReduceMean", x).dtype == np.float16


def test_integer_reductions_keep_their_dtype() -> None:
    x = np.array([[3, 4], [5, 12]], np.int32)
    for op, expected in (("ReduceL2", [5, 13]), ("ReduceSum", [7, 17]), ("ReduceMean", [3, 8])):
        result = run(op, x, np.array([1]), keepdims=0)
        assert result.dtype == np.int32
        np.testing.assert_array_equal(result, expected)


def test_an_axis_out_of_range_is_refused_by_name() -> None:
    with pytest.raises(InvalidGraph, match=r"ReduceSum.*axis 3"):
        run("ReduceSum", X, np.array([3]))


@pytest.mark.parametrize("keepdims", [0, 1])
def test_arg_extremes_choose_the_first_or_the_last_of_equals(keepdims: int) -> None:
    x = np.array([[1.0, 3.0, 3.0, 1.0]])
    for op, first, last in (("ArgMax", 1, 2), ("ArgMin", 0, 3)):
        index = run(op, x, axis=1, keepdims=keepdims)
        assert index.dtype == np.int64 and index.shape == ((1, 1) if keepdims else (1,))
        assert index.item() == first
        assert run(op, x, axis=1, select_last_index=1).item() == last


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_top_k_is_a_stable_sort_cut_short(largest: int, axis: int) -> None:
    x = np.random.default_rng(1).integers(0, 4, (4, 5)).astype(float)
    order = np.argsort(-x if largest else x, axis, stable=True).take(range(3), axis)
    values, indices = run("TopK", x, np.array([3]), outputs=2, axis=axis, largest=largest)
    np.testing.assert_array_equal(indices, order)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, axis))


@pytest.mark.parametrize("largest", [0, 1])
def test_top_k_takes_both_zeros_for_equal_and_every_nan_for_the_largest(largest: int) -> None:
    x = np.array([0.0, -0.0, -1.0, 0.0, np.nan, -np.nan, 1.0, -0.0])
    _, indices = run("TopK", x, np.array([8]), outputs=2, largest=largest)
    expected = [4, 5, 6, 0, 1, 3, 7, 2] if largest else [2, 0, 1, 3, 7, 6, 4, 5]
    np.testing.assert_array_equal(indices, expected)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_top_k_orders_integers_at_both_ends_of_their_range(dtype: type) -> None:
    limits = np.iinfo(dtype)
    x = np.array([limits.max, limits.min, 5, limits.max], dtype)
    for largest, expected in ((1, [0, 3, 2]), (0, [1, 2, 0])):
        _, indices = run("TopK", x, np.array([3]), outputs=2, largest=largest)
        np.testing.assert_array_equal(indices, expected)


def test_the_derivative_of_top_k_goes_to_the_elements_chosen() -> None:
    x = np.random.default_rng(1).permutation(np.arange(10.0)).reshape(2, 5)
    for largest in (0, 1):
        jacobian = check_op("TopK", x, np.array([2]), outputs=2, axis=0, largest=largest, wrt=[0])
        assert jacobian.sum() == jacobian.shape[0]


def test_a_k_over_the_size_of_the_axis_is_refused_by_name() -> None:
    with pytest.raises(InvalidGraph, match=r"TopK.*k is 9"):
        run("TopK", X, np.array([9]), outputs=2)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("op", ["CumSum", "CumProd"])
def test_running_sums_and_products_agree_with_numpy(op: str, reverse: int, exclusive: int) -> None:
    function, neutral = (np.cumsum, 0.0) if op == "CumSum" else (np.cumprod, 1.0)
    x = X[:, :, 0] - 1
    source = np.flip(x, 1) if reverse else x
    expected = function(source, axis=1)
    if exclusive:
        expected = np.concatenate([np.full((2, 1), neutral), expected[:, :-1]], 1)
    expected = np.flip(expected, 1) if reverse else expected
    options = {"opset": 26, "exclusive": exclusive, "reverse": reverse}
    np.testing.assert_allclose(run(op, x, np.array(1), **options), expected, rtol=1e-14)
    x[0, 1] = 0  # a factor of zero may not turn a derivative into NaN
    check_op(op, x, np.array(1), wrt=[0], check={"order": 2}, **options)


def test_an_exclusive_sum_does_not_subtract_what_it_leaves_out() -> None:
    x = np.array([1.0, np.inf, 2.0])
    np.testing.assert_array_equal(run("CumSum", x, np.array(0), exclusive=1), [0, 1, np.inf])
