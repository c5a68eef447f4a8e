"""PyTorch's process-wide settings while a function is recorded: operators that have rules, no fused ones."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_C: Any = torch._C
_lock = threading.Lock()
_stack = ExitStack()
_users = 0


@contextmanager
def plain_operators() -> Iterator[None]:
    """Hold the settings until the last of several recordings, which may be nested or at once, has ended."""
    global _users
    with _lock:
        if not _users:
            _enter(_stack)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _stack.close()


def _enter(stack: ExitStack) -> None:
    mha: Any = torch.backends.mha  # its functions have no types
    stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    stack.callback(_C._set_mkldnn_enabled, _C._get_mkldnn_enabled())
    _C._set_mkldnn_enabled(False)
    stack.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
    mha.set_fastpath_enabled(False)
    if "torch._dynamo" in sys.modules:
        # Compiled functions run as they were written.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
