"""Running error analysis of known values, held to what compiled programs have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradwire_engine.abstract import abstract
from gradwire_engine.sparsity.index_sets import IndexSets
from gradwire_engine.sparsity.known import known
from gradwire_engine.sparsity.rounding import Rounded
from gradwire_engine.sparsity.walking import Walk

Array = np.ndarray[Any, Any]

STEPS: dict[str, Callable[[Any, float], Any]] = {
    "add": lambda x, c: x + c,
    "subtract": lambda x, c: x - c,
    "subtract from": lambda x, c: c - x,
    "multiply": lambda x, c: x * c,
    "divide": lambda x, c: x / c,
    "divide by all": lambda x, c: x / (jnp.abs(x) + c),
    "reverse difference": lambda x, c: x - c * x[::-1],
    "product": lambda x, c: x * x[::-1],
    "square": lambda x, c: x**2,
    "cube": lambda x, c: x**3,
    "floor": lambda x, c: jnp.floor(x),
    "ceil": lambda x, c: lax.ceil(x),
    "sign": lambda x, c: jnp.sign(x) + x,
    "larger": lambda x, c: jnp.maximum(x, c),
    "clipped": lambda x, c: jnp.minimum(jnp.abs(x), c),
    "choice": lambda x, c: jnp.where(x > c, x, c * x[::-1]),
    "single": lambda x, c: x.astype(jnp.float32).astype(x.dtype) + x,
    "whole": lambda x, c: x.astype(int).astype(x.dtype) * c,
    "sums": lambda x, c: lax.cumsum(x) * c,
    "sum": lambda x, c: x - x.sum(),
    "scattered": lambda x, c: x.at[jnp.array([1, 1, 2])].add(x[:3]),
    "padded": lambda x, c: lax.pad(x, jnp.asarray(c, x.dtype), [(1, -1, 0)]),
    "largest": lambda x, c: x - x.max() * c,
}
CONSTANTS = (0.1, 0.3, 0.5, 0.7, 1.0, 3.0, 6.0, 10.0)


def folded(function: Callable[[Any], Any], x: Array) -> Rounded | None:
    """Return what detection knows of a function's value."""
    program = jax.make_jaxpr(function)(abstract(x.shape, x.dtype))
    _, (value,) = Walk(IndexSets(1, 1 << 24), 1 << 24).closed(program, [None], [known(x)])
    return None if value is None else value.value


@pytest.mark.parametrize("seed", range(24))
def test_compiled_values_are_within_the_slack(seed: int) -> None:
    draw = np.random.default_rng(seed)
    dtype = (np.float64, np.float32)[seed % 2]
    chain = [(str(draw.choice(list(STEPS))), float(draw.choice(CONSTANTS))) for _ in range(5)]
    x = (draw.integers(-6, 7, 6) / draw.choice([1, 2, 5, 10])).astype(dtype)

    def function(x: Any) -> Any:
        for name, constant in chain:
            x = STEPS[name](x, constant)
        return x

    value = folded(function, x)
    if value is None:
        return
    held = jnp.asarray(x)
    for compiled in (jax.jit(function)(x), jax.jit(lambda: function(held))(), function(held)):
        with np.errstate(all="ignore"):
            distance = np.abs(np.asarray(compiled, float) - value.array.astype(float))
        assert np.all((distance <= value.distance) | ~np.isfinite(value.array)), chain


def test_most_chains_are_known() -> None:
    values = [folded(lambda x, name=name: STEPS[name](x, 0.3), np.arange(6.0) / 10) for name in STEPS]
    assert sum(value is not None for value in values) == len(STEPS)
