"""The table behind `__array_function__`: the implementation of each NumPy function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from gradwire.graphs.refusals import refuse

Function = Callable[..., Any]
_F = TypeVar("_F", bound=Function)

_functions: dict[Any, Function] = {}
_refusals: dict[Any, str] = {}
_modules: dict[str, ModuleType] = {}

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
    try:
        return implementation(*args, **kwargs)
    except TypeError:
        _check_arguments(function, implementation, args, kwargs)
        raise


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
