"""Kernels: what they return, how they travel between processes, what they refuse."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from gradwire_engine.errors import InvalidInput, LimitExceeded
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.limits import Limits
from gradwire_engine.planning.kernels import EvaluateSpec, compile_kernel, load_kernel, place
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.transforms import FunctionSpec, Gradient, Hvp, Jvp, Transform, Vjp
from gradwire_engine.values import Block
from tests.engine.graphs.test_graph import doubles, model_of
from tests.engine.in_process import argument_types
from tests.engine.planning.test_registration import DATA_DEPENDENT
from tests.engine.small_graphs import graph_of, kernel_of, plan_of, value_of

SMOOTH = "(double[n] x, double[n] z) => (double[n] y, double s) \
 { a = Sin(x) y = Mul(a, z) b = Mul(y, y) s = ReduceSum<keepdims = 0>(b) }"


@pytest.fixture(scope="module")
def smooth() -> Graph:
    return graph_of(SMOOTH)


def weighted_graph() -> Graph:
    """y = tanh(W x) with W a weight taken out of the model."""
    weights = np.random.default_rng(2).normal(size=(20, 30))
    nodes = [helper.make_node("MatMul", ["w", "x"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])]
    tensor = numpy_helper.from_array(weights, "w")
    model = model_of(nodes, [doubles("x", 30)], [doubles("y", 20)], initializer=[tensor])
    return register(model.SerializeToString())


# Evaluations


def test_outputs_come_in_the_order_asked_for(smooth: Graph) -> None:
    point = {"x": np.ones(3), "z": np.full(3, 2.0)}
    kernel = kernel_of(smooth, point, outputs=("s", "y"))
    assert kernel.output_names == ("s", "y")
    s, y = kernel.run({}, point)
    np.testing.assert_allclose(y, 2 * np.sin(np.ones(3)))
    np.testing.assert_allclose(s, 12 * np.sin(1) ** 2)


def test_all_outputs_come_in_the_signatures_order_by_default(smooth: Graph) -> None:
    point = {"x": np.ones(3), "z": np.ones(3)}
    assert kernel_of(smooth, point).output_names == ("y", "s")


def test_an_output_that_is_not_there_is_refused_by_name(smooth: Graph) -> None:
    with pytest.raises(InvalidInput, match="there is no output 't'; there are: y, s") as refusal:
        kernel_of(smooth, {"x": np.ones(3), "z": np.ones(3)}, outputs=("t",))
    assert refusal.value.field == "outputs"


def test_one_kernel_serves_every_point_and_any_order_of_inputs(smooth: Graph) -> None:
    kernel = kernel_of(smooth, {"x": np.ones(3), "z": np.ones(3)})
    for seed in range(3):
        x, z = np.random.default_rng(seed).normal(size=(2, 3))
        np.testing.assert_allclose(kernel.run({}, {"z": z, "x": x})[0], np.sin(x) * z, rtol=1e-15)


def test_an_array_of_another_type_is_refused_in_one_line(smooth: Graph) -> None:
    kernel = kernel_of(smooth, {"x": np.ones(3), "z": np.ones(3)})
    for wrong in (np.ones(4), np.ones(3, np.float32), np.ones((3, 1))):
        with pytest.raises(InvalidInput, match="does not fit the kernel") as refusal:
            kernel.run({}, {"x": wrong, "z": np.ones(3)})
        assert "\n" not in str(refusal.value)


def test_inputs_that_a_derivative_does_not_read_are_arguments_all_the_same() -> None:
    graph = graph_of("(double[2] x, double[2] z) => (double[2] y) { y = Add(x, z) }")
    point = {"x": np.ones(2), "z": np.ones(2), "x.tangent": np.array([3.0, 4.0])}
    np.testing.assert_array_equal(value_of(graph, point, Jvp(wrt=("x",)))["y.tangent"], [3.0, 4.0])


# Batches


@pytest.mark.parametrize(
    ("transforms", "added", "output"),
    [
        ((), {}, "y"),
        ((Gradient(of="s"),), {}, "x.gradient"),
        ((Jvp(wrt=("x",)),), {"x.tangent": (5, 4)}, "y.tangent"),
        ((Vjp(of=("y",)),), {"y.cotangent": (5, 4)}, "z.cotangent"),
        ((Hvp(wrt=("x",), of="s"),), {"x.tangent": (5, 4)}, "x.hvp"),
    ],
)
@pytest.mark.parametrize("batched", [("x",), ("z",), ("x", "z")])
def test_a_batch_is_its_examples_one_by_one(
    smooth: Graph,
    transforms: tuple[Transform, ...],
    added: dict[str, tuple[int, ...]],
    output: str,
    batched: tuple[str, ...],
) -> None:
    generator = np.random.default_rng(1)
    point = {name: generator.normal(size=(5, 4) if name in batched else 4) for name in ("x", "z")}
    point |= {name: generator.normal(size=shape) for name, shape in added.items()}
    axes = (*batched, *added)
    kernel = kernel_of(smooth, point, *transforms, batched=axes, outputs=(output,))
    (result,) = kernel.run({}, point)
    for index in range(5):
        example = {name: value[index] if name in axes else value for name, value in point.items()}
        np.testing.assert_allclose(
            result[index], value_of(smooth, example, *transforms)[output], rtol=1e-13, atol=1e-15
        )


def test_an_output_that_no_batched_input_reaches_is_repeated() -> None:
    graph = graph_of("(double[2] x, double[2] z) => (double[2] y, double[2] w) { y = Sin(x) w = Cos(z) }")
    point = {"x": np.ones((3, 2)), "z": np.zeros(2)}
    _, w = kernel_of(graph, point, batched=("x",)).run({}, point)
    np.testing.assert_array_equal(w, np.ones((3, 2)))


def test_an_empty_batch_gives_empty_outputs(smooth: Graph) -> None:
    point = {"x": np.ones((0, 4)), "z": np.ones(4)}
    y, s = kernel_of(smooth, point, batched=("x",)).run({}, point)
    assert (y.shape, s.shape) == ((0, 4), (0,))


@pytest.mark.parametrize(
    ("point", "batched", "message"),
    [
        (
            {"x": np.ones((2, 4)), "z": np.ones((3, 4))},
            ("x", "z"),
            r"differ in their leading extent \(x: 2, z: 3\)",
        ),
        ({"x": np.ones((2, 4)), "z": np.ones(4)}, ("q",), "batched names 'q', which is not an input given"),
        ({"x": np.array(1.0), "z": np.ones(4)}, ("x",), "'x' is a scalar: it has no batch axis"),
        ({"x": np.ones((2, 3)), "z": np.ones(4)}, ("x",), "'z' has n = 4 on axis 0, but input 'x' has n = 3"),
    ],
)
def test_batches_that_do_not_fit_are_refused(
    smooth: Graph, point: dict[str, Any], batched: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        kernel_of(smooth, point, batched=batched)


# Cost and limits


def test_an_evaluation_over_the_memory_limit_is_refused_with_the_figures(smooth: Graph) -> None:
    point = {"x": np.ones(100_000), "z": np.ones(100_000)}
    spec = EvaluateSpec(FunctionSpec(smooth.info.graph_id), argument_types(point))
    with pytest.raises(LimitExceeded, match="the limit is 100000") as refusal:
        compile_kernel(smooth, spec, Limits(evaluation_bytes=100_000))
    assert refusal.value.limit == "evaluation_bytes"
    assert refusal.value.requested >= 800_000
    assert compile_kernel(smooth, spec, Limits(evaluation_bytes=10 << 20)).cost.memory_bytes >= 800_000


def test_cost_counts_the_operations_of_a_matrix_product() -> None:
    graph = graph_of("(double[m, k] a, double[k, n] b) => (double[m, n] y) { y = MatMul(a, b) }")
    cost = kernel_of(graph, {"a": np.ones((20, 30)), "b": np.ones((30, 40))}).cost
    assert cost.flops == 2 * 20 * 30 * 40
    assert cost.bounded


def test_cost_counts_what_a_reduction_reads() -> None:
    graph = graph_of("(double[n] x) => (double s) { s = ReduceSum<keepdims = 0>(x) }")
    assert kernel_of(graph, {"x": np.ones(5000)}).cost.flops >= 5000


def test_cost_says_when_a_loop_depends_on_data() -> None:
    graph = graph_of(DATA_DEPENDENT)
    assert not kernel_of(graph, {"x": np.ones(2) / 2}).cost.bounded
    scanned = """(double x) => (double y) {
        trips = Constant<value_int = 30>()
        yes = Constant<value = bool {1}>()
        y = Loop(trips, yes, x) <body = b (int64 i, bool c, double v) => (bool again, double w) {
            again = Identity(c)
            w = Sin(v)
        }>
    }"""
    cost = kernel_of(graph_of(scanned), {"x": np.array(0.5)}).cost
    assert cost.bounded
    assert cost.flops >= 30


# Blocks


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_the_last_block_of_an_array_is_cut_to_its_size(mode: str) -> None:
    graph = graph_of("(double[n] x) => (double[n] y) { y = Sin(x) }")
    point = {"x": np.linspace(0, 1, 10)}
    plan = plan_of(graph, point, mode=mode, block_width=4)
    kernel = compile_kernel(graph, plan.kernels[0])
    tail = plan.blocks[-1]
    assert (tail.start, tail.stop) == (8, 10)
    (result,) = kernel.run({}, point, tail)
    expected = np.diag(np.cos(point["x"]))
    np.testing.assert_allclose(result, expected[:, 8:] if mode == "forward" else expected[8:], rtol=1e-15)
    assert result.flags.c_contiguous


def test_any_part_of_a_full_block_may_be_asked_for() -> None:
    graph = graph_of("(double[n] x) => (double[n] y) { y = Sin(x) }")
    point = {"x": np.linspace(0, 1, 10)}
    plan = plan_of(graph, point, mode="reverse", block_width=4)
    (result,) = compile_kernel(graph, plan.kernels[0]).run({}, point, Block(0, 0, 9, 10))
    np.testing.assert_allclose(result, np.diag(np.cos(point["x"]))[9:], rtol=1e-15)


def test_placed_arrays_serve_like_numpy_ones() -> None:
    graph = weighted_graph()
    point = {"x": np.linspace(-1, 1, 30)}
    kernel = kernel_of(graph, point)
    np.testing.assert_array_equal(
        kernel.run(place(graph.weights), place(point))[0], kernel.run(graph.weights, point)[0]
    )


# Travel


def test_specs_are_values_and_their_texts_tell_them_apart(smooth: Graph) -> None:
    point = {"x": np.ones(3), "z": np.ones(3)}
    specs = [kernel_of(smooth, point).spec, kernel_of(smooth, point, outputs=("y",)).spec]
    specs += [
        *plan_of(smooth, point, mode="forward").kernels,
        *plan_of(smooth, point, mode="reverse").kernels,
    ]
    assert len({repr(spec) for spec in specs}) == len(specs)
    for spec in specs:
        copy = pickle.loads(pickle.dumps(spec))
        assert copy == spec
        assert repr(copy) == repr(spec)


def test_a_loaded_kernel_is_the_kernel(smooth: Graph) -> None:
    point = {"x": np.ones(3), "z": np.full(3, 0.3), "x.tangent": np.ones(3)}
    kernel = kernel_of(smooth, point, Hvp(wrt=("x",), of="s", keep_values=True))
    loaded = load_kernel(kernel.serialize())
    assert (loaded.spec, loaded.output_names, loaded.cost) == (kernel.spec, kernel.output_names, kernel.cost)
    for one, other in zip(kernel.run({}, point), loaded.run({}, point), strict=True):
        assert one.tobytes() == other.tobytes()


RUN_ELSEWHERE = """
import hashlib, pickle, sys
from pathlib import Path
from gradwire_engine.planning.kernels import load_kernel
import jax
def refuse(*_, **__):
    raise AssertionError("something was traced")
jax.make_jaxpr = refuse
folder = Path(sys.argv[1])
weights, point, blocks = pickle.loads((folder / "arrays").read_bytes())
kernel = load_kernel((folder / "kernel").read_bytes())
assert repr(kernel.spec) == (folder / "spec").read_text()
digest = hashlib.sha256()
for block in blocks:
    for array in kernel.run(weights, point, block):
        digest.update(array.tobytes())
print(digest.hexdigest())
"""


def test_a_kernel_compiled_here_gives_the_same_bits_in_another_process(tmp_path: Path) -> None:
    graph = weighted_graph()
    point = {"x": np.linspace(-1, 1, 30)}
    plan = plan_of(graph, point, mode="forward", block_width=7)
    kernel = compile_kernel(graph, plan.kernels[0])
    digest = hashlib.sha256()
    for block in plan.blocks:
        for array in kernel.run(graph.weights, point, block):
            digest.update(array.tobytes())
    (tmp_path / "kernel").write_bytes(kernel.serialize())
    (tmp_path / "spec").write_text(repr(kernel.spec))
    (tmp_path / "arrays").write_bytes(pickle.dumps((graph.weights, point, plan.blocks)))
    result = subprocess.run(
        [sys.executable, "-c", RUN_ELSEWHERE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == digest.hexdigest()


def test_weights_are_arguments_of_an_executable_not_part_of_it() -> None:
    graph = weighted_graph()
    point = {"x": np.linspace(-1, 1, 30)}
    kernel = load_kernel(kernel_of(graph, point).serialize())
    doubled = {"w": graph.weights["w"] * 2}
    np.testing.assert_allclose(
        kernel.run(doubled, point)[0], np.tanh(2 * graph.weights["w"] @ point["x"]), rtol=1e-13
    )


def test_a_serialized_kernel_of_another_format_is_refused() -> None:
    data = pickle.dumps((0, None, None, b"", None, None))
    with pytest.raises(ValueError, match="a kernel of format 0"):
        load_kernel(data)
