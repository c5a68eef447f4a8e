"""Patterns found on linearized programs, for each family of primitives; the oracle is a dense Jacobian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gradwire_engine.abstract import abstract
from gradwire_engine.errors import LimitExceeded
from gradwire_engine.jaxprs.storing import _stored
from gradwire_engine.lowering.rules.networks import depthwise
from gradwire_engine.planning.plan import PlanOptions, Problem
from gradwire_engine.planning.sparse_plan import plan_derivative
from gradwire_engine.planning.transforms import FunctionSpec
from gradwire_engine.sparsity.detection import detect, linear_program
from tests.engine import in_process
from tests.engine.small_graphs import graph_of
from tests.engine.sparsity.patterns import detected, found, hessian_found, measured

N = 6
STENCIL = np.array([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
MATRIX = np.diag([1.0, 2, 3, 4, 5, 6]) + np.diag([7.0] * 5, 1)
TABLE = np.array([4, 4, 0, 2])


def image(x: Any) -> Any:
    return x.reshape(1, 1, 4, 5)


def convolved(x: Any, filters: Any, **options: Any) -> Any:
    return lax.conv_general_dilated(x, filters, **options)


def _loop_of_writes(x: Any) -> Any:
    return lax.fori_loop(0, 4, lambda i, c: c.at[i].set(c[i] * c[i + 1]), x)


def _steps(x: Any) -> Any:
    def step(u: Any, _: Any) -> Any:
        return u + 0.1 * (jnp.roll(u, 1) - u) * u, u[0]

    return lax.scan(step, x, None, length=2)


EXACT: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    # elementwise
    "identity": (lambda x: x, ((N,),)),
    "sine": (jnp.sin, ((N,),)),
    "two arguments": (lambda x, y: x * y, ((N,), (N,))),
    "broadcast product": (lambda x, y: x[:, None] * y, ((2,), (3,))),
    "quotient": (lambda x, y: x / y[0], ((3,), (2,))),
    "constant": (lambda x: jnp.ones(3) + 0 * x[:3].sum(), ((N,),)),
    "masked by a constant": (lambda x: x * np.array([1.0, 0, 1, 0, 2, 0]), ((N,),)),
    "known choice": (lambda x: jnp.where(np.arange(N) < 2, x, x[::-1]), ((N,),)),
    "stopped gradient": (lambda x: x + lax.stop_gradient(x[::-1]), ((N,),)),
    "straight-through": (lambda x: x[::-1] + lax.stop_gradient(jnp.round(x) - x), ((N,),)),
    "complex": (lambda x: jnp.abs(lax.complex(x, x[::-1])), ((N,),)),
    # structure
    "slice": (lambda x: x[1:5:2], ((N,),)),
    "reverse": (lambda x: x[::-1], ((N,),)),
    "roll": (lambda x: jnp.roll(x, 2), ((N,),)),
    "transpose": (lambda x: x.T, ((2, 3),)),
    "reshape": (lambda x: x.reshape(3, 2).sum(1), ((2, 3),)),
    "concatenate": (lambda x, y: jnp.concatenate([x, jnp.ones(2), y]), ((3,), (2,))),
    "stack": (lambda x, y: jnp.stack([x, y], 1), ((3,), (3,))),
    "tile": (lambda x: jnp.tile(x, 2), ((3,),)),
    "split": (lambda x: jnp.split(x, 3)[1], ((N,),)),
    "pad": (lambda x: jnp.pad(x, (2, 1)), ((3,),)),
    "interior and negative pad": (lambda x: lax.pad(x, 0.0, [(-1, 2, 1)]), ((4,),)),
    "padding value": (lambda x: lax.pad(x[:2], x[3], [(1, 1, 0)]), ((4,),)),
    "difference": (lambda x: jnp.diff(x) ** 2, ((N,),)),
    # reductions
    "sum": (jnp.sum, ((N,),)),
    "sum along": (lambda x: x.sum(0), ((2, 3),)),
    "mean taken off": (lambda x: x - x.mean(), ((N,),)),
    "cumsum": (jnp.cumsum, ((N,),)),
    "reverse cumsum": (lambda x: lax.cumsum(x, reverse=True), ((N,),)),
    "cumprod": (jnp.cumprod, ((N,),)),
    "norm": (lambda x: jnp.linalg.norm(x, axis=1), ((2, 3),)),
    "window sum": (lambda x: lax.reduce_window(x, 0.0, lax.add, (2,), (2,), "VALID"), ((N,),)),
    "dilated window": (
        lambda x: lax.reduce_window(x, 0.0, lax.add, (2,), (1,), [(1, 0)], window_dilation=(2,)),
        ((N,),),
    ),
    # products
    "dense matrix": (lambda x: jnp.arange(1.0, 13).reshape(2, N) @ x, ((N,),)),
    "mostly zero matrix": (lambda x: jnp.asarray(MATRIX) @ x, ((N,),)),
    "matrix from the right": (lambda x: x @ jnp.asarray(MATRIX), ((2, N),)),
    "batched product": (lambda x: jnp.einsum("bij,bj->bi", jnp.ones((3, 2, 4)), x), ((3, 4),)),
    "two contracted axes": (lambda x: jnp.tensordot(jnp.ones((2, 3, 4)), x, 2), ((3, 4),)),
    "product of arguments": (lambda x, y: x @ y, ((2, 3), (3, 2))),
    "quadratic forms": (lambda x: jnp.einsum("bi,ij,bj->b", x, jnp.ones((3, 3)), x), ((2, 3),)),
    # indexing
    "gather": (lambda x: x[TABLE], ((N,),)),
    "gather rows": (lambda x: x[np.array([2, 0])], ((3, 2),)),
    "gather points": (lambda x: x[np.array([2, 0]), np.array([1, 1])], ((3, 2),)),
    "take along axis": (lambda x: jnp.take_along_axis(x, np.array([[1], [0]]), 1), ((2, 3),)),
    "scatter-add with duplicates": (lambda x: jnp.zeros(5).at[TABLE].add(x), ((4,),)),
    "scatter over": (lambda x, y: x.at[np.array([3, 0])].set(y), ((4,), (2,))),
    "scatter rows": (lambda x, y: x.at[1].add(y), ((3, 2), (2,))),
    "dynamic slice at a constant": (lambda x: lax.dynamic_slice(x, (jnp.int32(2),), (3,)), ((N,),)),
    "update of a slice": (lambda x, y: lax.dynamic_update_slice(x, y, (1,)), ((4,), (2,))),
    "triangle": (lambda x: x[np.tril_indices(3)], ((3, 3),)),
    "segment sum": (lambda x: jax.ops.segment_sum(x, np.array([0, 0, 1, 3, 3, 3]), 4), ((N,),)),
    # windows and filters
    "convolution": (lambda x: jnp.convolve(x, np.array([1.0, 2, 3]), "same"), ((N,),)),
    "five-point filter": (
        lambda x: convolved(
            image(x), jnp.asarray(STENCIL)[None, None], window_strides=(1, 1), padding="SAME"
        ),
        ((20,),),
    ),
    "strided dense filter": (
        lambda x: convolved(image(x), jnp.ones((2, 1, 2, 2)), window_strides=(2, 1), padding="VALID"),
        ((20,),),
    ),
    "dilated filter": (
        lambda x: convolved(
            image(x), jnp.ones((1, 1, 2, 2)), window_strides=(1, 1), padding="VALID", rhs_dilation=(2, 2)
        ),
        ((20,),),
    ),
    "transposed convolution": (
        lambda x: convolved(
            image(x),
            jnp.ones((1, 1, 3, 3)),
            window_strides=(1, 1),
            padding=((1, 1), (1, 1)),
            lhs_dilation=(2, 2),
        ),
        ((20,),),
    ),
    "grouped filter": (
        lambda x: convolved(
            x, jnp.ones((4, 1, 2)), window_strides=(1,), padding="VALID", feature_group_count=2
        ),
        ((2, 2, 4),),
    ),
    "channels last": (
        lambda x: convolved(
            x,
            jnp.ones((2, 3, 2)),
            window_strides=(1,),
            padding="VALID",
            dimension_numbers=("NWC", "WIO", "NWC"),
        ),
        ((2, 4, 3),),
    ),
    "filter's own": (
        lambda w: convolved(jnp.ones((2, 3, 4)), w, window_strides=(1,), padding=((1, 0),)),
        ((2, 3, 2),),
    ),
    # linear algebra
    "batched solve": (
        lambda x: jnp.linalg.solve(jnp.eye(3)[None] + jnp.ones((2, 3, 3)), x[..., None]),
        ((2, 3),),
    ),
    "fft": (lambda x: jnp.abs(jnp.fft.fft(x)), ((2, 4),)),
    # control flow
    "loop with counted writes": (_loop_of_writes, ((5,),)),
    "steps of a scheme": (_steps, ((5,),)),
    "scan over rows": (lambda x: lax.scan(lambda c, r: (c + r[0], r * c), 1.0, x)[1], ((3, 2),)),
    "reverse scan": (lambda x: lax.scan(lambda c, r: (c + r, c), 0.0, x, reverse=True)[1], ((4,),)),
    "known branch": (lambda x: lax.cond(True, lambda x: x[::-1], jnp.cumsum, x), ((4,),)),
    "counted while": (
        lambda x: lax.while_loop(lambda c: c[1] < 2, lambda c: (jnp.roll(c[0], 1) * c[0], c[1] + 1), (x, 0))[
            0
        ],
        ((5,),),
    ),
    "map": (lambda x: lax.map(lambda r: r.sum(), x), ((3, 2),)),
    "checkpoint": (lambda x: jax.checkpoint(lambda x: jnp.sin(x) * x[::-1])(x), ((4,),)),
    "vmap of a loop": (jax.vmap(lambda x: lax.fori_loop(0, 2, lambda i, c: c * x[i], x[2])), ((2, 3),)),
}


@pytest.mark.parametrize("name", EXACT)
def test_pattern_is_where_the_jacobian_is_not_zero(name: str) -> None:
    function, shapes = EXACT[name]
    answer = detected(function, *shapes)
    assert answer.dense_primitives == ()
    np.testing.assert_array_equal(answer.pattern.dense(), measured(function, *shapes))


HESSIANS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "rosenbrock": (lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2), ((N,),)),
    "separable": (lambda x: jnp.sum(jnp.exp(x)), ((N,),)),
    "linear": (lambda x: jnp.sum(3 * x), ((N,),)),
    "dense": (lambda x: jnp.sum(x) ** 3, ((N,),)),
    "bilinear": (lambda x, y: jnp.sum(x * y), ((3,), (3,))),
    "arrow": (lambda x: jnp.sum(x[0] * x[1:] ** 2), ((N,),)),
    "softplus": (lambda x: jnp.sum(jax.nn.softplus(x[1:] * x[:-1])), ((N,),)),
    "surface": (
        lambda u: jnp.sum(jnp.sqrt(1 + (u[1:, :-1] - u[:-1, :-1]) ** 2 + (u[:-1, 1:] - u[:-1, :-1]) ** 2)),
        ((3, 3),),
    ),
}


@pytest.mark.parametrize("name", HESSIANS)
def test_pattern_of_a_hessian_is_where_it_is_not_zero(name: str) -> None:
    function, shapes = HESSIANS[name]
    gradient = jax.grad(function, tuple(range(len(shapes))))
    pattern = hessian_found(function, *shapes)
    np.testing.assert_array_equal(pattern, measured(gradient, *shapes))
    np.testing.assert_array_equal(pattern, pattern.T)


def test_worked_matrices() -> None:
    np.testing.assert_array_equal(found(lambda x: x[1:] * x[:-1], (3,)), [[1, 1, 0], [0, 1, 1]])
    np.testing.assert_array_equal(
        found(lambda x: x.at[np.array([0, 0])].add(x[1:]), (3,)), [[1, 1, 1], [0, 1, 0], [0, 0, 1]]
    )
    np.testing.assert_array_equal(
        found(lambda x: jnp.array([x[0], 0.0 * x[1], x[2] ** 2]), (3,)), [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    )


COVERED: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...], Any]] = {
    "unknown choice": (lambda x: jnp.where(x > 0, x, x[::-1]), ((3,),), [[1, 0, 1], [0, 1, 0], [1, 0, 1]]),
    "triangular solves": (
        lambda x: jax.scipy.linalg.solve_triangular(jnp.eye(2) + jnp.tril(jnp.ones((2, 2))), x, lower=True),
        ((2, 2),),
        [[1, 0, 1, 0], [0, 1, 0, 1]] * 2,
    ),
    "largest of a window": (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID"),
        ((4,),),
        [[1, 1, 0, 0], [0, 0, 1, 1]],
    ),
    "sort": (lambda x: jnp.sort(x, 0), ((2, 2),), [[1, 0, 1, 0], [0, 1, 0, 1]] * 2),
    "largest": (lambda x: x.max(1), ((2, 2),), [[1, 1, 0, 0], [0, 0, 1, 1]]),
    "index from data": (
        lambda x: x[jnp.argmax(x[:, 0])],
        ((2, 2),),
        [[1, 0, 1, 0], [0, 1, 0, 1]],
    ),
    "write at an index from data": (
        lambda x: jnp.zeros((2, 2)).at[jnp.argmax(x)].set(x),
        ((2,),),
        [[1, 0], [0, 1]] * 2,
    ),
    "unknown branch": (
        lambda x: lax.cond(x[0] > 0, lambda x: x[::-1], jnp.sin, x),
        ((3,),),
        [[1, 0, 1], [0, 1, 0], [1, 0, 1]],
    ),
    "while on data": (
        lambda x: lax.while_loop(lambda c: c.sum() < 9, lambda c: c.at[0].add(c[1]) ** 2 + 1, x),
        ((3,),),
        [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
    ),
    "overlapping maxima": (
        lambda x: jax.vjp(
            lambda y: lax.reduce_window(y, -jnp.inf, lax.max, (2,), (1,), "VALID"), jnp.arange(3.0)
        )[1](x)[0],
        ((2,),),
        [[1, 0], [1, 1], [0, 1]],
    ),
}


@pytest.mark.parametrize("name", COVERED)
def test_what_depends_on_the_point_is_covered_and_no_more(name: str) -> None:
    function, shapes, expected = COVERED[name]
    pattern = found(function, *shapes)
    np.testing.assert_array_equal(pattern, expected)
    assert not (measured(function, *shapes) & ~pattern).any()


def test_a_rule_of_ones_own_is_followed_and_not_the_code_that_it_replaces() -> None:
    @jax.custom_jvp
    def odd(x: Any) -> Any:
        return jnp.cumsum(x)

    odd.defjvp(lambda primals, tangents: (odd(*primals), 2 * tangents[0][::-1]))
    np.testing.assert_array_equal(found(odd, (3,)), np.eye(3, dtype=bool)[::-1])


def test_long_loops_reach_a_fixed_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwire_engine.sparsity.detection.STEPS", 0)

    def diffused(x: Any) -> Any:
        return lax.scan(lambda u, _: (u.at[1:].add(u[:-1]), u[-1]), x, None, length=10)

    pattern = found(diffused, (4,))
    assert not (measured(diffused, (4,)) & ~pattern).any()
    np.testing.assert_array_equal(pattern[:4], np.tril(np.ones((4, 4))))
    np.testing.assert_array_equal(pattern[4:], np.ones((10, 4)))


def test_a_fixed_point_that_is_far_is_taken_for_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwire_engine.sparsity.detection.STEPS", 0)

    def shifted(x: Any) -> Any:
        return lax.scan(lambda u, _: (u + jnp.roll(u, 1), None), x, None, length=3)[0]

    pattern = found(shifted, (200,))
    assert not (measured(shifted, (200,)) & ~pattern).any()


def test_a_primitive_without_a_rule_is_dense_and_named() -> None:
    def transposed(x: Any) -> Any:
        return jax.lax.ragged_dot(x.reshape(4, 2), jnp.ones((2, 2, 3)), jnp.array([2, 2]))

    answer = detected(transposed, (8,))
    assert answer.dense_primitives == ("ragged_dot_general",)
    assert answer.pattern.dense().all()


def test_known_arguments_are_followed_exactly() -> None:
    def picked(x: Any, index: Any) -> Any:
        return x[index]

    index = np.array([2, 0])
    assert found(picked, (3,), (2,), known={1: index}).tolist() == [
        [False, False, True],
        [True, False, False],
    ]


def test_a_product_with_a_known_sparse_matrix_keeps_its_pattern() -> None:
    pattern = found(lambda x, a: a @ x, (N,), (N, N), known={1: MATRIX})
    np.testing.assert_array_equal(pattern, MATRIX != 0)


def test_a_pattern_far_from_sparse_is_refused_over_the_limit() -> None:
    wide = abstract((3000,), float)
    program = linear_program(lambda x, t: [jnp.cumsum(t)], [wide], [wide], {})
    with pytest.raises(LimitExceeded, match="far from sparse"):
        detect(program, memory=1 << 20)


def test_a_million_rows_share_the_set_of_a_sum() -> None:
    wide = abstract((1_000_000,), float)
    program = linear_program(lambda x, t: [(t - t.mean())[:3]], [wide], [wide], {})
    assert detect(program).pattern.nonzeros == 3_000_000


def test_operators_of_networks_are_followed_as_the_engine_lowers_them() -> None:
    body = (
        "(double[1, 2, 5] x) => (double[1, 2, 3] y) <double[2, 1, 3] w = {1, 2, 3, 4, 5, 6}> "
        "{ y = Conv<group = 2>(x, w) }"
    )
    graph, point = graph_of(body), {"x": np.arange(10.0).reshape(1, 2, 5)}
    function = FunctionSpec(graph.info.graph_id)
    options = PlanOptions(sparsity="sparse")
    problem = Problem(function, in_process.argument_types(point), "jacobian", options=options)
    planned = plan_derivative(graph, problem)
    assert planned.plan.sparse is not None and planned.plan.sparse.dense_primitives == ()
    assert planned.plan.sparse.nonzeros == 2 * 3 * 3
    kept = np.array([[1, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], bool)

    def by_filter(w: Any) -> Any:
        filters = (w * kept).reshape(2, 1, 6)[:, :, :3]
        return storing_sum(depthwise.convolve(jnp.ones((1, 2, 5)), filters, (1,), ((0, 0),), 2))

    pattern = found(by_filter, (6,))
    assert pattern.tolist() == [[True, False, True, False, False, False]]


def storing_sum(x: Any) -> Any:
    return _stored.bind(x).sum()
