"""Folders that others must not write to, or not enter: compiled kernels and loops, sockets, Ray's session."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

_LONGEST_SOCKET = 107
"""Bytes of the path of a socket that every system takes."""


def private_folder(below: int) -> Path:
    """Make a folder for sockets that only this user may enter, among those for temporary files.

    Args:
        below: bytes of the longest path of a socket below it.
    """
    folder = Path(tempfile.mkdtemp(prefix="gradwire-"))  # of mode 0700
    if len(os.fsencode(folder)) + below > _LONGEST_SOCKET:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="gradwire-", dir="/tmp"))
    return folder


def make_private(folder: Path) -> None:
    """Make a folder, if it is absent, and check that nobody else may write to it or put another in its place.

    Raises:
        OSError: it cannot be made, or is not this user's alone; nothing is made in a folder of others then.
    """
    folder = Path(os.path.abspath(folder))
    # Where it is said to be, and where links lead.
    for path in (folder, folder.resolve()):
        _check_parents(path)
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    for path in (folder, folder.resolve()):
        _check_parents(path)
    status = folder.stat()
    if status.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user: choose a folder of the server's user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(
            f"others than the server's user may write to {folder}: chmod 700 it, or choose another"
        )


def _check_parents(folder: Path) -> None:
    """Check that only root and this user can exchange what leads to a folder, as far as it is there.

    Raises:
        PermissionError: others can.
    """
    for parent in folder.parents:
        try:
            status = parent.lstat()
        except FileNotFoundError:
            continue
        if status.st_uid not in (0, os.getuid()):
            raise PermissionError(
                f"{parent} belongs to another user, who can exchange what is in it: choose another folder"
            )
        writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(status.st_mode)
        if writable and not status.st_mode & stat.S_ISVTX:
            raise PermissionError(
                f"others may exchange what is in {parent}: chmod go-w it, or choose another folder"
            )
