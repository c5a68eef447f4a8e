"""Loops, branches and batches: traced, and run on plain arrays, against JAX's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import gradwire as gw
from gradwire.frontends.numpy import trace
from gradwire.graphs.spec import spec, spec_of
from gradwire_engine.errors import NotDifferentiable
from gradwire_engine.planning.plan import PlanOptions, Problem, make_plan
from gradwire_engine.planning.transforms import FunctionSpec
from tests.client.frontends.numpy.control_flow.oracle import agree, function, registered, traced
from tests.client.frontends.numpy.control_flow.programs import PROGRAMS, X, single_precision, square_root
from tests.engine import in_process


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
        return Problem(
            function_spec, in_process.argument_types(inputs), "jacobian", ("x1",), ("y0",), options
        )

    forward = in_process.assemble(graph, make_plan(graph, problem("forward")), inputs)[0]
    np.testing.assert_allclose(np.ravel(forward), [0.5 / np.sqrt(7)], rtol=1e-12)
    with pytest.raises(NotDifferentiable, match=r"Loop_\d+"):
        make_plan(graph, problem("reverse"))


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
