"""Functions that XLA compiles as computations of their own: their operands and results are in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata

Array = Any

NAME = "segment"
"""The name of calls of segments in a jaxpr."""


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as a call that XLA compiles as a computation of its own and does not inline."""

    def segment(*arguments: Array) -> Any:
        return function(*arguments)

    compiled = jax.jit(segment)

    def call(*arguments: Array) -> Any:
        with set_xla_metadata(inlineable="false"):  # type: ignore[no-untyped-call]
            return compiled(*arguments)

    return call
