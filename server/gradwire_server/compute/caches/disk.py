"""Values on disk, bounded in bytes: pickles in a folder that only this user may write to.

A cache has a folder of its own in the one that it is given, and touches there only files of the names that
it gives. Several servers may use one at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from gradwire_server.folders import make_private

FOLDER = "kernels"
"""Where a cache's files are, in the folder that it is given."""

_SUFFIX = ".pickle"
_BEGUN, _PART = ".new-", ".part"
_KEPT = re.compile(r"[0-9a-f]{64}\.pickle")
_UNFINISHED = re.compile(r"\.new-\w{8}\.part")

_OLD_SECONDS = 3600.0
"""An unfinished file of this age is litter; a younger one may be being written by another server."""

_LEFT = 0.75
"""How much of the bound is left when files are deleted, so that not every save has to."""

_LOOK_SHARE = 16
"""The folder is looked at again once files of this part of the bound were saved: others save there too."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class KeptFile:
    """One file of a cache: where it is, its bytes, and when it was last used (seconds since 1970)."""

    path: Path
    nbytes: int
    used: float
    finished: bool


def kept_files(folder: Path) -> list[KeptFile]:
    """Return the files of a cache that was given this folder; no others that are there."""
    return list(_files(folder / FOLDER))


def clear(folder: Path) -> int:
    """Delete the files of a cache that was given this folder, and no others; return their bytes."""
    freed = 0
    for file in kept_files(folder):
        # One that is being written goes when it is finished or old.
        if file.finished or _is_litter(file):
            file.path.unlink(missing_ok=True)
            freed += file.nbytes
    return freed


def _files(folder: Path) -> Iterator[KeptFile]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        finished = _KEPT.fullmatch(entry.name) is not None
        if not finished and not _UNFINISHED.fullmatch(entry.name):
            continue
        # Another server may delete it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if entry.is_file(follow_symlinks=False):
                status = entry.stat(follow_symlinks=False)
                yield KeptFile(Path(entry.path), status.st_size, status.st_mtime, finished)


def _is_litter(file: KeptFile) -> bool:
    return not file.finished and time.time() - file.used > _OLD_SECONDS


class Disk:
    """A cache on disk. Loading a value executes what its file contains."""

    def __init__(self, folder: Path, capacity: int) -> None:
        """Keep at most `capacity` bytes in `folder`.

        Raises:
            OSError: the folder cannot be made, or others may write there; nothing was read then.
        """
        self._folder = folder / FOLDER
        self._capacity = capacity
        self._lock = threading.Lock()
        self._held = 0
        """Bytes in the folder when it was looked at, and those saved since then."""
        self._saved = 0
        self._warned = False
        make_private(self._folder)
        self._make_room(0)

    @classmethod
    def at(cls, folder: Path | None, capacity: int) -> Disk | None:
        """Open a cache in a folder; None, with a warning in the log, where it cannot be used safely."""
        if folder is None:
            return None
        try:
            return cls(folder, capacity)
        except OSError as error:
            _log.warning("compiled kernels are not kept on disk", folder=str(folder), reason=str(error))
            return None

    def load(self, key: str) -> Any:
        """Return what was saved under a key, or None; a damaged file counts as none."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            if hashlib.sha256(data[32:]).digest() != data[:32]:
                raise ValueError("damaged")
            value = pickle.loads(data[32:])  # noqa: S301  (in a folder that only this user may write)
        except FileNotFoundError:
            return None
        except Exception as error:
            _log.warning(
                "a cached kernel is not readable; it is made anew", file=str(path), reason=str(error)
            )
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return value

    def save(self, key: str, value: object) -> None:
        """Save a value under a key of 64 hexadecimal digits; readers see all of it or nothing.

        What was used longest ago is deleted first where there is no room, and a value that is larger than the
        bound is not saved. Where the disk is full, nothing of it is left.
        """
        data = pickle.dumps(value, protocol=5)
        size = 32 + len(data)
        if size > self._capacity:
            return
        try:
            with self._lock:
                if self._held + size > self._capacity or self._saved > self._capacity // _LOOK_SHARE:
                    self._make_room(size)
                # Counted before it is written, and where it then is not: the next look at the folder tells.
                self._held += size
                self._saved += size
            self._write(self._path(key), hashlib.sha256(data).digest(), data)
        except OSError as error:
            with self._lock:
                warn, self._warned = not self._warned, True
            if warn:
                _log.warning(
                    "a compiled kernel is not kept on disk; later ones may not be either, and are not logged",
                    folder=str(self._folder),
                    reason=str(error),
                )

    def remove(self, key: str) -> None:
        """Delete what was saved under a key, if anything was."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            _log.error("a cached value is still on disk", file=str(self._path(key)), reason=str(error))

    def _path(self, key: str) -> Path:
        assert _KEPT.fullmatch(key + _SUFFIX), f"{key!r} is no key"
        return self._folder / (key + _SUFFIX)

    def _write(self, path: Path, *parts: bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=_BEGUN, suffix=_PART)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for part in parts:
                    file.write(part)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _make_room(self, size: int) -> None:
        """Look at the folder; delete litter, and what was used longest ago where `size` bytes do not fit."""
        files = []
        for file in _files(self._folder):
            if _is_litter(file):
                file.path.unlink(missing_ok=True)
            else:
                files.append(file)
        self._held, self._saved = sum(file.nbytes for file in files), 0
        if self._held + size <= self._capacity:
            return
        files.sort(key=lambda file: file.used)
        for file in files:
            if self._held + size <= max(size, _LEFT * self._capacity):
                return
            if file.finished:
                file.path.unlink(missing_ok=True)
                self._held -= file.nbytes
