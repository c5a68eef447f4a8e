"""How many seeds a kernel takes at once: by all that each of them reads, wherever it comes from."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from gradwire_engine.graphs.graph import Graph
from gradwire_engine.limits import Limits
from gradwire_engine.planning import derivatives
from gradwire_engine.planning.derivatives import Derivative
from gradwire_engine.planning.function import TracedFunction
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.sizing import CACHE_BYTES, fitting
from gradwire_engine.planning.transforms import FunctionSpec
from tests.engine.in_process import argument_types

N = 1200
A = np.random.default_rng(0).normal(size=(N, N))


def given() -> Graph:
    """y = sin(A tanh(x)), with A an input."""
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    f (double[{N}] x, double[{N},{N}] a) => (double[{N}] y) {{
        t = Tanh(x)
        p = MatMul(a, t)
        y = Sin(p)
    }}"""
    return register(onnx.parser.parse_model(text).SerializeToString())


def held() -> Graph:
    """The same with A in the graph."""
    model = onnx.ModelProto()
    model.ParseFromString(given().model)
    del model.graph.input[1]
    model.graph.initializer.append(numpy_helper.from_array(A, "a"))
    return register(model.SerializeToString())


def seeds_at_once(graph: Graph, mode: str = derivatives.REVERSE, wrt: tuple[str, ...] = ("x",)) -> int:
    """How many the kernel of a block of all seeds takes together."""
    types = dict(argument_types({"x": np.ones(N), "a": A}))
    arguments = tuple((name, types[name]) for name, _ in graph.info.signature.inputs)
    function = TracedFunction(graph, FunctionSpec(graph.info.graph_id), arguments, Limits())
    return fitting(graph, function, Derivative(mode, wrt, ("y",), 0), N, 8 * N * N, N).batch


@pytest.mark.parametrize("mode", [derivatives.FORWARD, derivatives.REVERSE])
def test_a_matrix_that_is_given_counts_like_one_that_the_graph_holds(mode: str) -> None:
    assert seeds_at_once(given(), mode) == seeds_at_once(held(), mode) > CACHE_BYTES // (16 * N)


def test_what_is_differentiated_is_not_shared_by_the_seeds() -> None:
    assert seeds_at_once(given(), wrt=("x", "a")) < seeds_at_once(given())
