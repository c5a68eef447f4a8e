"""Flattens nested tuples, lists and dicts of arrays into leaves, and packs them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradwire.errors import TraceError
from gradwire.frontends.numpy.arrays.array import TracedArray, value_of
from gradwire.frontends.numpy.arrays.complex_array import TracedComplex
from gradwire.graphs.builder import GraphBuilder, active
from gradwire.graphs.nodes import DType, GraphValue, Shape
from gradwire.graphs.refusals import user_line

Leaf = Any
"""A traced array, a NumPy array or scalar, or a Python number.

A complex array in a trace is two leaves, its real and imaginary parts, since graphs hold real arrays only.
"""

_NUMBERS = (bool, int, float, complex)
_LEAVES = (TracedArray, np.ndarray, np.generic, *_NUMBERS)


@dataclass(frozen=True)
class Structure:
    """The structure of nested tuples, lists and dicts, without their leaves.

    Two structures are equal if they nest in the same way; the order of a dict's keys does not count.

    Attributes:
        kind: "leaf", "none" (None, which has no leaves), "complex", "tuple", "list" or "dict".
        keys: the sorted keys of a dict, 0, 1, ... otherwise.
        parts: the structure at each key.
        order: the keys of a dict in their original order.
        make: the class of a named tuple, None for others.
    """

    kind: str
    keys: tuple[Any, ...] = ()
    parts: tuple[Structure, ...] = ()
    order: tuple[Any, ...] = field(default=(), compare=False)
    make: Any = None

    @property
    def size(self) -> int:
        """Number of leaves."""
        return 1 if self.kind == "leaf" else sum(part.size for part in self.parts)

    def pack(self, leaves: Sequence[Leaf]) -> Any:
        """Arrange leaves, in order, in this structure."""
        return self._packed(iter(leaves))

    def paths(self, name: str) -> list[str]:
        """Return the expression of each leaf of a variable of this structure: `carry[0]['velocity']`."""
        if self.kind == "leaf":
            return [name]
        if self.kind == "complex":
            return [f"{name}.real", f"{name}.imag"]
        return [
            path
            for key, part in zip(self.keys, self.parts, strict=True)
            for path in part.paths(f"{name}[{key!r}]")
        ]

    def _packed(self, leaves: Iterator[Leaf]) -> Any:
        if self.kind == "leaf":
            return next(leaves)
        if self.kind == "none":
            return None
        items = [part._packed(leaves) for part in self.parts]
        if self.kind == "complex":
            return _complex(*items)
        if self.kind == "dict":
            found = dict(zip(self.keys, items, strict=True))
            return {key: found[key] for key in self.order}
        if self.kind == "list":
            return items
        return self.make(*items) if self.make else tuple(items)

    def __str__(self) -> str:
        if self.kind == "leaf":
            return "array"
        if self.kind == "none":
            return "None"
        if self.kind == "complex":
            return "complex array"
        if self.kind == "dict":
            return "{" + ", ".join(f"{k!r}: {p}" for k, p in zip(self.keys, self.parts, strict=True)) + "}"
        items = ", ".join(map(str, self.parts))
        if self.kind == "list":
            return f"[{items}]"
        return f"({items},)" if len(self.parts) == 1 else f"({items})"


LEAF, NONE = Structure("leaf"), Structure("none")
COMPLEX = Structure("complex", (0, 1), (LEAF, LEAF), (0, 1))


def _complex(real: Leaf, imag: Leaf) -> Any:
    if isinstance(real, TracedArray) and isinstance(imag, TracedArray):
        return TracedComplex(real, imag)
    return real + 1j * imag


@dataclass(frozen=True)
class Kind:
    """Shape and dtype of a leaf."""

    shape: Shape
    dtype: DType

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def flatten(call: str, name: str, tree: Any) -> tuple[list[Leaf], Structure]:
    """Split what a user passed or returned into leaves and structure.

    Args:
        call: the name of the called function, for messages.
        name: the user's name for the whole, for messages.
        tree: an array, a number, None, or a nested tuple, list or dict of them.

    Raises:
        TraceError: an item is neither an array or a number nor a tuple, list or dict.
    """
    leaves: list[Leaf] = []
    return leaves, _take(call, name, tree, leaves)


def _take(call: str, name: str, tree: Any, leaves: list[Leaf]) -> Structure:
    if tree is None:
        return NONE
    if isinstance(tree, TracedComplex) or (active.get() is not None and _is_complex(tree)):
        leaves += [np.real(tree), np.imag(tree)]
        return COMPLEX
    if isinstance(tree, _LEAVES):
        leaves.append(tree)
        return LEAF
    if isinstance(tree, Mapping):
        order = tuple(tree)
        keys = tuple(sorted(order, key=lambda key: (type(key).__name__, str(key))))
        parts = tuple(_take(call, f"{name}[{key!r}]", tree[key], leaves) for key in keys)
        return Structure("dict", keys, parts, order)
    if isinstance(tree, tuple | list):
        parts = tuple(_take(call, f"{name}[{i}]", item, leaves) for i, item in enumerate(tree))
        keys = tuple(range(len(parts)))
        make = type(tree) if hasattr(tree, "_fields") else None
        return Structure("list" if isinstance(tree, list) else "tuple", keys, parts, keys, make)
    raise TraceError(
        f"{call}: {name} is a {type(tree).__name__}{where()}; give arrays, numbers, or tuples, lists and "
        "dicts of them"
    )


def _is_complex(leaf: Any) -> bool:
    kind = getattr(leaf, "dtype", None)
    return isinstance(leaf, complex) or (isinstance(kind, np.dtype) and kind.kind == "c")


def where() -> str:
    """Return the user's line in parentheses, to append to a message."""
    line = user_line()
    return f" ({line})" if line else ""


def kind_of(leaf: Leaf) -> Kind:
    """Return the shape and dtype of a leaf."""
    array = leaf if isinstance(leaf, TracedArray | np.ndarray) else np.asarray(leaf)
    return Kind(array.shape, array.dtype)


def is_number(leaf: Leaf) -> bool:
    """Return whether a leaf is a Python number, which is weak in promotion."""
    return isinstance(leaf, _NUMBERS) and not isinstance(leaf, np.generic)


def plain(leaf: Leaf) -> Any:
    """Copy an untraced leaf to a NumPy array or scalar."""
    return np.array(leaf)[()]


def own(leaf: Leaf) -> Leaf:
    """Copy a leaf, so that assignments to it stay local."""
    return leaf.copy() if isinstance(leaf, TracedArray | np.ndarray) else leaf


def fits(leaf: Leaf, kind: Kind) -> bool:
    """Return whether a leaf has a shape and dtype, or is a Python number that can take them."""
    if is_number(leaf):
        return not kind.shape and np.result_type(kind.dtype, leaf) == kind.dtype
    return kind_of(leaf) == kind


def as_value(graph: GraphBuilder, leaf: Leaf, kind: Kind | None = None) -> GraphValue:
    """Convert a leaf to a value of a graph; a number takes the given dtype."""
    return value_of(graph, leaf, kind.dtype if kind and is_number(leaf) else None)


def emptied(call: Callable[[], Any]) -> Any:
    """Trace `call` on a scratch graph to learn the shapes of its result, and return zeros of these."""
    token = active.set(GraphBuilder())
    try:
        leaves, structure = flatten("", "the result", call())
    finally:
        active.reset(token)
    return structure.pack([np.zeros(kind.shape, kind.dtype) for kind in map(kind_of, leaves)])


def stable(
    call: str, before: Structure, kinds: Sequence[Kind], name: str, returned: Any, what: str
) -> list[Leaf]:
    """Check that a returned carry has the structure, shapes and dtypes of the one passed, and flatten it.

    Args:
        call: the name of the called function, for messages.
        before: the structure of the carry that was passed.
        kinds: the shape and dtype of each of its leaves.
        name: the user's name for the carry, for messages.
        returned: the carry that the user's function returned.
        what: the parameter name of the user's function, for messages.

    Raises:
        TraceError: the structure, a shape or a dtype differs; the message names the leaf.
    """
    leaves, after = flatten(call, name, returned)
    if after != before:
        raise TraceError(
            f"{call}: {what} takes a carry of structure {before} and returns one of {after}{where()}; "
            "return the same structure"
        )
    for path, leaf, kind in zip(before.paths(name), leaves, kinds, strict=True):
        if not fits(leaf, kind):
            found = kind_of(leaf)
            advice = (
                f"start from an array of shape {found.shape}, or return one of {kind.shape}"
                if found.shape != kind.shape
                else f"start from {found.dtype}, or return it with .astype(np.{kind.dtype})"
            )
            raise TraceError(f"{call}: {path} changes from {kind} to {found} in {what}{where()}; {advice}")
    return leaves
