"""The table behind `__array_function__`: the implementation of each NumPy function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from gradwire.graphs.refusals import refuse

Function = Callable[..., Any]
_F = TypeVar("_F", bound=Function)

_functions: dict[Any, Function] = {}
_refusals: dict[Any, str] = {}
_modules: dict[str, ModuleType] = {}
_products: list[Function] = []

_PLACES = {
    "linalg": "linalg.", "fft": "fft.", "stride_tricks": "lib.stride_tricks.", "scimath": "emath.",
}  # fmt: skip
"""Public namespaces of functions, by a part of the name of the module that defines them."""


def named(name: str) -> Any:
    """Look up a NumPy function by its dotted name; None if this version of NumPy lacks it."""
    target: Any = np
    for part in name.split("."):
        target = getattr(target, part, None)
    return target


def entering(table: dict[Any, Function], names: Sequence[str]) -> Callable[[_F], _F]:
    """Make a decorator that enters an implementation in a table; names that NumPy lacks are skipped."""

    def register(function: _F) -> _F:
        table.update({target: function for target in map(named, names) if target is not None})
        return function

    return register


def implements(*names: str) -> Callable[[_F], _F]:
    """Register an implementation of NumPy functions, named without "np."; unknown names are skipped."""
    return entering(_functions, names)


def refuses(instead: str, *names: str) -> None:
    """Register the advice for functions that cannot be traced."""
    for name in names:
        target = named(name)
        if target is not None:
            _refusals[target] = instead


def namespace() -> ModuleType:
    """Return the Array API namespace that `provide_namespace` registered."""
    return _modules["namespace"]


def provide_namespace(module: ModuleType) -> None:
    """Register a module as the Array API namespace of traced arrays."""
    _modules["namespace"] = module


def provides_sparse_product(function: _F) -> _F:
    """Register the function that applies ufuncs to sparse matrices and traced arrays."""
    _products[:] = [function]
    return function


def sparse_product(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Apply a ufunc of which an operand is sparse: the result of `__array_ufunc__`."""
    return _products[0](ufunc, method, inputs, kwargs)


def implemented() -> Collection[Any]:
    """Return the NumPy functions that can be traced."""
    return _functions.keys()


def refused() -> Mapping[Any, str]:
    """Return the NumPy functions that are refused by name, with the advice for each."""
    return _refusals


def public_name(function: Any) -> str:
    """Return the name under which users call a NumPy function."""
    module = str(getattr(function, "__module__", "numpy") or "numpy")
    inner = next((path for part, path in _PLACES.items() if part in module), "")
    return f"np.{inner}{getattr(function, '__name__', function)}"


def call_function(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the implementation of a NumPy function: the result of `__array_function__`.

    Raises:
        TraceError: the function is not supported, or not with these arguments.
    """
    implementation = _functions.get(function)
    if implementation is None:
        raise refuse(
            public_name(function),
            _refusals.get(function, "compose it from array arithmetic, np.where, reductions and indexing"),
        )
    return call_into(function, implementation, args, kwargs)


def call_into(function: Any, implementation: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call an implementation, which takes every argument but `out`, and store its result where `out` says.

    Arguments are bound to NumPy's signature first, so that an implementation may name its positional ones as
    it likes.

    Raises:
        TraceError: the implementation does not take one of the arguments, or `out` is a plain array.
    """
    args, kwargs, out = _without_out(function, args, kwargs)
    try:
        result = implementation(*args, **kwargs)
    except TypeError:
        _check_arguments(function, implementation, args, kwargs)
        raise
    if out is None:
        return result
    return stored(public_name(function), result, out, broadcast=function in _elementwise())


def stored(name: str, result: Any, out: Any, broadcast: bool = True) -> Any:
    """Store a result in the array that a call names as `out`, and return that array.

    Args:
        name: of what was called, for messages.
        result: a traced array.
        out: the array, or a tuple of it alone.
        broadcast: whether the result may be broadcast to the array, as ufuncs do.

    Raises:
        TraceError: the array is a plain one.
        TypeError: NumPy would not cast the result to the array's dtype.
        ValueError: the shapes do not fit.
    """
    (target,) = out if isinstance(out, tuple) else (out,)
    receive = getattr(target, "receive", None)
    if receive is None:
        raise refuse(
            f"{name} into a plain NumPy array (out=, or += on one)",
            "a plain array cannot hold traced values: write y = y + x, or make y with np.zeros_like(x) "
            "or gw.zeros(shape)",
        )
    if not broadcast and tuple(result.shape) != tuple(target.shape):
        raise ValueError(f"{name}: out= has shape {target.shape}, but the result has {result.shape}")
    receive(name, result)
    return target


@lru_cache(maxsize=1)
def _elementwise() -> frozenset[Any]:
    """List the functions with an `out` that broadcast to it, as ufuncs do."""
    return frozenset(map(named, ("clip", "round", "around", "fix", "isposinf", "isneginf", "outer")))


@lru_cache(maxsize=1)
def _accumulating() -> frozenset[Any]:
    """List the functions that compute in the dtype of `out` where no dtype is given."""
    return frozenset(map(named, ("sum", "prod", "cumsum", "cumprod", "mean", "nansum", "nanprod")))


@lru_cache(maxsize=512)
def _signature(function: Any) -> inspect.Signature | None:
    """NumPy's signature of a function; None for compiled functions of older versions, which have none."""
    try:
        return inspect.signature(function)
    except ValueError:
        return None


def _without_out(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Take `out` off the arguments of a function, wherever it stands among them."""
    signature = _signature(function)
    if signature is None:
        return args, {key: item for key, item in kwargs.items() if key != "out"}, kwargs.get("out")
    places = list(signature.parameters)
    if not kwargs and ("out" not in places or len(args) <= places.index("out")):
        return args, kwargs, None
    bound = signature.bind(*args, **kwargs)
    out = bound.arguments.pop("out", None)
    if out is not None and function in _accumulating() and out.dtype.kind != "c":
        bound.arguments["dtype"] = bound.arguments.get("dtype") or out.dtype
    return bound.args, bound.kwargs, out


def _check_arguments(
    function: Any, implementation: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise a TraceError if a call failed because of an argument that the tracer does not take."""
    signature = inspect.signature(implementation)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise refuse(
            f"{public_name(function)} with these arguments ({error})",
            f"arguments that can be traced: {', '.join(signature.parameters)}",
        ) from None
