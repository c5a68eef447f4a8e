"""Telling the SDK that a function is one of JAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

from gradwire.constants import BoundModel
from gradwire.jax.conversion import convert_function
from gradwire.sources import converters

if TYPE_CHECKING:
    from gradwire.client import Client
    from gradwire.function import Function


class JaxFunction:
    """A function marked as one of JAX; calling it calls the function."""

    __name__: str

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        update_wrapper(self, fn)
        # Sources are told apart by the root module of their type or of themselves.
        self.__module__ = "jax"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)


def wrap(fn: Callable[..., Any]) -> JaxFunction:
    """Mark a plain Python function as one of JAX, so that `client.function` does not take it for NumPy's.

    Functions under `jax.jit`, and those of `jax` itself such as `jax.nn.relu`, need no mark.
    """
    return fn if isinstance(fn, JaxFunction) else JaxFunction(fn)


def _convert(source: Any, specs: Sequence[Any], names: Sequence[str] | None) -> BoundModel:
    fn = source.fn if isinstance(source, JaxFunction) else source
    return convert_function(fn, specs, names).bound


converters["jax"] = converters["jaxlib"] = _convert


def function(
    client: Client, fn: Callable[..., Any], *specs: Any, names: Sequence[str] | None = None
) -> Function:
    """A function on the service from one of JAX; like `client.function`, but arguments may be trees.

    Args:
        client: of the service.
        fn: takes arrays or trees of them.
        specs: for each argument a `gw.spec`, a `jax.ShapeDtypeStruct`, an array, or a tree of those.
        names: names of the inputs, which are the leaves of the arguments.

    Raises:
        TraceError: the function uses something that has no place in a graph.
    """
    return client.function(convert_function(fn, specs, names).bound)
