"""Hessians by substitution: the matrices of dense plans from fewer products, nothing spoiled on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mpmath
import numpy as np
import pytest

from gradwire_engine.graphs.graph import Graph
from gradwire_engine.planning.plan import PlanOptions, Problem, make_plan
from gradwire_engine.planning.sparse_plan import Planned, plan_derivative
from gradwire_engine.planning.transforms import FunctionSpec, Gradient
from gradwire_engine.sparsity.coloring.acyclic import LARGEST
from gradwire_engine.sparsity.coloring.subtraction import accurate
from tests.engine import in_process
from tests.engine.small_graphs import graph_of

Array = np.ndarray[Any, Any]
EPS = np.finfo(float).eps


def mesh(seed: int, count: int = 120) -> Array:
    """The edges of a random mesh: points in a square, each joined with its nearest."""
    points = np.random.default_rng(seed).random((count, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    near = np.argsort(distances, axis=1)[:, 1:6]
    pairs = np.sort(np.stack([np.repeat(np.arange(count), 5), near.ravel()], 1), axis=1)
    return np.unique(pairs, axis=0)


def energy(edges: Array, body: str, weights: Array | None = None, dtype: str = "double") -> Graph:
    """A graph of the sum over all edges of `body`: t, of d = x[i] - x[j] and weights w."""
    weights = np.ones(len(edges)) if weights is None else weights
    lists = ", ".join(
        f"int64[{len(edges)}] {name} = {{{', '.join(map(str, edges[:, side]))}}}"
        for side, name in enumerate(("i", "j"))
    )
    values = ", ".join(repr(float(weight)) for weight in weights)
    return graph_of(
        f"({dtype}[n] x) => ({dtype} s) <{lists}, {dtype}[{len(edges)}] w = {{{values}}}> "
        f"{{ a = Gather(x, i) b = Gather(x, j) d = Sub(a, b) {body} s = ReduceSum<keepdims = 0>(t) }}"
    )


CUBIC = "q = Mul(d, d) p = Mul(d, q) t = Mul(w, p)"
EXPONENTIAL = "q = Exp(d) t = Mul(w, q)"


def hessian_of(edges: Array, second: Callable[[int], Any], count: int) -> Any:
    """The Hessian of a sum of functions of differences, from their second derivatives."""
    matrix = np.zeros((count, count), object)
    for k, (i, j) in enumerate(edges):
        value = second(k)
        matrix[i, i] += value
        matrix[j, j] += value
        matrix[i, j] -= value
        matrix[j, i] -= value
    return matrix


def planned_of(
    graph: Graph,
    point: dict[str, Any],
    kind: str = "hessian",
    *transforms: Any,
    of: tuple[str, ...] = (),
    **options: Any,
) -> Planned:
    problem = Problem(
        FunctionSpec(graph.info.graph_id, transforms),
        in_process.argument_types(point),
        kind,
        (),
        of,
        PlanOptions(**{"sparsity": "sparse", **options}),
    )
    return plan_derivative(graph, problem)


def coloring_of(planned: Planned) -> str:
    assert planned.plan.sparse is not None
    return planned.plan.sparse.coloring


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small problems colored as large ones are."""
    monkeypatch.setattr("gradwire_engine.planning.sparse_plan.SUBSTITUTED_FLOPS", 0)
    monkeypatch.setattr("gradwire_engine.planning.sparse_plan.SUBSTITUTED_ENTRY", 0)


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether values followed by substitution, of each block computed."""
    answers: list[bool] = []

    def noted(*arguments: Any) -> bool:
        answers.append(accurate(*arguments))
        return answers[-1]

    monkeypatch.setattr("gradwire_engine.planning.substituting.accurate", noted)
    return answers


@pytest.mark.parametrize(
    ("seed", "together", "triangle"), [(0, 1 << 18, False), (1, 0, True), (4, 0, False), (3, 1 << 18, True)]
)
def test_whole_numbers_come_out_to_the_bit(
    cheap: None,
    followed: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    together: int,
    triangle: bool,
) -> None:
    monkeypatch.setattr("gradwire_engine.planning.sides.TOGETHER", together)
    draw, edges = np.random.default_rng(seed), mesh(seed)
    weights = draw.integers(1, 9, len(edges)).astype(float)
    graph, point = energy(edges, CUBIC, weights), {"x": draw.integers(-9, 9, 120).astype(float)}
    planned = planned_of(graph, point, triangle=triangle)
    layout = planned.plan.sparse
    assert layout is not None and layout.coloring == "acyclic" and len(planned.plan.blocks) == 1
    steps = point["x"][edges[:, 0]] - point["x"][edges[:, 1]]
    exact = hessian_of(edges, lambda k: 6 * weights[k] * steps[k], 120).astype(float)
    assert layout.nonzeros == 120 + (1 if triangle else 2) * len(edges)
    found = in_process.assemble_sparse(graph, planned, point)
    np.testing.assert_array_equal(found, np.tril(exact) if triangle else exact)
    assert followed == [True]


def test_the_error_is_within_its_bound(cheap: None, followed: list[bool]) -> None:
    draw, edges = np.random.default_rng(5), mesh(5)
    weights = 10.0 ** draw.uniform(-2, 2, len(edges))
    graph, point = energy(edges, EXPONENTIAL, weights), {"x": draw.random(120)}
    planned = planned_of(graph, point)
    assert coloring_of(planned) == "acyclic"
    with mpmath.workdps(40):
        x = [mpmath.mpf(float(value)) for value in point["x"]]
        exact = hessian_of(
            edges, lambda k: mpmath.mpf(weights[k]) * mpmath.exp(x[edges[k, 0]] - x[edges[k, 1]]), 120
        )
        error = np.abs(exact - in_process.assemble_sparse(graph, planned, point)).astype(float)
    beside = np.abs(exact.astype(float))
    np.fill_diagonal(beside, 0)
    # A cell adds up the entries of one color in a row; an entry, the cells of at most LARGEST edges.
    largest = np.sort(beside.ravel())[-2 * LARGEST :].sum()
    allowed = LARGEST * EPS * largest + 16 * EPS * np.diag(np.diag(exact.astype(float)))
    assert (error <= allowed).all() and followed == [True]


@pytest.mark.parametrize(
    ("together", "triangle", "weight"), [(0, True, 1e308), (0, False, np.nan), (1 << 18, True, 1e30)]
)
def test_values_that_would_be_spoiled_are_those_of_a_direct_coloring(
    cheap: None,
    followed: list[bool],
    monkeypatch: pytest.MonkeyPatch,
    together: int,
    triangle: bool,
    weight: float,
) -> None:
    monkeypatch.setattr("gradwire_engine.planning.sides.TOGETHER", together)
    draw, edges = np.random.default_rng(7), mesh(7)
    weights = np.ones(len(edges))
    spoiling = [20, 90, 150]
    weights[spoiling] = weight
    graph, point = energy(edges, CUBIC, weights), {"x": draw.random(120)}
    planned = planned_of(graph, point, triangle=triangle)
    assert coloring_of(planned) == "acyclic"
    found = in_process.assemble_sparse(graph, planned, point)
    assert followed == [False]
    monkeypatch.setattr("gradwire_engine.planning.sparse_plan.SUBSTITUTED_FLOPS", 1e99)
    direct = planned_of(graph, point, triangle=triangle)
    assert coloring_of(direct) == "star"
    np.testing.assert_array_equal(found, in_process.assemble_sparse(graph, direct, point))
    # What is not finite is in the rows and columns of the ends of these edges.
    ends = np.unique(edges[spoiling])
    others = np.delete(np.delete(found, ends, axis=0), ends, axis=1)
    assert np.isfinite(others).all()
    assert np.isfinite(found).all() == (weight == 1e30)


def test_a_plan_that_substitution_does_not_suit_is_read_directly(cheap: None) -> None:
    edges = mesh(11)
    graph, point = energy(edges, CUBIC), {"x": np.linspace(0, 1, 120)}
    assert coloring_of(planned_of(graph, point)) == "acyclic"
    several = planned_of(graph, point, block_width=2)
    assert coloring_of(several) == "star" and len(several.plan.blocks) > 1
    tight = planned_of(graph, point, block_memory_bytes=1 << 10)
    assert coloring_of(tight) == "star" and len(tight.plan.blocks) > 1
    single = energy(edges, CUBIC, dtype="float")
    assert coloring_of(planned_of(single, {"x": np.zeros(120, np.float32)})) == "star"


def test_small_hessians_are_read_directly() -> None:
    graph, point = energy(mesh(11), CUBIC), {"x": np.linspace(0, 1, 120)}
    assert coloring_of(planned_of(graph, point)) == "star"


def test_plans_of_two_colorings_have_two_ids(cheap: None, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, point = energy(mesh(11), CUBIC), {"x": np.linspace(0, 1, 120)}
    one, again = planned_of(graph, point), planned_of(graph, point)
    monkeypatch.setattr("gradwire_engine.planning.sparse_plan.SUBSTITUTED_FLOPS", 1e99)
    other = planned_of(graph, point)
    assert one.plan.plan_id == again.plan.plan_id != other.plan.plan_id


@pytest.mark.parametrize("coloring", ["star", "acyclic"])
def test_the_jacobian_of_a_gradient_is_colored_as_a_hessian(
    request: pytest.FixtureRequest, coloring: str
) -> None:
    if coloring == "acyclic":
        request.getfixturevalue("cheap")
    graph, point = energy(mesh(3), EXPONENTIAL), {"x": np.linspace(0, 1, 120)}
    planned = planned_of(graph, point, "jacobian", Gradient(keep_values=True), of=("x.gradient",))
    hessian = planned_of(graph, point)
    assert coloring_of(planned) == coloring_of(hessian) == coloring
    assert planned.plan.sparse is not None and hessian.plan.sparse is not None
    assert planned.plan.sparse.column_colors == hessian.plan.sparse.column_colors
    found = in_process.assemble_sparse(graph, planned, point)
    np.testing.assert_allclose(found, in_process.assemble_sparse(graph, hessian, point), atol=1e-12)
    by_rows = planned_of(
        graph, point, "jacobian", Gradient(keep_values=True), of=("x.gradient",), mode="reverse"
    )
    assert coloring_of(by_rows) == "row"


def test_a_jacobian_of_gradients_by_other_inputs_is_no_hessian() -> None:
    graph = graph_of(
        "(double[9] x, double[9] y) => (double s) { p = Mul(x, y) q = Exp(p) s = ReduceSum<keepdims = 0>(q) }"
    )
    point = {"x": np.linspace(0, 1, 9), "y": np.linspace(1, 2, 9)}
    for of, symmetric in (
        (("x.gradient", "y.gradient"), True),
        (("y.gradient", "x.gradient"), False),
        (("x.gradient",), False),
    ):
        planned = planned_of(graph, point, "jacobian", Gradient(), of=of)
        assert (coloring_of(planned) == "star") == symmetric
        problem = replace(planned.plan.problem, options=PlanOptions())
        entries = in_process.assemble(graph, make_plan(graph, problem), point)
        dense = np.block([entries[start : start + 2] for start in range(0, len(entries), 2)])
        np.testing.assert_allclose(in_process.assemble_sparse(graph, planned, point), dense, rtol=1e-14)
