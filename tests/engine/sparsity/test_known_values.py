"""What detection knows before a program runs, and where rounding or the device leaves it open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.engine.sparsity.patterns import found, measured

TENTH = np.array([0.1, 0.5])
PRODUCT = TENTH * 3.0
"""Rounded for 0.1, so that a fused 0.1 * 3 - PRODUCT is not zero; exact for 0.5."""

MIXED = np.array([[3.0, 1.0], [0.0, 2.0]])

EXACT: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "reshape that permutes axes": (
        lambda x: x * (lax.reshape(lax.iota(int, 6).reshape(2, 3), (6,), (1, 0)) % 2),
        ((6,),),
    ),
    "conversion that saturates": (
        lambda x: x[jnp.clip((jnp.arange(3) * 1e20 - 1e20).astype(jnp.int32), 0, 2)],
        ((3,),),
    ),
    "conversion to a short unsigned integer": (
        lambda x: x[(jnp.arange(3.0) * 200 - 100).astype(jnp.uint8)],
        ((256,),),
    ),
    "integers that wrap": (lambda x: x[jnp.array([250, 3], jnp.uint8) + jnp.uint8(7)], ((12,),)),
    "comparison in single precision": (
        lambda x: jnp.where(jnp.array([0.1, 0.2, 0.3], jnp.float32) > 0.1, x, x[::-1]),
        ((3,),),
    ),
    "stacked masks": (
        lambda x: jnp.stack([jnp.eye(3), jnp.zeros((3, 3))]) @ x,
        ((3,),),
    ),
    "order of constants": (lambda x: x[jnp.argsort(jnp.array([3, 1, 2]))], ((3,),)),
    "index that was promised to be inside": (
        lambda x: x.at[np.array([1, 9])].get(mode="promise_in_bounds"),
        ((3,),),
    ),
    "branches by a counter": (
        lambda x: lax.scan(
            lambda c, i: (lax.cond(i % 2 == 0, lambda c: jnp.roll(c, 1), lambda c: c * c[0], c), c[i]),
            x,
            jnp.arange(3),
        ),
        ((5,),),
    ),
    "factor with few zeros": (lambda x: jnp.asarray(MIXED) @ x, ((2, 2),)),
}


@pytest.mark.parametrize("name", EXACT)
def test_known_values_are_those_that_the_program_has(name: str) -> None:
    function, shapes = EXACT[name]
    traced = jax.jit(function)
    np.testing.assert_array_equal(found(traced, *shapes), measured(traced, *shapes))


def test_a_zero_that_rounding_may_change_is_not_dropped_and_an_exact_one_is() -> None:
    def difference(x: Any, factor: Any) -> Any:
        return x * (factor * 3.0 - PRODUCT)

    np.testing.assert_array_equal(found(difference, (2,), (2,), known={1: TENTH}), [[1, 0], [0, 0]])


def test_a_division_is_taken_for_a_product_with_the_reciprocal_unless_by_a_power_of_two() -> None:
    def between(x: Any, width: float) -> Any:
        part = lax.iota(float, 8) / width
        return x * (0.5 * part - 0.5 * (1 - part))

    def weighted(width: float) -> Any:
        return found(jax.jit(lambda x: between(x, width)), (8,))

    for width in (6.0, 10.0):
        assert not (measured(jax.jit(lambda x, w=width: between(x, w)), (8,)) & ~weighted(width)).any()
        np.testing.assert_array_equal(weighted(width), np.eye(8))
    np.testing.assert_array_equal(weighted(8.0), np.diag(np.arange(8) != 4))


def test_an_index_that_rounding_may_change_is_not_known() -> None:
    def picked(x: Any, factor: Any) -> Any:
        return x[jnp.floor(factor * 3.0 - PRODUCT + 1).astype(int)]

    assert found(picked, (3,), (2,), known={1: TENTH}).all()


def test_an_index_far_from_a_step_is_known_however_it_is_rounded() -> None:
    def picked(x: Any, factor: Any) -> Any:
        return x[jnp.floor(factor * 0.7 + 1.1).astype(int)]

    np.testing.assert_array_equal(
        found(picked, (3,), (2,), known={1: np.array([0.1, 1.9])}), [[0, 1, 0], [0, 0, 1]]
    )


def test_a_choice_far_from_a_tie_is_known_and_one_near_it_is_not() -> None:
    def chosen(x: Any, factor: Any) -> Any:
        return jnp.where(factor * 3.0 > PRODUCT, x, x[::-1])

    assert found(chosen, (2,), (2,), known={1: TENTH}).all()
    np.testing.assert_array_equal(found(chosen, (2,), (2,), known={1: TENTH + 1}), np.eye(2))


def test_of_values_written_to_one_place_any_may_last() -> None:
    def written(x: Any, y: Any) -> Any:
        return x.at[np.array([1, 1])].set(y)

    pattern = found(written, (3,), (2,))
    assert pattern[1, 3:].all()
    assert not (measured(written, (3,), (2,)) & ~pattern).any()


def test_one_value_written_twice_is_known() -> None:
    def masked(x: Any) -> Any:
        return x * jnp.zeros(3).at[jnp.array([1, 1])].set(1.0)

    np.testing.assert_array_equal(found(masked, (3,)), np.diag([0, 1, 0]))


def test_long_chains_of_known_values_do_not_recurse() -> None:
    def counted(x: Any) -> Any:
        state = lax.fori_loop(0, 2000, lambda i, c: (c[0] * 1.0, (c[1] + 1) % 3), (x, 0))
        return state[0][state[1]]

    np.testing.assert_array_equal(found(counted, (3,)), [[0, 0, 1]])


def test_the_products_of_a_solver_may_be_scalars() -> None:
    def solved(b: Any) -> Any:
        return jax.scipy.sparse.linalg.cg(lambda v: jnp.arange(2.0, 6) * v, b)[0]

    assert not (measured(solved, (4,)) & ~found(solved, (4,))).any()


def test_of_index_vectors_each_component_is_followed_by_itself() -> None:
    def picked(x: Any, labels: Any) -> Any:
        return x[jnp.arange(2), labels]

    def written(x: Any, y: Any) -> Any:
        return jnp.zeros((2, 3)).at[jnp.arange(2), jnp.argsort(x)].add(y)

    pattern = found(lambda x: picked(x, jnp.argmax(x, 1)), (2, 3))
    np.testing.assert_array_equal(pattern, np.kron(np.eye(2), np.ones(3)))
    pattern = found(written, (2,), (2,))
    np.testing.assert_array_equal(pattern[:, 2:], np.kron(np.eye(2), np.ones((3, 1))))


def test_what_decides_in_a_solver_is_followed_too() -> None:
    def solve(_: Any, b: Any) -> Any:
        turned = jnp.where(b[::-1] > 0, 2 * b, b + b)
        return lax.cond(b[0] > 0, lambda: turned, lambda: turned + 0)

    def solved(b: Any) -> Any:
        return lax.custom_linear_solve(lambda v: v / 2, b, solve)

    pattern = found(solved, (4,))
    np.testing.assert_array_equal(pattern, (np.eye(4) + np.eye(4)[::-1] + np.eye(4)[0]) > 0)


def test_an_index_that_seeds_reach_makes_the_result_dense() -> None:
    def solve(_: Any, b: Any) -> Any:
        return b[jnp.argsort(b)]

    def solved(b: Any) -> Any:
        return lax.custom_linear_solve(lambda v: v, b, solve)

    assert found(solved, (3,)).all()
