"""Functions that a JAX program calls and the service computes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util

from gradwire.errors import InvalidArgumentError, TraceError
from gradwire.jax.conversion import convert_function
from gradwire.jax.primitive import Handle, remote_p
from gradwire.jax.registry import type_only
from gradwire.jax.wrapping import JaxFunction
from gradwire.signature import Value

if TYPE_CHECKING:
    from gradwire.client import Client
    from gradwire.function import Function


class _Compiled(NamedTuple):
    handle: Handle
    structure: Any


class Remote:
    """A function of JAX arrays, computed by the service; made by `remote`.

    It works under `jit`, `grad`, `jvp`, `vjp`, `vmap` and what is made of them (`jacfwd`, `jacrev`,
    `hessian`), to any order. Under `vmap` a whole batch is one call.
    """

    def __init__(self, make: Callable[[tuple[Any, ...]], _Compiled], name: str) -> None:
        self._make = make
        self._compiled: dict[Any, _Compiled] = {}
        self.__name__ = self.__qualname__ = name

    def __repr__(self) -> str:
        return f"<Remote {self.__name__}>"

    def __call__(self, *args: Any) -> Any:
        leaves, tree = tree_util.tree_flatten(args)
        arrays = [jnp.asarray(leaf) for leaf in leaves]
        kinds = [type_only(array.shape, array.dtype) for array in arrays]
        key = (tree, tuple((kind.shape, kind.dtype) for kind in kinds))
        if key not in self._compiled:
            self._compiled[key] = self._make(tree_util.tree_unflatten(tree, kinds))
        handle, structure = self._compiled[key]
        given = [_fitting(value, array) for value, array in zip(handle.inputs, arrays, strict=True)]
        outputs = remote_p.bind(*given, handle=handle, batched=(False,) * len(given))  # type: ignore[no-untyped-call]
        return tree_util.tree_unflatten(structure, outputs)


def remote(target: Client | Function, fn: Callable[..., Any] | None = None, *specs: Any) -> Remote:
    """A function that the service computes, for use in JAX programs.

    Args:
        target: a client, or a function on the service (then arguments are its inputs in order, and the
            result is an array, or a tuple of them).
        fn: with a client, the JAX function to be computed. It is converted for each set of argument shapes it
            is called with; arguments and result may be trees. Arrays that it closes over are kept as they are
            at its first call.
        specs: argument types (see `gradwire.jax.convert`) to convert it for at once, not at the first call.

    A gradient is two calls, one for the value and one for the cotangents. Where the value alone is wanted
    over many points, vmap: a batch is one call.

    Raises:
        TraceError: the function uses something that has no place in a graph.
        InvalidArgumentError: `target` and `fn` do not go together.
    """
    if fn is None:
        return _of_function(target)
    if not hasattr(target, "function"):
        raise InvalidArgumentError("remote(client, fn) takes a client first; remote(function) takes no fn")
    name = str(getattr(fn, "__name__", type(fn).__name__))
    source = fn.fn if isinstance(fn, JaxFunction) else fn

    def make(kinds: tuple[Any, ...]) -> _Compiled:
        converted = convert_function(source, kinds)
        return _Compiled(Handle(_synchronous(target.function(converted.bound))), converted.structure)

    made = Remote(make, name)
    if specs:
        leaves, tree = tree_util.tree_flatten(specs, is_leaf=lambda leaf: hasattr(leaf, "shape"))
        kinds = [
            type_only(np.shape(leaf) if not hasattr(leaf, "shape") else leaf.shape, _dtype(leaf))
            for leaf in leaves
        ]
        key = (tree, tuple((kind.shape, kind.dtype) for kind in kinds))
        made._compiled[key] = make(tree_util.tree_unflatten(tree, kinds))
    return made


def _dtype(leaf: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype)


def _of_function(function: Any) -> Remote:
    if not hasattr(function, "as_vjp"):
        raise InvalidArgumentError(
            "remote takes a function on the service, or a client and a function, "
            f"not {type(function).__name__}"
        )
    handle = Handle(_synchronous(function))
    count = len(handle.outputs)
    structure = tree_util.tree_structure(0 if count == 1 else (0,) * count)

    def make(kinds: tuple[Any, ...]) -> _Compiled:
        if len(tree_util.tree_leaves(kinds)) != len(handle.inputs):
            wanted = ", ".join(map(str, handle.inputs))
            raise InvalidArgumentError(
                f"the function takes {len(handle.inputs)} arrays ({wanted}), not {len(kinds)}"
            )
        return _Compiled(handle, structure)

    return Remote(make, "remote")


def _synchronous(function: Any) -> Any:
    if inspect.iscoroutinefunction(function.value):
        raise InvalidArgumentError(
            "JAX calls functions synchronously: use a client of gw.connect, not of gw.aio"
        )
    return function


def _fitting(value: Value, array: Any) -> Any:
    """The array in the input's dtype, converted by JAX so that derivatives go through."""
    dtype = value.dtype
    if dtype is None or array.dtype == dtype:
        return array
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise InvalidArgumentError(f"input {value} cannot be given as {array.dtype}: convert it with .astype")
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise TraceError(
            f"input {value} is {dtype}, which JAX is not set to compute with: call "
            "jax.config.update('jax_enable_x64', True) first, or make the function one of float32"
        )
    return array.astype(dtype)
