"""Tensors to arrays and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def to_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The values, on the CPU; without a copy where they are there already."""
    return tensor.numpy(force=True)


def to_torch(array: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor:
    """A tensor on a device, over the array's own memory where that is the CPU."""
    return torch.from_numpy(np.asarray(array)).to(device)
