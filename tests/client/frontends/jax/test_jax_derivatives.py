"""`gradwire.jax.jacobian` and `hessian` beside JAX's: the same trees, and sparse ones as BCOO matrices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO

import gradwire as gw
import gradwire.jax as remote

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer


@pytest.fixture(scope="module", autouse=True)
def client(server: EmbeddedServer) -> Iterator[gw.Client]:
    with gw.connect(server.address) as connected, remote.use(connected), jax.enable_x64(True):
        yield connected


def stencil(x: Any) -> Any:
    return x[1:] * jnp.exp(-x[:-1])


def tree(params: Any, z: Any) -> Any:
    return {"a": jnp.tanh(params["w"]) * z.reshape(-1), "b": params["c"] * z.sum(1)}


def energy(params: Any, z: Any) -> Any:
    return jnp.sum((params["w"][1:] * params["w"][:-1]) ** 2) + params["c"] * jnp.sum(z**3)


PARAMS = {"w": np.linspace(0.5, 1, 4), "c": np.array(2.0)}
Z = np.array([[1.0, 2], [3, 4]])


def matrices(dense: Any, rows: Any, columns: Any) -> Any:
    return np.asarray(dense).reshape(np.size(rows), np.size(columns))


def test_a_sparse_jacobian_is_a_bcoo_matrix_with_the_entries_of_the_dense_one() -> None:
    x = np.linspace(0.5, 2, 7)
    J = remote.jacobian(stencil, sparse=True)(x)
    assert isinstance(J, BCOO) and J.nse == 12 and J.indices_sorted and J.unique_indices
    np.testing.assert_allclose(J.todense(), jax.jacobian(stencil)(x), rtol=1e-14)
    v = jnp.ones(7)
    np.testing.assert_allclose(jax.jit(lambda m, v: m @ v)(J, v), J.todense() @ v)


@pytest.mark.parametrize("argnums", [0, 1, (0, 1), (-1,)])
def test_trees_are_nested_as_jax_nests_them(argnums: Any) -> None:
    expected = jax.jacobian(tree, argnums)(PARAMS, Z)
    dense = remote.jacobian(tree, argnums)(PARAMS, Z)
    sparse = remote.jacobian(tree, argnums, sparse=True)(PARAMS, Z)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), dense, expected)
    is_matrix = lambda leaf: isinstance(leaf, BCOO)  # noqa: E731
    flat, structure = jax.tree.flatten(sparse, is_leaf=is_matrix)
    others, expected_structure = jax.tree.flatten(expected)
    assert structure == expected_structure
    for one, other in zip(flat, others, strict=True):
        assert one.ndim == 2
        np.testing.assert_allclose(np.asarray(one.todense()).ravel(), np.asarray(other).ravel(), rtol=1e-13)


def test_a_hessian_is_nested_as_jax_nests_it() -> None:
    expected = jax.hessian(energy)(PARAMS, Z)
    dense = remote.hessian(energy)(PARAMS, Z)
    sparse = remote.hessian(energy, sparse=True)(PARAMS, Z)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), dense, expected)
    assert sparse["w"]["w"].nse == 10 and sparse["c"]["c"].nse == 0
    np.testing.assert_allclose(sparse["w"]["w"].todense(), expected["w"]["w"], rtol=1e-13)


def test_without_scipy_the_entries_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.linspace(0.5, 2, 7)
    monkeypatch.setattr("gradwire.sparse.find_spec", lambda name: None)
    J = remote.jacobian(stencil, sparse=True)(x)
    np.testing.assert_allclose(J.todense(), jax.jacobian(stencil)(x), rtol=1e-14)


def test_float32_stays_float32() -> None:
    J = remote.jacobian(stencil, sparse="auto")(np.linspace(0.5, 2, 7, dtype=np.float32))
    assert isinstance(J, BCOO) and J.dtype == np.float32


def test_what_has_no_place_is_refused_by_name(client: gw.Client) -> None:
    with pytest.raises(gw.InvalidArgumentError, match="on a server already: call its own hessian"):
        remote.hessian(client.function(lambda x: np.sum(x), gw.spec(3)), sparse=True)
    sparse = remote.jacobian(stencil, sparse=True)
    with pytest.raises(gw.InvalidArgumentError, match=r"outside of jit.*gradwire\.jax\.remote"):
        jax.jit(lambda x: sparse(x).todense())(jnp.ones(4))
    with pytest.raises(gw.InvalidArgumentError, match="not floating-point: choose with argnums="):
        remote.jacobian(lambda k, x: x * k)(np.arange(3), np.ones(3))
    with pytest.raises(gw.InvalidArgumentError, match="argnums names argument 2 of 1"):
        remote.jacobian(stencil, 2)(np.ones(3))
    with pytest.raises(gw.InvalidArgumentError, match="a Hessian is of one number"):
        remote.hessian(stencil)(np.ones(3))
    with pytest.raises(gw.InvalidArgumentError, match="sparse is True, False or 'auto'"):
        remote.jacobian(stencil, sparse="bcoo")  # type: ignore[arg-type]
