"""Errors of tracing, with the line of the traced function that caused them."""

from __future__ import annotations

import linecache
import os
import sys

import numpy as np

from gradwire.errors import TraceError

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(np.__file__)))
_PASSED_OVER = (
    _OURS,
    *(os.path.join(_PACKAGES, name, "") for name in ("numpy", "scipy")),
    "<__array_function__",
)
_LINE_LENGTH = 80


def user_line() -> str:
    """The innermost line outside the tracer, NumPy and SciPy, as "file.py:12: source text", or ""."""
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
    """An error to raise: ``what`` cannot be traced, at which line, and what to write instead."""
    line = user_line()
    return TraceError(f"{what} cannot be traced{f' ({line})' if line else ''}; {instead}")
