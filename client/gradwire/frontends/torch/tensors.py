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
