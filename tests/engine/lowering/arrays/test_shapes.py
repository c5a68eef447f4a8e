"""Shape operators: values against NumPy, derivatives, folding, and limits checked before allocation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from gradwire_engine.errors import InvalidGraph, LimitExceeded, ValueNeeded
from gradwire_engine.lowering import evaluate
from tests.engine.lowering.derivative_checks import check_op, one_node, run

X = np.random.default_rng(3).normal(size=(2, 3, 4))


def i64(*values: object) -> np.ndarray:
    return np.array(values, np.int64)


def test_shape_and_size_are_known_while_the_array_is_traced() -> None:
    def values(x: jax.Array) -> jax.Array:
        shape = evaluate(one_node("Shape", X, start=-2, end=3), {"x0": x})[0]
        size = evaluate(one_node("Size", X), {"x0": x})[0]
        assert isinstance(shape, np.ndarray)
        assert shape.tolist() == [3, 4]
        assert size.dtype == np.int64
        assert int(size) == 24
        return x

    jax.eval_shape(values, jnp.asarray(X))


def test_shape_arithmetic_folds_through_gather_concat_and_reshape() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 21]>
        g (double[n, m] x) => (double[k, r] y) {
            s = Shape (x)
            zero = Constant <value_ints: ints = [0]> ()
            first = Gather (s, zero)
            rest = Constant <value_ints: ints = [-1, 1]> ()
            last = Slice (rest, zero, first)
            target = Concat <axis = 0> (first, rest)
            three = Reshape (x, target)
            axes = Constant <value_ints: ints = [2]> ()
            y = Squeeze (three, axes)
        }"""
    )
    x = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(jax.jit(lambda x: evaluate(model, {"x": x})[0])(x), x)


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((4, -1), {}, (4, 6)),
        ((0, 0, -1, 2), {}, (2, 3, 2, 2)),
        ((24,), {}, (24,)),
    ],
)
def test_reshape_copies_sizes_for_zero_and_infers_minus_one(
    shape: tuple[int, ...], options: dict[str, int], expected: tuple[int, ...]
) -> None:
    result = run("Reshape", X, i64(*shape), **options)
    np.testing.assert_array_equal(result, X.reshape(expected))
    check_op("Reshape", X, i64(*shape), **options)


def test_reshape_with_allowzero_means_zero() -> None:
    assert run("Reshape", np.zeros((0, 3)), i64(3, 0), allowzero=1).shape == (3, 0)


def test_reshape_to_a_traced_shape_is_refused_by_name() -> None:
    model = one_node("Reshape", X, i64(-1))
    with pytest.raises(ValueNeeded, match=r"node Reshape \(Reshape\): the shape depends on the value"):
        jax.eval_shape(lambda s: evaluate(model, {"x0": X, "x1": s})[0], jnp.zeros(1, int))


def test_reshape_that_does_not_fit_names_the_node_and_shapes() -> None:
    with pytest.raises(InvalidGraph, match=r"\(Reshape\).*float64\[2, 3, 4\]"):
        run("Reshape", X, i64(5, 5))


def test_flatten_and_squeeze_and_unsqueeze_take_negative_axes() -> None:
    assert run("Flatten", X, axis=-1).shape == (6, 4)
    assert run("Flatten", X, axis=0).shape == (1, 24)
    assert run("Unsqueeze", X, i64(-1, 0)).shape == (1, 2, 3, 4, 1)
    assert run("Squeeze", X[:1, None], i64(-4)).shape == (1, 3, 4)
    assert run("Squeeze", X[:1, None]).shape == (3, 4)


def test_squeeze_and_unsqueeze_take_attributes_before_opset_13() -> None:
    assert run("Unsqueeze", X, axes=[0, 4], opset=11).shape == (1, 2, 3, 4, 1)
    assert run("Squeeze", X[:1], axes=[0], opset=11).shape == (3, 4)


def test_squeeze_of_an_axis_with_more_than_one_element_is_refused() -> None:
    with pytest.raises(InvalidGraph, match="axis 1 has size 3"):
        run("Squeeze", X, i64(1))


def test_transpose_reverses_by_default() -> None:
    np.testing.assert_array_equal(run("Transpose", X), X.T)
    np.testing.assert_array_equal(run("Transpose", X, perm=[1, 0, 2]), X.transpose(1, 0, 2))
    check_op("Transpose", X, perm=[2, 0, 1])


def test_concat_joins_along_any_axis() -> None:
    other = X[:, :1] * 2
    np.testing.assert_array_equal(run("Concat", X, other, axis=-2), np.concatenate([X, other], 1))
    check_op("Concat", X, other, axis=1)


@pytest.mark.parametrize(
    ("sizes", "options", "expected"),
    [
        (None, {"outputs": 3, "num_outputs": 3, "axis": 2}, (2, 2, 0)),
        (None, {"outputs": 3, "axis": 1, "opset": 13}, (1, 1, 1)),
        (i64(1, 0, 3), {"outputs": 3, "axis": -1}, (1, 0, 3)),
        (None, {"outputs": 2, "axis": 2, "split": [3, 1], "opset": 11}, (3, 1)),
    ],
)
def test_split_reads_sizes_from_input_attribute_or_count(
    sizes: np.ndarray | None, options: dict[str, object], expected: tuple[int, ...]
) -> None:
    inputs = [X] if sizes is None else [X, sizes]
    pieces = run("Split", *inputs, **options)
    axis = int(str(options["axis"])) % 3
    assert tuple(piece.shape[axis] for piece in pieces) == expected
    np.testing.assert_array_equal(np.concatenate(pieces, axis), X)
    check_op("Split", *inputs, **options)


def test_split_makes_the_last_piece_smaller_when_uneven() -> None:
    pieces = run("Split", np.arange(7.0), outputs=4, num_outputs=4)
    assert [piece.size for piece in pieces] == [2, 2, 2, 1]


def test_split_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(InvalidGraph, match=r"split \[1, 1\] does not add up to 4"):
        run("Split", X, i64(1, 1), outputs=2, axis=2)


def test_expand_broadcasts_both_ways() -> None:
    np.testing.assert_array_equal(run("Expand", X[:, :1], i64(3, 1)), np.broadcast_to(X[:, :1], (2, 3, 4)))
    check_op("Expand", X[:, :1], i64(2, 1, 3, 4))


def test_tile_repeats_every_axis() -> None:
    np.testing.assert_array_equal(run("Tile", X, i64(1, 2, 3)), np.tile(X, (1, 2, 3)))
    check_op("Tile", X, i64(2, 1, 2))


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value_float": 0.1}, np.float32(0.1)),
        ({"value_floats": [0.1, 2]}, np.array([0.1, 2], np.float32)),
        ({"value_int": 3}, np.int64(3)),
        ({"value_ints": [3, 4]}, i64(3, 4)),
        ({"value": onnx.numpy_helper.from_array(np.float64(0.1))}, np.float64(0.1)),
    ],
)
def test_constant_keeps_the_type_of_its_attribute(
    attributes: dict[str, object], expected: np.ndarray
) -> None:
    result = run("Constant", **attributes)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


def test_sparse_constant_is_dense_from_linear_or_tuple_indices() -> None:
    values = onnx.numpy_helper.from_array(np.array([1.5, 2.5]), "v")
    for indices in (i64(1, 5), i64([0, 1], [1, 2])):
        sparse = onnx.helper.make_sparse_tensor(values, onnx.numpy_helper.from_array(indices, "i"), [2, 3])
        np.testing.assert_array_equal(run("Constant", sparse_value=sparse), [[0, 1.5, 0], [0, 0, 2.5]])


def test_constant_of_shape_is_a_float32_zero_unless_told() -> None:
    assert run("ConstantOfShape", i64(2, 3)).dtype == np.float32
    one = onnx.numpy_helper.from_array(np.ones(1, np.int8))
    np.testing.assert_array_equal(run("ConstantOfShape", i64(2), value=one), np.ones(2, np.int8))


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("ConstantOfShape", [i64(1_000_000, 1_000_000)]),
        ("Expand", [np.ones(1, np.int64), i64(1_000_000, 1_000_000)]),
        ("Tile", [np.ones((2, 2), np.int64), i64(500_000, 500_000)]),
        ("Range", [np.int64(0), np.int64(10**12), np.int64(1)]),
        ("Pad", [np.ones(1, np.int64), i64(0, 10**12)]),
        ("OneHot", [i64(1), i64(10**12), i64(0, 1)]),
    ],
)
def test_a_small_graph_that_asks_for_terabytes_is_refused_before_it_allocates(
    op: str, inputs: list[np.ndarray]
) -> None:
    with pytest.raises(LimitExceeded, match=f"{op}.*the limit for one array"):
        run(op, *inputs)


@pytest.mark.parametrize(
    ("start", "limit", "delta"),
    [(1, 5, 2), (10, 4, -2), (3, 3, 1), (5, 1, 1), (np.float64(0.1), 1.0, 0.3), (np.float32(1), 5, 2)],
)
def test_range_counts_up_and_down(start: float, limit: float, delta: float) -> None:
    dtype = np.asarray(start).dtype
    expected = np.arange(start, limit, delta).astype(dtype)
    inputs = {f"x{k}": np.asarray(value, dtype) for k, value in enumerate((start, limit, delta))}
    result = evaluate(one_node("Range", *inputs.values()), inputs)[0]
    assert isinstance(result, np.ndarray)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, rtol=1e-6 if dtype == np.float32 else 1e-15)


def test_range_of_a_traced_limit_is_refused_by_name() -> None:
    with pytest.raises(ValueNeeded, match=r"\(Range\): start depends on the value of a graph input"):
        run("Range", np.float64(0), np.float64(1), np.float64(0.5))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back_is_the_identity(mode: str) -> None:
    x = np.random.default_rng(0).normal(size=(2, 8, 2, 3))
    wide = run("DepthToSpace", x, blocksize=2, mode=mode, opset=28)
    assert wide.shape == (2, 2, 4, 6)
    np.testing.assert_array_equal(run("SpaceToDepth", wide, blocksize=2, mode=mode, opset=28), x)
    check_op("DepthToSpace", x[:1], blocksize=2, mode=mode)
    check_op("SpaceToDepth", wide[:1], blocksize=2)


def test_one_hot_wraps_negative_indices_and_leaves_those_outside_off() -> None:
    indices, depth = i64([0, -1], [3, -4]), i64(3)
    values = np.array([-1.0, 2.0])
    expected = np.full((2, 2, 3), -1.0)
    expected[0, 0, 0] = expected[0, 1, 2] = 2.0
    np.testing.assert_array_equal(run("OneHot", indices, depth, values), expected)
    np.testing.assert_array_equal(run("OneHot", indices, depth, values, axis=0), np.moveaxis(expected, -1, 0))
    check_op("OneHot", indices, depth, values)
