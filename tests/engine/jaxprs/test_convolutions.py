"""Convolutions as matrix products: what the primitive gives, for all that it can be asked."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import gradwire_engine.abstract  # noqa: F401  (float64)
from gradwire_engine.jaxprs import segments
from gradwire_engine.jaxprs.convolutions import as_products, better_as_products, holds_convolution
from gradwire_engine.jaxprs.rolling import rolled
from gradwire_engine.planning.derivatives import Derivative
from gradwire_engine.planning.kernels import BlockSpec, compile_kernel
from gradwire_engine.planning.transforms import FunctionSpec
from tests.engine.in_process import argument_types
from tests.engine.small_graphs import graph_of

SPECS = {1: ("NCH", "OIH", "NCH"), 2: ("NHWC", "HWIO", "CNHW"), 3: ("NCDHW", "OIDHW", "NDHWC")}


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 3))
    small = st.integers(1, 3)

    def each(strategy):
        return tuple(draw(strategy) for _ in range(rank))

    features, batches = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (1, 2)]))
    channels, outputs, count = draw(small), draw(small), draw(small)
    kernel = each(small)
    dilation, lhs_dilation = each(st.integers(1, 2)), each(st.integers(1, 2))
    space = each(st.integers(1, 6))
    padding = tuple((draw(st.integers(-1, 3)), draw(st.integers(0, 3))) for _ in range(rank))
    lhs, rhs, out = SPECS[rank]
    shapes = {
        "lhs": {"N": count * batches, "C": channels * features},
        "rhs": {"O": outputs * max(features, batches), "I": channels},
    }
    letters = "DHW"[-rank:] if rank > 1 else "H"
    shapes["lhs"].update(zip(letters, space, strict=True))
    shapes["rhs"].update(zip(letters, kernel, strict=True))
    params = {
        "window_strides": each(st.integers(1, 3)),
        "padding": padding,
        "lhs_dilation": lhs_dilation,
        "rhs_dilation": dilation,
        "dimension_numbers": (lhs, rhs, out),
        "feature_group_count": features,
        "batch_group_count": batches,
    }
    x = draw(st.integers(0, 1 << 16))
    generator = np.random.default_rng(x)
    return (
        generator.standard_normal([shapes["lhs"][letter] for letter in lhs]),
        generator.standard_normal([shapes["rhs"][letter] for letter in rhs]),
        params,
    )


@given(convolutions())
@settings(max_examples=15, deadline=None)
def test_products_give_what_the_primitive_gives(case) -> None:
    inputs, kernel, params = case
    jaxpr = jax.make_jaxpr(lambda x, w: lax.conv_general_dilated(x, w, **params))(inputs, kernel).jaxpr
    (equation,) = jaxpr.eqns
    expected = jax.jit(lambda x, w: lax.conv_general_dilated(x, w, **params))(inputs, kernel)
    found = as_products(equation.params, inputs, kernel)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_their_derivatives_are_those_of_the_convolution() -> None:
    generator = np.random.default_rng(0)
    x, w = generator.standard_normal((2, 4, 5, 6)), generator.standard_normal((3, 4, 3, 2))

    def convolution(x, w):
        return lax.conv_general_dilated(x, w, (1, 2), ((1, 1), (0, 1)))

    params = jax.make_jaxpr(convolution)(x, w).jaxpr.eqns[0].params
    seed = generator.standard_normal(convolution(x, w).shape)
    expected = jax.vjp(convolution, x, w)[1](seed)
    found = jax.vjp(lambda x, w: as_products(params, x, w), x, w)[1](jnp.asarray(seed))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "holds"),
    [
        (lambda x, w: x + 1, False),
        (lambda x, w: lax.conv(x, w, (1, 1), "SAME"), True),
        (lambda x, w: jax.jit(lambda x: lax.conv(x, w, (1, 1), "SAME"))(x), True),
        (lambda x, w: lax.cond(x[0, 0, 0, 0] > 0, lambda: lax.conv(x, w, (1, 1), "SAME"), lambda: x), True),
    ],
)
def test_convolutions_are_seen_through_calls_and_branches(function, holds) -> None:
    x, w = np.ones((1, 2, 4, 4)), np.ones((2, 2, 3, 3))
    equations = jax.make_jaxpr(function)(x, w).jaxpr.eqns
    assert any(map(holds_convolution, equations)) == holds


@pytest.mark.parametrize(("channels", "better"), [(3, False), (64, True)])
def test_thin_convolutions_stay_as_they_are(channels, better) -> None:
    x, w = np.ones((1, channels, 8, 8)), np.ones((4, channels, 3, 3))
    (equation,) = jax.make_jaxpr(lambda x, w: lax.conv(x, w, (1, 1), "SAME"))(x, w).jaxpr.eqns
    assert better_as_products(equation) == better


W = np.random.default_rng(1).standard_normal((16, 16, 3, 3)) / 12
IMAGE = np.random.default_rng(2).standard_normal((1, 16, 6, 5))


def filtered(x):
    return lax.conv(x, W, (1, 1), "SAME")


def convolutions_of(text: str) -> tuple[int, int]:
    """Convolutions of a compiled program: in the main computation, and elsewhere."""
    before, entry = text.split("\nENTRY", 1)
    main, *after = entry.split("\n}", 1)
    return main.count(" convolution("), (before + "".join(after)).count(" convolution(")


def test_a_long_program_keeps_its_convolutions_in_the_main_computation() -> None:
    def deep(x):
        for layer in range(120):
            x = jnp.tanh(filtered(x) if layer % 40 == 20 else jnp.sin(x) * 1.01 + 0.25 / (x * x + layer))
        return x

    closed = jax.make_jaxpr(deep)(IMAGE)
    assert len(closed.jaxpr.eqns) >= segments.LONG
    run = segments.runner(closed)
    seed = jnp.ones(IMAGE.shape)
    compiled = jax.jit(lambda x: jax.vjp(lambda x: run(x)[0], x)[1](seed)[0]).lower(IMAGE).compile()
    main, elsewhere = convolutions_of(compiled.as_text())
    assert main >= 5
    assert elsewhere == 0
    expected = jax.jit(lambda x: jax.vjp(deep, x)[1](seed)[0])(IMAGE)
    np.testing.assert_allclose(compiled(IMAGE), expected, rtol=1e-9, atol=1e-9)


def test_repeated_layers_with_convolutions_stay_unrolled() -> None:
    def layers(x):
        for _ in range(200):
            x = jnp.tanh(filtered(x) + x)
        return x

    closed = jax.make_jaxpr(layers)(IMAGE)
    assert not any(equation.primitive.name == "scan" for equation in rolled(closed).jaxpr.eqns)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "called"])
def test_bodies_of_loops_and_branches_hold_none(wrap) -> None:
    step = wrap(filtered)

    def program(x):
        x, _ = lax.scan(lambda carry, _: (jnp.tanh(step(carry)), None), x, None, length=3)
        return lax.cond(x[0, 0, 0, 0] > 2, lambda: x, lambda: step(x))

    expected = jax.jit(program)(IMAGE)
    cut = segments.bodies_cut(jax.make_jaxpr(program)(IMAGE))
    compiled = jax.jit(jax.extend.core.jaxpr_as_fun(cut)).lower(IMAGE).compile()
    assert convolutions_of(compiled.as_text()) == (0, 0)
    np.testing.assert_allclose(compiled(IMAGE)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_batches_of_seeds_run_them_in_the_main_computation(mode) -> None:
    graph = graph_of(
        """(double[1,16,6,5] x, double[16,16,3,3] w) => (double[1,16,6,5] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, w) y = Tanh(c) }"""
    )
    function, arguments = FunctionSpec(graph.info.graph_id), argument_types({"x": IMAGE, "w": W})
    spec = BlockSpec(function, arguments, Derivative(mode, ("x",), ("y",), 0), 480, 12, 4)
    kernel = compile_kernel(graph, spec)
    main, elsewhere = convolutions_of(kernel.compiled.as_text())
    assert main >= 3
    assert elsewhere == 0
