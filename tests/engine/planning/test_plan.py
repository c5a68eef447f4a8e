"""Plans: cut the same way everywhere, cover every element once, fit memory, and choose the cheaper mode."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire_engine.errors import InvalidInput, LimitExceeded, NotDifferentiable
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.limits import Limits
from gradwire_engine.planning.plan import Plan
from gradwire_engine.planning.transforms import Gradient
from gradwire_engine.values import ArrayType, Blocks
from tests.engine import in_process
from tests.engine.planning.test_registration import DATA_DEPENDENT
from tests.engine.small_graphs import graph_of, matrices, plan_of

ELEMENTWISE = "(double[n] x) => (double[n] y) { y = Sin(x) }"
LAYER = "(double[n] x, double[m, n] a) => (double[m] y) { h = MatMul(a, x) y = Tanh(h) }"
TWO = "(double[n] x, double[m] z) => (double[n] y, double[m] w, double s) { y = Sin(x) w = Cos(z) \
 p = ReduceSum<keepdims = 0>(y) q = ReduceSum<keepdims = 0>(w) s = Mul(p, q) }"


@pytest.fixture(scope="module")
def elementwise() -> Graph:
    return graph_of(ELEMENTWISE)


def covered(plan: Plan) -> list[np.ndarray[Any, Any]]:
    """How often each element of each entry is covered."""
    counts = [
        np.zeros((ArrayType("bool", entry.row_shape).size, ArrayType("bool", entry.column_shape).size), int)
        for entry in plan.entries
    ]
    for block in plan.blocks:
        for piece in plan.pieces(block):
            counts[piece.entry][piece.row_start : piece.row_stop, piece.column_start : piece.column_stop] += 1
    return counts


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 9),
    m=st.integers(0, 5),
    width=st.integers(0, 10),
    kind_mode=st.sampled_from(
        [("jacobian", ""), ("jacobian", "forward"), ("jacobian", "reverse"), ("hessian", "")]
    ),
)
def test_blocks_cover_each_element_exactly_once(
    n: int, m: int, width: int, kind_mode: tuple[str, str]
) -> None:
    kind, mode = kind_mode
    point = {"x": np.linspace(0, 1, n), "z": np.linspace(1, 2, m)}
    of = ("s",) if kind == "hessian" else ()
    plan = plan_of(graph_of(TWO), point, kind, of=of, mode=mode, block_width=width)
    for count in covered(plan):
        np.testing.assert_array_equal(count, np.ones_like(count))
    assert [block.index for block in plan.blocks] == list(range(len(plan.blocks)))
    assert sum(block.stop - block.start for block in plan.blocks) == plan.seeds


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize(("width", "blocks"), [(1, 10), (3, 4), (4, 3), (7, 2), (10, 1), (99, 1)])
def test_a_width_that_does_not_divide_the_seeds_leaves_a_short_last_block(
    elementwise: Graph, mode: str, width: int, blocks: int
) -> None:
    point = {"x": np.linspace(0, 2, 10)}
    plan = plan_of(elementwise, point, mode=mode, block_width=width)
    assert len(plan.blocks) == blocks
    assert plan.block_width == min(width, 10)
    (result,) = in_process.assemble(elementwise, plan, point)
    np.testing.assert_allclose(result, np.diag(np.cos(point["x"])), rtol=1e-15)


def test_a_hessian_is_the_same_in_blocks_of_any_width() -> None:
    graph = graph_of(TWO)
    point = {"x": np.linspace(0, 1, 5), "z": np.linspace(1, 2, 3)}
    whole = matrices(graph, point, "hessian", of=("s",))
    for width in (1, 2, 4):
        for one, other in zip(
            matrices(graph, point, "hessian", of=("s",), block_width=width), whole, strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-14, atol=1e-15)


# Mode


@pytest.mark.parametrize(
    ("rows", "columns", "mode"), [(2, 9, "reverse"), (9, 2, "forward"), (4, 4, "reverse"), (1, 2, "reverse")]
)
def test_the_mode_with_fewer_seeds_is_chosen_and_reverse_on_a_tie(rows: int, columns: int, mode: str) -> None:
    point = {"x": np.ones(columns), "a": np.ones((rows, columns))}
    plan = plan_of(graph_of(LAYER), point, wrt=("x",))
    assert plan.mode == mode
    assert plan.seeds == min(rows, columns)


def test_a_forward_only_function_is_planned_forward() -> None:
    graph = graph_of(DATA_DEPENDENT)
    point = {"x": np.array([0.9, 0.8])}
    assert plan_of(graph, point).mode == "forward"
    with pytest.raises(NotDifferentiable, match=r"use mode forward$"):
        plan_of(graph, point, mode="reverse")


def test_a_hessian_is_forward_over_reverse_where_reverse_is_possible() -> None:
    point = {"x": np.ones(3), "z": np.ones(2)}
    assert plan_of(graph_of(TWO), point, "hessian", of=("s",)).mode == "forward_over_reverse"


# Entries


def test_entries_are_ordered_by_row_then_column_and_say_their_shapes() -> None:
    point = {"x": np.ones(3), "z": np.ones(2)}
    plan = plan_of(graph_of(TWO), point)
    assert [(entry.row, entry.column) for entry in plan.entries] == [
        (row, column) for row in ("y", "w", "s") for column in ("x", "z")
    ]
    assert (plan.entries[3].row_shape, plan.entries[3].column_shape) == ((2,), (2,))
    assert plan.result_bytes == 8 * (9 + 6 + 6 + 4 + 3 + 2)


def test_names_choose_entries_in_the_order_given() -> None:
    point = {"x": np.ones(3), "z": np.ones(2)}
    plan = plan_of(graph_of(TWO), point, wrt=("z", "x"), of=("s",))
    assert [(entry.row, entry.column) for entry in plan.entries] == [("s", "z"), ("s", "x")]


# Determinism


def test_a_plan_depends_on_the_problem_alone(elementwise: Graph) -> None:
    point = {"x": np.ones(50)}
    assert plan_of(elementwise, point) == plan_of(graph_of(ELEMENTWISE), point)


def test_a_plan_does_not_depend_on_values(elementwise: Graph) -> None:
    one, other = (plan_of(elementwise, {"x": np.full(50, value)}) for value in (1.0, np.nan))
    assert one == other


def test_plans_that_differ_have_different_ids() -> None:
    graph = graph_of(TWO)
    point = {"x": np.ones(3), "z": np.ones(2)}
    longer = {"x": np.ones(4), "z": np.ones(2)}
    plans = [
        plan_of(graph, point),
        plan_of(graph, longer),
        plan_of(graph, point, mode="reverse"),
        plan_of(graph, point, block_width=1),
        plan_of(graph, point, wrt=("x",)),
        plan_of(graph, point, of=("y",)),
        plan_of(graph, point, "hessian", of=("s",)),
        plan_of(graph, point, "jacobian", Gradient(of="s")),
    ]
    assert len({plan.plan_id for plan in plans}) == len(plans)


PLAN_ELSEWHERE = """
import json, sys
import numpy as np
from tests.engine.small_graphs import graph_of, plan_of
plan = plan_of(graph_of(sys.argv[1]), {"x": np.ones(50), "a": np.ones((40, 50))})
print(json.dumps([plan.plan_id, plan.mode, [[b.array, b.start, b.stop] for b in plan.blocks]]))
"""


def test_a_plan_is_the_same_in_another_process() -> None:
    here = plan_of(graph_of(LAYER), {"x": np.ones(50), "a": np.ones((40, 50))})
    root = Path(__file__).parents[3]
    result = subprocess.run(
        [sys.executable, "-c", PLAN_ELSEWHERE, LAYER],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env={"PYTHONPATH": str(root), "PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin", "HOME": "/tmp"},
    )
    plan_id, mode, blocks = json.loads(result.stdout.splitlines()[-1])
    assert (plan_id, mode) == (here.plan_id, here.mode)
    assert blocks == [[block.array, block.start, block.stop] for block in here.blocks]


# Width and memory


def test_large_results_fall_into_enough_blocks_to_share_out(elementwise: Graph) -> None:
    plan = plan_of(elementwise, {"x": np.ones(4000)})
    assert 8 <= len(plan.blocks) <= 64
    assert max(sum(r * c for r, c in _sizes(plan, block)) for block in plan.blocks) * 8 <= 8 << 20


def _sizes(plan: Plan, block: Any) -> list[tuple[int, int]]:
    return [
        (piece.row_stop - piece.row_start, piece.column_stop - piece.column_start)
        for piece in plan.pieces(block)
    ]


def test_small_results_are_one_block(elementwise: Graph) -> None:
    assert len(plan_of(elementwise, {"x": np.ones(20)}).blocks) == 1


def test_blocks_of_one_array_share_a_kernel() -> None:
    plan = plan_of(graph_of(TWO), {"x": np.ones(30), "z": np.ones(20)}, mode="forward", block_width=5)
    assert {plan.kernel(block) for block in plan.blocks} == set(plan.kernels)
    assert len(plan.kernels) == 2


def test_a_memory_budget_narrows_blocks_and_changes_no_value() -> None:
    graph = graph_of(LAYER)
    generator = np.random.default_rng(3)
    point = {"x": generator.normal(size=300), "a": generator.normal(size=(200, 300)) / 17}
    wide = plan_of(graph, point, wrt=("x",), block_width=200)
    budget = wide.block_memory_bytes // 5
    narrow = plan_of(graph, point, wrt=("x",), block_width=200, block_memory_bytes=budget)
    assert narrow.block_memory_bytes <= budget < wide.block_memory_bytes
    one, other = (in_process.assemble(graph, plan, point)[0] for plan in (wide, narrow))
    np.testing.assert_allclose(one, other, rtol=1e-13)


def test_a_budget_too_small_for_anything_gives_one_seed_a_block(elementwise: Graph) -> None:
    plan = plan_of(elementwise, {"x": np.ones(6)}, block_memory_bytes=1)
    assert [(block.start, block.stop) for block in plan.blocks] == [(k, k + 1) for k in range(6)]


def test_a_single_seed_over_the_evaluation_limit_is_refused_with_figures() -> None:
    graph = graph_of("(double[n] x) => (double[n] y) { s = Sin(x) y = Mul(s, x) }")
    with pytest.raises(LimitExceeded) as refusal:
        plan_of(graph, {"x": np.ones(1000)}, block_width=1, limits=Limits(evaluation_bytes=1000))
    assert refusal.value.limit == "evaluation_bytes"
    assert refusal.value.requested >= 8000


def test_a_plan_of_too_many_blocks_is_refused_before_they_are_listed(elementwise: Graph) -> None:
    with pytest.raises(LimitExceeded, match="100 blocks for 100 seeds; the limit is 99") as refusal:
        plan_of(elementwise, {"x": np.ones(100)}, block_width=1, limits=Limits(blocks=99))
    assert (refusal.value.limit, refusal.value.requested) == ("blocks", 100)


# Refusals


@pytest.mark.parametrize(
    ("kind", "options", "message", "field"),
    [
        ("cubic", {}, "kind is 'cubic'", "kind"),
        (
            "jacobian",
            {"mode": "sideways"},
            "'sideways' is none of a jacobian's: forward, reverse",
            "options.mode",
        ),
        ("jacobian", {"mode": "forward_over_reverse"}, "none of a jacobian's", "options.mode"),
        ("hessian", {"mode": "forward", "of": ("s",)}, "none of a hessian's", "options.mode"),
        ("hessian", {"of": ("y", "s")}, "a Hessian is of one output, not 2", "of"),
        ("hessian", {"of": ("y",)}, r"output 'y' has shape \[3\]", "of"),
        ("hessian", {}, "3 floating-point outputs", "of"),
        ("jacobian", {"wrt": ("q",)}, "no input 'q'", "wrt"),
        ("jacobian", {"of": ("q",)}, "no output 'q'", "of"),
        ("jacobian", {"block_width": -1}, "must be positive", "options"),
        ("jacobian", {"block_memory_bytes": 0}, "must be positive", "options"),
    ],
)
def test_a_problem_that_makes_no_sense_is_refused_by_field(
    kind: str, options: dict[str, Any], message: str, field: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as refusal:
        plan_of(graph_of(TWO), {"x": np.ones(3), "z": np.ones(2)}, kind, **options)
    assert refusal.value.field == field


def test_an_empty_result_has_no_blocks_to_compute() -> None:
    graph = graph_of("(double[n] x) => (double s) { a = Sin(x) s = ReduceSum<keepdims = 0>(a) }")
    for kind, shape in (("jacobian", (0,)), ("hessian", (0, 0))):
        (result,) = matrices(graph, {"x": np.zeros(0)}, kind)
        assert result.shape == shape
    assert plan_of(graph, {"x": np.zeros(0)}, mode="forward").blocks == Blocks()
