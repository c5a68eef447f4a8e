"""Indexing, assignment and views behave as on NumPy's arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradwire.frontends import numpy as tracing
from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec
from tests.client.frontends.numpy.oracle import agree, by_reference, operators

RNG = np.random.default_rng(1)
CUBE = RNG.normal(size=(4, 5, 6))
MASK = RNG.random((4, 5)) > 0.5

KEYS: dict[str, Any] = {
    "int": 1,
    "negative int": -1,
    "ints": (1, 2, 3),
    "numpy int": np.int32(2),
    "slice": slice(1, 3),
    "steps": (slice(None, None, 2), slice(4, 0, -2)),
    "reversed": (slice(None, None, -1), slice(None, None, -3), slice(-1, -4, -1)),
    "empty": slice(3, 1),
    "ellipsis": (..., 2),
    "ellipsis in the middle": (1, ..., 2),
    "new axes": (None, 1, None, slice(2), ..., None),
    "list": [0, 2, 2],
    "array": np.array([[0, 1], [3, -1]]),
    "array on an inner axis": (slice(None), np.array([4, 0])),
    "two arrays": (np.array([0, 1, 2]), np.array([4, 3, -2])),
    "two arrays that broadcast": (np.array([[0], [1]]), np.array([4, 3, 2])),
    "arrays apart": (np.array([0, 1]), slice(None), np.array([5, 0])),
    "arrays apart by a new axis": (np.array([0, 1]), None, np.array([4, 0])),
    "int and array apart": (0, slice(None), np.array([5, 0])),
    "int beside an array": (slice(None), 1, np.array([5, 0])),
    "array after slice and new axis": (slice(1, 3), None, np.array([1, 2]), np.array([1, 2])),
    "three arrays": (np.array([1, 2]), np.array([1, 2]), np.array([0, 3])),
    "mask": CUBE > 0,
    "mask of leading axes": MASK,
    "mask of one axis": (slice(None), np.array([True, False, True, True, False])),
    "empty array": np.zeros(0, np.int64),
    "ix_": np.ix_([0, 2], [1, 3], [5, 0]),
}


@pytest.mark.parametrize("name", KEYS)
def test_reading_matches(name: str) -> None:
    agree(lambda x: x[KEYS[name]], CUBE)


@pytest.mark.parametrize("name", KEYS)
def test_assigning_an_array_matches(name: str) -> None:
    key = KEYS[name]
    shape = CUBE[key].shape

    def fn(x: Any, v: Any) -> Any:
        y = x.copy()
        y[key] = v
        return y, x

    agree(fn, CUBE, RNG.normal(size=shape))


@pytest.mark.parametrize("name", KEYS)
def test_adding_in_place_matches(name: str) -> None:
    key = KEYS[name]

    def fn(x: Any) -> Any:
        y = np.zeros_like(x)
        y[key] += 2.0
        y[key] *= x[key]
        return y

    agree(fn, CUBE)


@st.composite
def _cases(draw: Any) -> tuple[tuple[int, ...], Any]:
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5))
    if draw(st.booleans()):
        return shape, draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    arrays = draw(hnp.integer_array_indices(shape[: draw(st.integers(1, len(shape)))]))
    rest = [draw(st.slices(side)) for side in shape[len(arrays) :]]
    key = list(arrays) + rest
    if len(key) == len(shape) and len(set(shape)) == 1:
        key = draw(st.permutations(key))
    return shape, tuple(key)


@given(case=_cases())
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_index_reads_and_writes_as_numpy_does(case: tuple[tuple[int, ...], Any]) -> None:
    shape, key = case
    x = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    values = -1.0 - np.arange(np.size(x[key]), dtype=np.float64).reshape(np.shape(x[key]))

    def fn(x: Any) -> Any:
        y = x.copy()
        y[key] = values
        return x[key], y

    agree(fn, x, engine=False)


@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=4))
@settings(max_examples=60, deadline=None)
def test_any_shapes_broadcast_as_numpy_does(shapes: Any) -> None:
    a, b, c = (RNG.normal(size=shape) for shape in shapes.input_shapes)
    agree(lambda a, b, c: np.where(a > 0, b * c, c - a), a, b, c, engine=False)


def test_traced_indices_read_and_write() -> None:
    i, j = np.array([0, 3, -1]), np.array([1, -5, 2])

    def fn(x: Any, i: Any, j: Any) -> Any:
        y = x.copy()
        y[i, 0] = 7.0
        y[1, j] += 1.0
        return x[i], x[i, j], x[:, j], x[i, :, j], x[i[0]], x[1, i[1], 2:], y

    agree(fn, CUBE, i, j)


def test_a_traced_mask_assigns_one_number() -> None:
    def fn(x: Any) -> Any:
        y = x.copy()
        y[y < 0] = 0.0
        y[x[:, 0, 0] > 0.5] = 3
        return y

    agree(fn, CUBE)


def test_views_share_their_elements() -> None:
    def fn(x: Any) -> Any:
        y = x.copy()
        row, turned, line, part = y[1], y.T, y.reshape(-1), y[:, 1:3]
        y[1, 0] = 10.0
        turned[0, 0] = 20.0
        line[2] = 30.0
        part[...] -= 1.0
        row *= 2.0
        part[0][1] = 5.0
        return y, row, turned, line, part, y.ravel()[3:], y.squeeze()

    agree(fn, CUBE[0])


def test_iteration_yields_views() -> None:
    def fn(x: Any) -> Any:
        y = x.copy()
        for number, row in enumerate(y):
            row += number
        return y

    agree(fn, CUBE[0])


def test_copies_do_not_share_their_elements() -> None:
    def fn(x: Any) -> Any:
        y = x.copy()
        taken, flattened, doubled = y[[0, 1]], y.flatten(), +y
        y[...] = 0.0
        return taken, flattened, doubled, y

    agree(fn, CUBE[0])


def test_writing_to_a_reshaped_strided_view_is_refused() -> None:
    def fn(x: Any) -> Any:
        line = x.T.reshape(-1)
        line[0] = 1.0
        return x

    with pytest.raises(TypeError, match=r"reshaped view.*\.copy\(\)"):
        trace(fn, [spec((2, 3))])


def test_repeated_positions_keep_the_last_value() -> None:
    def fn(x: Any) -> Any:
        y = x.copy()
        y[[1, 2, 1, 1]] = np.array([1.0, 2.0, 3.0, 4.0])
        return y

    agree(fn, RNG.normal(size=4))


def test_assignment_casts_to_the_dtype_of_the_array() -> None:
    def fn(x: Any) -> Any:
        y = np.zeros_like(x, dtype=np.int64)
        y[:] = x * 10
        return y

    agree(fn, RNG.normal(size=5))


def test_a_recurrence_costs_one_node_for_each_element() -> None:
    n = 200

    def fn(x: Any) -> Any:
        y = np.zeros_like(x)
        y[0] = x[0]
        for i in range(1, n):
            y[i] = 0.5 * y[i - 1] + 1.0
        return y

    model = agree(fn, RNG.normal(size=n))
    assert "ScatterND" not in operators(model)
    assert operators(model).count("Mul") == n - 1


def test_a_loop_that_reads_around_itself_matches() -> None:
    def fn(x: Any) -> Any:
        y = x.copy()
        for i in range(1, 5):
            y[i] = y[i - 1] * x[i] + y[i + 1] - y.sum()
        return y

    agree(fn, RNG.normal(size=6))


def test_large_boxes_are_joined_not_scattered() -> None:
    def fn(x: Any) -> Any:
        y = np.zeros_like(x)
        y[1:-1, 1:-1] = x[1:-1, 1:-1] * 4 - x[:-2, 1:-1] - x[2:, 1:-1] - x[1:-1, :-2] - x[1:-1, 2:]
        y[-2:0:-1, 80:9:-1] += 1.0
        return y

    model = agree(fn, RNG.normal(size=(90, 100)))
    assert "ScatterND" not in operators(model)
    assert model.ByteSize() < 10_000


def test_arrays_of_the_tracer_hold_traced_values_and_are_plain_outside() -> None:
    def fn(x: Any) -> Any:
        y = tracing.zeros((2, 2))
        y[0] = x
        z = tracing.full(3, x[0])
        z[1] = 4.0
        o = tracing.ones(2)
        o[0] = x[1]
        return y, z, o

    model = trace(fn, [spec(2)])
    y, z, o = by_reference(model, {"x": np.array([2.0, 3.0])})
    np.testing.assert_array_equal(y, [[2.0, 3.0], [0.0, 0.0]])
    np.testing.assert_array_equal(z, [2.0, 4.0, 2.0])
    np.testing.assert_array_equal(o, [3.0, 1.0])
    assert isinstance(tracing.zeros(2), np.ndarray)


@pytest.mark.parametrize(
    "key",
    [7, -6, (0, 0, 0, 0), np.array([0, 9]), np.array([True, False]), 1.5, "a", (..., ...), np.array([0.5])],
)
def test_keys_that_numpy_rejects_are_rejected(key: Any) -> None:
    read: Callable[[Any], Any] = lambda x: x[key]  # noqa: E731
    with pytest.raises(IndexError):
        read(CUBE)
    with pytest.raises(IndexError):
        trace(read, [spec(CUBE.shape)])


def test_values_that_do_not_fit_are_rejected_as_numpy_does() -> None:
    def fn(x: Any) -> Any:
        x[1:3] = np.zeros(5)
        return x

    with pytest.raises(ValueError, match="could not broadcast"):
        trace(fn, [spec(4)])
