"""Remote functions under JAX's transformations, against the same function computed here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax
from jax.test_util import check_grads

import gradwire as gw
import gradwire.jax
from gradwire.frontends.jax import Remote, remote
from tests.client.frontends.jax.engine_client import EngineClient

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer

_random = np.random.default_rng(3)
PARAMS = {"w": jnp.asarray(_random.standard_normal((3, 3))), "b": jnp.asarray(0.5)}
X = jnp.asarray(_random.standard_normal(3))
BATCH = jnp.asarray(_random.standard_normal((5, 3)))


def layer(params: dict[str, Any], x: Any) -> Any:
    return jnp.sin(x @ params["w"]) + params["b"] * jnp.sum(x**3)


def loss(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, x: jnp.sum(fn(params, x) ** 2)


def repeated(fn: Callable[..., Any]) -> Callable[..., Any]:
    def run(params: Any, x: Any) -> Any:
        return jnp.sum(lax.scan(lambda s, _: (jnp.tanh(fn(params, s)), None), x, None, length=3)[0])

    return run


def over_rows(fn: Callable[..., Any]) -> Callable[..., Any]:
    return jax.vmap(fn, (None, 0))


TRANSFORMATIONS: dict[str, tuple[Callable[..., Any], Any]] = {
    "value": (lambda f: f, X),
    "jit": (jax.jit, X),
    "grad": (lambda f: jax.grad(loss(f), (0, 1)), X),
    "jit of grad": (lambda f: jax.jit(jax.grad(loss(f), (0, 1))), X),
    "grad of jit": (lambda f: jax.grad(loss(jax.jit(f)), (0, 1)), X),
    "value_and_grad": (lambda f: jax.value_and_grad(loss(f)), X),
    "jvp": (lambda f: lambda p, x: jax.jvp(f, (p, x), (p, 2 * x)), X),
    "vjp": (lambda f: lambda p, x: jax.vjp(f, p, x)[1](x), X),
    "linearize": (lambda f: lambda p, x: jax.linearize(f, p, x)[1](p, x), X),
    "jacfwd": (lambda f: jax.jacfwd(f, (0, 1)), X),
    "jacrev": (lambda f: jax.jacrev(f, (0, 1)), X),
    "hessian": (lambda f: jax.hessian(loss(f), (0, 1)), X),
    "jit of hessian": (lambda f: jax.jit(jax.hessian(loss(f), 1)), X),
    "reverse over reverse": (lambda f: jax.jacrev(jax.jacrev(f, 1), 1), X),
    "forward over forward": (lambda f: jax.jacfwd(jax.jacfwd(f, 1), 1), X),
    "third derivative": (lambda f: jax.jacfwd(jax.hessian(loss(f), 1), 1), X),
    "vmap": (over_rows, BATCH),
    "vmap along columns": (lambda f: jax.vmap(f, (None, 1), 1), BATCH.T),
    "vmap of vmap": (lambda f: jax.vmap(over_rows(f), (None, 0)), jnp.stack([BATCH, -BATCH])),
    "vmap over parameters": (
        lambda f: lambda p, x: jax.vmap(f, (0, None))(jax.tree.map(lambda a: jnp.stack([a, -a]), p), x),
        X,
    ),
    "grad of vmap": (lambda f: jax.grad(loss(over_rows(f)), (0, 1)), BATCH),
    "vmap of grad": (lambda f: over_rows(jax.grad(loss(f), (0, 1))), BATCH),
    "vmap of hessian": (lambda f: over_rows(jax.hessian(loss(f), 1)), BATCH),
    "jit of vmap of grad": (lambda f: jax.jit(over_rows(jax.grad(loss(f)))), BATCH),
    "in a scan": (repeated, X),
    "grad through a scan": (lambda f: jax.jit(jax.grad(repeated(f), (0, 1))), X),
    "checkpoint": (lambda f: jax.grad(loss(jax.checkpoint(f))), X),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_remote_function_transforms_as_the_function_itself(name: str) -> None:
    transform, x = TRANSFORMATIONS[name]
    actual = transform(remote(layer, client=EngineClient()))(PARAMS, x)
    expected = transform(layer)(PARAMS, x)
    _close(actual, expected)


def _close(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for got, want in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


@pytest.fixture
def engine() -> EngineClient:
    return EngineClient()


@pytest.fixture
def far(engine: EngineClient) -> Remote:
    return remote(layer, client=engine)


def test_gradients_of_both_modes_agree_with_differences_to_second_order(far: Remote) -> None:
    check_grads(lambda x: far(PARAMS, x), (X,), order=2, modes=("fwd", "rev"))


def test_a_batch_is_one_call(far: Remote, engine: EngineClient) -> None:
    over_rows(far)(PARAMS, BATCH)
    assert engine.calls == [("value", ("x",))]


def test_a_batch_of_batches_is_one_call(far: Remote, engine: EngineClient) -> None:
    jax.vmap(over_rows(far), (None, 0))(PARAMS, jnp.stack([BATCH, -BATCH]))
    assert engine.calls == [("value", ("x",))]


def test_a_jacobian_is_one_call_beside_the_value(far: Remote, engine: EngineClient) -> None:
    jax.jacrev(far, 1)(PARAMS, X)
    assert engine.calls == [("value", ()), ("vjp", ("y.cotangent",))]


def test_a_gradient_is_two_calls(far: Remote, engine: EngineClient) -> None:
    jax.grad(lambda x: far(PARAMS, x)[0])(X)
    assert [kind for kind, _ in engine.calls] == ["value", "vjp"]


def test_a_function_is_converted_once_for_each_set_of_shapes(engine: EngineClient) -> None:
    traces = []

    def fn(x: Any) -> Any:
        traces.append(x.shape)
        return 2 * x

    far = remote(fn, client=engine)
    for x in (X, 2 * X, X[:2], np.ones(2)):
        np.testing.assert_array_equal(far(x), 2 * x)
    assert traces == [(3,), (2,)]


def test_integer_arguments_and_results_pass_through_a_gradient(engine: EngineClient) -> None:
    def fn(x: Any, places: Any) -> Any:
        return x[places] ** 2, places + 1

    far = remote(fn, client=engine)
    places = jnp.array([2, 0])
    _close(far(X, places), fn(X, places))
    _close(jax.grad(lambda x: far(x, places)[0].sum())(X), jax.grad(lambda x: fn(x, places)[0].sum())(X))
    _close(jax.jacfwd(lambda x: far(x, places)[0])(X), jax.jacfwd(lambda x: fn(x, places)[0])(X))


def test_a_function_on_the_service_is_callable_from_jax(engine: EngineClient) -> None:
    model = gradwire.jax.convert(lambda a, b: (a * b, jnp.sum(a)), [gw.spec(3), gw.spec(3)])
    far = remote(engine.function(model))
    _close(far(X, 2 * X), (2 * X * X, jnp.sum(X)))
    _close(jax.grad(lambda a: far(a, X)[1] + far(a, X)[0][1])(X), jnp.ones(3) + jnp.zeros(3).at[1].set(X[1]))


def test_symbolic_extents_follow_from_the_arguments(engine: EngineClient) -> None:
    text = '<ir_version: 10, opset_import: ["": 21]> f (double[n] x) => (double[n] y) { y = Sin(x) }'
    far = remote(engine.function(onnx.parser.parse_model(text)))
    for size in (2, 5):
        point = jnp.arange(float(size))
        _close(jax.jacrev(far)(point), jnp.diag(jnp.cos(point)))


def test_an_unknown_result_shape_is_refused_where_jax_must_know_it(engine: EngineClient) -> None:
    text = (
        '<ir_version: 10, opset_import: ["": 21]> '
        "f (double[n] x) => (double[m] y) { y = Concat<axis=0>(x, x) }"
    )
    far = remote(engine.function(onnx.parser.parse_model(text)))
    _close(far(X), jnp.concatenate([X, X]))
    with pytest.raises(gw.InvalidArgumentError, match="does not follow from the inputs' shapes"):
        jax.jit(far)(X)


def test_arguments_of_another_kind_or_number_are_refused(engine: EngineClient) -> None:
    far = remote(engine.function(gradwire.jax.convert(lambda k: k + 1, [gw.spec(3, np.int64)])))
    with pytest.raises(gw.InvalidArgumentError, match=r"k: int64\[3\] cannot be given as float64"):
        far(X)
    with pytest.raises(gw.InvalidArgumentError, match=r"takes 1 arrays \(k: int64\[3\]\), not 2"):
        far(X, X)


def test_python_numbers_and_narrower_floats_are_converted(engine: EngineClient) -> None:
    far = remote(engine.function(gradwire.jax.convert(lambda x: x**2, [gw.spec(())])))
    assert far(3) == 9.0
    assert jax.grad(far)(jnp.float32(3)) == 6.0


def test_a_wide_function_in_a_narrow_jax_is_refused(engine: EngineClient) -> None:
    far = remote(engine.function(gradwire.jax.convert(lambda x: x**2, [gw.spec(3)])))
    with jax.enable_x64(False), pytest.raises(gw.TraceError, match="jax_enable_x64"):
        far(jnp.ones(3))


def test_a_narrow_jax_computes_in_float32(engine: EngineClient) -> None:
    with jax.enable_x64(False):
        far = remote(lambda x: jnp.sin(x) * 0.1, client=engine)
        result = jax.jit(jax.grad(lambda x: far(x).sum()))(np.ones(3))
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, 0.1 * np.cos(np.ones(3)), rtol=1e-6)


def test_what_is_no_function_is_refused(engine: EngineClient) -> None:
    with pytest.raises(gw.InvalidArgumentError, match="not EngineClient; the client is named by client="):
        remote(engine)  # type: ignore[arg-type]


def test_a_client_is_needed_by_the_first_call() -> None:
    far = remote(layer)
    with pytest.raises(gw.GradwireError, match=r"which server\? Say gradwire\.jax\.use\(client\) once"):
        far(PARAMS, X)


def test_the_client_in_use_is_taken_where_none_is_named(engine: EngineClient) -> None:
    other, far = EngineClient(), remote(layer)
    with gradwire.jax.use(engine):
        near = far(PARAMS, X)
        with gradwire.jax.use(other):
            np.testing.assert_array_equal(far(PARAMS, X), near)
            remote(layer, client=engine)(PARAMS, X)
        far(PARAMS, X)
    assert (len(engine.calls), len(other.calls)) == (3, 1)


@pytest.fixture(scope="module")
def service(server: EmbeddedServer) -> Iterator[gw.Client]:
    with gw.connect(server.address) as client:
        yield client


SERVED = ("value", "jit of grad", "hessian", "vmap of grad", "grad through a scan")


@pytest.mark.parametrize("name", SERVED)
def test_the_service_computes_what_jax_does(service: gw.Client, name: str) -> None:
    transform, x = TRANSFORMATIONS[name]
    _close(transform(remote(layer, client=service))(PARAMS, x), transform(layer)(PARAMS, x))


def test_functions_of_jax_are_functions_on_the_service(service: gw.Client) -> None:
    def residual(x: Any) -> Any:
        return jnp.cumsum(jnp.sin(x)) * x[0]

    f = service.function(jax.jit(residual), gw.spec(3))
    np.testing.assert_allclose(f(X), residual(X), rtol=1e-13)
    np.testing.assert_allclose(f.jacobian(X), jax.jacfwd(residual)(X), rtol=1e-12)
    np.testing.assert_allclose(service.jacobian(residual, np.asarray(X)), jax.jacfwd(residual)(X), rtol=1e-12)


def test_functions_of_trees_have_their_leaves_for_inputs(service: gw.Client) -> None:
    f = gradwire.jax.function(lambda p, x: jnp.sum(layer(p, x) ** 2), PARAMS, X, client=service)
    assert [value.name for value in f.signature.inputs] == ["p.b", "p.w", "x"]
    gradient = f.grad(PARAMS, X, wrt=["p.w"])
    np.testing.assert_allclose(gradient[0], jax.grad(loss(layer))(PARAMS, X)["w"], rtol=1e-12)


def test_an_asynchronous_client_is_refused(server: EmbeddedServer) -> None:
    async def attempt() -> None:
        async with gw.aio.connect(server.address) as client:
            far = remote(layer, client=client)
            with pytest.raises(gw.InvalidArgumentError, match=r"use a client of gw\.connect"):
                far(PARAMS, X)

    asyncio.run(attempt())
