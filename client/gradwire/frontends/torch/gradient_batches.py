"""Batches of gradients: `torch.autograd.grad(..., is_grads_batched=True)`.

PyTorch vectorizes such a backward pass with wrapper tensors of its own kind, which neither NumPy nor the
`vmap` of a custom function understands. They are taken off before a call and put on its results again. The
same happens within `torch.autograd.functional.jacobian(..., vectorize=True)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_C: Any = torch._C
_torch: Any = torch


def is_batched(tensor: torch.Tensor) -> bool:
    """Whether a tensor stands for a batch of them, in a backward pass over a batch of gradients."""
    return bool(_C._functorch.is_legacy_batchedtensor(tensor))


def unwrapped(tensors: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[int | None]]:
    """Plain tensors, and for each the axis of the batch: 0, or None where it has none.

    Raises:
        RuntimeError: there is a batch of batches.
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
        # The extent matters to tensors without the axis alone, which are left as they are.
        plain.append(_torch._remove_batch_dim(tensor, level, 0, 0) if batched else tensor)
        axes.append(0 if batched else None)
    return plain, axes


def wrapped(tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Tensors whose leading axis is the batch, as PyTorch expects them back."""
    level = _level()
    return tuple(_torch._add_batch_dim(tensor, 0, level) for tensor in tensors)


def _level() -> int:
    """How many backward passes over batches are under way, one within another."""
    level = int(_C._vmapmode_increment_nesting()) - 1
    _C._vmapmode_decrement_nesting()
    return level
