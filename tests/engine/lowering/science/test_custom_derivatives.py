"""CustomDerivative: the value of one graph with the derivative of another, and refusals by name."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from gradwire_engine.errors import InvalidGraph, NotDifferentiable
from gradwire_engine.planning import derivatives
from gradwire_engine.planning.plan import PlanOptions, Problem, make_plan
from gradwire_engine.planning.registration import register
from gradwire_engine.planning.transforms import FunctionSpec, Gradient, Jvp, Vjp
from tests.engine.in_process import argument_types, assemble, evaluate

HEADER = '<ir_version: 10, opset_import: ["": 21, "gradwire.sci": 1]>\n'
X = np.array([0.5, -2.0, 3.0])
ONES = np.ones(3)

BODY = "body = code (double[3] u) => (double[3] s) { s = Sin (u) }"
FORWARD = """jvp = rule (double[3] v, double[3] dv) => (double[3] p, double[3] dp) {
    p = Sin (v)  q = Mul (v, v)  dp = Mul (q, dv)
}"""
REVERSE = "vjp = rule (double[3] w, double[3] ct) => (double[3] back) { back = Mul (w, ct) }"


def graph(attributes: str, setup: str = "", inputs: str = "x"):
    text = f"""g (double[3] x) => (double[3] y) {{
        {setup} y = gradwire.sci.CustomDerivative ({inputs}) <label = "f", {attributes}>
    }}"""

    return register(onnx.parser.parse_model(HEADER + text).SerializeToString())


def derived(one, *steps, **vectors):
    (result,) = evaluate(one, FunctionSpec(one.info.graph_id, steps), {"x": X, **vectors}).values()
    return result


def test_the_derivative_is_that_of_the_rule_in_both_modes_and_every_order() -> None:
    one = graph(f"{BODY}, {FORWARD}")
    np.testing.assert_allclose(derived(one), np.sin(X))
    np.testing.assert_allclose(derived(one, Jvp(), **{"x.tangent": ONES}), X**2)
    np.testing.assert_allclose(derived(one, Vjp(), **{"y.cotangent": ONES}), X**2)
    curvature = derived(one, Vjp(), Jvp(("x",)), **{"y.cotangent": ONES, "x.tangent": ONES})
    np.testing.assert_allclose(curvature, 2 * X)


def test_a_reverse_rule_gives_reverse_mode_alone() -> None:
    one = graph(f"{BODY}, {REVERSE}")
    np.testing.assert_allclose(derived(one, Vjp(), **{"y.cotangent": ONES}), X)
    with pytest.raises(NotDifferentiable, match="f has a reverse rule alone; use reverse mode"):
        derived(one, Jvp(), **{"x.tangent": ONES})
    function = FunctionSpec(one.info.graph_id)
    types = argument_types({"x": X})
    plan = make_plan(one, Problem(function, types, "jacobian"))
    assert plan.mode == derivatives.REVERSE
    np.testing.assert_allclose(assemble(one, plan, {"x": X})[0], np.diag(X))
    with pytest.raises(NotDifferentiable, match="use mode reverse"):
        make_plan(one, Problem(function, types, "jacobian", options=PlanOptions(mode=derivatives.FORWARD)))


def test_without_a_rule_there_is_a_value_and_no_derivative() -> None:
    one = graph(BODY)
    np.testing.assert_allclose(derived(one), np.sin(X))
    with pytest.raises(NotDifferentiable, match="f has no derivative of this order"):
        derived(one, Vjp(), **{"y.cotangent": ONES})


def test_the_code_may_repeat_as_often_as_the_data_say() -> None:
    body = """body = code (double[3] u) => (double[3] s) {
        forever = Constant <value_int = 5000> ()  going = Constant <value = bool {1}> ()
        s = Loop (forever, going, u) <body = once (int64 i, bool c, double[3] a) => (bool d, double[3] b) {
            b = Cos (a)  total = ReduceSum <keepdims = 0> (b)  two = Constant <value_float = 2.3> ()
            limit = CastLike (two, total)  d = Less (total, limit)
        }>
    }"""
    one = graph(
        f"{body}, jvp = rule (double[3] v, double[3] dv) => (double[3] p, double[3] dp) {{ "
        "p = Sin (v)  dp = Mul (v, dv) }"
    )
    assert not one.info.forward_only
    np.testing.assert_allclose(derived(one, Vjp(), **{"y.cotangent": ONES}), X)


def test_constants_may_be_captured_and_what_is_differentiated_may_not() -> None:
    captured = "body = code (double[3] u) => (double[3] s) { s = Mul (u, k) }"
    rule = """jvp = rule (double[3] v, double[3] dv) => (double[3] p, double[3] dp) {
        p = Mul (v, k)  dp = Mul (k, dv)
    }"""
    fixed = graph(f"{captured}, {rule}", "k = Constant <value = double[3] {2.0, 3.0, 4.0}> ()")
    np.testing.assert_allclose(derived(fixed, Jvp(), **{"x.tangent": ONES}), [2.0, 3.0, 4.0])
    moving = graph(f"{captured}, {rule}", "k = Exp (x)")
    with pytest.raises(NotDifferentiable, match="captures a value that is differentiated"):
        derived(moving, Jvp(), **{"x.tangent": ONES})


@pytest.mark.parametrize(
    ("attributes", "inputs", "words"),
    [
        (FORWARD, "x", "attribute body .a graph. is missing"),
        (f"{BODY}, {FORWARD}", "x, x", "its graph body has 1 inputs; it must have 2"),
        (f"{BODY}, jvp = rule (double[3] v) => (double[3] p) {{ p = Sin (v) }}", "x", "jvp has 1 inputs"),
    ],
)
def test_graphs_that_do_not_fit_are_refused(attributes: str, inputs: str, words: str) -> None:
    with pytest.raises(InvalidGraph, match=words):
        graph(attributes, inputs=inputs)


def test_a_gradient_is_that_of_the_rule() -> None:

    text = f"""g (double[3] x) => (double y) {{
        z = gradwire.sci.CustomDerivative (x) <{BODY}, {REVERSE}>  y = ReduceSum <keepdims = 0> (z)
    }}"""
    one = register(onnx.parser.parse_model(HEADER + text).SerializeToString())
    np.testing.assert_allclose(derived(one, Gradient()), X)
