"""Values that XLA would compute anew for each use, stored in programs with convolutions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradwire_engine.computations import NAME
from gradwire_engine.jaxprs import segments
from gradwire_engine.jaxprs.rolling import rolled
from gradwire_engine.jaxprs.seeds import Seeds, push_units
from gradwire_engine.jaxprs.storing import STORED

RNG = np.random.default_rng(0)
IMAGE = jnp.asarray(RNG.standard_normal((1, 4, 5, 6)))
KERNEL = jnp.asarray(RNG.standard_normal((4, 4, 3, 3)) / 6)


def filtered(x: Any) -> Any:
    return lax.conv(x, KERNEL, (1, 1), "SAME")


def hard_swish(x: Any) -> Any:
    return x * jnp.clip(x + 3, 0, 6) / 6


def chain(x: Any, blocks: int = 120) -> Any:
    for _ in range(blocks):
        x = hard_swish(filtered(x))
    return x


def residual(x: Any, blocks: int = 8) -> Any:
    for _ in range(blocks):
        x = 0.7 * x + hard_swish(filtered(x))
    return x


def recurrence(x: Any) -> Any:
    """Each number is used twice in the next step: as one computation, the work doubles with each of them."""
    x = filtered(x)
    a, b = x, x + 1
    for _ in range(60):
        a, b = a - 0.1 * a * b, b + 0.1 * a * b
    return filtered(a + b)


def primitives(function: Any) -> list[str]:
    closed = jax.make_jaxpr(function)(IMAGE)
    jaxpr = jax.make_jaxpr(segments.runner(closed))(IMAGE).jaxpr
    return [str(item.params.get("name", item.primitive.name)) for item in jaxpr.eqns]


def test_layers_between_convolutions_are_neither_cut_nor_stored_nor_rolled() -> None:
    closed = jax.make_jaxpr(chain)(IMAGE)
    assert len(closed.jaxpr.eqns) > segments.LONG
    assert rolled(closed) is closed
    assert not {NAME, STORED} & set(primitives(chain))


def test_a_value_that_goes_around_a_convolution_is_stored_once_a_block() -> None:
    assert primitives(residual).count(STORED) == 7  # the last one is used once


def test_a_long_stretch_without_a_convolution_is_cut() -> None:
    def function(x: Any) -> Any:
        x = filtered(x)
        for index in range(600):
            x = jnp.sin(x) if index % 7 in (2, 3) else x + index
        return filtered(x)

    names = primitives(function)
    assert names.count(NAME) == -(-600 // segments.SEGMENT)
    assert names[0] == names[-1] == "conv_general_dilated"


@pytest.mark.parametrize("function", [residual, recurrence])
def test_values_and_derivatives_are_those_of_the_program(function: Any) -> None:
    run = segments.runner(jax.make_jaxpr(function)(IMAGE))

    def both(f: Any, x: Any) -> Any:
        value, pull = jax.vjp(f, x)
        gradient = pull(jnp.cos(value))[0]
        return value, gradient, jax.jvp(f, (x,), (gradient,))[1]

    found = jax.jit(lambda x: both(lambda x: run(x)[0], x))(IMAGE)
    with jax.disable_jit():
        expected = both(function, IMAGE)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_cotangents_are_stored_where_values_are() -> None:
    run = segments.runner(jax.make_jaxpr(residual)(IMAGE))
    pulled = jax.make_jaxpr(lambda x, w: jax.vjp(lambda x: run(x)[0], x)[1](w))(IMAGE, IMAGE)
    names = [equation.primitive.name for equation in pulled.jaxpr.eqns]
    assert names.count(STORED) == 2 * 7
    text = jax.jit(jax.extend.core.jaxpr_as_fun(pulled)).lower(IMAGE, IMAGE).compile().as_text()
    assert text.count(" call(") == 2 * 7


def test_unit_vectors_go_through_a_stored_value() -> None:
    run = segments.runner(jax.make_jaxpr(lambda x: residual(x, 2))(IMAGE))
    _, push = jax.linearize(lambda x: run(x)[0], IMAGE)
    (found,) = push_units(push, IMAGE.shape, IMAGE.dtype, Seeds(jnp.asarray(3), 2))
    basis = jnp.eye(IMAGE.size)[3:5].reshape(2, *IMAGE.shape)
    np.testing.assert_allclose(found, jax.vmap(push)(basis), rtol=1e-12, atol=1e-12)
