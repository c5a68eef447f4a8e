"""Conversion between tensors and NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return the values on the CPU, without a copy if they are there already."""
    return tensor.numpy(force=True)


def to_torch(array: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; on the CPU it shares the array's memory."""
    return torch.from_numpy(np.asarray(array)).to(device)


def to_sparse(matrix: Any, like: torch.Tensor) -> torch.Tensor:
    """Return a sparse matrix, SciPy's or coordinates, as a CSR tensor with dtype and device of `like`.

    Index arrays are copied: matrices of one pattern share theirs.
    """
    values = torch.from_numpy(matrix.data if hasattr(matrix, "indptr") else matrix.values)
    values = values.to(like.device, like.dtype)
    if hasattr(matrix, "indptr"):
        starts = torch.tensor(matrix.indptr, device=like.device)
        places = torch.tensor(matrix.indices, device=like.device)
        return torch.sparse_csr_tensor(starts, places, values, size=matrix.shape, check_invariants=True)
    places = torch.tensor(np.stack([matrix.rows, matrix.columns]), device=like.device)
    found = torch.sparse_coo_tensor(places, values, size=matrix.shape, check_invariants=True)
    return found.to_sparse_csr()


def empty_sparse(rows: int, columns: int, like: torch.Tensor) -> torch.Tensor:
    """Return a CSR tensor without entries, with dtype and device of `like`."""
    starts = torch.zeros(rows + 1, dtype=torch.int32, device=like.device)
    places = torch.zeros(0, dtype=torch.int32, device=like.device)
    values = torch.zeros(0, dtype=like.dtype, device=like.device)
    return torch.sparse_csr_tensor(starts, places, values, size=(rows, columns), check_invariants=True)
