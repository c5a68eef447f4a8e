"""Functions over large arrays, from NumPy, JAX and PyTorch, on a real server: numbers, memory, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import gradwire as gw
import gradwire.jax
import gradwire.torch

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer

RNG = np.random.default_rng(0)
N = 600
A = RNG.normal(size=(N, N)) / np.sqrt(N)
X, V, W = RNG.normal(size=(3, N))
MODULE = torch.nn.Sequential(torch.nn.Linear(N, N, bias=False), torch.nn.Tanh()).double()
with torch.no_grad():
    MODULE[0].weight.copy_(torch.from_numpy(A))

SOURCES: dict[str, Any] = {
    "numpy": lambda x: np.tanh(A @ x),
    "jax": jax.jit(lambda x: jnp.tanh(A @ x)),
    "torch": MODULE,
}
SLOPE = 1 - np.tanh(A @ X) ** 2
JACOBIAN = SLOPE[:, None] * A


@pytest.fixture(scope="module")
def client(server: EmbeddedServer) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected:
        yield connected


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_derivatives_over_an_array_by_reference_agree_with_closed_forms(
    client: gw.Client, source: Any
) -> None:
    f = client.function(source, gw.spec(N, name="x"))
    (held,) = f.constants.values()
    assert sorted(held.shape) == [N, N]
    assert f.describe().weight_bytes == 0
    np.testing.assert_allclose(f(X), np.tanh(A @ X), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(f.jvp(X, V), JACOBIAN @ V, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(f.vjp(X, W), W @ JACOBIAN, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(f.jacobian(X), JACOBIAN, rtol=1e-10, atol=1e-13)
    batch = np.stack([X, V])
    np.testing.assert_allclose(f(batch, batched="x"), np.tanh(batch @ A.T), rtol=1e-11, atol=1e-14)


def test_second_derivatives_and_their_transforms_leave_the_array_alone(client: gw.Client) -> None:
    f = client.function(lambda x: np.sum(np.sin(A @ x)), gw.spec(N))
    hessian = -A.T @ (np.sin(A @ X)[:, None] * A)
    np.testing.assert_allclose(f.grad(X), np.cos(A @ X) @ A, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(f.hvp(X, V), hessian @ V, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(f.hessian(X), hessian, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(f.gradient().jacobian(X), hessian, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(f.gradient().as_vjp()(X, V), hessian @ V, rtol=1e-9, atol=1e-11)
    value, gradient, second = f.value_grad_and_hessian(X)
    np.testing.assert_allclose(value, np.sin(A @ X).sum(), rtol=1e-12)
    np.testing.assert_allclose(gradient, np.cos(A @ X) @ A, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(second, hessian, rtol=1e-9, atol=1e-11)


def test_an_array_by_reference_and_one_in_the_graph_give_the_same_plan_and_bits(client: gw.Client) -> None:
    def fn(x: Any) -> Any:
        return np.tanh(A @ x)

    by_reference = client.function(fn, gw.spec(N))
    inside = client.function(gw.tracing.trace(fn, [gw.spec(N)]))
    assert by_reference.constants and not inside.constants
    plans = by_reference.plan(X), inside.plan(X)
    assert plans[0].block_width == plans[1].block_width
    np.testing.assert_array_equal(by_reference.jacobian(X), inside.jacobian(X))


def test_an_array_that_only_workers_hold_gives_the_right_numbers(client: gw.Client) -> None:
    big = RNG.normal(size=(2200, 2200)) / 47  # 39 MB: too large for the server's own process
    x = RNG.normal(size=2200)
    f = client.function(lambda x: np.sin(big @ x), gw.spec(2200))
    slope = np.cos(big @ x)
    for _ in range(4):
        np.testing.assert_allclose(f.jvp(x, x), slope * (big @ x), rtol=1e-9, atol=1e-11)
    result, info = f.jacobian(x, return_info=True)
    np.testing.assert_allclose(result, slope[:, None] * big, rtol=1e-9, atol=1e-12)
    assert "server" not in info.summary.blocks_by_worker


def test_a_table_that_little_is_read_of_is_looked_up_at_once(client: gw.Client) -> None:
    table = RNG.normal(size=200_000)
    f = client.function(lambda x: x * table[123_456:123_459], gw.spec(3))
    assert f.constants or table[123_456:123_459].nbytes < 100  # NumPy takes the slice itself
    g = client.function(lambda x, i: x * gw.asarray(table)[i], gw.spec(()), gw.spec((), np.int64))
    for position in (0, 199_999, 77):
        np.testing.assert_allclose(g(2.0, position), 2 * table[position])
        np.testing.assert_allclose(g.grad(2.0, position, wrt="x"), table[position])
    np.testing.assert_allclose(f(np.ones(3)), table[123_456:123_459])


async def test_gradients_that_add_up_share_the_array(server: EmbeddedServer) -> None:
    rows = RNG.normal(size=(8, N))
    async with gw.aio.connect(server.address) as client:
        loss = client.function(lambda w, x: np.sum((x @ (A @ w)) ** 2), gw.spec(N), gw.spec((2, N)))
        async with loss.accumulator(w=X) as accumulator:
            for start in range(0, 8, 2):
                await accumulator.add(rows[start : start + 2])
            gradient = await accumulator.grad()
    np.testing.assert_allclose(gradient, 2 * A.T @ (rows.T @ (rows @ (A @ X))), rtol=1e-9)


def test_a_jax_program_calls_a_function_over_a_large_array(client: gw.Client) -> None:
    with jax.enable_x64(True):
        weights = jnp.asarray(A)
        far = gradwire.jax.remote(lambda x: jnp.tanh(weights @ x), client=client)
        value = jax.jit(jax.grad(lambda x: far(x) @ W))(jnp.asarray(X))
        np.testing.assert_allclose(value, W @ JACOBIAN, rtol=1e-10, atol=1e-12)
        rows = jax.vmap(far)(jnp.stack([X, V]))
        np.testing.assert_allclose(rows, np.tanh(np.stack([X, V]) @ A.T), rtol=1e-10)


def test_a_torch_program_differentiates_a_function_over_a_large_array(client: gw.Client) -> None:
    weights = torch.from_numpy(A).requires_grad_()
    x = torch.from_numpy(X).requires_grad_()
    far = gradwire.torch.remote(lambda x: torch.tanh(weights @ x), client=client)
    (far(x) @ torch.from_numpy(W)).backward()
    np.testing.assert_allclose(x.grad, W @ JACOBIAN, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(weights.grad, np.outer(W * SLOPE, X), rtol=1e-10, atol=1e-12)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server with room for one array of this test's, and which takes none that is much larger."""
    from gradwire_server.process import embedded

    handle = embedded.start(
        workers=1,
        cache_dir=tmp_path_factory.mktemp("narrow"),
        tensor_cache_bytes=4 << 20,
        tensor_bytes=6 << 20,
        log_level="error",
    )
    try:
        yield handle
    finally:
        handle.stop()


def test_an_array_that_made_room_for_another_is_sent_again_by_itself(narrow: EmbeddedServer) -> None:
    other = RNG.normal(size=(N, N))
    with gw.connect(narrow.address) as client:
        f = client.function(lambda x: A @ x, gw.spec(N))
        g = client.function(lambda x: other @ x, gw.spec(N))
        assert f.graph_id == g.graph_id
        for _ in range(3):
            np.testing.assert_allclose(f(X), A @ X, rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(g(X), other @ X, rtol=1e-11, atol=1e-13)
            np.testing.assert_allclose(f.jacobian(X), A)


def test_calls_over_arrays_that_push_each_other_out_all_succeed(narrow: EmbeddedServer) -> None:
    matrices = [RNG.normal(size=(N, N)) for _ in range(3)]

    async def run() -> list[Any]:
        async with gw.aio.connect(narrow.address) as client:
            functions = [client.function(lambda x, m=m: m @ x, gw.spec(N)) for m in matrices]
            return await asyncio.gather(*(f(X) for f in functions))

    for matrix, result in zip(matrices, asyncio.run(run()), strict=True):
        np.testing.assert_allclose(result, matrix @ X, rtol=1e-11, atol=1e-13)


def test_a_call_over_more_arrays_than_the_server_keeps_says_so(narrow: EmbeddedServer) -> None:
    first, second = RNG.normal(size=(2, N, N))
    with gw.connect(narrow.address, retry=gw.Retry(attempts=3, first_wait=0.01)) as client:
        f = client.function(lambda x: first @ (second @ x), gw.spec(N))
        with pytest.raises(gw.NotFoundError, match=r"sent, and forgotten .* setting tensor_cache_bytes"):
            f(X)


def test_the_limit_of_one_array_names_the_constant(narrow: EmbeddedServer) -> None:
    large = RNG.normal(size=(1000, 1000))
    with gw.connect(narrow.address) as client:
        f = client.function(lambda x: large @ x, gw.spec(1000))
        with pytest.raises(gw.LimitError, match=r"constant\.0, a float64\[1000, 1000\].*limit is 6291456"):
            f(np.ones(1000))
