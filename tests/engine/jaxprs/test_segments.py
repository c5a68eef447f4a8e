"""Long graphs, compiled in segments: the same values and derivatives, in computations that stay apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradwire_engine.graphs.graph import Graph
from gradwire_engine.jaxprs import rolling, segments
from gradwire_engine.planning.kernels import load_kernel
from gradwire_engine.planning.transforms import Jvp, Transform, Vjp
from tests.engine.small_graphs import graph_of, kernel_of, matrices

NODES = 200
X = np.linspace(-0.9, 0.9, 4)


SINES = np.random.default_rng(0).random(NODES) < 0.5
"""Which nodes are sines: in no order, so that nothing repeats itself."""


@pytest.fixture(autouse=True, scope="module")
def shorter_graphs_are_long() -> Iterator[None]:
    """Cut graphs from fewer operations on than usual: compiling takes most of these tests' time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (segments, rolling):
            patch.setattr(module, "LONG", 128)
        yield


@pytest.fixture(scope="module")
def graph() -> Graph:
    """v <- sin(v) or v <- v + x, over and over; the tenth value is used again at the very end."""
    lines = []
    previous = "x"
    for index in range(NODES):
        lines.append(f"v{index} = " + (f"Sin({previous})" if SINES[index] else f"Add({previous}, x)"))
        previous = f"v{index}"
    lines.append(f"y = Mul({previous}, v9)")
    return graph_of("(double[4] x) => (double[4] y) { " + "\n".join(lines) + " }")


def by_hand(x: Any) -> Any:
    v = x
    early = None
    for index in range(NODES):
        v = jnp.sin(v) if SINES[index] else v + x
        early = v if index == 9 else early
    return v * early


@pytest.fixture(scope="module")
def diagonals() -> tuple[Any, Any, Any]:
    """Value, first and second derivative of each element: the function works element by element."""
    with jax.disable_jit():
        tangent = (jnp.ones(4),)

        def first(x: Any) -> Any:
            return jax.jvp(by_hand, (x,), tangent)[1]

        return by_hand(jnp.asarray(X)), first(jnp.asarray(X)), jax.jvp(first, (jnp.asarray(X),), tangent)[1]


def test_a_long_graph_is_compiled_as_computations_of_its_own(graph: Graph) -> None:
    text = kernel_of(graph, {"x": X}).compiled.as_text()
    assert text.count(" call(") >= NODES // segments.SEGMENT


def test_a_short_graph_is_one_computation() -> None:
    kernel = kernel_of(graph_of("(double[4] x) => (double[4] y) { y = Sin(x) }"), {"x": X})
    assert " call(" not in kernel.compiled.as_text()


@pytest.mark.parametrize(
    ("transforms", "added", "output", "which"),
    [
        ((), (), "y", 0),
        ((Jvp(),), ("x.tangent",), "y.tangent", 1),
        ((Vjp(),), ("y.cotangent",), "x.cotangent", 1),
        ((Vjp(), Jvp(wrt=("x",))), ("y.cotangent", "x.tangent"), "x.cotangent.tangent", 2),
    ],
)
def test_values_and_derivatives_are_those_of_the_whole(
    graph: Graph,
    diagonals: tuple[Any, Any, Any],
    transforms: tuple[Transform, ...],
    added: tuple[str, ...],
    output: str,
    which: int,
) -> None:
    point = {"x": X, **{name: np.ones(4) for name in added}}
    kernel = kernel_of(graph, point, *transforms, outputs=(output,))
    (result,) = load_kernel(kernel.serialize()).run({}, point)
    np.testing.assert_allclose(result, diagonals[which], rtol=1e-10)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_jacobians_in_both_modes_are_those_of_the_whole(
    graph: Graph, diagonals: tuple[Any, Any, Any], mode: str
) -> None:
    (jacobian,) = matrices(graph, {"x": X}, mode=mode)
    np.testing.assert_allclose(jacobian, np.diag(diagonals[1]), rtol=1e-10)


def epidemic(steps: int, start: str) -> str:
    """Nodes of an unrolled epidemic: each number is used several times in the next step, and again."""
    lines = [f"s0 = Identity({start})", "i0 = Identity(b)"]
    for k in range(steps):
        lines += [
            f"n{k} = Mul(s{k}, i{k})",
            f"s{k + 1} = Sub(s{k}, n{k})",
            f"r{k} = Mul(i{k}, g)",
            f"m{k} = Sub(n{k}, r{k})",
            f"i{k + 1} = Add(i{k}, m{k})",
        ]
    return "\n".join(lines)


NUMBERS = "b = Constant <value = double {0.01}> ()\n g = Constant <value = double {0.1}> ()\n"


def test_numbers_that_fork_and_meet_again_are_not_computed_anew_for_each_use() -> None:
    # As one computation, the work of these steps doubles with each of them: no test would see its end.
    def epidemic(rates: Any) -> Any:
        infection, onset, recovery = rates
        s, e, i, history = 0.99, 0.0, 0.01, []
        for _ in range(40):
            new = infection * s * i
            s, e, i = s - new, e + new - onset * e, i + onset * e - recovery * i
            history.append(i)
        return jnp.stack(history)

    rates, cotangent = jnp.array([0.5, 0.2, 0.1]), jnp.ones(40)
    run = segments.runner(jax.make_jaxpr(epidemic)(rates))
    ours = jax.jit(lambda x, w: jax.vjp(lambda x: run(x)[0], x)[1](w)[0])(rates, cotangent)
    with jax.disable_jit():
        expected = jax.vjp(epidemic, rates)[1](cotangent)[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_bodies_of_loops_are_cut_as_well() -> None:
    steps, trips = 30, 3
    graph = graph_of(
        f"""(double x) => (double y) {{
        {NUMBERS}
        t = Constant <value = int64 {{{trips}}}> ()
        c = Constant <value = bool {{1}}> ()
        y = Loop (t, c, x) <body = turn (int64 k, bool d, double v) => (bool e, double w) {{
            e = Identity(d)
            {epidemic(steps, "v")}
            w = Add(s{steps}, i{steps})
        }}>
        }}"""
    )

    def by_hand(x: Any) -> Any:
        for _ in range(trips):
            s, i = x, jnp.float64(0.01)
            for _ in range(steps):
                n = s * i
                s, i = s - n, i + (n - i * 0.1)
            x = s + i
        return x

    with jax.disable_jit():
        expected = jax.jvp(by_hand, (jnp.float64(0.9),), (jnp.float64(1.0),))[1]
    point = {"x": np.array(0.9), "y.cotangent": np.array(1.0)}
    kernel = kernel_of(graph, point, Vjp())
    assert " call(" in kernel.compiled.as_text()
    (result,) = kernel.run({}, point)
    np.testing.assert_allclose(result, expected, rtol=1e-12)
