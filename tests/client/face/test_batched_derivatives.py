"""Jacobians and Hessians of batches: those of each sample, and nothing of zeros between samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gradwire as gw

if TYPE_CHECKING:
    from gradwire_server.process.embedded import EmbeddedServer


def layer(x: Any, a: Any) -> Any:
    return np.tanh(a @ x)


def energy(x: Any, w: Any) -> Any:
    return np.sum(w * x**3)


@pytest.fixture(scope="module")
def remote(server: EmbeddedServer) -> Iterator[gw.Client]:
    with gw.connect(server.address) as client:
        yield client


DRAW = np.random.default_rng(0)
X, A = DRAW.random((6, 3)), DRAW.random((2, 3))


def test_a_batched_jacobian_stacks_those_of_its_samples(remote: gw.Client) -> None:
    f = remote.function(layer, gw.spec(3), gw.spec((2, 3)))
    by_x, by_a = f.jacobian(X, A, batched=0)
    assert by_x.shape == (6, 2, 3) and by_a.shape == (6, 2, 2, 3)
    for k, x in enumerate(X):
        one_x, one_a = f.jacobian(x, A)
        np.testing.assert_allclose(by_x[k], one_x, rtol=1e-14)
        np.testing.assert_allclose(by_a[k], one_a, rtol=1e-14)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_blocks_of_samples_fill_the_result(remote: gw.Client, mode: Any) -> None:
    f = remote.function(layer, gw.spec(3), gw.spec((2, 3)))
    J, info = f.jacobian(X, A, batched="x", wrt="x", mode=mode, block_width=4, return_info=True)
    assert info.plan.blocks == 2
    np.testing.assert_allclose(J, (1 - np.tanh(X @ A.T) ** 2)[:, :, None] * A, rtol=1e-14)


def test_a_batched_hessian_stacks_those_of_its_samples(remote: gw.Client) -> None:
    f = remote.function(energy, gw.spec(3), gw.spec(3))
    w = np.array([1.0, 2, 3])
    H = f.hessian(X, w, batched=["x"], wrt="x")
    np.testing.assert_allclose(H, [np.diag(6 * w * x) for x in X], rtol=1e-14)


def test_plans_and_blocks_take_batches_too(remote: gw.Client) -> None:
    f = remote.function(layer, gw.spec(3), gw.spec((2, 3)))
    plan = f.plan(X, A, batched="x", wrt="x")
    assert plan.entries[0].shape == (6, 2, 3)


def test_a_batch_that_does_not_fit_is_refused(remote: gw.Client) -> None:
    f = remote.function(layer, gw.spec(3), gw.spec((2, 3)))
    with pytest.raises(gw.InvalidArgumentError, match="leave sparse= out"):
        f.jacobian(X, A, batched="x", sparse=True)
    with pytest.raises(gw.InvalidArgumentError, match="extent"):
        f.jacobian(X, DRAW.random((5, 2, 3)), batched=["x", "a"])
    with pytest.raises(gw.InvalidArgumentError, match="batched"):
        f.jacobian(X, A, batched=True)
