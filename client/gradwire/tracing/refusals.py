"""Errors of tracing, with the line of the traced function that caused them."""

from __future__ import annotations

import linecache
import os
import sys

import numpy as np

from gradwire.errors import TraceError

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_NUMPY = os.path.dirname(os.path.abspath(np.__file__)) + os.sep


def user_line() -> str:
    """The innermost line outside gradwire and NumPy, as "file.py:12: source text", or ""."""
    frame = sys._getframe(1)
    while frame is not None:
        filename = frame.f_code.co_filename
        if not filename.startswith((_OURS, _NUMPY, "<__array_function__")):
            text = linecache.getline(filename, frame.f_lineno).strip()
            place = f"{os.path.basename(filename)}:{frame.f_lineno}"
            return f"{place}: {text}" if text else place
        if frame.f_back is None:
            break
        frame = frame.f_back
    return ""


def refuse(what: str, instead: str) -> TraceError:
    """An error to raise: ``what`` cannot be traced, at which line, and what to write instead."""
    line = user_line()
    return TraceError(f"{what} cannot be traced{f' ({line})' if line else ''}; {instead}")
