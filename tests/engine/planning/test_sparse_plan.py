"""Sparse plans: the matrices of dense plans from fewer seeds, whatever the coloring and the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwire_engine.errors import InvalidInput, LimitExceeded, NotDifferentiable
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.limits import Limits
from gradwire_engine.planning.plan import PlanOptions, Problem, make_plan
from gradwire_engine.planning.sparse_plan import Planned, plan_derivative
from gradwire_engine.planning.transforms import FunctionSpec, Gradient
from gradwire_engine.values import Blocks
from tests.engine import in_process
from tests.engine.small_graphs import graph_of

ROLLED = "<int64[1] zero = {0}, int64[1] one = {1}, int64[1] last = {-1}, int64[1] end = {1000}>"
CHAIN = (
    "(double[n] x) => (double[m] y) " + ROLLED + " { a = Slice(x, one, end) b = Slice(x, zero, last) "
    "c = Mul(b, b) y = Sub(a, c) }"
)
ROSENBROCK = (
    "(double[n] x) => (double s) " + ROLLED + " { a = Slice(x, one, end) b = Slice(x, zero, last) "
    "c = Mul(b, b) d = Sub(a, c) e = Mul(d, d) s = ReduceSum<keepdims = 0>(e) }"
)
TWO = (
    "(double[4] x, float[2, 2] z) => (double[4] y, double[2] w) "
    "<int64[1] rows = {1}, double[2] some = {2, 3}> { u = Cast<to = 11>(z) "
    "v = ReduceSum<keepdims = 0>(u, rows) w = Mul(v, some) t = Tanh(x) "
    "k = Flatten<axis = 0>(u) q = Squeeze(k) y = Mul(t, q) }"
)
FRAME = (
    "(double[n] x) => (double[m] y) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] last = {-1}> "
    "{ d = Exp(x) f = Slice(x, zero, one) s = ReduceSum(d) g = Sin(f) a = Mul(g, d) b = Add(a, d) "
    "y = Concat<axis = 0>(b, s) }"
)
WIDE = (
    "(double[n] x) => (double[m] y) <int64[1] zero = {0}, int64[1] four = {4}, int64[1] end = {1000}, "
    "double[1, 1, 5] w = {1, 2, 3, 4, 5}, int64[2] axes = {0, 1}> { t = Sin(x) u = Unsqueeze(t, axes) "
    "c = Conv(u, w) d = Squeeze(c, axes) e = Slice(x, four, end) y = Mul(d, e) }"
)
ROW_AND_DIAGONAL = "(double[n] x) => (double[n] y, double s) { y = Exp(x) s = ReduceSum<keepdims = 0>(y) }"


def planned_of(
    graph: Graph,
    inputs: dict[str, Any],
    kind: str = "jacobian",
    *transforms: Any,
    limits: Limits | None = None,
    wrt: tuple[str, ...] = (),
    of: tuple[str, ...] = (),
    **options: Any,
) -> Planned:
    options = {"sparsity": "sparse", **options}
    function = FunctionSpec(graph.info.graph_id, transforms)
    problem = Problem(function, in_process.argument_types(inputs), kind, wrt, of, PlanOptions(**options))
    return plan_derivative(graph, problem, None, limits)


def dense_of(graph: Graph, inputs: dict[str, Any], planned: Planned) -> np.ndarray[Any, Any]:
    plan = planned.plan
    problem = Problem(plan.problem.function, plan.problem.arguments, plan.problem.kind, plan.wrt, plan.of)
    entries = in_process.assemble(graph, make_plan(graph, problem), inputs)
    across = len(plan.wrt)
    flat = [
        entry.reshape(int(np.prod(where.row_shape)), -1)
        for entry, where in zip(entries, plan.entries, strict=True)
    ]
    return np.block([flat[start : start + across] for start in range(0, len(flat), across)])


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("width", [0, 1, 2])
def test_a_banded_jacobian_takes_two_seeds(mode: str, width: int) -> None:
    graph, point = graph_of(CHAIN), {"x": np.linspace(0.5, 2, 9)}
    planned = planned_of(graph, point, mode=mode, block_width=width)
    layout = planned.plan.sparse
    assert layout is not None and layout.nonzeros == 16
    assert (layout.column_colors, layout.row_colors) == ((2, 0) if mode == "forward" else (0, 2))
    assert len(planned.plan.blocks) == (2 if width == 1 else 1)
    found = in_process.assemble_sparse(graph, planned, point)
    np.testing.assert_array_equal(found, dense_of(graph, point, planned))


@pytest.mark.parametrize("width", [0, 1, 2, 3])
@pytest.mark.parametrize("cache", [1, 300, 1 << 20])
@pytest.mark.parametrize("body", ["WIDE", "FRAME"])
def test_colors_in_turn_and_in_batches_give_the_same_entries(
    monkeypatch: pytest.MonkeyPatch, width: int, cache: int, body: str
) -> None:
    monkeypatch.setattr("gradwire_engine.planning.sides.TOGETHER", 0)
    monkeypatch.setattr("gradwire_engine.planning.sides.BATCH_BYTES", cache)
    monkeypatch.setattr("gradwire_engine.planning.sizing.CACHE_BYTES", cache)
    graph, point = graph_of(globals()[body]), {"x": np.linspace(0.2, 1, 23)}
    planned = planned_of(graph, point, block_width=width)
    assert all(kernel.form.longest for kernel in planned.plan.kernels)
    found = in_process.assemble_sparse(graph, planned, point)
    np.testing.assert_allclose(found, dense_of(graph, point, planned), rtol=1e-13)


def test_colors_are_evaluated_together_where_they_share_what_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwire_engine.planning.sides.TOGETHER", 0)
    monkeypatch.setattr("gradwire_engine.planning.sides.BATCH_BYTES", 1)
    convolved = planned_of(graph_of(WIDE), {"x": np.ones(23)})
    assert [kernel.form.batch for kernel in convolved.plan.kernels] == [convolved.plan.seeds]
    elementwise = planned_of(graph_of(FRAME), {"x": np.ones(23)})
    assert {kernel.form.batch for kernel in elementwise.plan.kernels} == {1}


def test_a_loop_takes_many_colors_in_turn_and_few_are_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    few = planned_of(graph_of(WIDE), {"x": np.ones(23)})
    assert not few.plan.kernels[0].form.longest
    monkeypatch.setattr("gradwire_engine.planning.sides.WRITTEN_OUT_COLORS", few.plan.seeds - 1)
    many = planned_of(graph_of(WIDE), {"x": np.ones(23)})
    assert many.plan.kernels[0].form.longest
    assert many.plan.plan_id != few.plan.plan_id


def test_the_side_with_fewer_colors_is_seeded() -> None:
    graph, point = graph_of(ROW_AND_DIAGONAL), {"x": np.linspace(0, 1, 7)}
    planned = planned_of(graph, point)
    layout = planned.plan.sparse
    assert layout is not None and layout.nonzeros == 14
    assert (layout.coloring, layout.row_colors) == ("row", 2)
    found = in_process.assemble_sparse(graph, planned, point)
    np.testing.assert_array_equal(found, dense_of(graph, point, planned))


def test_a_dense_row_and_a_dense_column_take_few_seeds_from_both_sides() -> None:
    graph, point = graph_of(FRAME), {"x": np.linspace(0, 1, 40)}
    planned = planned_of(graph, point)
    layout = planned.plan.sparse
    assert layout is not None and layout.coloring == "bidirectional"
    assert planned.plan.mode == "bidirectional"
    assert layout.column_colors + layout.row_colors <= 5
    found = in_process.assemble_sparse(graph, planned, point)
    np.testing.assert_allclose(found, dense_of(graph, point, planned), rtol=1e-14)


def test_several_inputs_and_outputs_of_two_dtypes_make_one_matrix() -> None:
    graph = graph_of(TWO)
    point = {"x": np.linspace(0, 1, 4), "z": np.array([[1, 2], [3, 4]], np.float32)}
    planned = planned_of(graph, point)
    assert planned.plan.sparse is not None and planned.plan.sparse.dtype == "float64"
    found = in_process.assemble_sparse(graph, planned, point)
    np.testing.assert_allclose(found, dense_of(graph, point, planned), rtol=1e-6)


def test_a_tridiagonal_hessian_takes_three_seeds_at_most() -> None:
    graph, point = graph_of(ROSENBROCK), {"x": np.linspace(0.5, 2, 12)}
    planned = planned_of(graph, point, "hessian")
    layout = planned.plan.sparse
    assert layout is not None and layout.nonzeros == 34
    assert layout.column_colors <= 3
    found = in_process.assemble_sparse(graph, planned, point)
    np.testing.assert_allclose(found, dense_of(graph, point, planned), rtol=1e-14)


def test_one_triangle_of_a_hessian_is_sent_on_request() -> None:
    graph, point = graph_of(ROSENBROCK), {"x": np.linspace(0.5, 2, 12)}
    planned = planned_of(graph, point, "hessian", triangle=True)
    assert planned.plan.sparse is not None and planned.plan.sparse.nonzeros == 23
    found = in_process.assemble_sparse(graph, planned, point)
    np.testing.assert_allclose(found, np.tril(dense_of(graph, point, planned)), rtol=1e-14)


def test_the_jacobian_of_a_gradient_is_sparse_too() -> None:
    graph, point = graph_of(ROSENBROCK), {"x": np.linspace(0.5, 2, 6)}
    planned = planned_of(graph, point, "jacobian", Gradient())
    found = in_process.assemble_sparse(graph, planned, point)
    np.testing.assert_allclose(found, dense_of(graph, point, planned), rtol=1e-14)


def test_a_derivative_without_entries_has_no_blocks() -> None:
    graph, point = (
        graph_of("(double[n] x) => (double s) { s = ReduceSum<keepdims = 0>(x) }"),
        {"x": np.ones(5)},
    )
    planned = planned_of(graph, point, "hessian")
    assert planned.plan.blocks == Blocks() and planned.plan.sparse is not None
    assert planned.plan.sparse.nonzeros == 0
    assert not in_process.assemble_sparse(graph, planned, point).any()


def test_a_value_that_is_not_finite_stays_in_its_entry() -> None:
    graph, point = graph_of("(double[n] x) => (double[n] y) { y = Sqrt(x) }"), {"x": np.array([0.0, 4, -1])}
    found = in_process.assemble_sparse(graph, planned_of(graph, point), point)
    np.testing.assert_array_equal(found, [[np.inf, 0, 0], [0, 0.25, 0], [0, 0, np.nan]])


@pytest.mark.parametrize("slope", ["Log(x)", "Div(unit, x)", "Sqrt(x)"])
def test_an_infinite_slope_makes_nothing_wrong_and_no_nan_outside_of_its_row_or_column(slope: str) -> None:
    body = (
        "(double[n] x) => (double[n] y) <int64[1] zero = {0}, int64[1] one = {1}, int64[1] end = {1000}, "
        f"double unit = {{1}}> {{ s = {slope} a = Slice(x, one, end) b = Slice(x, zero, one) "
        "r = Concat<axis = 0>(a, b) q = Mul(r, r) y = Add(s, q) }"
    )
    graph, point = graph_of(body), {"x": np.array([0.0, 1, 4, 9])}
    for mode in ("forward", "reverse"):
        planned = planned_of(graph, point, mode=mode)
        found, expected = in_process.assemble_sparse(graph, planned, point), dense_of(graph, point, planned)
        assert (np.isnan(found) | (found == expected)).all()
        assert not np.isnan(found[1:] if mode == "forward" else found[:, 1:]).any()
        assert np.isinf(found[0, 0]) and (found[0, 2:] == 0).all()


def test_auto_takes_the_sparse_way_only_where_it_is_cheaper() -> None:
    graph, point = graph_of(CHAIN), {"x": np.linspace(0.5, 2, 9)}
    assert planned_of(graph, point, sparsity="auto").structure is not None
    dense = graph_of("(double[n] x) => (double[n] y) { s = ReduceSum(x) y = Mul(x, s) }")
    declined = planned_of(dense, {"x": np.ones(5)}, sparsity="auto")
    assert declined.structure is None and declined.plan.sparse is None
    assert planned_of(dense, {"x": np.ones(5)}).plan.seeds == 5


def test_limits_are_named_with_the_figure() -> None:
    graph, point = graph_of(CHAIN), {"x": np.linspace(0.5, 2, 9)}
    with pytest.raises(LimitExceeded, match="16 non-zeros of 8 x 9; the limit is 10"):
        planned_of(graph, point, limits=Limits(nonzeros=10))
    with pytest.raises(LimitExceeded, match="2 colors; the limit is 1"):
        planned_of(graph, point, limits=Limits(colors=1))
    assert planned_of(graph, point, sparsity="auto", limits=Limits(colors=1)).structure is None


def test_options_that_do_not_fit_are_refused() -> None:
    graph, point = graph_of(CHAIN), {"x": np.linspace(0.5, 2, 9)}
    with pytest.raises(InvalidInput, match="triangle"):
        planned_of(graph, point, triangle=True)
    with pytest.raises(InvalidInput, match="sparsity"):
        planned_of(graph, point, sparsity="thin")


def test_a_loop_without_reverse_mode_is_colored_by_columns() -> None:
    loop = (
        "(double[n] x, int64 k) => (double[n] y) { yes = Constant<value = bool {1}>() "
        "y = Loop(k, yes, x) <body = step (int64 i, bool c, double[n] u) => (bool d, double[n] v) "
        "{ d = Identity(c) v = Mul(u, u) }> }"
    )
    graph, point = graph_of(loop), {"x": np.linspace(0.5, 1, 5), "k": np.int64(2)}
    planned = planned_of(graph, {**point, "k": np.asarray(2)})
    assert planned.plan.sparse is not None and planned.plan.sparse.column_colors == 1
    found = in_process.assemble_sparse(graph, planned, {**point, "k": np.asarray(2)})
    np.testing.assert_allclose(found, np.diag(4 * point["x"] ** 3))
    with pytest.raises(NotDifferentiable, match="reverse"):
        planned_of(graph, {**point, "k": np.asarray(2)}, mode="reverse")


def test_equal_problems_have_equal_plans() -> None:
    graph, point = graph_of(CHAIN), {"x": np.linspace(0.5, 2, 9)}
    one, other = planned_of(graph, point), planned_of(graph, {"x": np.ones(9)})
    assert one.plan.plan_id == other.plan.plan_id
    assert one.structure is not None and other.structure is not None
    np.testing.assert_array_equal(one.structure.rows, other.structure.rows)
