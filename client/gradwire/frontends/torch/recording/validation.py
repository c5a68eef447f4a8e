"""Tells PyTorch's own checks of arguments from branches in the caller's code."""

from __future__ import annotations

import sys

_DISTRIBUTIONS = "/torch/distributions/"
_CHECKED = frozenset({"gaussian_nll_loss"})
_BETWEEN = ("/torch/overrides", "/torch/utils/", "/torch/_", "/recording/")


def validation() -> bool | None:
    """Return the value that stands for valid arguments, if PyTorch asks for one to check its arguments.

    What is not valid then makes NaN where PyTorch raises an error.
    """
    frame = sys._getframe(2)
    while frame.f_back is not None:
        name = frame.f_code.co_filename
        if _DISTRIBUTIONS in name:
            return True
        if frame.f_code.co_name in _CHECKED and name.endswith("/torch/nn/functional.py"):
            return False
        if not any(part in name for part in _BETWEEN):
            return None
        frame = frame.f_back
    return None
