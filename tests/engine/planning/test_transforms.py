"""Transforms and their compositions, against JAX's own derivatives of functions written by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradwire_engine.errors import InvalidInput, LimitExceeded, NotDifferentiable
from gradwire_engine.graphs.graph import Graph
from gradwire_engine.limits import Limits
from gradwire_engine.planning.transforms import Function, Gradient, Hvp, Jvp, Transform, Vjp, applied
from gradwire_engine.values import Signature, TensorType, dtype_of
from tests.engine.small_graphs import graph_of, kernel_of, matrices, value_of

Array = Any

TWO = """(double[3] x, double[3] z) => (double[3] y, double s) {
    a = Sin(x)
    y = Mul(a, z)
    b = Mul(y, z)
    s = ReduceSum<keepdims = 0>(b)
}"""

CUBIC = """(double[3] x) => (double s) {
    a = Mul(x, x)
    b = Mul(a, x)
    e = Exp(x)
    c = Mul(b, e)
    s = ReduceSum<keepdims = 0>(c)
}"""

X, Z = np.array([0.3, -1.2, 2.0]), np.array([1.5, 0.4, -0.7])
V, W = np.array([1.0, -2.0, 0.5]), np.array([0.2, 0.9, -1.1])


def two(x: Array, z: Array) -> tuple[Array, Array]:
    y = jnp.sin(x) * z
    return y, jnp.sum(y * z)


def cubic(x: Array) -> Array:
    return jnp.sum(x**3 * jnp.exp(x))


def close(actual: Array, expected: Array) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(TWO)


@pytest.fixture(scope="module")
def cubic_graph() -> Graph:
    return graph_of(CUBIC)


# Each transform


def test_gradient_is_with_respect_to_every_floating_input_by_default(graph: Graph) -> None:
    results = value_of(graph, {"x": X, "z": Z}, Gradient(of="s"))
    assert list(results) == ["x.gradient", "z.gradient"]
    expected = jax.grad(lambda x, z: two(x, z)[1], (0, 1))(X, Z)
    close(results["x.gradient"], expected[0])
    close(results["z.gradient"], expected[1])


def test_jvp_pushes_the_tangents_of_named_inputs_and_holds_the_others(graph: Graph) -> None:
    results = value_of(graph, {"x": X, "z": Z, "z.tangent": V}, Jvp(wrt=("z",)))
    assert list(results) == ["y.tangent", "s.tangent"]
    _, expected = jax.jvp(lambda z: two(X, z), (Z,), (V,))
    close(results["y.tangent"], expected[0])
    close(results["s.tangent"], expected[1])


def test_vjp_pulls_the_cotangents_of_named_outputs_back(graph: Graph) -> None:
    results = value_of(graph, {"x": X, "z": Z, "y.cotangent": W}, Vjp(of=("y",)))
    assert list(results) == ["x.cotangent", "z.cotangent"]
    expected = jax.vjp(lambda x, z: two(x, z)[0], X, Z)[1](W)
    close(results["x.cotangent"], expected[0])
    close(results["z.cotangent"], expected[1])


def test_vjp_sums_over_all_outputs_by_default(graph: Graph) -> None:
    inputs = {"x": X, "z": Z, "y.cotangent": W, "s.cotangent": np.array(2.0)}
    expected = jax.vjp(two, X, Z)[1]((W, 2.0))
    close(value_of(graph, inputs, Vjp())["x.cotangent"], expected[0])


def test_hvp_multiplies_the_hessian_blocks_of_the_chosen_inputs(graph: Graph) -> None:
    inputs = {"x": X, "z": Z, "x.tangent": V, "z.tangent": W}
    results = value_of(graph, inputs, Hvp(of="s"))
    hessian = jax.hessian(lambda x, z: two(x, z)[1], (0, 1))(X, Z)
    close(results["x.hvp"], hessian[0][0] @ V + hessian[0][1] @ W)
    close(results["z.hvp"], hessian[1][0] @ V + hessian[1][1] @ W)


@pytest.mark.parametrize(
    ("transform", "added", "derived"),
    [
        (Gradient(wrt=("x",), of="s", keep_values=True), {}, ["x.gradient"]),
        (Jvp(wrt=("x",), of=("y",), keep_values=True), {"x.tangent": V}, ["y.tangent"]),
        (Vjp(wrt=("x",), of=("y",), keep_values=True), {"y.cotangent": W}, ["x.cotangent"]),
        (Hvp(wrt=("x",), of="s", keep_values=True), {"x.tangent": V}, ["x.hvp"]),
    ],
)
def test_values_are_kept_beside_derivatives_on_request(
    graph: Graph, transform: Transform, added: dict[str, Array], derived: list[str]
) -> None:
    results = value_of(graph, {"x": X, "z": Z, **added}, transform)
    assert list(results) == [*derived, "y", "s"]
    y, s = two(X, Z)
    close(results["y"], y)
    close(results["s"], s)


# Names


def test_names_that_are_taken_get_a_number() -> None:
    graph = graph_of(
        """(double x, double[1] "x.tangent") => (double y) { a = Squeeze("x.tangent") y = Mul(x, a) }"""
    )
    inputs = {"x": np.array(2.0), "x.tangent": np.array([3.0]), "x.tangent.2": np.array(1.0)}
    result = value_of(graph, inputs, Jvp(wrt=("x",)))
    assert result == {"y.tangent": 3.0}


def test_repeated_transforms_number_their_names(cubic_graph: Graph) -> None:
    inputs = {"x": X, "x.tangent": V, "x.tangent.2": W}
    results = value_of(cubic_graph, inputs, Jvp(keep_values=True), Jvp(wrt=("x",), keep_values=True))
    assert list(results) == ["s.tangent.tangent", "s.tangent.2", "s.tangent", "s"]
    hessian = jax.hessian(cubic)(X)
    gradient = jax.grad(cubic)(X)
    close(results["s.tangent.tangent"], W @ hessian @ V)
    close(results["s.tangent.2"], gradient @ W)
    close(results["s.tangent"], gradient @ V)


def test_dependent_outputs_named_like_derivatives_do_not_collide() -> None:
    graph = graph_of('(double x) => (double y, double "x.gradient") { y = Mul(x, x) "x.gradient" = Sin(x) }')
    results = value_of(graph, {"x": np.array(3.0)}, Gradient(of="y", keep_values=True))
    assert results == {"x.gradient.2": 6.0, "y": 9.0, "x.gradient": np.sin(3.0)}


# Compositions


def test_a_jvp_of_a_gradient_is_an_hvp(cubic_graph: Graph) -> None:
    inputs = {"x": X, "x.tangent": V}
    composed = value_of(cubic_graph, inputs, Gradient(), Jvp())["x.gradient.tangent"]
    close(composed, jax.hessian(cubic)(X) @ V)
    close(composed, value_of(cubic_graph, inputs, Hvp())["x.hvp"])


def test_a_vjp_of_a_gradient_is_a_vector_hessian_product(cubic_graph: Graph) -> None:
    inputs = {"x": X, "x.gradient.cotangent": W}
    close(value_of(cubic_graph, inputs, Gradient(), Vjp())["x.cotangent"], W @ jax.hessian(cubic)(X))


def test_a_gradient_of_a_gradient_differentiates_its_one_element() -> None:
    graph = graph_of("(double x) => (double y) { a = Sin(x) y = Mul(a, x) }")
    x = 0.7
    results = value_of(graph, {"x": np.array(x)}, Gradient(), Gradient())
    close(results["x.gradient"], 2 * np.cos(x) - x * np.sin(x))
    third = value_of(graph, {"x": np.array(x)}, Gradient(), Gradient(), Gradient())
    close(third["x.gradient"], -3 * np.sin(x) - x * np.cos(x))


def test_a_third_derivative_is_the_jacobian_of_an_hvp(cubic_graph: Graph) -> None:
    (result,) = matrices(cubic_graph, {"x": X, "x.tangent": V}, "jacobian", Hvp(), wrt=("x",))
    expected = jax.jacfwd(lambda x: jax.hessian(cubic)(x) @ V)(X)
    close(result, expected)


def test_the_hessian_of_a_directional_derivative_is_a_third_derivative(cubic_graph: Graph) -> None:
    (result,) = matrices(cubic_graph, {"x": X, "x.tangent": V}, "hessian", Jvp(), wrt=("x",))
    close(result, jax.hessian(lambda x: jax.jvp(cubic, (x,), (V,))[1])(X))


def test_a_pullback_is_linear_in_its_cotangent(graph: Graph) -> None:
    inputs = {"x": X, "z": Z, "y.cotangent": W}
    options = {"wrt": ("y.cotangent",), "of": ("x.cotangent",)}
    (transposed,) = matrices(graph, inputs, "jacobian", Vjp(of=("y",)), **options)
    close(transposed, jax.jacfwd(lambda x: two(x, Z)[0])(X).T)


# Refusals

WITH_INTEGERS = """(int64[3] k, double[3] x) => (double s) {
    f = Cast<to = 11>(k)
    p = Mul(f, x)
    s = ReduceSum<keepdims = 0>(p)
}"""


@pytest.mark.parametrize(
    ("transform", "message", "field"),
    [
        (Gradient(), r"2 floating-point outputs \(y, s\): name the one in 'of'", "of"),
        (Gradient(of="t"), "there is no output 't'; there are: y, s", "of"),
        (Gradient(wrt=("q",), of="s"), "there is no input 'q'; there are: x, z", "wrt"),
        (Jvp(wrt=("x", "x")), "wrt names an input twice", "wrt"),
        (Vjp(of=("y", "y")), "of names an output twice", "of"),
        (Hvp(of="y"), r"output 'y' has shape \[3\].*one element", "of"),
        (Gradient(of="y"), r"output 'y' has shape \[3\].*ask for a Jacobian or vjp", "of"),
    ],
)
def test_names_that_fit_nothing_are_refused(
    graph: Graph, transform: Transform, message: str, field: str
) -> None:
    inputs = {"x": X, "z": Z}
    if isinstance(transform, Hvp):
        inputs |= {"x.tangent": V, "z.tangent": V}
    with pytest.raises(InvalidInput, match=message) as refusal:
        kernel_of(graph, inputs, transform)
    assert refusal.value.field == field


@pytest.mark.parametrize("transform", [Jvp(wrt=("k",)), Vjp(wrt=("k",)), Gradient(wrt=("k",), of="s")])
def test_integer_inputs_have_no_derivative_and_are_refused_by_name(transform: Transform) -> None:
    graph = graph_of(WITH_INTEGERS)
    with pytest.raises(InvalidInput, match="input 'k' is int64: only floating-point inputs"):
        kernel_of(graph, {"k": np.arange(3), "x": X}, transform)


def test_integer_inputs_are_left_out_of_the_default() -> None:
    graph = graph_of(WITH_INTEGERS)
    results = value_of(graph, {"k": np.arange(3), "x": X}, Gradient())
    assert list(results) == ["x.gradient"]
    np.testing.assert_array_equal(results["x.gradient"], np.arange(3.0))


def test_a_function_of_integers_alone_has_nothing_to_differentiate() -> None:
    graph = graph_of("(int64[3] k) => (double[3] y) { y = Cast<to = 11>(k) }")
    with pytest.raises(InvalidInput, match="no floating-point input"):
        kernel_of(graph, {"k": np.arange(3)}, Jvp())


def test_an_operator_without_derivative_is_refused_by_name() -> None:
    graph = graph_of("(double[2, 3] x) => (double[2, 3] y) { y = Bernoulli<seed = 1.0>(x) }")
    with pytest.raises(NotDifferentiable, match=r"node #0 \(Bernoulli\) defines no derivative"):
        kernel_of(graph, {"x": np.full((2, 3), 0.5), "x.tangent": np.ones((2, 3))}, Jvp())


# Forward only

SQUARED_UNTIL_SMALL = """(double[2] x) => (double s) {
    trips = Constant<value_int = 9223372036854775807>()
    yes = Constant<value = bool {1}>()
    y = Loop(trips, yes, x) <body = b (int64 i, bool c, double[2] v) => (bool again, double[2] w) {
        w = Mul(v, v)
        t = ReduceSum<keepdims = 0>(w)
        least = Constant<value = double {0.25}>()
        again = Greater(t, least)
    }>
    s = ReduceSum<keepdims = 0>(y)
}"""


def test_a_data_dependent_loop_has_every_forward_derivative() -> None:
    """From (0.8, 0.5) the loop squares three times until its sum is below 1/4: s = x1 ** 8 + x2 ** 8."""
    graph = graph_of(SQUARED_UNTIL_SMALL)
    x = np.array([0.8, 0.5])  # 0.64 + 0.25, 0.4096 + 0.0625, 0.16777 + 0.0039 < 0.25
    first, second = 8 * x**7, 56 * x**6
    inputs = {"x": x}
    close(value_of(graph, inputs)["s"], (x**8).sum())
    close(value_of(graph, inputs, Gradient())["x.gradient"], first)
    directed = {"x": x, "x.tangent": np.array([1.0, 2.0])}
    close(value_of(graph, directed, Jvp())["s.tangent"], first @ [1.0, 2.0])
    close(value_of(graph, directed, Hvp())["x.hvp"], second * [1.0, 2.0])
    close(value_of(graph, directed, Gradient(), Jvp())["x.gradient.tangent"], second * [1.0, 2.0])
    (jacobian,) = matrices(graph, inputs)
    close(jacobian, first)
    (hessian,) = matrices(graph, inputs, "hessian")
    close(hessian, np.diag(second))


@pytest.mark.parametrize("transforms", [(Vjp(),), (Gradient(), Vjp())])
def test_reverse_mode_through_a_data_dependent_loop_is_refused_with_what_works(
    transforms: tuple[Transform, ...],
) -> None:
    with pytest.raises(
        NotDifferentiable, match=r"reverse mode is not possible: node #2.*use forward mode"
    ) as refusal:
        kernel_of(graph_of(SQUARED_UNTIL_SMALL), {"x": np.ones(2)}, *transforms)
    assert "\n" not in str(refusal.value)


# Dtypes and shapes


@pytest.mark.parametrize(
    ("dtype", "rtol"), [("float64", 1e-14), ("float32", 1e-6), ("float16", 2e-3), ("bfloat16", 2e-2)]
)
def test_derivatives_have_the_dtype_of_what_they_are_derivatives_of(dtype: str, rtol: float) -> None:
    name = {"float64": "double", "float32": "float"}.get(dtype, dtype)
    graph = graph_of(
        f"({name}[3] x) => ({name} s) {{ a = Mul(x, x) b = Mul(a, x) s = ReduceSum<keepdims = 0>(b) }}"
    )
    numpy_dtype = dtype_of(dtype)
    x, v = X.astype(numpy_dtype), V.astype(numpy_dtype)
    exact, direction = x.astype(np.float64), v.astype(np.float64)
    for transform, output, expected in (
        (Gradient(), "x.gradient", 3 * exact**2),
        (Jvp(), "s.tangent", (3 * exact**2) @ direction),
        (Hvp(), "x.hvp", 6 * exact * direction),
    ):
        inputs = {"x": x} if isinstance(transform, Gradient) else {"x": x, "x.tangent": v}
        result = value_of(graph, inputs, transform)[output]
        assert result.dtype == numpy_dtype
        np.testing.assert_allclose(result.astype(np.float64), expected, rtol=rtol)


def test_a_forward_only_gradient_has_its_inputs_dtype() -> None:
    body = SQUARED_UNTIL_SMALL.replace("(double[2] x)", "(float[2] f)").replace(
        "trips =", "x = Cast<to = 11>(f)\n    trips =", 1
    )
    f = np.array([0.8, 0.5], np.float32)
    gradient = value_of(graph_of(body), {"f": f}, Gradient())["f.gradient"]
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, 8 * f**7, rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_an_output_of_one_element_has_a_gradient_whatever_its_rank(shape: tuple[int, ...]) -> None:
    extents = ", ".join(map(str, shape))
    graph = graph_of(
        f"(double[{extents}] x) => (double[{extents}] y) {{ y = Mul(x, x) }}"
        if shape
        else "(double x) => (double y) { y = Mul(x, x) }"
    )
    gradient = value_of(graph, {"x": np.full(shape, 3.0)}, Gradient())["x.gradient"]
    assert gradient.shape == shape
    np.testing.assert_array_equal(gradient, np.full(shape, 6.0))


def test_empty_arrays_have_empty_derivatives() -> None:
    graph = graph_of("(double[n] x) => (double s) { a = Sin(x) s = ReduceSum<keepdims = 0>(a) }")
    empty = np.zeros(0)
    assert value_of(graph, {"x": empty}, Gradient())["x.gradient"].shape == (0,)
    assert value_of(graph, {"x": empty, "x.tangent": empty}, Jvp())["s.tangent"] == 0
    assert value_of(graph, {"x": empty, "x.tangent": empty}, Hvp())["x.hvp"].shape == (0,)


def test_nan_and_infinity_in_a_derivative_are_results() -> None:
    graph = graph_of("(double[3] x) => (double[3] y) { y = Sqrt(x) }")
    inputs = {"x": np.array([0.0, -1.0, 4.0]), "x.tangent": np.ones(3)}
    np.testing.assert_array_equal(value_of(graph, inputs, Jvp())["y.tangent"], [np.inf, np.nan, 0.25])


def test_transforms_are_bounded_by_what_they_make_of_the_function() -> None:
    """By their number, by the inputs that jvps double, and by the program that they multiply."""
    many = Signature(tuple((f"x{i}", TensorType("float64", (2,))) for i in range(300)), ())
    one = Signature((("x", TensorType("float64", ())),), (("y", TensorType("float64", ())),))
    jvps = [Jvp()] * 5
    for signature, transforms, equations, limit in (
        (one, [Gradient()] * 17, 1, "transforms"),
        (Signature(many.inputs, one.outputs), jvps, 0, "names"),
        (one, [Hvp(wrt=("x",))] * 3, 10_000, "equations"),
    ):
        function = Function(signature, dict, equations=equations, traced=equations)
        with pytest.raises(LimitExceeded) as caught:
            applied(function, transforms, Limits())
        assert caught.value.limit == limit and caught.value.requested > caught.value.allowed


def test_derivatives_of_a_high_order_are_within_the_limits() -> None:
    graph = graph_of("(double x) => (double y) { y = Exp(x) }")
    found = value_of(graph, {"x": np.float64(0.7)}, *[Gradient(wrt=("x",))] * 5)
    (value,) = found.values()
    close(value, np.exp(0.7))
