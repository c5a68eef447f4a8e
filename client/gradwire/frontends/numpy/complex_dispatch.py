"""The tables behind the protocols of complex traced arrays, used where an argument is complex."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

import numpy as np

from gradwire.frontends.numpy.dispatch import Function, call_into, entering, public_name, stored
from gradwire.graphs.refusals import refuse

_F = TypeVar("_F", bound=Function)

_functions: dict[Any, Function] = {}
_ufuncs: dict[str, Function] = {}

_ORDERED = frozenset({
    "less", "less_equal", "greater", "greater_equal", "maximum", "minimum", "fmax", "fmin", "sign",
    "heaviside", "clip", "max", "min", "amax", "amin", "ptp", "argmax", "argmin", "sort", "argsort", "median",
    "quantile", "percentile",
})  # fmt: skip


def implements_complex(*names: str) -> Callable[[_F], _F]:
    """Register an implementation of NumPy functions for complex arguments; unknown names are skipped."""
    return entering(_functions, names)


def implemented() -> Collection[str]:
    """Return the public names of the functions and ufuncs that can be traced with complex arguments."""
    return {*map(public_name, _functions), *(f"np.{name}" for name in _ufuncs)}


def complex_ufunc(*names: str) -> Callable[[_F], _F]:
    """Register a function of arrays as the implementation of ufuncs for complex operands."""

    def register(function: _F) -> _F:
        _ufuncs.update(dict.fromkeys(names, function))
        return function

    return register


def involved(items: Iterable[Any]) -> bool:
    """Return whether any item is a complex number or array, or a list that contains one."""
    for item in items:
        if isinstance(item, list | tuple):
            if involved(item):
                return True
        elif isinstance(item, complex) or getattr(getattr(item, "dtype", None), "kind", "") == "c":
            return True
    return False


def call_function(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the implementation for complex arguments: the result of `__array_function__`.

    Raises:
        TraceError: the function is not supported for complex arrays.
    """
    implementation = _functions.get(function)
    if implementation is None:
        raise _refused(public_name(function), function.__name__)
    return call_into(function, implementation, args, kwargs)


def _refused(written: str, name: str) -> Exception:
    if name in _ORDERED:
        return refuse(
            f"{written} of complex numbers", "they have no order: take np.abs(z) or np.real(z) first"
        )
    return refuse(
        f"{written} of complex numbers",
        "apply it to np.real(z), np.imag(z) or np.abs(z), or write it with sums, products and np.exp",
    )


def call_ufunc(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Apply a ufunc to complex operands: the result of `__array_ufunc__`.

    Args:
        ufunc: the ufunc.
        method: "__call__" or the name of one of its methods.
        inputs: the operands; at least one is complex.
        kwargs: further arguments, such as `out`, which is taken out.

    Raises:
        TraceError: the ufunc, or the way it is called, is not supported for complex arrays.
        TypeError: a complex result is to be stored in a real array.
    """
    name = ufunc.__name__
    out = kwargs.pop("out", None)
    rule = _ufuncs.get(name)
    if rule is None:
        raise _refused(f"np.{name}", name)
    if method == "reduce" and name == "add":
        return np.sum(inputs[0], **{"axis": 0, **kwargs})
    if method == "outer" and len(inputs) == 2 and not kwargs:
        first, second = inputs
        return rule(np.reshape(first, np.shape(first) + (1,) * np.ndim(second)), second)
    if method != "__call__" or kwargs:
        raise refuse(
            f"np.{name}{'' if method == '__call__' else f'.{method}'} of complex numbers"
            + "".join(f" with {key}=" for key in kwargs),
            "leave the argument out" if method == "__call__" else "write it with np.sum or a loop",
        )
    result = rule(*inputs)
    # NumPy's scalars are immutable, so that "z *= 2" binds z anew.
    own = out is not None and out[0] is inputs[0] and hasattr(out[0], "stands_for_scalar")
    if out is None or (own and out[0].stands_for_scalar()):
        return result
    return stored(f"np.{name}", result, out)
