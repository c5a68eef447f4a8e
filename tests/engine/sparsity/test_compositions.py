"""Patterns of random compositions hold their dense Jacobians.

Set TEST_GRADWIRE_SPARSITY=full (`make sparsity`) for many; by default some, the same in every run.
"""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.engine.sparsity.compositions import FORWARD_ONLY, STEPS, composed
from tests.engine.sparsity.patterns import detected

FULL = os.environ.get("TEST_GRADWIRE_SPARSITY") == "full"

shapes = st.sampled_from([(5,), (6,), (2, 3), (3, 4), (2, 2, 3)])
chains = st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 2**20)), min_size=1, max_size=5)


@settings(
    max_examples=600 if FULL else 20,
    derandomize=not FULL,
    deadline=None,
    database=None,
    print_blob=True,
    phases=[Phase.generate, Phase.shrink] if FULL else [Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(shapes, chains, st.booleans())
def test_no_entry_of_a_composition_is_missed(
    shape: tuple[int, ...], chain: list[tuple[str, int]], second: bool
) -> None:
    function = composed(chain, shape)
    if second and not any(name in FORWARD_ONLY for name, _ in chain):
        inner = function
        function = jax.grad(lambda x: jnp.sum(jnp.sin(inner(x))))
    answer = detected(function, shape)
    assert not answer.dense_primitives
    pattern = answer.pattern.dense()
    draw = np.random.default_rng(3)
    evaluated = jax.jit(lambda x: (function(x), jax.jacfwd(function)(x)))
    for _ in range(2):
        x = (0.2 + draw.random(shape)) * draw.choice([-1, 1], shape)
        value, matrix = map(np.asarray, evaluated(x))
        if np.all(np.isfinite(value)) and np.all(np.isfinite(matrix)):
            missed = (matrix.reshape(pattern.shape) != 0) & ~pattern
            assert not missed.any(), np.argwhere(missed)


def test_every_step_fits_some_array() -> None:
    for name, step in STEPS.items():
        x = jax.ShapeDtypeStruct((6,), float)
        assert jax.eval_shape(step(np.random.default_rng(0), (6,)), x).dtype == float, name
