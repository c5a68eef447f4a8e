"""Loops, branches and batches: traced, and run on plain arrays, against JAX's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from client.tracing.control_flow_oracle import agree, flat_leaves, function, ours, registered, traced
from client.tracing.oracle import by_reference, operators

import gradwire as gw
from gradwire.errors import TraceError
from gradwire.spec import spec, spec_of
from gradwire.tracing import trace
from gradwire_engine import inline
from gradwire_engine.errors import NotDifferentiable
from gradwire_engine.plan import PlanOptions, Problem, make_plan
from gradwire_engine.transforms import FunctionSpec

RNG = np.random.default_rng(0)
X = RNG.normal(size=3)
ROWS = RNG.normal(size=(4, 3))
MATRIX = RNG.normal(size=(3, 3)) + 3 * np.eye(3)


def accumulate(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.scan(lambda c, row: (np.sin(c) * row + x, np.dot(c, row)), x * 0.5, rows)


def accumulate_backwards(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.scan(lambda c, row: (np.sin(c) * row + x, c), x * 0.5, rows, reverse=True)


def trees(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    def step(carry: Any, item: Any) -> Any:
        position, (velocity, time) = carry["q"], carry["rest"]
        row, [number] = item["row"], item["numbers"]
        force = -position * row * number
        after = {"rest": (velocity + 0.1 * force, time + 0.1), "q": position + 0.1 * velocity}
        return after, [force.sum(), (time, None)]

    start = {"q": x, "rest": (x * 0, 0.0)}
    return gw.scan(step, start, {"row": rows, "numbers": [np.arange(4.0)]})


def steps_without_arrays(np: Any, gw: Any, x: Any) -> Any:
    return gw.scan(lambda c, _: (np.tanh(c * x) + 1, c[0]), x, length=5)


def steps_without_arrays_backwards(np: Any, gw: Any, x: Any) -> Any:
    return gw.scan(lambda c, _: (np.tanh(c * x) + 1, c), x, None, 5, True)


def only_outputs(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.scan(lambda _, row: (None, np.exp(row) @ x), None, rows)[1]


def only_a_carry(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.scan(lambda c, row: (c * row, None), x, rows)[0]


def the_carry_unchanged_and_twice(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.scan(lambda c, row: ((c[1], c[1]), (row, row, x)), (x, x * 2), rows)


def no_steps(np: Any, gw: Any, x: Any) -> Any:
    (a, b), ys = gw.scan(lambda c, _: ((c[0] * c[1], c[1]), np.outer(c[0], x)), (x, 2.0), length=0)
    return a * 2, b, ys, gw.fori(3, 1, lambda i, c: c * c, x)


def counted(np: Any, gw: Any, x: Any) -> Any:
    return gw.fori(0, 5, lambda i, c: c * np.cos(c) + x[i % 3] * i, x)


def counted_from_below_zero(np: Any, gw: Any, x: Any) -> Any:
    return gw.fori(-2, 3, lambda i, c: (c[0] + x * i, c[1] * 0.5 + c[0]), (x, x * 0))


def loops_in_loops(np: Any, gw: Any, x: Any) -> Any:
    def outer(i: Any, c: Any) -> Any:
        shift = np.sin(c)
        return gw.fori(0, 3, lambda j, d: np.tanh(d + shift * (i + j)), c)

    return gw.fori(0, 2, outer, x)


def branch(np: Any, gw: Any, x: Any) -> Any:
    weight = np.exp(x)
    return gw.cond(x.sum() > 0, lambda y: (y * weight, y[0]), lambda y: (np.sin(y), 2.0 * x[1]), x * 2)


def branches_that_only_capture(np: Any, gw: Any, x: Any) -> Any:
    return gw.cond(np.any(x > 10), lambda: {"a": x, "b": x}, lambda: {"b": x * x, "a": MATRIX @ x})


def branches_that_protect(np: Any, gw: Any, x: Any) -> Any:
    return gw.cond(x[0] > 0, lambda: np.log(x[0]), lambda: x[0] * 3)


def batch(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.vmap(lambda row: (np.dot(row, np.sin(x)), row * MATRIX[0]))(rows)


def batch_along_axes(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    def one(column: Any, parts: Any, whole: Any) -> Any:
        return {"p": column * parts["s"] + parts["w"].sum(), "q": np.outer(column, whole)}

    mapped = gw.vmap(one, in_axes=(1, {"s": 0, "w": None}, None), out_axes={"p": 1, "q": -1})
    return mapped(rows, {"s": x, "w": rows}, x)


def batch_of_batches(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    inner = gw.vmap(lambda a, b: np.sin(a) * b, in_axes=(None, 0))
    return gw.vmap(inner, in_axes=(0, None), out_axes=-1)(x, rows)


def batch_of_systems(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.vmap(lambda row: np.linalg.solve(MATRIX + np.outer(row, row), x))(rows)


def batch_of_scans(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.vmap(lambda row: gw.scan(lambda c, r: (c * r + x[0], c), row[0], row))(rows)


def scan_of_batches(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    def step(c: Any, row: Any) -> Any:
        return gw.vmap(lambda a, b: np.tanh(a * b) + x[1])(c, row), gw.vmap(np.sin)(row)

    return gw.scan(step, x, rows)


def scan_in_a_branch_in_a_scan(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    shift = np.cos(x)

    def inner(c: Any, number: Any) -> Any:
        return np.sin(c) * number + shift, c.sum()

    def step(c: Any, row: Any) -> Any:
        scanned, sums = gw.cond(
            row[0] > 0,
            lambda: gw.scan(inner, c * x, row),
            lambda: (c + shift, row * c[0]),
        )
        return scanned, sums

    return gw.scan(step, x, rows)


def batch_of_branches(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    return gw.vmap(lambda row: gw.cond(row[0] > 0, lambda r: r * x, lambda r: np.sin(r) + x, row))(rows)


def assignment_inside(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    def step(c: Any, row: Any) -> Any:
        if isinstance(row, jax.Array):
            return c.at[0].add(row[1]).at[1:].set(row[:2] * c[0]), c * 2
        before = c * 2
        first = c[0].copy()
        c[0] += row[1]
        c[1:] = row[:2] * first
        return c, before

    return gw.scan(step, x, rows)


def complex_numbers(np: Any, gw: Any, x: Any, rows: Any) -> Any:
    phase = np.exp(1j * x)

    def step(wave: Any, row: Any) -> Any:
        wave = np.fft.ifft(np.fft.fft(wave * np.exp(0.1j * row)) * phase)
        turned = gw.cond(row[0] > 0, lambda w: w * 1j, lambda w: w + x, wave)
        return turned, wave

    last, waves = gw.scan(step, x + 0.5j * rows[0], rows)
    turned = gw.vmap(lambda wave, angle: wave * np.exp(1j * angle))(last, np.real(last))
    settled = gw.fori(0, 3, lambda i, c: c * c + 0.1j, np.zeros(3, complex))
    return np.abs(last) ** 2, np.real(waves), np.imag(turned), np.real(settled) * x


def single_precision(np: Any, gw: Any, x: Any) -> Any:
    small = x.astype(np.float32)
    carried = gw.fori(0, 3, lambda i, c: (np.sin(c[0]) * 0.5, c[1] + i), (small, 0))
    scanned = gw.scan(lambda c, row: (c * 0.5, np.float32(2) * row), np.float32(1), small)
    chosen = gw.cond(x[0] > 0, lambda: small[0], lambda: np.float32(0))
    return carried, scanned, chosen


def integers(np: Any, gw: Any, x: Any) -> Any:
    steps = gw.scan(lambda c, i: (c + i, c * i), 1, np.arange(4))
    flags = gw.scan(lambda c, i: (c ^ (x[0] > 0), c), True, np.arange(3))
    return x * steps[0], steps[1], flags


PROGRAMS: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (accumulate, (X, ROWS)),
    (accumulate_backwards, (X, ROWS)),
    (trees, (X, ROWS)),
    (steps_without_arrays, (X,)),
    (steps_without_arrays_backwards, (X,)),
    (only_outputs, (X, ROWS)),
    (only_a_carry, (X, ROWS)),
    (the_carry_unchanged_and_twice, (X, ROWS)),
    (no_steps, (X,)),
    (counted, (X,)),
    (counted_from_below_zero, (X,)),
    (loops_in_loops, (X,)),
    (branch, (X,)),
    (branch, (np.abs(X),)),
    (branches_that_only_capture, (X,)),
    (branches_that_protect, (X,)),
    (branches_that_protect, (-X,)),
    (batch, (X, ROWS)),
    (batch_along_axes, (X, ROWS)),
    (batch_of_batches, (X, ROWS)),
    (batch_of_systems, (X, ROWS)),
    (batch_of_scans, (X, ROWS)),
    (scan_of_batches, (X, ROWS)),
    (scan_in_a_branch_in_a_scan, (X, ROWS)),
    (batch_of_branches, (X, ROWS)),
    (assignment_inside, (X, ROWS)),
    (integers, (X,)),
    (complex_numbers, (X, ROWS)),
]


@pytest.mark.parametrize(
    ("program", "arguments"), PROGRAMS, ids=[f"{item[0].__name__}-{i}" for i, item in enumerate(PROGRAMS)]
)
def test_values_and_derivatives_are_those_of_jax(program: Callable[..., Any], arguments: Any) -> None:
    agree(program, *arguments)


def test_single_precision_stays_single() -> None:
    agree(single_precision, np.abs(X), rtol=1e-5)


def test_a_number_takes_the_dtype_of_the_carry_or_of_the_other_branch() -> None:
    def program(x: Any) -> Any:
        last, _ = gw.scan(lambda c, row: (0.5, None), np.float32(1), x)
        return last, gw.cond(x[0] > 0, lambda: 1, lambda: x[0]), gw.cond(x[0] > 0, lambda: x[0], lambda: 2)

    x = np.array([-3.0, 1.0, 2.0], np.float32)
    results = function(trace(program, [spec(3, np.float32)], ["x0"]), 1)(x)
    assert [(item.dtype, float(item)) for item in results] == [
        (np.float32, 0.5),
        (np.float32, -3.0),
        (np.float32, 2.0),
    ]
    assert gw.scan(lambda c, row: (0.5, None), np.float32(1), x)[0].dtype == np.float32


# Loops whose length depends on the data


def square_root(np: Any, gw: Any, x: Any, a: Any) -> Any:
    def improve(state: Any) -> Any:
        guess, _, trips = state
        better = 0.5 * (guess + a / guess)
        return better, guess, trips + 1

    return gw.while_(lambda state: np.abs(state[0] - state[1]) > 1e-15 * state[0], improve, (x, x * 2, 0))


def test_a_while_loop_has_values_and_forward_derivatives() -> None:
    agree(square_root, np.array(1.0), np.array(7.0), reverse=False)
    jacobian = jax.jacfwd(function(traced(square_root, 1.0, 7.0), 2), (0, 1))(1.0, 7.0)[0]
    np.testing.assert_allclose(jacobian, [0, 0.5 / np.sqrt(7)], atol=1e-15)


def power(np: Any, gw: Any, x: Any, n: Any) -> Any:
    return gw.fori(0, n, lambda i, c: c * x + i, np.ones(3))


@pytest.mark.parametrize("n", [0, 1, 5, -2])
def test_a_traced_bound_of_fori_has_forward_derivatives(n: int) -> None:
    agree(power, X, np.array(n), reverse=False)


def test_a_traced_lower_bound_is_where_the_counter_starts() -> None:
    def program(np: Any, gw: Any, x: Any, n: Any) -> Any:
        return gw.fori(n, n + 3, lambda i, c: c + x * i, np.zeros(3))

    agree(program, X, np.array(4, np.int32), reverse=False)


def test_a_while_loop_of_few_trips_at_most_has_every_derivative() -> None:
    def root(a: Any) -> Any:
        def go_on(state: Any) -> Any:
            return np.abs(state * state - a) > 1e-14

        return gw.while_(go_on, lambda y: 0.5 * (y + a / y), a * 0 + 1.0, max_trips=60)

    model = trace(root, [spec(())], ["x0"])
    lowered = function(model, 1)
    a = np.array(5.0)
    np.testing.assert_allclose(root(a), np.sqrt(a), rtol=1e-14)
    np.testing.assert_allclose(lowered(a)[0], np.sqrt(a), rtol=1e-14)
    np.testing.assert_allclose(jax.grad(lambda v: lowered(v)[0])(a), 0.5 / np.sqrt(a), rtol=1e-12)
    np.testing.assert_allclose(jax.hessian(lambda v: lowered(v)[0])(a), -0.25 * a**-1.5, rtol=1e-9)


def test_a_while_loop_ends_after_the_trips_allowed() -> None:
    def doubled(x: Any) -> Any:
        return gw.while_(lambda _: True, lambda y: 2 * y, x, max_trips=3)

    np.testing.assert_array_equal(doubled(X), 8 * X)
    np.testing.assert_array_equal(function(trace(doubled, [spec(3)], ["x0"]), 1)(X)[0], 8 * X)
    none = function(trace(lambda x: gw.while_(lambda _: True, np.sin, x, max_trips=0), [spec(3)], ["x0"]), 1)
    np.testing.assert_array_equal(none(X)[0], X)


def test_reverse_mode_through_a_while_loop_is_refused_by_name() -> None:
    x, a = np.array(1.0), np.array(7.0)
    graph = registered(square_root, x, a)
    assert "Loop_" in graph.info.forward_only_reason
    inputs = {"x0": x, "x1": a}
    function_spec = FunctionSpec(graph.info.graph_id)

    def problem(mode: str) -> Problem:
        options = PlanOptions(mode=mode)
        return Problem(function_spec, inline.argument_types(inputs), "jacobian", ("x1",), ("y0",), options)

    forward = inline.assemble(graph, make_plan(graph, problem("forward")), inputs)[0]
    np.testing.assert_allclose(np.ravel(forward), [0.5 / np.sqrt(7)], rtol=1e-12)
    with pytest.raises(NotDifferentiable, match=r"Loop_\d+"):
        make_plan(graph, problem("reverse"))


# The graph


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


# Refusals

kept: list[Any] = []


def _keep(c: Any) -> Any:
    kept.append(c * 2)
    return c


def _escape(x: Any) -> Any:
    kept.clear()
    gw.fori(0, 2, lambda i, c: _keep(c), x)
    return x + kept[0]


def _escape_as_output(x: Any) -> Any:
    kept.clear()
    gw.fori(0, 2, lambda i, c: _keep(c), x)
    return kept[0]


def _escape_to_a_sibling(x: Any) -> Any:
    kept.clear()
    return gw.cond(x[0] > 0, lambda: _keep(x), lambda: kept[0])


def _assign_outside(x: Any) -> Any:
    table = gw.zeros(3)

    def step(i: Any, c: Any) -> Any:
        table[i] = c[0]
        return c

    return gw.fori(0, 2, step, x), table


def _add_outside(x: Any) -> Any:
    total = x * 1.0

    def step(c: Any, row: Any) -> Any:
        np.add(total, row, out=total)
        return c, None

    return gw.scan(step, x, x), total


def _assign_to_an_outer_view(x: Any) -> Any:
    half = (x * 1.0)[1:]

    def step(i: Any, c: Any) -> Any:
        half[0] = c[0]
        return c

    return gw.fori(0, 2, step, x)


REFUSALS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a carry that changes shape": (
        lambda x: gw.scan(lambda c, r: ((c[0], np.outer(c[1], x)), r), (x, x), x),
        r"gw\.scan: carry\[1\] changes from float64\[3\] to float64\[3, 3\] in f .*start from an array",
    ),
    "a carry that changes dtype": (
        lambda x: gw.fori(0, 3, lambda i, c: {"a": c["a"] + x[0]}, {"a": 0}),
        r"gw\.fori: carry\['a'\] changes from int64\[\] to float64\[\] in body .*start from float64",
    ),
    "a carry that changes structure": (
        lambda x: gw.while_(lambda c: c[0][0] > 0, lambda c: [c[0], c[0]], (x, x)),
        r"gw\.while_: body takes a carry of structure \(array, array\) and returns one of \[array, array\]",
    ),
    "a carry that is forgotten": (
        lambda x: gw.fori(0, 3, lambda i, c: None, x),
        r"structure array and returns one of None",
    ),
    "a carry that is no array": (
        lambda x: gw.fori(0, 3, lambda i, c: c, {"name": "x"}),
        r"gw\.fori: init\['name'\] is a str",
    ),
    "a step that returns one thing": (
        lambda x: gw.scan(lambda c, r: c, x, x),
        r"f returns a TracedArray .*return \(carry, y\)",
    ),
    "a condition that is a number": (
        lambda x: gw.while_(lambda c: c.sum(), lambda c: c, x),
        r"gw\.while_: cond returns float64\[\].*compare",
    ),
    "conditions in an array": (
        lambda x: gw.while_(lambda c: c > 0, lambda c: c, x),
        r"cond returns bool\[3\].*np\.any or np\.all",
    ),
    "a predicate that is a number": (
        lambda x: gw.cond(x[0], lambda: x, lambda: x),
        r"gw\.cond: pred is float64\[\].*compare",
    ),
    "predicates in an array": (
        lambda x: gw.cond(x > 0, lambda: x, lambda: -x),
        r"pred is bool\[3\].*np\.where to choose element by element",
    ),
    "a predicate that is text": (lambda x: gw.cond("yes", lambda: x, lambda: -x), r"pred is a? ?str"),
    "branches of different structure": (
        lambda x: gw.cond(x[0] > 0, lambda: (x, x), lambda: x),
        r"true_fn returns \(array, array\) and false_fn array",
    ),
    "branches of different shape": (
        lambda x: gw.cond(x[0] > 0, lambda: {"a": x}, lambda: {"a": x[0]}),
        r"the result\['a'\] is float64\[3\] from true_fn and float64\[\] from false_fn",
    ),
    "branches of different dtype": (
        lambda x: gw.cond(x[0] > 0, lambda: x, lambda: x > 0),
        r"the result is float64\[3\] from true_fn and bool\[3\] from false_fn",
    ),
    "a value that leaves its body": (_escape, r"outside of that function.*return it from that function"),
    "an output that leaves its body": (_escape_as_output, r"return it from that function"),
    "a value of the other branch": (_escape_to_a_sibling, r"return it from that function"),
    "assignment to an array around": (_assign_outside, r"table\[i\] = c\[0\].*as the carry of a loop"),
    "in-place arithmetic on an array around": (_add_outside, r"as the carry of a loop"),
    "assignment to a view around": (_assign_to_an_outer_view, r"half\[0\] = c\[0\].*as the carry of a loop"),
    "a carry that becomes complex": (
        lambda x: gw.fori(0, 2, lambda i, c: c * 1j, x),
        r"takes a carry of structure array and returns one of complex array",
    ),
    "a batch of nothing known": (lambda x: gw.vmap(lambda a: "text")(x), r"gw\.vmap: the result is a str"),
    "an if on a traced value": (lambda x: x if x[0] > 0 else -x, r"gw\.cond for if, gw\.while_ for while"),
    "a range of a traced value": (
        lambda x: [i for i in range(x.astype(np.int64)[0])],  # noqa: C416
        r"gw\.fori instead of range.*gw\.scan",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_say_what_to_write_instead(name: str) -> None:
    program, advice = REFUSALS[name]
    with pytest.raises(TraceError, match=advice):
        trace(program, [spec(3)])


LOCAL = ["a carry that changes shape", "a carry that changes dtype", "a carry that changes structure"]
LOCAL += ["a step that returns one thing", "a condition that is a number", "predicates in an array"]


@pytest.mark.parametrize("name", LOCAL)
def test_plain_arrays_are_refused_like_traced_ones(name: str) -> None:
    program, _ = REFUSALS[name]
    with pytest.raises(TraceError):
        program(np.abs(X))


MISFITS: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "no length": (lambda x: gw.scan(lambda c, _: (c, c), x), ValueError, r"give length="),
    "negative length": (lambda x: gw.scan(lambda c, _: (c, c), x, length=-1), ValueError, r"length is -1"),
    "different lengths": (
        lambda x: gw.scan(lambda c, _: (c, c), x, (x, np.ones(4)), length=3),
        ValueError,
        r"length 3, xs\[0\] 3, xs\[1\] 4",
    ),
    "nothing to scan along": (
        lambda x: gw.scan(lambda c, _: (c, c), x, {"a": 1.0}),
        ValueError,
        r"xs\['a'\] is a single number",
    ),
    "a bound that is no integer": (
        lambda x: gw.fori(0, 2.5, lambda i, c: c, x),
        TypeError,
        r"upper is a float",
    ),
    "a traced bound that is no integer": (
        lambda x: gw.fori(x[0] if isinstance(x[0], gw.tracing.TracedArray) else 0.5, 3, lambda i, c: c, x),
        TypeError,
        r"lower is (float64\[\]|a float)",
    ),
    "negative trips": (
        lambda x: gw.while_(lambda c: c[0] > 0, lambda c: c, x, max_trips=-1),
        ValueError,
        r"max_trips is -1",
    ),
    "nothing to slice": (lambda x: gw.vmap(np.sin, in_axes=None)(x), ValueError, r"slices no argument"),
    "an axis too many": (
        lambda x: gw.vmap(lambda a, b: a, in_axes=(0, 1))(x, x),
        ValueError,
        r"argument\[1\] along axis 1, but its shape is \(3,\)",
    ),
    "different extents": (
        lambda x: gw.vmap(lambda a, b: a)(x, np.ones(4)),
        ValueError,
        r"3 of argument\[0\], 4 of argument\[1\]",
    ),
    "axes for another structure": (
        lambda x: gw.vmap(lambda a: a["u"], in_axes=({"v": 0},))({"u": x}),
        ValueError,
        r"in_axes has \{'v': 0\} where there is \{'u': array\}",
    ),
    "an axis that is no integer": (
        lambda x: gw.vmap(np.sin, in_axes="x")(x),
        TypeError,
        r"in_axes has a str",
    ),
    "a result that is not stacked": (
        lambda x: gw.vmap(np.sin, out_axes=None)(x),
        ValueError,
        r"out_axes is None for the result",
    ),
    "a result on an axis too many": (
        lambda x: gw.vmap(np.sin, out_axes=1)(x),
        ValueError,
        r"the result on axis 1 of an array of 1 axes",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
@pytest.mark.parametrize("traces", [True, False], ids=["traced", "plain"])
def test_arguments_that_do_not_fit_raise_alike_traced_and_plain(name: str, traces: bool) -> None:
    program, error, reason = MISFITS[name]
    with pytest.raises(error, match=reason):
        if traces:
            trace(program, [spec(3)])
        else:
            program(np.abs(X))


def test_plain_results_of_different_structures_are_refused() -> None:
    with pytest.raises(TraceError, match="for one slice"):
        gw.vmap(lambda a: (a, a) if a > 0 else a)(np.array([1.0, -1.0]))
    with pytest.raises(TraceError, match="at first"):
        gw.scan(lambda c, a: (c, (a, a) if a > 0 else a), 0.0, np.array([1.0, -1.0]))


def test_a_body_that_raises_leaves_the_trace_usable() -> None:
    def program(x: Any) -> Any:
        try:
            gw.fori(0, 2, lambda i, c: np.zeros(5) @ c, x)
        except ValueError:
            return np.sin(x)
        raise AssertionError

    assert operators(trace(program, [spec(3)])) == ["Sin"]


# A server


def test_a_server_differentiates_a_traced_simulation_and_refuses_reverse_mode_by_name(server: Any) -> None:
    def simulate(start: Any, rates: Any) -> Any:
        def step(state: Any, _: Any) -> Any:
            force = gw.cond(state[0] > 0, lambda s: -rates[0] * s[0], lambda s: -rates[1] * s[0], state)
            after = state + 0.05 * np.stack([state[1], force])
            return after, after[0]

        return gw.vmap(lambda shift: gw.scan(step, start + shift, length=40)[1])(np.arange(3.0))

    start, rates = np.array([1.0, 0.0]), np.array([1.5, 0.7])
    with gw.connect(server.address) as client:
        f = client.function(simulate, spec_of(start), spec_of(rates))
        np.testing.assert_allclose(f(start, rates), simulate(start, rates), rtol=1e-13)
        jacobian = f.jacobian(start, rates, wrt=1)
        step = 1e-6
        for place in range(2):
            shift = step * np.eye(2)[place]
            change = (simulate(start, rates + shift) - simulate(start, rates - shift)) / (2 * step)
            np.testing.assert_allclose(jacobian[..., place], change, rtol=1e-6, atol=1e-8)
        root = client.function(
            lambda a: gw.while_(lambda y: np.abs(y * y - a) > 1e-13, lambda y: 0.5 * (y + a / y), a),
            gw.spec(()),
        )
        np.testing.assert_allclose(root.jvp(2.0, 1.0), 0.5 / np.sqrt(2.0), rtol=1e-12)
        with pytest.raises(gw.NotDifferentiableError, match=r"Loop_"):
            root.vjp(2.0, 1.0)
