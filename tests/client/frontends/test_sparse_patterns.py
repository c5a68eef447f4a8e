"""A function has one pattern, the exact one, through NumPy, JAX, PyTorch and ONNX."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
import torch

import gradwire as gw
import gradwire.jax
import gradwire.torch

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer

COUNT = 12
ORDER = np.random.default_rng(0).permutation(COUNT)
STENCIL = np.diag(np.full(COUNT, 2.0)) - np.diag(np.ones(COUNT - 1), 1)
HEADER = '<ir_version: 8, opset_import: ["" : 18]> g (double[12] x) => (double[n] y)'


@dataclass(frozen=True)
class Written:
    """A function as users of each framework write it."""

    numpy: Callable[[Any], Any]
    jax: Callable[[Any], Any]
    torch: Callable[[Any], Any]
    onnx: str


def floats(name: str, array: Any) -> str:
    shape = ", ".join(map(str, array.shape))
    kind = "int64" if array.dtype.kind == "i" else "double"
    return f"{kind}[{shape}] {name} = {{{', '.join(map(str, array.ravel().tolist()))}}}"


CASES = {
    "neighbors": Written(
        lambda x: x[1:] * np.exp(-x[:-1]),
        lambda x: x[1:] * jnp.exp(-x[:-1]),
        lambda x: x[1:] * torch.exp(-x[:-1]),
        """<int64[1] a = {0}, int64[1] b = {11}, int64[1] c = {1}, int64[1] d = {12}>
        { left = Slice(x, a, b) right = Slice(x, c, d) n = Neg(left) e = Exp(n) y = Mul(right, e) }""",
    ),
    "permuted": Written(
        lambda x: np.sin(x[ORDER]),
        lambda x: jnp.sin(x[ORDER]),
        lambda x: torch.sin(x[torch.from_numpy(ORDER)]),
        f"<{floats('order', ORDER)}> {{ z = Gather(x, order) y = Sin(z) }}",
    ),
    "stencil matrix": Written(
        lambda x: np.tanh(STENCIL @ x),
        lambda x: jnp.tanh(STENCIL @ x),
        lambda x: torch.tanh(torch.from_numpy(STENCIL) @ x),
        f"<{floats('a', STENCIL)}> {{ z = MatMul(a, x) y = Tanh(z) }}",
    ),
    "sums of rows": Written(
        lambda x: np.sum(x.reshape(3, 4) ** 2, axis=1),
        lambda x: jnp.sum(x.reshape(3, 4) ** 2, axis=1),
        lambda x: (x.reshape(3, 4) ** 2).sum(1),
        """<int64[2] s = {3, 4}, int64[1] a = {1}>
        { m = Reshape(x, s) q = Mul(m, m) y = ReduceSum<keepdims: int = 0>(q, a) }""",
    ),
    "running sums": Written(
        lambda x: np.cumsum(x**2),
        lambda x: jnp.cumsum(x**2),
        lambda x: torch.cumsum(x**2, 0),
        "<int64 a = {0}> { q = Mul(x, x) y = CumSum(q, a) }",
    ),
    "masked": Written(
        lambda x: np.where(np.arange(COUNT) % 3 == 0, 0.0, x**3),
        lambda x: jnp.where(jnp.arange(COUNT) % 3 == 0, 0.0, x**3),
        lambda x: torch.where(torch.arange(COUNT) % 3 == 0, 0.0, x**3),
        f"<{floats('k', np.arange(COUNT) % 3)}, int64 o = {{0}}, double n = {{0.0}}, double p = {{3.0}}>"
        "{ c = Equal(k, o) q = Pow(x, p) y = Where(c, n, q) }",
    ),
}


@pytest.fixture(scope="module")
def client(server: EmbeddedServer) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected:
        yield connected


@pytest.mark.parametrize("name", CASES)
def test_a_function_has_the_exact_pattern_through_every_front_end(client: gw.Client, name: str) -> None:
    case, spec = CASES[name], gw.spec(COUNT)
    with jax.enable_x64(True):
        dense = np.asarray(jax.jacobian(case.jax)(np.linspace(0.3, 0.9, COUNT)))
        through_jax = client.function(gradwire.jax.wrap(case.jax), spec)
    functions = {
        "numpy": client.function(case.numpy, spec),
        "jax": through_jax,
        "torch": client.function(gradwire.torch.model(case.torch, spec)),
        "onnx": client.function(onnx.parser.parse_model(f"{HEADER}\n{case.onnx}")),
    }
    for source, function in functions.items():
        found = function.sparsity().boolean().toarray()
        np.testing.assert_array_equal(found, dense != 0, err_msg=source)


def test_a_hessian_has_the_exact_pattern_through_every_front_end(client: gw.Client) -> None:
    def energy(x: Any) -> Any:
        return ((x[1:] - x[:-1] ** 2) ** 2).sum()

    with jax.enable_x64(True):
        dense = np.asarray(jax.hessian(energy)(np.linspace(0.3, 0.9, COUNT)))
        through_jax = client.function(gradwire.jax.wrap(energy), gw.spec(COUNT))
    for function in (
        client.function(energy, gw.spec(COUNT)),
        through_jax,
        client.function(gradwire.torch.model(energy, gw.spec(COUNT))),
    ):
        found = function.sparsity(kind="hessian").boolean().toarray()
        np.testing.assert_array_equal(found, dense != 0)
