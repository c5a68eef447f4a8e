"""What registration learns by tracing a graph once, and what it leaves for later."""

from __future__ import annotations

import numpy as np
import pytest

from gradwire_engine.errors import InvalidGraph, LimitExceeded
from gradwire_engine.limits import Limits
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.transforms import Jvp
from gradwire_engine.values import TensorType
from tests.engine.small_graphs import graph_of, model_text, value_of

DATA_DEPENDENT = """(double[2] x) => (double[2] y) {
    trips = Constant<value_int = 9223372036854775807>()
    yes = Constant<value = bool {1}>()
    y = Loop(trips, yes, x) <body = b (int64 i, bool c, double[2] v) => (bool again, double[2] w) {
        w = Mul(v, v)
        s = ReduceSum<keepdims = 0>(w)
        least = Constant<value = double {0.25}>()
        again = Greater(s, least)
    }>
}"""


def test_output_shapes_follow_from_a_trace_where_inputs_are_fixed() -> None:
    graph = graph_of("(double[2, 3] x) => (double[n, m] y) { y = Transpose(x) }")
    assert graph.info.signature.outputs == (("y", TensorType("float64", (3, 2))),)


def test_output_shapes_stay_symbolic_where_inputs_are() -> None:
    graph = graph_of("(double[k, 3] x) => (double[3, k] y) { y = Transpose(x) }")
    assert graph.info.signature.outputs == (("y", TensorType("float64", (3, "k"))),)


def test_a_data_dependent_loop_is_reported_as_forward_only_with_its_node() -> None:
    info = graph_of(DATA_DEPENDENT).info
    assert info.forward_only
    assert "node #2" in info.forward_only_reason
    assert "\n" not in info.forward_only_reason


def test_a_graph_without_loops_is_not_forward_only() -> None:
    info = graph_of("(double x) => (double y) { y = Sin(x) }").info
    assert (info.forward_only, info.forward_only_reason) == (False, "")


def test_a_graph_of_symbolic_shape_is_accepted_untraced() -> None:
    graph = graph_of("(double[n] x) => (double[n] y) { y = Sin(x) }")
    np.testing.assert_array_equal(value_of(graph, {"x": np.ones(4)})["y"], np.sin(np.ones(4)))


def test_a_shape_that_depends_on_an_input_is_refused_by_name_in_one_line() -> None:
    with pytest.raises(InvalidGraph, match=r"#0 \(Reshape\)") as refusal:
        graph_of("(double[6] x, int64[2] s) => (double[n, m] y) { y = Reshape(x, s) }")
    assert "\n" not in str(refusal.value)


def test_evaluation_counts_nodes_of_unrolled_loops() -> None:
    """Three hundred nodes from a text of six: a loop over constants is run while tracing."""
    body = """(double x) => (double y) {
        trips = Constant<value_int = 100>()
        yes = Constant<value = bool {1}>()
        start = Constant<value = double {0}>()
        total = Loop(trips, yes, start) <body = b (int64 i, bool c, double v) => (bool again, double w) {
            again = Identity(c)
            one = Constant<value = double {1}>()
            w = Add(v, one)
        }>
        y = Add(x, total)
    }"""
    assert value_of(graph_of(body), {"x": np.array(1.0)})["y"] == 101
    with pytest.raises(LimitExceeded, match="evaluated") as refusal:
        register(model_text(body), text=True, limits=Limits(nodes=50))
    assert (refusal.value.limit, refusal.value.allowed, refusal.value.requested) == ("nodes", 50, 51)


def test_loop_trips_are_limited() -> None:
    body = """(double x) => (double y) {
        trips = Constant<value_int = 1000>()
        yes = Constant<value = bool {1}>()
        y = Loop(trips, yes, x) <body = b (int64 i, bool c, double v) => (bool again, double w) {
            again = Identity(c)
            w = Sin(v)
        }>
    }"""
    with pytest.raises(LimitExceeded) as refusal:
        register(model_text(body), text=True, limits=Limits(loop_trips=999))
    assert (refusal.value.limit, refusal.value.requested) == ("loop_trips", 1000)


def test_a_folded_random_or_index_operator_does_not_forbid_derivatives() -> None:
    """NonZero has no derivative; of constants, as exporters write it, it needs none."""
    body = """(double[3] x) => (double[k] y) {
        c = Constant<value = double[3] {1, 0, 2}>()
        where = NonZero(c)
        axis = Constant<value_ints = [0]>()
        rows = Squeeze(where, axis)
        y = Gather(x, rows)
    }"""
    graph = graph_of(body)
    x = np.array([1.0, 2.0, 3.0])
    pushed = value_of(graph, {"x": x, "x.tangent": np.array([5.0, 6.0, 7.0])}, Jvp())
    np.testing.assert_array_equal(pushed["y.tangent"], [5.0, 7.0])
