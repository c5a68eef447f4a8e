"""Batches of gradients: `torch.autograd.grad(..., is_grads_batched=True)`.

PyTorch vectorizes such a backward pass with its older kind of batched tensors, which neither NumPy nor the
`vmap` rule of a custom function accepts. They are unwrapped before a call, and its results are wrapped again.
`torch.autograd.functional.jacobian(..., vectorize=True)` does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_C: Any = torch._C
_torch: Any = torch


def is_batched(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is a wrapper around a batch of gradients."""
    return bool(_C._functorch.is_legacy_batchedtensor(tensor))


def unwrapped(tensors: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[int | None]]:
    """Return plain tensors, and for each its batch axis: 0, or None where it has none.

    Raises:
        RuntimeError: batches are nested.
    """
    level = _level()
    if level > 1:
        raise RuntimeError(
            "a batch of gradients within another cannot be computed by a server: take is_grads_batched off "
            "one of the two, or use torch.func.vmap"
        )
    plain, axes = [], list[int | None]()
    for tensor in tensors:
        batched = is_batched(tensor)
        # The extent (the third argument) is used only for tensors without a batch axis.
        plain.append(_torch._remove_batch_dim(tensor, level, 0, 0) if batched else tensor)
        axes.append(0 if batched else None)
    return plain, axes


def wrapped(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Wrap tensors whose leading axis is the batch."""
    level = _level()
    return tuple(_torch._add_batch_dim(tensor, 0, level) for tensor in tensors)


def _level() -> int:
    """Return how many backward passes over batches are running, one within another."""
    level = int(_C._vmapmode_increment_nesting()) - 1
    _C._vmapmode_decrement_nesting()
    return level
