"""Remote functions: called by a JAX program, computed by the service."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util

from gradwire.errors import InvalidArgumentError, TraceError
from gradwire.frontends.default_client import DefaultClient
from gradwire.frontends.jax.conversion import convert_function
from gradwire.frontends.jax.primitive import Handle, remote_p
from gradwire.frontends.jax.registry import type_only
from gradwire.frontends.jax.wrapping import JaxFunction, by_position
from gradwire.graphs.signature import Value

if TYPE_CHECKING:
    from gradwire._face.verification import Verify
    from gradwire._sync.client import Client
    from gradwire._sync.function import Function


class _Compiled(NamedTuple):
    handle: Handle
    structure: Any


default = DefaultClient("gradwire.jax")
"""The client of functions that are not told which."""


def use(client: Client | None) -> AbstractContextManager[None]:
    """Let every function of `gradwire.jax` that is not told otherwise use a client.

    As a statement it holds from now on, as a context manager until the end of the block. What `jax.jit` has
    traced stays with the client of that time.

        gradwire.jax.use(client)
        with gradwire.jax.use(client): ...
    """
    return default.use(client)


class Remote:
    """A function of JAX arrays, computed by the service; made by `remote`.

    It works under `jit`, `grad`, `jvp`, `vjp`, `vmap` and what is made of them (`jacfwd`, `jacrev`,
    `hessian`), to any order. Under `vmap` a whole batch is one call.
    """

    def __init__(
        self,
        name: str,
        owner: Callable[[], Any],
        make: Callable[[Any, tuple[Any, ...], dict[str, Any]], _Compiled],
    ) -> None:
        """Make a remote function.

        Args:
            name: the function's name.
            owner: gives the client, or the function on the service, at each call.
            make: compiles the function for an owner and the types of positional and keyword arguments; called
                once for each of these.
        """
        self._owner, self._make = owner, make
        self._compiled: WeakKeyDictionary[Any, dict[Any, _Compiled]] = WeakKeyDictionary()
        self.__name__ = self.__qualname__ = name

    def __repr__(self) -> str:
        return f"<Remote {self.__name__}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function with arrays or trees of them.

        Raises:
            InvalidArgumentError: an argument is no array, or the function takes none of this name.
        """
        leaves, tree = tree_util.tree_flatten((args, kwargs))
        arrays = [_array(leaf, self.__name__) for leaf in leaves]
        kinds = [type_only(array.shape, array.dtype) for array in arrays]
        owner = self._owner()
        compiled = self._compiled.setdefault(owner, {})
        key = (tree, tuple((kind.shape, kind.dtype) for kind in kinds))
        if key not in compiled:
            compiled[key] = self._make(owner, *tree_util.tree_unflatten(tree, kinds))
        handle, structure = compiled[key]
        given = [_fitting(value, array) for value, array in zip(handle.inputs, arrays, strict=True)]
        outputs = remote_p.bind(*given, handle=handle, batched=(False,) * len(given))  # type: ignore[no-untyped-call]
        return tree_util.tree_unflatten(structure, outputs)


def remote(
    fn: Callable[..., Any] | Function, *, client: Client | None = None, verify: Verify | None = None
) -> Remote:
    """Compute `fn` on the service, for use in JAX programs and differentiable like any other function.

    A function takes arrays or trees of them, by position or by keyword, and returns the same. It is converted
    for each set of argument shapes it is called with, and keeps the arrays that it closes over as they are at
    the first such call. One that is on the service already, made by `client.function`, takes its inputs in
    order.

        f = gradwire.jax.remote(simulate)
        jax.jit(jax.grad(lambda x: jnp.sum(f(x) ** 2)))(x)

    A gradient is two calls, one for the value and one for the cotangents. Where the value alone is wanted
    over many points, vmap: a batch is one call.

    Args:
        fn: the function.
        client: where to compute; the one given to `use` by default.
        verify: when the graph is compared with the function, as for `client.function`.

    Raises:
        InvalidArgumentError: `fn` is no function, or is on a server already and `client` or `verify` is
            given. The first call raises `TraceError` where it does something that has no place in a graph,
            and `GradwireError` where no client was named.
    """
    if hasattr(fn, "as_vjp"):
        if client is not None or verify is not None:
            raise InvalidArgumentError(
                "this function is on a server already: leave out client= and verify=, which client.function "
                "was given"
            )
        return Remote("remote", lambda: fn, _of_function)
    if not callable(fn):
        raise InvalidArgumentError(
            f"remote takes a function of JAX arrays, or one on the service, not {type(fn).__name__}; "
            "the client is named by client=, or by gradwire.jax.use(client)"
        )
    source = fn.fn if isinstance(fn, JaxFunction) else fn

    def make(owner: Client, kinds: tuple[Any, ...], keywords: dict[str, Any]) -> _Compiled:
        called = by_position(source, len(kinds), list(keywords)) if keywords else source
        converted = convert_function(called, [*kinds, *keywords.values()])
        return _Compiled(
            Handle(synchronous(owner.function(converted.bound, verify=verify))), converted.structure
        )

    name = str(getattr(fn, "__name__", type(fn).__name__))
    return Remote(name, lambda: default.or_given(client), make)


def function(
    fn: Callable[..., Any],
    *specs: Any,
    names: Sequence[str] | None = None,
    client: Client | None = None,
    verify: Verify | None = None,
) -> Function:
    """Make a function on the service from one of JAX; like `client.function`, but arguments may be trees.

    Args:
        fn: takes arrays or trees of them.
        specs: for each argument a `gw.spec`, a `jax.ShapeDtypeStruct`, an array, or a tree of those.
        names: names of the inputs, which are the leaves of the arguments.
        client: of the service; the one given to `use` by default.
        verify: when the graph is compared with the function, as for `client.function`.

    Raises:
        TraceError: the function uses something that has no place in a graph.
        GradwireError: no client was named.
    """
    return default.or_given(client).function(convert_function(fn, specs, names).bound, verify=verify)


def _array(leaf: Any, name: str) -> Any:
    try:
        return jnp.asarray(leaf)
    except TypeError:
        raise InvalidArgumentError(
            f"{name} takes arrays, and {leaf!r} is none: give it to the function beforehand, with "
            "functools.partial or a lambda, and make that remote"
        ) from None


def _of_function(function: Any, kinds: tuple[Any, ...], keywords: dict[str, Any]) -> _Compiled:
    """Return a function that is on the service already, for arguments of these types."""
    if keywords:
        raise InvalidArgumentError(
            f"a function on the service takes its inputs in order, without {', '.join(keywords)}="
        )
    inputs, outputs = function.signature.inputs, function.signature.outputs
    if len(tree_util.tree_leaves(kinds)) != len(inputs):
        raise InvalidArgumentError(
            f"the function takes {len(inputs)} arrays ({', '.join(map(str, inputs))}), not {len(kinds)}"
        )
    count = len(outputs)
    structure = tree_util.tree_structure(0 if count == 1 else (0,) * count)
    return _Compiled(Handle(synchronous(function)), structure)


def synchronous(function: Any) -> Any:
    """Return the function itself, unless it is one of an asynchronous client."""
    if inspect.iscoroutinefunction(function.value):
        raise InvalidArgumentError(
            "JAX calls functions synchronously: use a client of gw.connect, not of gw.aio"
        )
    return function


def _fitting(value: Value, array: Any) -> Any:
    """Convert an array to the input's dtype, by JAX so that derivatives pass through."""
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
