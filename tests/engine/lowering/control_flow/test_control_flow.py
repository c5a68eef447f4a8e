"""If, Loop and Scan: values and derivatives against the same computation unrolled, and refusals by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from gradwire_engine.errors import InvalidGraph, LimitExceeded
from gradwire_engine.limits import Limits
from gradwire_engine.lowering import Notes, evaluate
from tests.engine.lowering.derivative_checks import check_flat

X = np.array([0.3, -0.7, 1.1])


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 21]>\n' + text)


def function(model: onnx.ModelProto, **constants: Any) -> Callable[[Any], Any]:
    return lambda x: evaluate(model, {"x": x, **constants})[0]


def check(model: onnx.ModelProto, expected: Callable[[Any], Any], x: Any = X, **options: Any) -> None:
    """Values and Jacobians of a model against a JAX function, and its derivatives against differences."""
    f = function(model)
    np.testing.assert_allclose(jax.jit(f)(x), expected(x), rtol=1e-14)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(f))(x), jax.jacfwd(expected)(x), rtol=1e-12, atol=1e-14)
    if "reverse" in options.get("modes", ("reverse",)):
        np.testing.assert_allclose(jax.jit(jax.jacrev(f))(x), jax.jacrev(expected)(x), rtol=1e-12, atol=1e-14)
        # A batch of points, with the derivative inside.
        points = np.stack([x, x * 0.5, x * 0.9])
        np.testing.assert_allclose(
            jax.jit(jax.vmap(jax.jacrev(f)))(points),
            np.stack([jax.jacrev(expected)(point) for point in points]),
            rtol=1e-12,
            atol=1e-14,
        )
    check_flat(lambda v: jnp.ravel(f(v.reshape(np.shape(x)))), np.ravel(x), **options)


LOOP = """g (double[3] x) => (double[3] y) {{
    trips = Constant <value_int: int = {trips}> ()
    go = Constant <value = bool {{1}}> ()
    y = Loop ({inputs}, x) <body = b (int64 i, bool c, double[3] s) => (bool keep, double[3] t) {{
        {body}
    }}>
}}"""

STEP = "u = Mul (s, x)  v = Sin (u)  t = Add (v, s)"


def unrolled(trips: int) -> Callable[[Any], Any]:
    def f(x: Any) -> Any:
        s = x
        for _ in range(trips):
            s = s + jnp.sin(s * x)
        return s

    return f


def test_a_loop_of_known_trips_that_captures_an_outer_value_has_all_derivatives() -> None:
    model = parse(LOOP.format(trips=6, inputs="trips, go", body=STEP + " keep = Identity (c)"))
    check(model, unrolled(6), order=2)
    jaxpr = str(jax.make_jaxpr(function(model))(X))
    assert "scan[" in jaxpr
    assert jaxpr.count("sin") == 1


def test_a_loop_without_a_condition_runs_all_its_trips() -> None:
    model = parse(LOOP.format(trips=3, inputs="trips, ", body=STEP + " keep = Identity (c)"))
    check(model, unrolled(3))


def test_a_condition_on_the_trip_s_number_is_worked_out_beforehand() -> None:
    body = STEP + " one = Constant <value_int: int = 3> ()  keep = Less (i, one)"
    model = parse(LOOP.format(trips=0, inputs=", go", body=body))
    check(model, unrolled(4))
    assert "while[" not in str(jax.make_jaxpr(function(model))(X))


def test_a_loop_whose_condition_starts_false_returns_its_state() -> None:
    model = parse(
        """g (double[3] x) => (double[3] y, double[k, 3] ys) {
        go = Constant <value = bool {0}> ()
        y, ys = Loop (, go, x) <
            body = b (int64 i, bool c, double[3] s) => (bool c, double[3] t, double[3] u) {
            t = Sin (s)
            u = Cos (s)
        }>
    }"""
    )
    final, stacked = evaluate(model, {"x": jnp.asarray(X)})
    np.testing.assert_array_equal(final, X)
    assert stacked.shape == (0, 3)


def test_scan_outputs_of_a_loop_are_stacked_and_differentiable() -> None:
    model = parse(
        """g (double[3] x) => (double[k, 3] ys) {
        trips = Constant <value_int: int = 4> ()
        y, ys = Loop (trips, , x) <
            body = b (int64 i, bool c, double[3] s) => (bool c, double[3] t, double[3] u) {
            t = Sin (s)
            f = CastLike (i, s)
            u = Mul (t, f)
        }>
    }"""
    )

    def expected(x: Any) -> Any:
        rows, s = [], x
        for i in range(4):
            s = jnp.sin(s)
            rows.append(s * i)
        return jnp.stack(rows)

    check(model, expected)


GROWING = """g (double[3] x) => (double[n] y) {
    trips = Constant <value_int: int = 3> ()
    y = Loop (trips, , x) <body = b (int64 i, bool c, double[n] s) => (bool c, double[m] t) {
        u = Sin (s)
        t = Concat <axis = 0> (u, x)
    }>
}"""


def test_a_loop_whose_state_grows_is_unrolled() -> None:
    def expected(x: Any) -> Any:
        s = x
        for _ in range(3):
            s = jnp.concatenate([jnp.sin(s), x])
        return s

    check(parse(GROWING), expected)


def test_a_loop_that_slices_by_its_number_is_unrolled() -> None:
    body = """one = Constant <value_ints: ints = [1]> ()  zero = Constant <value_ints: ints = [0]> ()
        at = Reshape (i, one)  end = Add (at, one)  part = Slice (x, at, end)
        t = Mul (s, part)  keep = Identity (c)"""
    model = parse(LOOP.format(trips=3, inputs="trips, go", body=body))
    check(model, lambda x: x * x[0] * x[1] * x[2])


def test_a_growing_loop_too_long_to_unroll_is_refused_with_the_reason() -> None:
    model = parse(GROWING.replace("int = 3", "int = 9000"))
    with pytest.raises(InvalidGraph, match=r"9000 trips of 2 nodes are too many to unroll.*float64\[3\]"):
        jax.eval_shape(function(model), X)


def test_more_trips_than_the_limit_are_refused_with_both_figures() -> None:
    model = parse(LOOP.format(trips=50, inputs="trips, go", body=STEP + " keep = Identity (c)"))
    with pytest.raises(LimitExceeded, match="runs 50 times; the limit is 49") as caught:
        evaluate(model, {"x": X}, Limits(loop_trips=49))
    assert (caught.value.limit, caught.value.allowed, caught.value.requested) == ("loop_trips", 49, 50)


def test_a_loop_of_static_values_folds_to_numpy() -> None:
    model = parse(
        """g () => (int64 y) {
        zero = Constant <value_int: int = 0> ()
        trips = Constant <value_int: int = 5> ()
        y = Loop (trips, , zero) <body = b (int64 i, bool c, int64 s) => (bool c, int64 t) { t = Add (s, i) }>
    }"""
    )

    def traced(x: Any) -> Any:
        y = evaluate(model, {})[0]
        assert isinstance(y, np.ndarray | np.generic)
        assert y == 10
        return x

    jax.eval_shape(traced, 1.0)


NEWTON = """g (double x) => (double y) {{
    {trips}
    one = Constant <value = double {{1.0}}> ()
    half = Constant <value = double {{0.5}}> ()
    small = Constant <value = double {{1e-30}}> ()
    y = Loop ({count}, , one) <body = b (int64 i, bool c, double s) => (bool keep, double t) {{
        q = Div (x, s)
        both = Add (s, q)
        t = Mul (half, both)
        left = Sub (t, s)
        square = Mul (left, left)
        keep = Greater (square, small)
    }}>
}}"""


def test_a_data_dependent_loop_with_a_small_bound_has_all_derivatives() -> None:
    model = parse(NEWTON.format(trips="trips = Constant <value_int: int = 60> ()", count="trips"))
    notes = Notes()
    jax.eval_shape(lambda x: evaluate(model, {"x": x}, notes=notes), 2.0)
    assert not notes.forward_only
    check(model, jnp.sqrt, np.array(2.0), order=2)


def test_a_data_dependent_loop_without_a_bound_has_forward_mode_and_is_noted_by_name() -> None:
    model = parse(NEWTON.format(trips="", count=""))
    model.graph.node[-1].name = "newton"
    notes = Notes()
    jax.eval_shape(lambda x: evaluate(model, {"x": x}, notes=notes), 2.0)
    assert list(notes.forward_only) == ["newton"]
    assert "trip count of at most 1024" in notes.forward_only["newton"]
    check(model, jnp.sqrt, np.array(2.0), modes=("forward",))


def test_a_traced_trip_count_has_forward_mode() -> None:
    model = parse(
        """g (double[3] x, int64 n) => (double[3] y) {
        y = Loop (n, , x) <body = b (int64 i, bool c, double[3] s) => (bool c, double[3] t) { t = Sin (s) }>
    }"""
    )
    notes = Notes()
    value, tangent = jax.jit(
        lambda x, n: jax.jvp(lambda x: evaluate(model, {"x": x, "n": n}, notes=notes)[0], (x,), (x,))
    )(X, 2)
    np.testing.assert_allclose(value, np.sin(np.sin(X)), rtol=1e-15)
    np.testing.assert_allclose(tangent, np.cos(np.sin(X)) * np.cos(X) * X, rtol=1e-14)
    assert len(notes.forward_only) == 1


def test_masked_trips_do_not_poison_the_derivative_of_a_batch() -> None:
    # Each trip divides by what is left; the trip after the last would divide by zero.
    model = parse(
        """g (double x) => (double y) {
        trips = Constant <value_int: int = 8> ()
        one = Constant <value = double {1.0}> ()
        zero = Constant <value = double {0.0}> ()
        three = Constant <value = double {3.0}> ()
        left, y = Loop (trips, , three, x) <
            body = b (int64 i, bool c, double s, double p) => (bool keep, double t, double q) {
            part = Div (p, s)
            q = Add (part, p)
            t = Sub (s, one)
            keep = Greater (t, zero)
        }>
    }"""
    )
    gradient = jax.jit(jax.grad(lambda x: jax.vmap(function(model))(x).sum()))(np.array([1.0, 2.0]))
    np.testing.assert_allclose(gradient, [4.0, 4.0], rtol=1e-14)


def test_scan_outputs_of_a_data_dependent_loop_are_refused_with_what_would_work() -> None:
    model = parse(
        """g (double[3] x) => (double[k, 3] ys) {
        y, ys = Loop (, , x) <
            body = b (int64 i, bool c, double[3] s) => (bool keep, double[3] t, double[3] u) {
            t = Sin (s)
            u = Identity (t)
            total = ReduceSum <keepdims = 0> (t)
            keep = Greater (total, total)
        }>
    }"""
    )
    with pytest.raises(InvalidGraph, match=r"number of trips depends on the data.*stacked outputs"):
        jax.eval_shape(function(model), X)


def test_an_endless_loop_is_lowered_as_one() -> None:
    model = parse(LOOP.format(trips=0, inputs=", ", body=STEP + " keep = Identity (c)"))
    assert "while[" in str(jax.make_jaxpr(function(model))(X))


def test_a_nested_loop_sees_the_values_of_both_loops_around_it() -> None:
    body = """two = Constant <value_int: int = 2> ()
        t = Loop (two, , s) <body = inner (int64 j, bool d, double[3] r) => (bool d, double[3] w) {
            f = CastLike (i, x)  a = Mul (r, x)  q = Add (a, s)  w = Add (q, f)
        }>
        keep = Identity (c)"""
    model = parse(LOOP.format(trips=3, inputs="trips, go", body=body))

    def expected(x: Any) -> Any:
        s = x
        for i in range(3):
            r = s
            for _ in range(2):
                r = r * x + s + i
            s = r
        return s

    check(model, expected, order=2)


def test_a_loop_body_that_declares_arrays_of_one_gets_them() -> None:
    model = parse(
        """g (double[1] x) => (double[1] y) {
        trips = Constant <value_ints: ints = [2]> ()
        go = Constant <value = bool[1] {1}> ()
        y = Loop (trips, go, x) <body = b (int64[1] i, bool[1] c, double[1] s) => (bool[1] c, double[1] t) {
            f = CastLike (i, s)
            t = Concat <axis = 0> (f)
        }>
    }"""
    )
    np.testing.assert_array_equal(jax.jit(function(model))(np.array([5.0])), [1.0])


BRANCHES = """g (double[3] x) => (double[3] y) {
    zero = Constant <value = double {0.0}> ()
    total = ReduceSum <keepdims = 0> (x)
    positive = Greater (total, zero)
    y = If (positive) <
        then_branch = t () => (double[3] a) { a = Mul (x, x) },
        else_branch = e () => (double[3] b) { b = Exp (x) }
    >
}"""


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_traced_if_differentiates_the_branch_taken(sign: float) -> None:
    model = parse(BRANCHES)
    f = function(model)
    expected = (lambda x: x * x) if sign > 0 else jnp.exp
    np.testing.assert_allclose(jax.jit(jax.jacrev(f))(sign * X), jax.jacfwd(expected)(sign * X), rtol=1e-13)
    check_flat(f, sign * X, order=2)


def test_a_batch_takes_both_branches_of_an_if() -> None:
    points = np.stack([X, -X])
    jacobians = jax.jit(jax.vmap(jax.jacrev(function(parse(BRANCHES)))))(points)
    np.testing.assert_allclose(jacobians[0], np.diag(2 * X), rtol=1e-13)
    np.testing.assert_allclose(jacobians[1], np.diag(np.exp(-X)), rtol=1e-13)


def test_branches_of_different_shapes_are_refused_when_the_condition_is_traced() -> None:
    model = parse(BRANCHES.replace("b = Exp (x)", "b = Concat <axis = 0> (x, x)"))
    with pytest.raises(
        InvalidGraph, match=r"both branches.*then: \['float64\[3\]'\], else: \['float64\[6\]'\]"
    ):
        jax.eval_shape(function(model), X)


def test_a_static_if_never_looks_at_the_other_branch() -> None:
    text = BRANCHES.replace("Greater (total, zero)", "Greater (zero, zero)").replace(
        "a = Mul (x, x)", "a = NoSuchOperator (x)"
    )
    np.testing.assert_allclose(jax.jit(function(parse(text)))(X), np.exp(X), rtol=1e-15)


def scan_model(attributes: str, output: str = "double[k, n] ys") -> onnx.ModelProto:
    return parse(
        f"""g (double[2, 4] x) => ({output}) {{
        start = Constant <value = double[2] {{1.0, 2.0}}> ()
        last, ys = Scan <num_scan_inputs = 1, {attributes}
            body = b (double[2] s, double[2] item) => (double[2] t, double[2] u) {{
                p = Mul (s, item)
                t = Add (p, s)
                u = Sin (t)
            }}> (start, x)
    }}"""
    )


@pytest.mark.parametrize("backward_in", [0, 1])
@pytest.mark.parametrize("backward_out", [0, 1])
def test_scan_honours_axes_and_directions(backward_in: int, backward_out: int) -> None:
    model = scan_model(
        f"scan_input_axes = [-1], scan_input_directions = [{backward_in}], "
        f"scan_output_axes = [1], scan_output_directions = [{backward_out}],"
    )

    def expected(x: Any) -> Any:
        s, columns = jnp.array([1.0, 2.0]), []
        for k in range(4)[:: -1 if backward_in else 1]:
            s = s * x[:, k] + s
            columns.append(jnp.sin(s))
        return jnp.stack(columns[:: -1 if backward_out else 1], axis=1)

    check(model, expected, np.random.default_rng(0).normal(size=(2, 4)))


def test_scan_of_opset_8_scans_each_sequence_of_a_batch_to_its_own_length() -> None:
    body = onnx.parser.parse_graph(
        "b (double[2] s, double[2] item) => (double[2] t, double[2] t) { t = Add (s, item) }"
    )
    node = onnx.helper.make_node("Scan", ["n", "s", "x"], ["last", "ys"], num_scan_inputs=1, body=body)
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [onnx.ValueInfoProto(name=name) for name in ("n", "s", "x")],
        [onnx.ValueInfoProto(name=name) for name in ("last", "ys")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 8)])
    x = np.random.default_rng(0).normal(size=(2, 3, 2))
    given = {"n": np.array([2, 3]), "s": np.zeros((2, 2))}
    last, ys = jax.jit(lambda x: evaluate(model, {**given, "x": x}))(x)
    sums = np.cumsum(x, axis=1)
    np.testing.assert_allclose(last, [sums[0, 1], sums[1, 2]], rtol=1e-15)
    sums[0, 2] = 0
    np.testing.assert_allclose(ys, sums, rtol=1e-15)
    check_flat(lambda v: evaluate(model, {**given, "x": v.reshape(x.shape)})[1].ravel(), x.ravel())


def test_a_sequence_grows_in_a_loop_and_is_joined_after_it() -> None:
    model = parse(
        """g (double[3] x) => (double[n] y) {
        trips = Constant <value_int: int = 2> ()
        empty = SequenceEmpty <dtype = 11> ()
        all, last = Loop (trips, , empty, x) <
            body = b (int64 i, bool c, seq(double[3]) q, double[3] s)
                => (bool c, seq(double[3]) r, double[3] t) {
            t = Sin (s)
            r = SequenceInsert (q, t)
        }>
        y = ConcatFromSequence <axis = 0> (all)
    }"""
    )
    check(model, lambda x: jnp.concatenate([jnp.sin(x), jnp.sin(jnp.sin(x))]))


def test_sequence_map_maps_each_item_with_what_it_captures() -> None:
    model = parse(
        """g (double[3] x) => (double[n] y) {
        parts = SplitToSequence <axis = 0> (x)
        squares = SequenceMap (parts) <body = b (double[1] p) => (double[1] r) {
            total = ReduceSum <keepdims = 1> (x)
            r = Mul (p, total)
        }>
        y = ConcatFromSequence <axis = 0> (squares)
    }"""
    )
    check(model, lambda x: x * x.sum())


def test_an_error_in_a_loop_body_names_the_path_to_its_node() -> None:
    model = parse(LOOP.format(trips=2, inputs="trips, go", body="t = Reshape (s, i)  keep = Identity (c)"))
    model.graph.node[-1].name = "outer"
    with pytest.raises(InvalidGraph, match=r"node outer/#0 \(Reshape\)"):
        jax.eval_shape(function(model), X)
