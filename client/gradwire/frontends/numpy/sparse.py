"""Recognizes scipy.sparse's matrices without importing it, and gives way to traced arrays in its products."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def is_sparse(item: Any) -> bool:
    """Whether an item is a sparse matrix or array of SciPy, of any format."""
    return type(item).__module__.startswith("scipy.sparse") and hasattr(item, "tocoo")


def involved(items: Iterable[Any]) -> bool:
    """Whether any item is sparse."""
    return any(map(is_sparse, items))


def asked_by_scipy(depth: int) -> bool:
    """Whether scipy.sparse runs the frame that is `depth` above the caller's.

    It converts the other operand of a product to an array, and leaves the product to that operand if it gets
    an array of objects without axes.
    """
    return str(sys._getframe(depth + 1).f_globals.get("__name__", "")).startswith("scipy.sparse")
