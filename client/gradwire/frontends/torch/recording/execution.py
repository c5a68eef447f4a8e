"""Runs operators, or finds the shapes of their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def mapped(item: Any, fn: Callable[[torch.Tensor], Any]) -> Any:
    """Apply a function to the tensors in an operator's argument."""
    if isinstance(item, torch.Tensor):
        return fn(item)
    if type(item) in (list, tuple):
        return type(item)(mapped(one, fn) for one in item)
    return item


def results_of(item: Any, fn: Callable[[torch.Tensor], Any], as_list: bool = True) -> Any:
    """Apply a function to the tensors among an operator's results."""
    if isinstance(item, torch.Tensor):
        return fn(item)
    if isinstance(item, list | tuple):
        found = [results_of(one, fn, as_list) for one in item]
        return found if as_list or isinstance(item, list) else tuple(found)
    return item if not as_list else None


def shapes_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return an operator's results as tensors without memory."""
    named = {key: torch.device("meta") if key == "device" else item for key, item in kwargs.items()}
    try:
        return func(*mapped(args, _meta), **{key: mapped(item, _meta) for key, item in named.items()})
    except NotImplementedError:
        # Fakes know operators that have no kernel for shapes; the module takes seconds to import.
        from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

        mode = FakeTensorMode()

        def fake(tensor: torch.Tensor) -> torch.Tensor:
            return FakeTensor(mode, _meta(tensor), torch.device("cpu"))

        with mode:
            return func(*mapped(args, fake), **{key: mapped(item, fake) for key, item in kwargs.items()})


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def empty_like(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the same layout, whose values nobody reads."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)


def agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two results are the same but for rounding."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    tolerance = float(torch.finfo(one.dtype).eps) ** 0.6
    finite = one[torch.isfinite(one)]
    scale = float(finite.abs().max()) if finite.numel() else 1.0
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def filled(tensor: torch.Tensor) -> torch.Tensor:
    """Return ones in place of floating-point values, which nobody has written."""
    return torch.ones_like(tensor) if tensor.is_floating_point() else tensor
