"""Errors of building a graph, with the line of the user's function that caused them."""

from __future__ import annotations

import linecache
import os
import sys
from types import ModuleType

import numpy as np

from gradwire.errors import TraceError


def package_directory(package: ModuleType) -> str:
    """Return the directory of a package, with a separator at the end: the prefix of its source files."""
    return os.path.join(os.path.dirname(os.path.abspath(str(package.__file__))), "")


OWN_DIRECTORY = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
"""The prefix of this package's source files, which no error blames."""

_SITE_PACKAGES = os.path.dirname(os.path.dirname(package_directory(np)))
_PASSED_OVER = (
    OWN_DIRECTORY,
    *(os.path.join(_SITE_PACKAGES, name, "") for name in ("numpy", "scipy")),
    "<__array_function__",
)
_LINE_LENGTH = 80


def user_line() -> str:
    """Return the innermost user's line, as "file.py:12: source text"; "" where none is known.

    Lines of this package, NumPy and SciPy are not the user's.
    """
    frame = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        if not filename.startswith(_PASSED_OVER):
            text = linecache.getline(filename, frame.f_lineno).strip()
            place = f"{os.path.basename(filename)}:{frame.f_lineno}"
            if len(text) > _LINE_LENGTH:
                text = text[:_LINE_LENGTH] + "..."
            return f"{place}: {text}" if text else place
        if frame.f_back is None:
            break
        frame = frame.f_back
    return ""


def refuse(what: str, instead: str) -> TraceError:
    """Return an error to raise: `what` cannot be traced, at which line, and what to write instead."""
    line = user_line()
    return TraceError(f"{what} cannot be traced{f' ({line})' if line else ''}; {instead}")
