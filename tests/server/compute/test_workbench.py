"""What a worker learns of a kernel when it compiles one, and what the serving process makes of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gradwire_engine.limits import Limits
from gradwire_engine.planning.kernels import EvaluateSpec, load_kernel
from gradwire_engine.planning.transforms import FunctionSpec
from gradwire_engine.values import ArrayType
from gradwire_server.compute.fast_path import FastPath
from gradwire_server.compute.shared_values import GraphSource, InlineSource, SharedValue
from gradwire_server.compute.workbench import Workbench
from gradwire_server.compute.worker import Compiled, Executable
from gradwire_server.settings import Settings

SORTED = "g (double[3] x) => (double[3] y) { k = Constant <value = int64[1] {3}> () y, i = TopK(x, k) }"
PRODUCT = "g (double[n,n] x) => (double[n,n] y) { y = MatMul(x, x) }"


def compiled(text: str, *shape: int) -> tuple[GraphSource, Compiled]:
    bench = Workbench(Limits(), 1 << 30)
    data = f'<ir_version: 10, opset_import: ["": 21]> {text}'.encode()
    info, model, weights = bench.register(InlineSource("graph", data), True)
    graph = GraphSource(info, InlineSource("model", model), InlineSource("weights", weights))
    spec = EvaluateSpec(FunctionSpec(info.graph_id), (("x", ArrayType("float64", shape)),), ("y",))
    return graph, bench.compile(graph, spec)


def test_a_kernel_that_sorts_travels_although_it_was_tried() -> None:
    _, made = compiled(SORTED, 3)
    x = np.array([1.0, 3.0, 2.0])
    np.testing.assert_array_equal(load_kernel(made.executable).run({}, {"x": x})[0], [3, 2, 1])


def test_a_small_kernel_is_tried_and_a_large_one_is_not() -> None:
    assert 0 < compiled(PRODUCT, 4, 4)[1].facts.trial < math.inf
    assert compiled(PRODUCT, 800, 800)[1].facts.trial == math.inf


@pytest.mark.parametrize(("trial", "fits"), [(1e-4, True), (0.5, False), (math.inf, False)])
def test_the_serving_process_takes_no_kernel_that_was_seen_to_take_long(trial: float, fits: bool) -> None:
    graph, made = compiled(PRODUCT, 4, 4)
    facts = replace(made.facts, trial=trial)
    data = SharedValue("kernel", made.executable, nbytes=len(made.executable))
    assert FastPath(Settings()).fits(Executable(made.spec, facts, data), graph.info) == fits
