"""Sees calls of PyTorch's functions in a function that is recorded, before autograd does."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from gradwire.errors import TraceError
from gradwire.frontends.torch.recording import recurrent
from gradwire.frontends.torch.recording.recorder import Recorder

_VALUES = (torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist, torch.Tensor.__dlpack__)
_TEXTS = (torch.Tensor.__repr__, torch.Tensor.__format__)
_HOOKS = (torch.Tensor.register_hook, torch.Tensor.register_post_accumulate_grad_hook)
_BACKWARD = (torch.Tensor.backward, torch.autograd.backward)
_any_tensor: Any = torch.Tensor
_SET_DATA = _any_tensor.data.__set__
_SET_GRAD = _any_tensor.grad.__set__
_C: Any = torch._C


class Observer(TorchFunctionMode):
    """Refuses or notes what a recorder cannot see.

    Attributes:
        rules: names of hooks on gradients, which a graph cannot carry.
        effects: whether the function changed tensors in a way that only another run of it repeats.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self.rules: set[str] = set()
        self.effects = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        recorder = self._recorder
        if kwargs.get("generator") is not None:
            raise TraceError("a random generator cannot be traced: draw the numbers outside and pass them in")
        if func is _C._set_grad_enabled:
            recorder.grad_enabled = bool(args[0])
        elif func in _VALUES:
            recorder.read(args[0], f"Tensor.{func.__name__}")
        elif func in _TEXTS:
            with recorder.paused():
                return func(*args, **kwargs)
        elif func is torch.Tensor.detach_:
            return recorder.detached(func(*args, **kwargs))
        elif func in _HOOKS:
            self.rules.add(f"Tensor.{func.__name__}")
        elif func in _BACKWARD or func == _SET_GRAD:
            self.effects = True
        elif func == _SET_DATA:
            self.effects = True
            return recorder.set_data(args[0], args[1])
        elif func in recurrent.FUNCTIONS:
            return recurrent.recorded(recorder, func, args, kwargs)
        elif func is torch.nn.functional.one_hot:  # PyTorch's own checks the values
            return _one_hot(*args, **kwargs)
        return func(*args, **kwargs)


def _one_hot(tensor: torch.Tensor, num_classes: int = -1) -> torch.Tensor:
    if num_classes < 0:
        return torch._C._nn.one_hot(tensor, num_classes)
    return (tensor.unsqueeze(-1) == torch.arange(num_classes)).to(torch.int64)
