"""Tracebacks of errors that are meant for users: their own frames, and the call that they made."""

import os
import sysconfig
import types

import grpc
import numpy as np

from gradwire.errors import GradwireError

_OWN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")
_STANDARD = os.path.join(sysconfig.get_paths()["stdlib"], "")
_OTHERS = tuple(os.path.join(os.path.dirname(str(one.__file__)), "") for one in (grpc, np))
_INSTALLED = tuple(os.path.join(_STANDARD, name, "") for name in ("site-packages", "dist-packages"))


def shortened(error: BaseException) -> types.TracebackType | None:
    """Return a traceback without frames of this package, of what it runs on and of the standard library.

    That is so for errors of this package, and for those that a user's own code raised. Any other is a fault
    of this package, and its frames are what finds it.
    """
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    if not frames or not (isinstance(error, GradwireError) or _is_users(frames[-1])):
        return error.__traceback__
    following: types.TracebackType | None = None
    for one in reversed(frames):
        if _is_users(one):
            following = types.TracebackType(following, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return following


def _is_users(trace: types.TracebackType) -> bool:
    filename = trace.tb_frame.f_code.co_filename
    if filename.startswith((_OWN, *_OTHERS, "<__array_function__", "<frozen ")):
        return False
    return filename.startswith(_INSTALLED) or not filename.startswith(_STANDARD)
