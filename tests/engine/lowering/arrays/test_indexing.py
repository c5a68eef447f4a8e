"""Indexing operators: values against NumPy, derivatives in both modes, refusals by name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradwire_engine.errors import InvalidGraph, ValueNeeded
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_op, function_of, gradient_of, one_node, run

INT64 = np.iinfo(np.int64)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def i64(*values: object) -> np.ndarray:
    return np.array(values, np.int64)


def test_gather_reads_negative_indices_from_the_end() -> None:
    x = rng().normal(size=(4, 3))
    index = np.array([[-1, 0], [2, -4]])
    np.testing.assert_array_equal(run("Gather", x, index, axis=0), x[index])
    check_op("Gather", x, index, axis=0, check={"order": 2})


def test_gather_with_traced_indices_reads_the_same_and_nan_outside() -> None:
    x = rng().normal(size=(4, 3))
    model = one_node("Gather", x, i64(0), axis=1)
    read = jax.jit(lambda x, i: evaluate(model, {"x0": x, "x1": i})[0])
    np.testing.assert_array_equal(read(x, i64(-1, 1)), x[:, [-1, 1]])
    assert np.isnan(read(x, i64(3))).all()


def test_gather_outside_the_axis_is_refused_with_the_index() -> None:
    with pytest.raises(InvalidGraph, match=r"index 4 is outside an axis of size 4"):
        run("Gather", np.zeros(4), i64(4))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements_takes_along_the_axis(axis: int) -> None:
    x = rng().normal(size=(3, 4))
    index = rng().integers(-3, 3, size=(2, 3))
    expected = np.take_along_axis(x[:, :3] if axis == 0 else x[:2], index % x.shape[axis], axis)
    np.testing.assert_array_equal(run("GatherElements", x, index, axis=axis), expected)
    check_op("GatherElements", x, index, axis=axis)


def test_gather_nd_shares_batch_dims() -> None:
    x = rng().normal(size=(2, 3, 4, 2))
    index = i64([[0, 1], [2, -1]], [[1, 1], [0, 0]])
    expected = np.stack([x[b][tuple(index[b].T)] for b in range(2)])
    np.testing.assert_array_equal(run("GatherND", x, index, batch_dims=1), expected)
    check_op("GatherND", x, index, batch_dims=1)


def test_gather_nd_marks_any_component_outside_as_nan_when_traced() -> None:
    x = rng().normal(size=(2, 3))
    model = one_node("GatherND", x, i64([0, 0]))
    read = jax.jit(lambda i: evaluate(model, {"x0": x, "x1": i})[0])
    # Column 5 of row 0 is no element, though its place in memory is one.
    values = read(i64([0, 5], [1, -1]))
    assert np.isnan(values[0])
    assert values[1] == x[1, 2]


REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("traced", [False, True], ids=["static", "traced"])
def test_scatter_elements_combines_repeated_indices(reduction: str, traced: bool) -> None:
    data, updates = rng().normal(size=(4, 2)), rng().normal(size=(3, 2))
    index = i64([1, 0], [1, 3], [-3, 0])
    expected = data.copy()
    REDUCTIONS[reduction].at(expected, (index % 4, np.arange(2)), updates)
    model = one_node("ScatterElements", data, index, updates, reduction=reduction)
    if traced:
        result = jax.jit(lambda d, i, u: evaluate(model, {"x0": d, "x1": i, "x2": u})[0])(
            data, index, updates
        )
    else:
        result = function_of(model, [data, index, updates])(data, updates)[0]
    np.testing.assert_allclose(result, expected, rtol=1e-15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scatter_elements_has_both_derivatives_for_repeated_indices(reduction: str) -> None:
    data, updates = rng().normal(size=(4, 2)), rng().normal(size=(3, 2))
    index = i64([1, 0], [1, 3], [-3, 0])
    order = 2 if reduction in ("add", "mul") else 1
    check_op("ScatterElements", data, index, updates, reduction=reduction, check={"order": order})


def test_scatter_mul_with_traced_repeated_indices_has_both_derivatives() -> None:
    data, updates = rng().normal(size=5), rng().normal(size=4)
    model = one_node("ScatterElements", data, i64(0), updates, reduction="mul")

    def function(data: jax.Array, updates: jax.Array, index: jax.Array) -> jax.Array:
        return evaluate(model, {"x0": data, "x1": index, "x2": updates})[0]

    index = i64(3, 0, 3, 3)
    forward = jax.jit(jax.jacfwd(function, (0, 1)))(data, updates, index)
    reverse = jax.jit(jax.jacrev(function, (0, 1)))(data, updates, index)
    expected = np.zeros((5, 4))
    expected[0, 1] = data[0]
    for k in (0, 2, 3):
        expected[3, k] = data[3] * np.prod([updates[j] for j in (0, 2, 3) if j != k])
    for left, right in zip(forward, reverse, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-13)
    np.testing.assert_allclose(forward[1], expected, rtol=1e-13)


def test_scatter_mul_derivative_is_finite_where_factors_are_zero() -> None:
    data, updates, index = np.ones(2), np.array([0.0, 0.0, 3.0]), i64(1, 1, 0)
    forward, reverse = gradient_of("ScatterElements", data, index, updates, reduction="mul")
    np.testing.assert_array_equal(forward, reverse)
    np.testing.assert_array_equal(forward, [[3, 0, 0, 0, 1], [0, 0, 0, 0, 0]])


def test_scatter_max_shares_the_derivative_between_equal_values() -> None:
    forward, reverse = gradient_of("ScatterElements", np.zeros(1), i64(0), np.zeros(1), reduction="max")
    np.testing.assert_array_equal(forward, [[0.5, 0.5]])
    np.testing.assert_array_equal(reverse, [[0.5, 0.5]])


def test_scatter_overwrites_and_the_overwritten_has_no_derivative() -> None:
    jacobian = check_op("Scatter", np.ones((1, 3)), i64([2, 0]), np.full((1, 2), 5.0), axis=1, opset=9)
    np.testing.assert_array_equal(jacobian, [[0, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0]])


@pytest.mark.parametrize("reduction", ["none", *REDUCTIONS])
def test_scatter_nd_writes_rows(reduction: str) -> None:
    data, updates = rng().normal(size=(3, 2, 2)), rng().normal(size=(2, 2))
    index = i64([0, 1], [2, -2])
    expected = data.copy()
    for (row, column), update in zip(index, updates, strict=True):
        old = expected[row, column]
        expected[row, column] = update if reduction == "none" else REDUCTIONS[reduction](old, update)
    np.testing.assert_allclose(run("ScatterND", data, index, updates, reduction=reduction), expected)
    check_op("ScatterND", data, index, updates, reduction=reduction)


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(0, INT64.max, 1), (-1, INT64.min, -1), (3, 0, -2), (1, -1, 2), (5, 2, 1), (-100, 100, 3), (2, 2, -1)],
)
def test_slice_is_a_python_slice(start: int, end: int, step: int) -> None:
    x = rng().normal(size=(5, 2))
    result = run("Slice", x, i64(start), i64(end), i64(0), i64(step))
    np.testing.assert_array_equal(result, x[start:end:step] if end != INT64.min else x[start::step])
    if result.size:
        check_op("Slice", x, i64(start), i64(end), i64(0), i64(step))


def test_slice_takes_attributes_before_opset_10() -> None:
    x = rng().normal(size=(5, 4))
    result = run("Slice", x, starts=[1, -2], ends=[-1, INT64.max], axes=[0, 1], opset=9)
    np.testing.assert_array_equal(result, x[1:-1, -2:])


def test_slice_with_traced_bounds_is_refused_by_name() -> None:
    model = one_node("Slice", np.zeros(4), i64(0), i64(2))
    with pytest.raises(ValueNeeded, match=r"node Slice \(Slice\): ends depends on the value"):
        jax.eval_shape(
            lambda end: evaluate(model, {"x0": jnp.zeros(4), "x1": i64(0), "x2": end}), jnp.zeros(1, int)
        )


def test_compress_keeps_where_the_condition_holds() -> None:
    x, keep = rng().normal(size=(3, 2)), np.array([False, True, True])
    np.testing.assert_array_equal(run("Compress", x, keep, axis=0), x[1:])
    np.testing.assert_array_equal(run("Compress", x, keep), x.ravel()[1:3])
    check_op("Compress", x, keep, axis=0)


def test_nonzero_of_a_traced_array_is_refused_by_name() -> None:
    with pytest.raises(ValueNeeded, match=r"\(NonZero\): how many elements are nonzero"):
        run("NonZero", np.ones(3))


def test_unique_keeps_the_order_of_first_occurrence_when_not_sorted() -> None:
    x = i64(2, 1, 1, 3, 4, 3)
    values, first, inverse, counts = run("Unique", x, outputs=4, sorted=0)
    np.testing.assert_array_equal(values, [2, 1, 3, 4])
    np.testing.assert_array_equal(first, [0, 1, 3, 4])
    np.testing.assert_array_equal(values[inverse], x)
    np.testing.assert_array_equal(counts, [1, 2, 2, 1])


def test_unique_not_sorted_along_an_axis_keeps_whole_slices() -> None:
    x = i64([3, 1], [0, 1], [3, 1])
    values, first, inverse, counts = run("Unique", x, outputs=4, sorted=0, axis=0)
    np.testing.assert_array_equal(values, x[:2])
    np.testing.assert_array_equal(values[inverse], x)
    np.testing.assert_array_equal(first, [0, 1])
    np.testing.assert_array_equal(counts, [2, 1])


def test_unique_of_one_traced_element_is_that_element() -> None:
    values, first, inverse, counts = run("Unique", np.array([2.5]), outputs=4)
    assert (values, first, inverse, counts) == ([2.5], [0], [0], [1])


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_tensor_scatter_writes_each_batch_at_its_own_place(mode: str) -> None:
    cache, update = rng().normal(size=(2, 1, 4, 3)), rng().normal(size=(2, 1, 2, 3))
    starts = i64(2, 0) if mode == "linear" else i64(3, 1)
    expected = cache.copy()
    for batch in range(2):
        for step in range(2):
            expected[batch, :, (starts[batch] + step) % 4] = update[batch, :, step]
    np.testing.assert_array_equal(run("TensorScatter", cache, update, starts, mode=mode), expected)
    check_op("TensorScatter", cache, update, starts, mode=mode)


@pytest.mark.parametrize(("time_axis", "batch_axis"), [(0, 1), (1, 0)])
def test_reverse_sequence_reverses_only_the_given_lengths(time_axis: int, batch_axis: int) -> None:
    x = rng().normal(size=(3, 3, 2))
    lengths = i64(1, 2, 3)
    expected = x.copy()
    for batch, length in enumerate(lengths):
        if time_axis == 0:
            expected[:length, batch] = x[:length, batch][::-1]
        else:
            expected[batch, :length] = x[batch, :length][::-1]
    result = run("ReverseSequence", x, lengths, time_axis=time_axis, batch_axis=batch_axis)
    np.testing.assert_array_equal(result, expected)
    check_op("ReverseSequence", x, lengths, time_axis=time_axis, batch_axis=batch_axis)


@pytest.mark.parametrize("op", ["GatherElements", "GatherND"])
def test_empty_indices_give_an_empty_result_of_the_data_s_type(op: str) -> None:
    shape = (0, 3) if op == "GatherElements" else (0, 1)
    result = run(op, np.zeros((2, 3), np.float32), np.zeros(shape, np.int64))
    assert result.shape == (0, 3)
    assert result.dtype == np.float32
