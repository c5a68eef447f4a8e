"""Finds what a Python function reads besides its arguments."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any


def variables(function: FunctionType, libraries: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of each variable that a function reads and does not make itself.

    These are its defaults, the variables it closes over, the globals that it or a function defined inside it
    names, and of modules among those the attributes that it names. Names that have no value yet are left out.

    Args:
        function: the function; functions that it calls are yielded, not looked into.
        libraries: top-level packages whose modules are not searched for attributes.
    """
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    yield from zip(reversed(positional), reversed(function.__defaults__ or ()), strict=False)
    yield from (function.__kwdefaults__ or {}).items()
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    named = sorted(set(_names(code)))
    for name in named:
        if name not in function.__globals__:
            continue
        value = function.__globals__[name]
        yield name, value
        if isinstance(value, ModuleType) and top_package(value.__name__) not in libraries:
            attributes = vars(value)
            yield from ((f"{name}.{one}", attributes[one]) for one in named if one in attributes)


def top_package(module: str) -> str:
    """Return the top-level package of a module: "scipy" for "scipy.linalg"."""
    return module.partition(".")[0]


def _names(code: CodeType) -> Iterator[str]:
    """Names of globals and attributes in a function's code and in the code of functions defined inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
