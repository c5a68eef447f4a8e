"""Marks functions as ones of JAX, so that `client.function` converts them as such."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any

from gradwire.frontends.jax.conversion import convert_function
from gradwire.frontends.sources import converters
from gradwire.graphs.constants import BoundModel


class JaxFunction:
    """A function marked as one of JAX; calling it calls the function."""

    __name__: str

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        update_wrapper(self, fn)
        # Sources are told apart by the root module of their type or of themselves.
        self.__module__ = "jax"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function here, with JAX: the service has no part in it."""
        return self.fn(*args, **kwargs)


def wrap(fn: Callable[..., Any]) -> JaxFunction:
    """Mark a plain Python function as one of JAX, so that `client.function` does not take it for NumPy's.

    Functions under `jax.jit`, and those of `jax` itself such as `jax.nn.relu`, need no mark.
    """
    return fn if isinstance(fn, JaxFunction) else JaxFunction(fn)


def by_position(fn: Callable[..., Any], count: int, keywords: Sequence[str]) -> Callable[..., Any]:
    """Return a function that takes some of its arguments by position in place of by keyword.

    Args:
        fn: the function.
        count: how many arguments it takes by position already.
        keywords: the names of the others, in order.
    """

    def called(*args: Any) -> Any:
        return fn(*args[:count], **dict(zip(keywords, args[count:], strict=True)))

    positional = inspect.Parameter.POSITIONAL_ONLY
    try:
        names = list(inspect.signature(fn).parameters)[:count]
    except (TypeError, ValueError):
        names = []
    names += [f"x{place}" for place in range(len(names), count)]
    called.__name__ = str(getattr(fn, "__name__", type(fn).__name__))
    called.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, positional) for name in (*names, *keywords)]
    )
    return called


def _convert(source: Any, specs: Sequence[Any], names: Sequence[str] | None) -> BoundModel:
    fn = source.fn if isinstance(source, JaxFunction) else source
    return convert_function(fn, specs, names).bound


converters["equinox"] = converters["jax"] = converters["jaxlib"] = _convert
