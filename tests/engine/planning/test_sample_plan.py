"""Derivatives of the samples of a batch: each as if it were alone, whatever the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwire_engine.errors import InvalidInput
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.planning.plan import Plan, PlanOptions, Problem, make_plan
from gradwire_engine.planning.sample_plan import make_sample_plan
from gradwire_engine.planning.transforms import FunctionSpec
from tests.engine import in_process
from tests.engine.small_graphs import graph_of

LAYER = "(double[n] x, double[m, n] a) => (double[m] y, double s) { h = MatMul(a, x) y = Tanh(h) \
 s = ReduceSum<keepdims = 0>(y) }"


def plan_of(
    graph: Graph, inputs: dict[str, Any], batched: tuple[str, ...], kind: str = "jacobian", **options: Any
) -> Plan:
    wrt, of = options.pop("wrt", ()), options.pop("of", ())
    function = FunctionSpec(graph.info.graph_id)
    problem = Problem(
        function,
        in_process.argument_types(inputs),
        kind,
        wrt,
        of,
        PlanOptions(**options),
        batched=batched,
    )
    return make_sample_plan(graph, problem)


def alone(graph: Graph, inputs: dict[str, Any], plan: Plan, batched: tuple[str, ...]) -> list[Any]:
    """Differentiate sample by sample, and stack."""
    results = []
    for k in range(len(inputs[batched[0]])):
        sample = {name: value[k] if name in batched else value for name, value in inputs.items()}
        problem = Problem(
            plan.problem.function, in_process.argument_types(sample), plan.problem.kind, plan.wrt, plan.of
        )
        results.append(in_process.assemble(graph, make_plan(graph, problem), sample))
    return [np.stack(parts) for parts in zip(*results, strict=True)]


@pytest.mark.parametrize("mode", ["", "forward", "reverse"])
@pytest.mark.parametrize("width", [0, 1, 3])
@pytest.mark.parametrize("batched", [("x",), ("x", "a")])
def test_each_sample_has_the_jacobian_that_it_has_alone(
    mode: str, width: int, batched: tuple[str, ...]
) -> None:
    draw = np.random.default_rng(0)
    graph = graph_of(LAYER)
    shape = (5, 2, 3) if "a" in batched else (2, 3)
    inputs = {"x": draw.random((5, 3)), "a": draw.random(shape)}
    plan = plan_of(graph, inputs, batched, mode=mode, block_width=width)
    assert len(plan.blocks) == {0: 1, 1: 5, 3: 2}[width]
    assert plan.entries[0].row_shape == (5, 2) and plan.entries[1].column_shape == (2, 3)
    for found, expected in zip(
        in_process.assemble(graph, plan, inputs), alone(graph, inputs, plan, batched), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_each_sample_has_the_hessian_that_it_has_alone() -> None:
    draw = np.random.default_rng(1)
    graph, inputs = graph_of(LAYER), {"x": draw.random((4, 3)), "a": draw.random((2, 3))}
    plan = plan_of(graph, inputs, ("x",), "hessian", of=("s",), block_width=3)
    found, expected = in_process.assemble(graph, plan, inputs), alone(graph, inputs, plan, ("x",))
    assert found[0].shape == (4, 3, 3) and found[1].shape == (4, 3, 2, 3)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-15)


def test_empty_batches_and_empty_samples_are_fine() -> None:
    graph = graph_of("(double[n] x) => (double[n] y) { y = Sin(x) }")
    for shape in ((0, 3), (4, 0)):
        inputs = {"x": np.ones(shape)}
        (found,) = in_process.assemble(graph, plan_of(graph, inputs, ("x",)), inputs)
        assert found.shape == (*shape, shape[1])


def test_what_does_not_fit_is_refused() -> None:
    graph = graph_of(LAYER)
    inputs = {"x": np.ones((4, 3)), "a": np.ones((5, 2, 3))}
    with pytest.raises(InvalidInput, match="differ in their leading extent"):
        plan_of(graph, inputs, ("x", "a"))
    with pytest.raises(InvalidInput, match="not an input given"):
        plan_of(graph, inputs, ("z",))
    with pytest.raises(InvalidInput, match="one for each sample"):
        plan_of(graph, {"x": np.ones((4, 3)), "a": np.ones((2, 3))}, ("x",), sparsity="sparse")
