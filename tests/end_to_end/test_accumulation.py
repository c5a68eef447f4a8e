"""Accumulators of the SDK on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from onnx import parser
from scipy.special import expit

import gradwire as gw

Array = np.ndarray[Any, Any]


def logistic(w: Any, x: Any, y: Any) -> Any:
    return np.sum(np.logaddexp(0.0, -y * (x @ w)))


def logistic_gradient(w: Array, x: Array, y: Array) -> Array:
    result: Array = -x.T @ (y * expit(-y * (x @ w)))
    return result


def rows(n: int, columns: int = 5, seed: int = 0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, columns))
    return rng.standard_normal(columns), x, np.where(rng.random(n) < 0.5, 1.0, -1.0)


def cut(x: Array, y: Array, size: int) -> list[tuple[Array, Array]]:
    return [(x[start : start + size], y[start : start + size]) for start in range(0, len(x), size)]


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected:
        yield connected


def test_reading_in_between_and_uploading_change_no_bit(client: gw.Client) -> None:
    w, x, y = rows(1_000)
    data = cut(x, y, 64)  # the last has 40 rows: the function is traced again for it
    f = client.function(logistic, gw.spec(5), gw.spec((64, 5)), gw.spec(64))
    with f.accumulator(w) as acc:
        acc.add_all(data)
        once = acc.read()
        acc.zero()
        for one in data:
            acc.add(one)
            _ = acc.grad
        often = acc.read()
        acc.zero(w=0 * w)
        acc.add_all(data)
        acc.zero(w=w)
        acc.add_all([(client.put(a), client.put(b)) for a, b in data])
        by_name = acc.read()
    np.testing.assert_allclose(once.grad, logistic_gradient(w, x, y), rtol=1e-12)
    np.testing.assert_allclose(once.value, logistic(w, x, y), rtol=1e-13)
    for other in (often, by_name):
        np.testing.assert_array_equal(other.grad, once.grad)
        np.testing.assert_array_equal(other.value, once.value)
    assert (once.batches, once.rows, sum(once.batches_by_worker.values())) == (16, 1_000, 16)


def test_a_mean_over_batches_is_the_mean_over_rows_for_several_parameters(client: gw.Client) -> None:
    def fit(w: Any, b: Any, x: Any, y: Any) -> Any:
        return np.mean((x @ w + b - y) ** 2)

    w, x, y = rows(100, seed=1)
    f = client.function(fit, gw.spec(5), gw.spec(()), gw.spec((32, 5)), gw.spec(32))
    residual = x @ w + 0.5 - y
    with f.accumulator({"w": w, "b": 0.5}, reduction="mean") as acc:
        acc.add_all(cut(x, y, 32))
        gradient_w, gradient_b = acc.grad
        np.testing.assert_allclose(gradient_w, 2 * x.T @ residual / 100, rtol=1e-12)
        np.testing.assert_allclose(gradient_b, 2 * residual.mean(), rtol=1e-12)
        np.testing.assert_allclose(acc.value, np.mean(residual**2), rtol=1e-13)


def test_large_batches_and_large_parameters(client: gw.Client) -> None:
    rng = np.random.default_rng(2)
    w, x = rng.standard_normal(200_000), rng.standard_normal((4, 200_000))
    f = client.function(lambda w, x: np.sum(np.cos(x * w)), gw.spec(200_000), gw.spec((4, 200_000)))
    with f.accumulator(w) as acc:
        acc.add(x)
        acc.add(x[::-1][:3])
        both = np.concatenate([x, x[1:]])
        np.testing.assert_allclose(acc.grad, -(both * np.sin(both * w)).sum(axis=0), rtol=1e-11, atol=1e-12)


def test_functions_with_large_constants_and_other_sizes(client: gw.Client) -> None:
    table = np.linspace(-1.0, 1.0, 400 * 400).reshape(400, 400)
    f = client.function(lambda w, x: np.sum((x @ (table @ w)) ** 2), gw.spec(400), gw.spec((10, 400)))
    rng = np.random.default_rng(3)
    w, x = rng.standard_normal(400), rng.standard_normal((17, 400))
    with f.accumulator(w) as acc:
        acc.add(x[:10])
        acc.add(x[10:])
        expected = 2 * table.T @ (x.T @ (x @ (table @ w)))
        np.testing.assert_allclose(acc.grad, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


def test_hessian_vector_products_add_up_too(client: gw.Client) -> None:
    w, x, y = rows(50, seed=4)
    v = np.arange(5.0)
    f = client.function(logistic, gw.spec(5), gw.spec((20, 5)), gw.spec(20))
    pushed = f.as_jvp(wrt="w")
    with pushed.accumulator({"w": w, "w.tangent": v}, wrt="w") as acc:
        acc.add_all(cut(x, y, 20))
        margin = y * (x @ w)
        hessian = (x.T * (expit(margin) * expit(-margin))) @ x
        np.testing.assert_allclose(acc.grad, hessian @ v, rtol=1e-11)
        np.testing.assert_allclose(acc.value, logistic_gradient(w, x, y) @ v, rtol=1e-11)


def test_jax_functions_are_traced_again_for_other_sizes(client: gw.Client) -> None:
    def loss(w: Any, x: Any) -> Any:
        return jnp.sum(jnp.tanh(x @ w) ** 2)

    w, x, _ = rows(25, seed=5)
    f = client.function(loss, gw.spec(5), gw.spec((10, 5)))
    with f.accumulator(w) as acc:
        acc.add_all([x[:10], x[10:20], x[20:]])
        with jax.enable_x64(True):
            np.testing.assert_allclose(acc.grad, jax.grad(loss)(jnp.asarray(w), x), rtol=1e-11)


def test_models_with_named_extents_take_any_size(client: gw.Client) -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (double[5] w, double[N,5] x) => (double loss) {
          z = MatMul(x, w)
          s = Mul(z, z)
          loss = ReduceSum <keepdims = 0> (s)
        }"""
    )
    w, x, _ = rows(23, seed=6)
    with client.function(model).accumulator(w) as acc:
        acc.add_all([x[:10], x[10:20], x[20:]])
        np.testing.assert_allclose(acc.grad, 2 * x.T @ (x @ w), rtol=1e-12)


def test_what_the_server_refuses_names_the_batch_and_zero_begins_again(client: gw.Client) -> None:
    model = """<ir_version: 8, opset_import: ["" : 17]>
        g (double[K] w, double[N,K] x) => (double loss) {
          z = MatMul(x, w)
          loss = ReduceSum <keepdims = 0> (z)
        }"""
    _, x, _ = rows(8, seed=7)
    with client.function(model).accumulator(np.ones(5)) as acc:
        acc.add(x)
        with pytest.raises(gw.InvalidArgumentError, match=r"batch 1.*'x'.*2 batches added so far is lost"):
            acc.add(x[:, :4])
            acc.read()
        acc.zero()
        acc.add(x)
        np.testing.assert_allclose(acc.grad, x.sum(axis=0), rtol=1e-12)
