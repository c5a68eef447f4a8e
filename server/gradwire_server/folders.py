"""Folders for what is executed when it is read: compiled kernels and loops."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def make_private(folder: Path) -> None:
    """Make a folder, if it is absent, and check that nobody else may write to it.

    Raises:
        OSError: it cannot be made, or others than this user may write there.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError("others than the server's user may write there")
