"""Sparse derivatives of PyTorch functions are CSR tensors, with the values of PyTorch's own dense ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd import functional

import gradwire as gw
import gradwire.torch as remote

local: Any = functional  # its functions have no types
pytestmark = [
    pytest.mark.usefixtures("client"),
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support"),
]


def stencil(x: torch.Tensor) -> torch.Tensor:
    return x[1:] * torch.exp(-x[:-1])


def two(x: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tanh(x) * z.reshape(-1), z.sum(1)


def energy(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return (x[1:] * x[:-1]).pow(2).sum() + z.pow(4).sum()


def matrix_of(entry: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return entry.reshape(rows, columns)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_sparse_jacobian_holds_the_entries_of_the_dense_one(dtype: torch.dtype) -> None:
    x = torch.linspace(0.5, 2, 7, dtype=dtype)
    J = remote.jacobian(stencil, x, sparse=True)
    assert J.layout is torch.sparse_csr and J.dtype is dtype and J.values().numel() == 12
    torch.testing.assert_close(J.to_dense(), local.jacobian(stencil, x))
    forward = remote.jacobian(stencil, x, strategy="forward-mode", vectorize=True, sparse=True)
    torch.testing.assert_close(forward.to_dense(), J.to_dense())


def test_tuples_give_matrices_and_missing_dependence_empty_ones() -> None:
    x, z = torch.linspace(0, 1, 4, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    found, expected = remote.jacobian(two, (x, z), sparse=True), local.jacobian(two, (x, z))
    sizes = (4, 2)
    for i in range(2):
        for j in range(2):
            assert found[i][j].layout is torch.sparse_csr and found[i][j].shape == (sizes[i], 4)
            torch.testing.assert_close(found[i][j].to_dense(), matrix_of(expected[i][j], sizes[i], 4))
    assert found[1][0].values().numel() == 0
    constant = remote.jacobian(lambda x: torch.ones(3, dtype=x.dtype), x, sparse=True)
    assert constant.layout is torch.sparse_csr and constant.shape == (3, 4)


def test_a_sparse_hessian_holds_the_entries_of_the_dense_one() -> None:
    x, z = torch.linspace(1, 2, 5, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    found, expected = remote.hessian(energy, (x, z), sparse=True), local.hessian(energy, (x, z))
    sizes = (5, 4)
    for i in range(2):
        for j in range(2):
            torch.testing.assert_close(found[i][j].to_dense(), matrix_of(expected[i][j], sizes[i], sizes[j]))
    assert found[0][0].values().numel() == 13


def test_without_scipy_the_tensors_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.linspace(0.5, 2, 7, dtype=torch.float64)
    expected = remote.jacobian(stencil, x, sparse=True)
    monkeypatch.setattr("gradwire.sparse.find_spec", lambda name: None)
    found = remote.jacobian(stencil, x, sparse=True)
    assert found.layout is torch.sparse_csr
    torch.testing.assert_close(found.to_dense(), expected.to_dense())


def test_auto_is_dense_where_that_takes_less() -> None:
    x = torch.linspace(0.5, 2, 4, dtype=torch.float64)
    J = remote.jacobian(lambda x: x * x.sum(), x, sparse="auto")
    assert J.layout is torch.strided
    assert remote.jacobian(lambda x: x**2, x, sparse="auto").layout is torch.sparse_csr


def test_what_has_no_sparse_form_is_refused(client: gw.Client) -> None:
    x = torch.ones(3, dtype=torch.float64)
    with pytest.raises(NotImplementedError, match="create_graph=True gives dense derivatives"):
        remote.jacobian(stencil, x, create_graph=True, sparse=True)
    with pytest.raises(gw.InvalidArgumentError, match="sparse is True, False or 'auto'"):
        remote.hessian(stencil, x, sparse="csr")  # type: ignore[arg-type]
    with pytest.raises(gw.TraceError, match="sparse=True"):
        client.function(
            remote.model(lambda x: remote.jacobian(torch.sin, x, sparse=True).to_dense(), gw.spec(3))
        )
