"""Loops over index sets, compiled by numba at their first call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np

Array = np.ndarray[Any, Any]
F = TypeVar("F", bound=Callable[..., Any])


def compiled(loop: F) -> F:
    """Compile a loop when it is first called; other processes read its machine code from numba's cache.

    A loop is compiled once for each combination of dtypes, so call it with one: index pointers int64, indices
    and colors int32, all contiguous and writable.
    """
    try:
        made: Any = numba.njit(cache=True, nogil=True)(loop)
        file = made._cache._cache_file
        # numba would look at the loop's own file alone, and miss changes of the loops that it calls in
        # others.
        if file._source_stamp is not None:
            file._source_stamp = sources()
        _bear_full_disks(made._cache)
    except (RuntimeError, AttributeError, OSError):
        # No folder can be written, or this numba keeps its cache in another way: each process compiles.
        made = numba.njit(nogil=True)(loop)
    return cast(F, made)


def _bear_full_disks(kept: Any) -> None:
    """Let a loop run that was compiled and cannot be written to numba's cache, which would fail the call."""
    save = kept.save_overload

    def save_if_possible(signature: Any, code: Any) -> None:
        with suppress(OSError):
            save(signature, code)

    kept.save_overload = save_if_possible


@cache
def sources() -> str:
    """Return the digest of all modules that hold compiled loops."""
    digest = sha256()
    for module in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(module.read_bytes())
    return digest.hexdigest()


def loop_arrays(indptr: Array, indices: Array) -> tuple[Array, Array]:
    """Return index pointer and indices as compiled loops take them, copied only where needed."""
    return np.require(indptr, np.int64, ["C", "W"]), np.require(indices, np.int32, ["C", "W"])


@compiled
def transpose(indptr: Array, indices: Array, columns: int) -> tuple[Array, Array]:
    """Return the index pointer and indices of the transposed pattern, ascending within each row."""
    start = np.zeros(columns + 1, np.int64)
    for k in range(len(indices)):
        start[indices[k] + 1] += 1
    for j in range(columns):
        start[j + 1] += start[j]
    free = start[:-1].copy()
    rows = np.empty(len(indices), np.int32)
    for i in range(len(indptr) - 1):
        for k in range(indptr[i], indptr[i + 1]):
            j = indices[k]
            rows[free[j]] = i
            free[j] += 1
    return start, rows


@compiled
def mirror_images(indptr: Array, indices: Array) -> Array:
    """Return for each entry (i, j) of a symmetric pattern the number of (j, i), int64.

    Raises:
        ValueError: the pattern is not symmetric.
    """
    rows = len(indptr) - 1
    mirrors = np.empty(len(indices), np.int64)
    free = indptr[:-1].copy()
    for i in range(rows):
        for k in range(indptr[i], indptr[i + 1]):
            # Entries of row j are numbered by columns, and the rows i come by in that order.
            j = indices[k]
            if j >= rows or free[j] == indptr[j + 1] or indices[free[j]] != i:
                raise ValueError("the pattern is not symmetric: an entry has no mirror image")
            mirrors[k] = free[j]
            free[j] += 1
    return mirrors
