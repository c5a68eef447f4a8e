"""Functions that draw random numbers from a given seed: what they draw is a part of their graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gradwire.frontends.torch.capture import name_of, recording


def seeded(fn: Callable[..., Any], seed: int | None) -> Callable[..., Any]:
    """Return the function that draws what `fn` draws after `torch.manual_seed(seed)`; `fn` itself for None.

    PyTorch's generator goes on afterwards as if nothing had been drawn.
    """
    if seed is None:
        return fn
    generator = torch.default_generator

    def run(*args: Any) -> Any:
        recorder = recording()
        if recorder is not None:
            recorder.draws = True
        before = generator.get_state()
        generator.manual_seed(seed)
        try:
            return fn(*args)
        finally:
            generator.set_state(before)

    run.__name__ = name_of(fn)
    return run
