"""Patterns of random compositions hold their dense Jacobians.

Set TEST_GRADWIRE_SPARSITY=full (`make sparsity`) for many; by default some, the same in every run.
"""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gradwire_engine.sparsity import detection
from gradwire_engine.sparsity.index_sets import IndexSets
from gradwire_engine.sparsity.rules import control_flow
from tests.engine.sparsity.compositions import FORWARD_ONLY, STEPS, composed
from tests.engine.sparsity.patterns import detected

FULL = os.environ.get("TEST_GRADWIRE_SPARSITY") == "full"

shapes = st.sampled_from([(5,), (6,), (2, 3), (3, 4), (2, 2, 3)])
LOOPS = (
    "carried",
    "nested_scans",
    "counted",
    "while_on_data",
    "branches",
    "mapped",
    "batched_loop",
    "associative",
)
loops = st.lists(st.tuples(st.sampled_from(LOOPS), st.integers(0, 2**20)), min_size=1, max_size=3)
chains = st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 2**20)), min_size=1, max_size=5)


sampled = settings(
    max_examples=600 if FULL else 16,
    derandomize=not FULL,
    deadline=None,
    database=None,
    print_blob=True,
    phases=[Phase.generate, Phase.shrink] if FULL else [Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def check(shape: tuple[int, ...], chain: list[tuple[str, int]], second: bool) -> None:
    """Compare the pattern of a chain, or of a gradient of it, with dense Jacobians."""
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


@sampled
@given(shapes, chains, st.booleans())
def test_no_entry_of_a_composition_is_missed(
    shape: tuple[int, ...], chain: list[tuple[str, int]], second: bool
) -> None:
    check(shape, chain, second)


@settings(sampled, max_examples=200 if FULL else 8)
@given(shapes, loops, st.booleans(), st.sampled_from([1, 64]))
def test_nor_where_loops_are_followed_to_a_fixed_point(
    shape: tuple[int, ...], chain: list[tuple[str, int]], second: bool, rounds: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, "STEPS", 0)
        patch.setattr(control_flow, "_ROUNDS", rounds)
        check(shape, chain, second)


@settings(sampled, max_examples=200 if FULL else 8)
@given(shapes, chains, st.booleans())
def test_nor_where_the_store_of_sets_has_to_grow(
    shape: tuple[int, ...], chain: list[tuple[str, int]], second: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, "IndexSets", _Narrow)
        check(shape, chain, second)


class _Narrow(IndexSets):
    """A store with next to no room at first."""

    def __init__(self, seeds: int, limit_bytes: int) -> None:
        super().__init__(seeds, limit_bytes)
        self._starts, self._items = np.zeros(4, np.int64), np.empty(4, np.int32)
        self._seen_sets = np.zeros(4, np.int64)


def test_every_step_fits_some_array() -> None:
    for name, step in STEPS.items():
        x = jax.ShapeDtypeStruct((6,), float)
        assert jax.eval_shape(step(np.random.default_rng(0), (6,)), x).dtype == float, name
