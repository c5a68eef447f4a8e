"""Programs that repeat themselves, rolled up into loops: the same numbers from much shorter programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend import core as jex

from gradwire_engine.graphs.graph import Graph
from gradwire_engine.jaxprs.rolling import rolled
from gradwire_engine.jaxprs.segments import LONG
from gradwire_engine.planning.transforms import Jvp, Vjp
from tests.engine.small_graphs import graph_of, kernel_of, matrices, value_of

X = np.linspace(0.2, 0.9, 4)
UNARY: tuple[Callable[[Any], Any], ...] = (jnp.sin, jnp.tanh, jnp.cos, jax.lax.logistic, jnp.negative)


def rolled_up(function: Callable[..., Any], *arguments: Any) -> tuple[jex.ClosedJaxpr, jex.ClosedJaxpr]:
    closed = jax.make_jaxpr(function)(*arguments)
    return closed, rolled(closed)


def scans(jaxpr: Any) -> int:
    return sum(item.primitive.name == "scan" for item in jaxpr.eqns)


def check(function: Callable[..., Any], *arguments: Any, loops: int = 1) -> jex.ClosedJaxpr:
    """The rolled program: as many loops as said, and the values and derivatives of the program as it was."""
    closed, short = rolled_up(function, *arguments)
    assert scans(short.jaxpr) == loops
    # Unrolled programs are evaluated operation by operation: compiling them is what takes long.
    after, before = jax.jit(jex.jaxpr_as_fun(short)), jex.jaxpr_as_fun(closed)
    tangents = [np.cos(1.0 + np.arange(np.size(item))).reshape(np.shape(item)) for item in arguments]
    values, ours = jax.jvp(after, arguments, tuple(tangents))
    expected, theirs = jax.jvp(before, arguments, tuple(tangents))
    for one, other in zip((*values, *ours), (*expected, *theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)
    cotangents = [jnp.asarray(item) for item in expected]
    for one, other in zip(*(jax.vjp(f, *arguments)[1](cotangents) for f in (after, before)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)
    return short


def test_a_chain_becomes_one_loop_and_a_tenth_of_its_equations():
    def chain(x):
        for _ in range(200):
            x = jnp.sin(x) * x + jnp.tanh(x)
        return x

    assert len(check(chain, X).jaxpr.eqns) < 20


def test_a_short_program_stays_as_it_is():
    def chain(x):
        for _ in range(20):
            x = jnp.sin(x) * x
        return x

    closed, same = rolled_up(chain, X)
    assert same is closed


def test_a_long_program_without_repetition_stays_as_it_is():
    choice = np.random.default_rng(0).integers(0, len(UNARY), 2 * LONG)

    def mixed(x):
        for index in choice:
            x = UNARY[index](x)
        return x

    closed, same = rolled_up(mixed, X)
    assert same is closed


def test_numbers_that_differ_from_one_repetition_to_the_next_are_kept_apart():
    def forced(x):
        for step in range(200):
            x = x + 0.01 * jnp.sin(x * (0.1 * step))
        return x

    check(forced, X)


def test_zeros_of_either_sign_are_different_numbers():
    def signed(x):
        for step in range(300):
            x = jnp.sin(x) + (-0.0 if step % 7 == 3 else 0.0) / jnp.abs(x)
        return jnp.arctan2(x * 0.0, -1.0), x

    check(signed, X)


def test_weights_of_layers_are_stacked():
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal((4, 4)) / 2 for _ in range(150)]

    def layers(x, *weights):
        for weight in weights:
            x = jnp.tanh(weight @ x) + x * 0.5
        return x

    check(layers, X, *weights)


def test_weights_too_heavy_for_the_work_on_them_stay_where_they_are():
    weights = [np.zeros((128, 128)) for _ in range(150)]

    def layers(x, *weights):
        for weight in weights:
            x = jnp.tanh(weight @ x) + x * 0.5
        return x

    closed, same = rolled_up(layers, np.zeros(128), *weights)
    assert same is closed

    def wide(x, *weights):
        return layers(x, *weights)

    # With 64 columns each byte of a weight is used in enough operations.
    _, short = rolled_up(wide, np.zeros((128, 64)), *weights)
    assert "scan" in [item.primitive.name for item in short.jaxpr.eqns]


def test_pieces_of_an_input_are_picked_before_the_loop():
    inputs = np.random.default_rng(2).standard_normal((130, 4))

    def recurrent(x, inputs):
        for step in range(130):
            x = jnp.tanh(x + inputs[step])
        return x

    check(recurrent, X, inputs)


def test_numbers_that_are_spread_over_arrays_stay_in_the_loop():
    def forced(x):
        for step in range(200):
            x = x + jnp.full(4, 0.01) * jnp.sin(x) * jnp.full(4, 1.0 + step % 3)
        return x

    assert len(check(forced, X).jaxpr.eqns) < 60


def test_a_piece_is_picked_before_the_loop_with_the_index_that_it_needs():
    inputs = np.random.default_rng(3).standard_normal((130, 4))

    def recurrent(x, inputs):
        for step in range(130):
            at = jnp.full(1, step, np.int32)
            piece = jax.lax.gather(
                inputs, at, jax.lax.GatherDimensionNumbers((0,), (0,), (0,)), (1, 4), mode="clip"
            )
            x = jnp.tanh(x + piece) * 0.9 + jnp.sin(x)
        return x

    short = check(recurrent, X, inputs, loops=2)
    picking, stepping = (
        {one.primitive.name for one in item.params["jaxpr"].jaxpr.eqns}
        for item in short.jaxpr.eqns
        if item.primitive.name == "scan"
    )
    assert "gather" in picking
    assert "tanh" in stepping and "gather" not in stepping


def test_values_from_two_and_three_repetitions_back_are_carried():
    def leapfrog(x):
        oldest, old, new = x, x * 1.01, x * 1.02
        for _ in range(200):
            oldest, old, new = old, new, 2 * new - old - 1e-3 * jnp.sin(oldest)
        return new

    check(leapfrog, X)


def test_values_that_are_used_later_are_kept_from_every_repetition():
    def trajectory(x):
        seen = []
        for _ in range(200):
            x = jnp.sin(x) + x * 0.25
            seen.append(x * x)
        return jnp.stack(seen), seen[17] + seen[-2]

    check(trajectory, X)


def test_branches_side_by_side_are_a_loop_without_a_carry():
    def ensemble(x):
        return sum(jnp.tanh(jnp.sin(x * (0.1 * member)) * jnp.cos(x)) for member in range(150))

    check(ensemble, X)


def test_two_loops_in_a_row_and_one_within_another():
    def two(x):
        for _ in range(150):
            x = jnp.sin(x) * x
        x = jnp.exp(-x)
        for _ in range(150):
            x = jnp.tanh(x) + 0.1 * x
        return x

    check(two, X, loops=2)

    def nested(x):
        for _ in range(10):
            for _ in range(200):
                x = jnp.sin(x) + x * 0.25
            x = jnp.exp(-x)
        return x

    # What stays outside of the outer loop is loops itself.
    short = check(nested, X, loops=4)
    inner = [scans(item.params["jaxpr"].jaxpr) for item in short.jaxpr.eqns if item.primitive.name == "scan"]
    assert max(inner) >= 1
    assert len(short.jaxpr.eqns) < 100


@settings(max_examples=30, deadline=None)
@given(
    body=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=12
    ),
    lead=st.lists(st.integers(0, 4), max_size=5),
    width=st.integers(1, 4),
)
def test_any_body_gives_the_numbers_of_its_copies(body, lead, width):
    def program(x):
        for index in lead:
            x = UNARY[index](x)
        state = [x * (1 + place) for place in range(width)]
        for _ in range(1 + LONG // len(body)):
            for op, left, right in body:
                a, b = state[left % width], state[right % width]
                new = UNARY[op](a) if op < len(UNARY) else (a * b if op == 5 else a - b)
                state = [*state[1:], jnp.tanh(new)]
        return tuple(state)

    closed, short = rolled_up(program, X)
    ours, theirs = (jex.jaxpr_as_fun(item)(X) for item in (short, closed))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def repeated_calls(calls: int) -> Graph:
    """x <- Step(x), a function of the model's own, called over and over."""
    lines = [f"v{index} = own.Step({f'v{index - 1}' if index else 'x'})" for index in range(calls)]
    step = """<domain: "own", opset_import: ["": 21]> Step (a) => (b) {
        s = Sin(a) c = Cos(a) p = Mul(s, c) q = Tanh(p) b = Add(q, a) }"""
    return graph_of(
        "(double[4] x) => (double[4] y) { " + "\n".join(lines) + f" y = Identity(v{calls - 1}) }}", step
    )


def step_by_hand(x: Any, calls: int) -> Any:
    return jax.lax.fori_loop(0, calls, lambda _, v: jnp.tanh(jnp.sin(v) * jnp.cos(v)) + v, x)


def test_a_function_called_over_and_over_is_compiled_once() -> None:
    graph = repeated_calls(200)
    inputs = {"x": X, "y.cotangent": np.eye(4)[2]}
    few, many = (
        kernel_of(repeated_calls(calls), inputs, Vjp()).compiled.as_text().count("sine")
        for calls in (150, 200)
    )
    assert few == many
    expected = jax.jvp(lambda x: step_by_hand(x, 200), (X,), (np.eye(4)[2],))[1]
    np.testing.assert_allclose(value_of(graph, inputs, Vjp())["x.cotangent"], expected, rtol=1e-12)


def test_second_derivatives_go_through_a_rolled_loop() -> None:
    graph = repeated_calls(150)
    ones = np.ones(4)
    inputs = {"x": X, "y.cotangent": ones, "x.tangent": ones}
    ours = value_of(graph, inputs, Vjp(), Jvp(wrt=("x",)))["x.cotangent.tangent"]

    def first(x: Any) -> Any:
        return jax.jvp(lambda x: step_by_hand(x, 150), (x,), (ones,))[1]

    np.testing.assert_allclose(ours, jax.jvp(first, (X,), (ones,))[1], rtol=1e-11)


def test_jacobians_go_through_a_rolled_loop() -> None:
    graph = repeated_calls(150)
    (jacobian,) = matrices(graph, {"x": X})
    expected = jax.jvp(lambda x: step_by_hand(x, 150), (X,), (np.ones(4),))[1]
    np.testing.assert_allclose(jacobian, np.diag(expected), rtol=1e-12, atol=1e-15)
