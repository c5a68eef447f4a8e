"""What traced loops, branches and batches leave in the graph, and what stays as it is around them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import gradwire as gw
from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec
from tests.client.frontends.numpy.control_flow.oracle import agree, flat_leaves, function, ours, traced
from tests.client.frontends.numpy.control_flow.programs import (
    RNG,
    ROWS,
    X,
    accumulate,
    batch,
    branch,
    counted,
    square_root,
    steps_without_arrays,
)
from tests.client.frontends.numpy.oracle import by_reference, operators


def bodies(model: Any) -> list[Any]:
    return [item.g for node in model.graph.node for item in node.attribute if item.HasField("g")]


def test_a_loop_is_one_node_however_many_steps_it_has() -> None:
    sizes = {
        length: len(trace(lambda x, n=length: gw.fori(0, n, lambda i, c: c * x, x), [spec(3)]).graph.node)
        for length in (2, 1000)
    }
    assert sizes[2] == sizes[1000]
    assert operators(traced(accumulate, X, ROWS)).count("Scan") == 1
    assert operators(traced(steps_without_arrays, X)).count("Loop") == 1
    assert operators(traced(branch, X)).count("If") == 1
    assert operators(traced(batch, X, ROWS)).count("Vmap") == 1


def test_models_with_a_batch_inside_a_branch_import_the_extension_domain() -> None:
    model = trace(lambda x: gw.cond(x[0] > 0, lambda: gw.vmap(np.sin)(x), lambda: x), [spec(3)])
    assert [item.domain for item in model.opset_import] == ["", "gradwire.sci"]


def test_constants_of_bodies_are_stored_once_with_the_functions_own() -> None:
    table = RNG.normal(size=(3, 3))

    def program(x: Any) -> Any:
        once = gw.fori(0, 2, lambda i, c: table @ c, x)
        twice = gw.vmap(lambda a: gw.cond(a > 0, lambda: table @ x * a, lambda: table[0]))(x)
        return table @ x, once, twice

    model = trace(program, [spec(3)])
    stored = [item for item in model.graph.initializer if list(item.dims) == [3, 3]]
    assert len(stored) == 1
    assert not any(body.initializer for body in bodies(model))


def test_arrays_of_one_number_can_be_shared_between_bodies() -> None:
    def program(np: Any, gw: Any, x: Any) -> Any:
        first = gw.fori(0, 2, lambda i, c: c * np.ones(100) * x[0], np.ones(100))
        second = gw.fori(0, 2, lambda i, c: c + np.ones(100) * x[1], np.ones(100))
        return first + second

    agree(program, X)


def test_what_no_result_of_a_body_needs_is_left_out_of_it() -> None:
    def step(c: Any, row: Any) -> Any:
        _ = np.exp(np.linalg.inv(np.outer(c, row)))
        return c * row, None

    model = trace(lambda x, rows: gw.scan(step, x, rows)[0], [spec(3), spec((4, 3))])
    (body,) = bodies(model)
    assert [node.op_type for node in body.node] == ["Mul"]


def test_what_only_a_body_needs_is_kept() -> None:
    model = trace(lambda x: gw.fori(0, 3, lambda i, c: c * np.exp(x) * 3.0, x), [spec(3)])
    result = by_reference(model, {"x": X})[0]
    expected = X * (3.0 * np.exp(X)) ** 3
    np.testing.assert_allclose(result, expected, rtol=1e-13)


def test_a_value_that_is_an_output_too_can_be_captured() -> None:
    def program(np: Any, gw: Any, x: Any) -> Any:
        y = np.sin(x)
        return y, gw.fori(0, 2, lambda i, c: c * y, x)

    agree(program, X)


def test_an_array_filled_before_a_loop_is_read_as_it_is_and_changed_only_afterwards() -> None:
    def program(x: Any) -> Any:
        table = gw.zeros(3)
        table[0], table[2] = x[1], x[0]
        view = table[1:]
        total = gw.fori(0, 2, lambda i, c: c + table[i] * view, x[:2] * 1.0)
        table[1] = 5.0
        again = gw.cond(x[0] > 100, lambda: table * 2, lambda: table + view[0])
        return total, again, table

    expected = flat_leaves(program(X))
    actual = function(trace(program, [spec(3)], ["x0"]), 1)(X)
    for found, want in zip(actual, expected, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-14)


def test_assignment_to_an_operand_of_a_branch_or_a_whole_argument_of_a_batch_stays_there() -> None:
    def double_first(y: Any, a: Any = 1.0) -> Any:
        y[0] *= 2 * a
        return y

    def program(x: Any) -> Any:
        y = x * 1.0
        branched = gw.cond(x[0] > 100, lambda v: v, double_first, y)
        mapped = gw.vmap(double_first, in_axes=(None, 0))(y, x)
        return branched, mapped, y, gw.cond(True, double_first, double_first, y), y

    expected = flat_leaves(program(X))
    np.testing.assert_array_equal(expected[2], X)
    np.testing.assert_array_equal(expected[4], X)
    actual = function(trace(program, [spec(3)], ["x0"]), 1)(X)
    for found, want in zip(actual, expected, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-14)


def test_init_and_xs_are_left_as_they_are() -> None:
    def step(c: Any, row: Any) -> Any:
        c += 1
        row *= 2
        return c, row

    start, rows = np.zeros(3), np.ones((4, 3))
    final, ys = gw.scan(step, start, rows)
    np.testing.assert_array_equal(final, np.full(3, 4.0))
    np.testing.assert_array_equal(ys, 2 * np.ones((4, 3)))
    assert not start.any()
    assert (rows == 1).all()


class State(NamedTuple):
    q: Any
    v: Any


def test_named_tuples_and_the_order_of_keys_are_kept() -> None:
    def run(x: Any) -> Any:
        state = gw.fori(0, 2, lambda i, s: State(v=s.v - s.q, q=s.q + s.v), State(x, x))
        assert isinstance(state, State)
        found = gw.fori(0, 2, lambda i, s: {"a": s["b"], "b": s["a"]}, {"b": x, "a": 2 * x})
        assert list(found) == ["b", "a"]
        return state.q, state.v, found["a"]

    expected = flat_leaves(run(X))
    for found, want in zip(function(trace(run, [spec(3)], ["x0"]), 1)(X), expected, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-14)


def test_empty_batches_and_scans_have_the_shapes_that_a_trace_finds() -> None:
    def run(rows: Any) -> Any:
        mapped = gw.vmap(lambda row: (row.sum(), np.outer(row, row)), out_axes=(0, 1))(rows)
        return mapped, gw.scan(lambda c, row: (c + 1.0, row[:2]), 0.0, rows)

    rows = np.zeros((0, 3))
    expected = flat_leaves(run(rows))
    assert [item.shape for item in expected] == [(0,), (3, 0, 3), (), (0, 2)]

    def flat(rows: Any) -> Any:
        (a, b), (c, d) = run(rows)
        return a, b, c, d

    model = trace(flat, [spec((0, 3))], ["x0"])
    for found, want in zip(function(model, 1)(rows), expected, strict=True):
        np.testing.assert_array_equal(found, want)


def test_empty_batches_of_complex_numbers_are_complex() -> None:
    def turn(z: Any) -> Any:
        return z * 1j

    assert gw.vmap(turn)(np.zeros((0, 2), complex)).dtype == np.complex128
    final, ys = gw.scan(lambda c, z: (c * z, turn(z)), 1j, np.zeros(0, np.complex64))
    assert (final, ys.shape, ys.dtype) == (1j, (0,), np.complex64)


def test_a_known_condition_chooses_while_tracing() -> None:
    model = trace(lambda x: gw.cond(np.bool_(True), np.sin, lambda y: 1 / 0, x), [spec(3)])
    assert operators(model) == ["Sin"]


def test_results_agree_with_onnxs_own_evaluator() -> None:
    for program, arguments in [
        (accumulate, (X, ROWS)),
        (counted, (X,)),
        (square_root, (1.0, 7.0)),
        (branch, (X,)),
    ]:
        arrays = [np.asarray(argument) for argument in arguments]
        model = traced(program, *arrays)
        found = by_reference(model, {f"x{i}": array for i, array in enumerate(arrays)})
        expected = flat_leaves(ours(program)(*arrays))
        for actual, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(actual, want, rtol=1e-12, err_msg=program.__name__)
