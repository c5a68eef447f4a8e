"""Traps in which a plausible evaluation of ONNX loses digits or meaning; each fails for the naive reading."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from gradwire_engine.planning.registration import register
from gradwire_engine.planning.transforms import Gradient
from tests.engine.graphs.test_graph import doubles
from tests.engine.small_graphs import graph_of, matrices, value_of

Array = Any
X = np.array([[0.3, -1.7, 2.2, 0.05], [1.1, 0.9, -0.4, 3.3]])


# stash_type: "compute in float32" is the default of normalisations, and is for low precision


def normalised(x: Array, epsilon: float, centred: bool = True) -> Array:
    x = x - x.mean(-1, keepdims=True) if centred else x
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon)


EPSILON = float(np.float32(1e-5))


def test_layer_normalization_of_doubles_is_computed_in_double() -> None:
    graph = graph_of(
        "(double[2, 4] x) => (double[2, 4] y) "
        "{ g = Constant<value = double[4] {1, 1, 1, 1}>() y = LayerNormalization(x, g) }"
    )
    np.testing.assert_allclose(value_of(graph, {"x": X})["y"], normalised(X, EPSILON), rtol=1e-13)


def test_rms_normalization_of_doubles_is_computed_in_double() -> None:
    graph = graph_of(
        "(double[2, 4] x) => (double[2, 4] y) "
        "{ g = Constant<value = double[4] {1, 1, 1, 1}>() y = RMSNormalization(x, g) }",
        opset=23,
    )
    expected = normalised(X, EPSILON, centred=False)
    np.testing.assert_allclose(value_of(graph, {"x": X})["y"], expected, rtol=1e-13)


def test_layer_normalization_of_halves_is_computed_in_single() -> None:
    """Squares of 300 overflow float16; stash_type says that they must not be formed in it."""
    graph = graph_of("(float16[1, 4] x, float16[4] g) => (float16[1, 4] y) { y = LayerNormalization(x, g) }")
    x = np.array([[300.0, -300.0, 150.0, 0.0]])
    result = value_of(graph, {"x": x.astype(np.float16), "g": np.ones(4, np.float16)})["y"]
    np.testing.assert_allclose(result.astype(float), normalised(x, EPSILON), rtol=2e-3)


# FLOAT attributes: float32 as stored, and then no more rounding


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("Elu<alpha = 0.1>(x)", lambda x, a: np.where(x > 0, x, a * np.expm1(x))),
        ("LeakyRelu<alpha = 0.1>(x)", lambda x, a: np.where(x > 0, x, a * x)),
        ("ThresholdedRelu<alpha = 0.1>(x)", lambda x, a: np.where(x > a, x, 0)),
        ("HardSigmoid<alpha = 0.1>(x)", lambda x, a: np.clip(a * x + 0.5, 0, 1)),
    ],
)
def test_float_attributes_widen_exactly_in_double_graphs(node: str, expected: Any) -> None:
    graph = graph_of(f"(double[2, 4] x) => (double[2, 4] y) {{ y = {node} }}")
    exact = expected(X, float(np.float32(0.1)))
    np.testing.assert_allclose(value_of(graph, {"x": X})["y"], exact, rtol=1e-15)


# INT64_MAX and INT64_MIN as ends


@pytest.mark.parametrize(
    ("start", "end", "step", "expected"),
    [
        (1, 2**63 - 1, 1, slice(1, None)),
        (0, 2**63 - 1, 3, slice(None, None, 3)),
        (-1, -(2**63), -1, slice(None, None, -1)),
        (2**63 - 1, -(2**63), -2, slice(None, None, -2)),
        (-(2**63), 2**63 - 1, 1, slice(None)),
        (2**31 - 1, -(2**31), -1, slice(None, None, -1)),
    ],
)
def test_slices_to_the_end_of_all_integers_end_with_the_array(
    start: int, end: int, step: int, expected: slice
) -> None:
    graph = graph_of(
        f"(double[n] x) => (double[m] y) {{ s = Constant<value_ints = [{start}]>() "
        f"e = Constant<value_ints = [{end}]>() a = Constant<value_ints = [0]>() "
        f"t = Constant<value_ints = [{step}]>() y = Slice(x, s, e, a, t) }}"
    )
    x = np.arange(7.0)
    np.testing.assert_array_equal(value_of(graph, {"x": x})["y"], x[expected])


# Loop without a condition


def loop(trips: str, condition: str) -> str:
    return f"""(double x) => (double y) {{
        trips = Constant<value_int = 4>()
        yes = Constant<value = bool {{1}}>()
        y = Loop({trips}, {condition}, x) <body = b (int64 i, bool c, double v) => (bool again, double w) {{
            again = Identity(c)
            w = Mul(v, v)
        }}>
    }}"""


@pytest.mark.parametrize(("trips", "condition"), [("trips", ""), ("trips", "yes")])
def test_a_loop_without_a_condition_runs_all_its_trips(trips: str, condition: str) -> None:
    graph = graph_of(loop(trips, condition))
    x = np.array(1.1)
    np.testing.assert_allclose(value_of(graph, {"x": x})["y"], x**16, rtol=1e-14)
    np.testing.assert_allclose(value_of(graph, {"x": x}, Gradient())["x.gradient"], 16 * x**15, rtol=1e-14)


# DOUBLE constants that were rounded to float32


def test_a_rounded_double_constant_is_used_as_it_is_and_warned_of() -> None:
    rounded = float(np.float32(0.1))
    graph = graph_of(
        f"(double x) => (double y) {{ c = Constant<value = double {{{rounded!r}}}>() y = Mul(x, c) }}"
    )
    assert value_of(graph, {"x": np.array(1.0)})["y"] == rounded
    assert any("0.1 rounded to float32" in warning for warning in graph.info.warnings)


@pytest.mark.parametrize("whole", [3e7, 1e10, -7e8])
def test_a_whole_number_that_is_written_shorter_with_an_exponent_was_not_rounded(whole: float) -> None:
    graph = graph_of(
        f"(double x) => (double y) {{ c = Constant<value = double {{{whole!r}}}>() y = Mul(x, c) }}"
    )
    assert not graph.info.warnings


def test_a_rounded_double_initializer_in_a_branch_is_warned_of_too() -> None:
    rounded = float(np.float32(0.7))
    graph = graph_of(
        f"""(double x, bool c) => (double y) {{
        y = If(c) <then_branch = t () => (double a) <double k = {{{rounded!r}}}> {{ a = Mul(x, k) }},
                   else_branch = e () => (double b) {{ b = Identity(x) }}>
    }}"""
    )
    assert any(warning.startswith("constant k is") for warning in graph.info.warnings)


# Shape arithmetic folds


def test_shapes_computed_from_shapes_are_known_before_evaluation() -> None:
    """Flatten all but the first axis as exporters write it, then tile by the rank."""
    graph = graph_of(
        """(double[n, p, q] x) => (double[n, m] y) {
            s = Shape(x)
            zero = Constant<value_ints = [0]>()
            first = Gather(s, zero)
            rest = Shape<start = 1>(x)
            many = ReduceProd<keepdims = 1>(rest)
            target = Concat<axis = 0>(first, many)
            flat = Reshape(x, target)
            one = Constant<value_ints = [1]>()
            two = Constant<value_ints = [2]>()
            half = Div(many, two)
            begin = Sub(half, one)
            y = Slice(flat, begin, many, one)
        }"""
    )
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(value_of(graph, {"x": x})["y"], x.reshape(2, 12)[:, 5:])
    (jacobian,) = matrices(graph, {"x": x})
    assert jacobian.shape == (2, 7, 2, 3, 4)
    assert jacobian.sum() == 14


def test_a_trip_count_from_a_shape_is_a_fixed_one_and_has_reverse_mode() -> None:
    graph = graph_of(
        """(double[3] x, double t) => (double y) {
            n = Size(x)
            y = Loop(n, , t) <body = b (int64 i, bool c, double v) => (bool again, double w) {
                again = Identity(c)
                w = Mul(v, v)
            }>
        }"""
    )
    assert not graph.info.forward_only
    inputs = {"x": np.zeros(3), "t": np.array(1.2)}
    np.testing.assert_allclose(value_of(graph, inputs, Gradient())["t.gradient"], 8 * 1.2**7, rtol=1e-14)


# Defaults of attributes in function bodies


@pytest.mark.parametrize(("given", "alpha"), [({}, 2.5), ({"alpha": 0.5}, 0.5)])
def test_an_attribute_that_a_call_leaves_out_has_the_functions_default(
    given: dict[str, float], alpha: float
) -> None:
    body = helper.make_node("Elu", ["x"], ["y"])
    reference = body.attribute.add()
    reference.name, reference.ref_attr_name, reference.type = "alpha", "alpha", 1
    imports = [helper.make_opsetid("", 21)]
    function = helper.make_function(
        "own", "F", ["x"], ["y"], [body], imports, attribute_protos=[helper.make_attribute("alpha", 2.5)]
    )
    call = helper.make_node("F", ["x"], ["y"], domain="own", **given)
    graph = helper.make_graph([call], "main", [doubles("x", 3)], [doubles("y", 3)])
    model = helper.make_model(
        graph, functions=[function], opset_imports=[*imports, helper.make_opsetid("own", 1)], ir_version=10
    )
    x = np.array([-1.0, -0.1, 2.0])
    result = value_of(register(model.SerializeToString()), {"x": x})["y"]
    np.testing.assert_allclose(result, np.where(x > 0, x, alpha * np.expm1(x)), rtol=1e-15)


def test_an_attribute_that_neither_call_nor_function_gives_has_the_operators_default() -> None:
    body = helper.make_node("LeakyRelu", ["x"], ["y"])
    reference = body.attribute.add()
    reference.name, reference.ref_attr_name, reference.type = "alpha", "alpha", 1
    imports = [helper.make_opsetid("", 21)]
    function = helper.make_function("own", "F", ["x"], ["y"], [body], imports, attributes=["alpha"])
    call = helper.make_node("F", ["x"], ["y"], domain="own")
    graph = helper.make_graph([call], "main", [doubles("x", 2)], [doubles("y", 2)])
    model = helper.make_model(
        graph, functions=[function], opset_imports=[*imports, helper.make_opsetid("own", 1)], ir_version=10
    )
    result = value_of(register(model.SerializeToString()), {"x": np.array([-1.0, 2.0])})["y"]
    np.testing.assert_allclose(result, [-float(np.float32(0.01)), 2.0], rtol=1e-15)


@pytest.mark.parametrize(("attributes", "alpha"), [("", 1.0), ("<alpha = 0.5>", 0.5)])
def test_operators_expanded_from_their_specification_get_their_defaults(
    attributes: str, alpha: float
) -> None:
    """SwiGLU is lowered by its function body, which hands alpha on to Swish."""
    graph = graph_of(
        f"(double[2, 4] a, double[2, 4] b) => (double[2, 4] y) {{ y = SwiGLU{attributes}(a, b) }}", opset=28
    )
    result = value_of(graph, {"a": X, "b": 2 * X})["y"]
    np.testing.assert_allclose(result, X / (1 + np.exp(-alpha * X)) * 2 * X, rtol=1e-14)
