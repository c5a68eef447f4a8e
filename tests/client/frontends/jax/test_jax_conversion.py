"""What a converted JAX function looks like, and what cannot be converted."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax

import gradwire as gw
import gradwire.jax
from gradwire.frontends.jax import convert, convert_function
from gradwire.frontends.sources import load
from tests.client.frontends.jax.jax_oracle import agree, jacobians_agree

V = np.linspace(-1.0, 2.0, 6)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def names(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    return [item.name for item in model.graph.input], [item.name for item in model.graph.output]


def test_inputs_are_named_after_parameters_and_outputs_y() -> None:
    model = convert(lambda rate, x: rate * x, [gw.spec(()), gw.spec(3)])
    assert names(model) == (["rate", "x"], ["y"])


def test_trees_are_named_by_their_paths() -> None:
    specs = [{"w": gw.spec((2, 2)), "b": [gw.spec(2)]}, gw.spec(2)]
    model = convert(lambda params, x: (params["w"] @ x, {"bias": params["b"][0]}), specs)
    assert names(model) == (["params.b.0", "params.w", "x"], ["y0", "y1.bias"])


def test_names_may_be_given() -> None:
    assert names(convert(lambda a, b: {"sum": a + b}, [gw.spec(2)] * 2, ["u", "v"])) == (["u", "v"], ["sum"])
    with pytest.raises(gw.TraceError, match="1 names for 2 inputs"):
        convert(lambda a, b: a + b, [gw.spec(2)] * 2, ["u"])
    with pytest.raises(gw.TraceError, match="'u' is taken"):
        convert(lambda a, b: a + b, [gw.spec(2)] * 2, ["u", "u"])


def test_an_output_never_has_the_name_of_an_input() -> None:
    assert names(convert(lambda y: 2 * y, [gw.spec(2)])) == (["y"], ["out"])
    assert names(convert(lambda a: {"a": 2 * a}, [gw.spec(2)])) == (["a"], ["y_a"])


def test_the_structure_of_the_result_is_kept() -> None:
    converted = convert_function(lambda x: {"a": x, "b": (x, [x])}, [gw.spec(2)])
    assert jax.tree.unflatten(converted.structure, [1, 2, 3]) == {"a": 1, "b": (2, [3])}


def test_a_scan_stays_a_scan_however_long() -> None:
    model = convert(lambda x: lax.scan(lambda c, r: (jnp.sin(c) + r, c), 0.0, x), [gw.spec(100_000)])
    assert operators(model).count("Scan") == 1
    assert len(model.SerializeToString()) < 3000


def test_a_counted_loop_stays_a_loop() -> None:
    model = convert(lambda x: lax.fori_loop(0, 1000, lambda i, c: c * 0.5 + x, x), [gw.spec(3)])
    assert "Loop" in operators(model)
    assert len(model.graph.node) < 10


def test_float64_stays_float64_whatever_jax_is_set_to() -> None:
    with jax.enable_x64(False):
        model = convert(lambda x: 0.1 * x + jnp.ones(3), [gw.spec(3)])
    assert {tensor.data_type for tensor in model.graph.initializer} <= {
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.INT64,
    }
    values = [onnx.numpy_helper.to_array(t).tolist() for t in model.graph.initializer]
    assert 0.1 in values


def test_float32_stays_float32() -> None:
    model = convert(lambda x: 0.1 * x + 1, [gw.spec(3, np.float32)])
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert "Cast" not in operators(model)


def test_large_arrays_that_a_function_closes_over_become_initializers_once() -> None:
    table = np.random.default_rng(0).standard_normal((100, 100))
    model = convert(lambda x: table @ x + jnp.asarray(table) @ (x + 1), [gw.spec(100)])
    sizes = [len(tensor.raw_data) for tensor in model.graph.initializer]
    assert sizes.count(80_000) == 1


def test_constant_indices_are_worked_out_while_converting() -> None:
    model = convert(lambda x: x[np.array([-1, 0, 2])], [gw.spec(5)])
    assert operators(model) == ["Gather"]


def test_what_no_output_needs_is_left_out() -> None:
    def fn(x: Any) -> Any:
        jnp.sin(x) @ jnp.ones((3, 1000))
        return 2 * x

    model = convert(fn, [gw.spec(3)])
    assert operators(model) == ["Mul"]
    assert len(model.graph.initializer) == 1


def test_a_dense_linear_system_becomes_one_solve() -> None:
    model = convert(jnp.linalg.solve, [gw.spec((3, 3)), gw.spec(3)])
    assert "Solve" in operators(model)
    assert not {"LU", "TriangularSolve"} & set(operators(model))


@pytest.mark.parametrize(
    ("fn", "point", "slope"),
    [
        (jax.nn.relu, 0.0, 0.0),
        (jnp.sinc, 0.0, 0.0),
        (lambda x: jax.scipy.special.xlogy(x, 2.0), 0.5, np.log(2.0)),
        (lambda x: jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0), 0.0, 0.0),
    ],
)
def test_slopes_at_kinks_and_removable_singularities_are_those_of_jax(
    fn: Callable[[Any], Any], point: float, slope: float
) -> None:
    assert jax.grad(fn)(point) == pytest.approx(slope)
    jacobians_agree(fn, np.asarray(point))


def test_the_determinant_of_a_singular_matrix_has_its_cofactors_as_derivative() -> None:
    a = np.arange(16.0).reshape(4, 4)
    a[3] = a[2] + 1
    jacobians_agree(jnp.linalg.det, a, atol=1e-9)


def test_second_derivatives_of_a_solve_are_those_of_the_solution_and_not_of_the_method() -> None:
    a = np.random.default_rng(1).standard_normal((3, 3)) + 3 * np.eye(3)

    def second(a: Any) -> Any:
        return jax.jacfwd(lambda t: jnp.linalg.solve(a + t * jnp.eye(3), jnp.ones(3)))(0.0)

    jacobians_agree(second, a)


def test_custom_derivatives_of_jax_itself_are_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", gw.GraphWarning)
        agree(lambda x: jax.nn.relu(x) + jax.nn.silu(x) + jnp.logaddexp(x, 0.0) + jax.nn.gelu(x), V)


def test_a_debug_print_is_left_out_with_a_warning() -> None:
    def fn(x: Any) -> Any:
        jax.debug.print("x = {x}", x=x)
        return 2 * x

    with pytest.warns(gw.GraphWarning, match="left out"):
        assert operators(convert(fn, [gw.spec(3)])) == ["Mul"]


def _noise(x: Any) -> Any:
    return x + jax.random.normal(jax.random.key(0), (3,))


def _branches(x: Any) -> Any:
    return x if x[0] > 0 else -x


REFUSED: list[tuple[Callable[..., Any], str]] = [
    (_noise, r"random_seed.*test_jax_conversion\.py:\d+ in _noise.*draw the samples outside"),
    (_branches, "_branches needs the value of an array.*jnp.where or jax.lax.cond"),
    (lambda x: x[x > 0], "masks in place of boolean indices"),
    (lambda x: np.sin(np.asarray(x)), "needs the value"),
    (lambda x: lax.bitcast_convert_type(x, jnp.int64), "bitcast_convert_type.*bits"),
    (lambda x: jax.pure_callback(np.sin, x, x), "pure_callback.*cannot call Python"),
    (lambda x: x.at[0].apply(jnp.sin), r"x\.at\[i\]\.set\(f\(x\[i\]\)\)"),
    (lambda x: jnp.linalg.qr(jnp.outer(x, x)[:, :2], mode="complete")[0], "mode='reduced'"),
    (lambda x: jnp.linalg.svd(jnp.outer(x, x)[:, :2])[0], "full_matrices=False"),
    (lambda x: None, "returned no array"),
]


@pytest.mark.parametrize(("fn", "message"), REFUSED)
def test_what_has_no_place_in_a_graph_is_refused_by_name_and_line(fn: Any, message: str) -> None:
    with pytest.raises(gw.TraceError, match=f"(?s){message}"):
        convert(fn, [gw.spec(3)])


def test_an_array_of_a_transformation_around_is_refused() -> None:
    def outer(c: Any) -> Any:
        convert(lambda x: c * x, [gw.spec(3)])
        return c

    with pytest.raises(gw.TraceError, match="pass that array as an argument"):
        jax.jit(outer)(1.0)


def test_an_operator_too_large_to_become_a_matrix_is_refused() -> None:
    def solve(x: Any) -> Any:
        return jax.scipy.sparse.linalg.cg(lambda v: 2 * v + jnp.roll(v, 1), x)[0]

    with pytest.raises(gw.TraceError, match="the limit is 4096"):
        convert(solve, [gw.spec(5000)])


def plain(x: Any) -> Any:
    return jnp.sin(x) * 2


SOURCES = [
    plain,
    jax.jit(plain),
    gradwire.jax.wrap(plain),
    gradwire.jax.wrap(jax.jit(plain)),
    lambda x: jnp.asarray(x) * 2,
    lambda x: jnp.stack([x, x]),
    jax.grad(lambda x: jnp.sum(plain(x))),
    jax.nn.gelu,
]


@pytest.mark.parametrize("source", SOURCES)
def test_the_sdk_knows_functions_of_jax_from_those_of_numpy(source: Any) -> None:
    model = load(source, [gw.spec(3)])
    assert [value.name for value in model.signature.inputs] == ["x"]
    assert all(value.dtype == np.float64 for value in model.signature.outputs)


def test_a_wrapped_function_still_computes() -> None:
    wrapped = gradwire.jax.wrap(plain)
    np.testing.assert_array_equal(wrapped(V), plain(V))
    assert gradwire.jax.wrap(wrapped) is wrapped
    assert wrapped.__name__ == "plain"
