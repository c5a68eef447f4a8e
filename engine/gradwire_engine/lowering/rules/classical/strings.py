"""Operators on strings, which are NumPy object arrays and always known before evaluation.

XLA has no strings, so a string is never an argument of a kernel; constant strings are processed while
the graph is traced. Their results do not depend on any floating input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import re2

from gradwire_engine.errors import LimitExceeded
from gradwire_engine.lowering.registry import Node, Value, rule

Array = np.ndarray[Any, Any]


def texts_of(node: Node, value: Value, what: str = "the strings") -> Array:
    """Return a static array of strings.

    Raises:
        ValueNeeded: the value depends on an input of the graph.
        InvalidGraph: the elements are not strings.
    """
    texts = node.static(value, what)
    if texts.dtype.kind not in "OU":
        raise node.fail(f"{what} are of type {texts.dtype}, not strings")
    return texts.astype(object)


def _lengths(texts: Array) -> Array:
    return np.fromiter(map(len, texts.flat), np.int64, texts.size).reshape(texts.shape)


def refuse_above_limit(node: Node, size: int) -> None:
    """Raise `LimitExceeded` if strings of `size` bytes exceed the limit for one array.

    The size of an object array does not include its strings, so it is checked before they are made.
    """
    limit = node.scope.limits.array_bytes
    if size > limit:
        raise LimitExceeded(
            f"node {node.name} ({node.op}) makes strings of {size} bytes; "
            f"the limit for one array is {limit} bytes",
            "array_bytes",
            limit,
            size,
        )


@rule("StringConcat", since=20)
def string_concat(node: Node, x: Value, y: Value) -> Value:
    """StringConcat: concatenates strings, with broadcasting."""
    first, second = np.broadcast_arrays(texts_of(node, x), texts_of(node, y))
    refuse_above_limit(node, int(_lengths(first).sum() + _lengths(second).sum()))
    return np.asarray(first + second, object)


@rule("StringSplit", since=20)
def string_split(node: Node, x: Value) -> Value:
    """StringSplit: substrings, padded with "" to the longest row, and their number."""
    texts = texts_of(node, x)
    delimiter, most = node.attr("delimiter") or None, node.attr("maxsplit", -1)
    parts = [text.split(delimiter, most) for text in texts.flat]
    counts = np.array([len(row) for row in parts], np.int64)
    width = int(counts.max(initial=0))
    refuse_above_limit(node, 8 * width * len(parts))
    padded = np.full((len(parts), width), "", object)
    for row, items in zip(padded, parts, strict=True):
        row[: len(items)] = items
    return padded.reshape(*texts.shape, width), counts.reshape(texts.shape)


@rule("StringNormalizer", since=10)
def string_normalizer(node: Node, x: Value) -> Value:
    """StringNormalizer: removes stop words, then changes the case of the rest.

    Stop words are compared as written, or without case unless `is_case_sensitive` is set.
    """
    texts = texts_of(node, x)
    if texts.ndim not in (1, 2) or (texts.ndim == 2 and texts.shape[0] != 1):
        raise node.fail(
            f"the strings are of shape {list(texts.shape)}; the shapes it takes are [C] and [1, C]"
        )
    action = node.attr("case_change_action", "NONE")
    if action not in ("NONE", "LOWER", "UPPER"):
        raise node.fail(f"case_change_action is {action!r}; it must be NONE, LOWER or UPPER")
    compared: Callable[[str], str] = str if node.attr("is_case_sensitive", 0) else str.casefold
    stops = {compared(word) for word in node.attr("stopwords", [])}
    changes: dict[str, Callable[[str], str]] = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}
    change = changes[action]
    kept = [change(text) for text in texts.flat if compared(text) not in stops] or [""]
    return np.array(kept, object).reshape((-1,) if texts.ndim == 1 else (1, -1))


@rule("RegexFullMatch", since=20)
def regex_full_match(node: Node, x: Value) -> Value:
    """RegexFullMatch: whether the whole string matches an RE2 pattern."""
    texts = texts_of(node, x)
    pattern = node.attr("pattern", "")
    # The operator specifies RE2, which never backtracks; the engine of Python's `re` does.
    options = re2.Options()
    options.log_errors = False
    try:
        matches = re2.compile(pattern, options).fullmatch
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise node.fail(f"{pattern!r} is not a regular expression of RE2's: {reason}") from None
    found = (matches(text) is not None for text in texts.flat)
    return np.fromiter(found, bool, texts.size).reshape(texts.shape)
