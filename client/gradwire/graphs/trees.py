"""Nested containers of arrays: dicts, tuples, lists, named tuples and dataclasses, in and out of functions.

A tree says how leaves are nested; a leaf is anything that is none of these containers. The entries of a dict
keep the order that it has. Paths name leaves: "params.w", "params.layers.0".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire.errors import InvalidArgumentError


@dataclass(frozen=True)
class Tree:
    """How leaves are nested.

    Attributes:
        kind: the type of the container; None for a leaf.
        keys: names of its entries: keys, fields, or positions as text.
        children: the trees of its entries.
    """

    kind: Any = None
    keys: tuple[str, ...] = ()
    children: tuple[Tree, ...] = ()

    @property
    def is_leaf(self) -> bool:
        """Whether it is a leaf by itself."""
        return self.kind is None

    @property
    def is_flat(self) -> bool:
        """Whether it is a leaf, or a tuple of leaves."""
        return self.is_leaf or (self.kind is tuple and all(child.is_leaf for child in self.children))

    def __len__(self) -> int:
        """Count the leaves."""
        return 1 if self.is_leaf else sum(map(len, self.children))

    def paths(self, prefix: str = "") -> list[str]:
        """Names of the leaves, in order, each after a prefix."""
        if self.is_leaf:
            return [prefix]
        return [
            path
            for key, child in zip(self.keys, self.children, strict=True)
            for path in child.paths(f"{prefix}.{key}" if prefix else key)
        ]

    def __str__(self) -> str:
        if self.is_leaf:
            return "an array"
        if self.kind in (tuple, list):
            return f"{self.kind.__name__} of {len(self.keys)}"
        return f"{self.kind.__name__} of {', '.join(self.keys)}"


LEAF = Tree()


def container(item: Any) -> tuple[Any, tuple[str, ...], tuple[Any, ...]] | None:
    """Return the type, the names and the values of a container's entries; None for anything else.

    Raises:
        InvalidArgumentError: a key of a dict is no text.
    """
    if isinstance(item, Mapping):
        if not all(isinstance(key, str) for key in item):
            raise InvalidArgumentError(f"keys of {type(item).__name__} are not all text; use text keys")
        return dict, tuple(item), tuple(item.values())
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item), item._fields, tuple(item)
    if isinstance(item, tuple | list):
        return (tuple if isinstance(item, tuple) else list), tuple(map(str, range(len(item)))), tuple(item)
    if dataclasses.is_dataclass(item) and not isinstance(item, type) and not hasattr(item, "shape"):
        names = tuple(one.name for one in dataclasses.fields(item))
        return type(item), names, tuple(getattr(item, name) for name in names)
    return None


def flatten(
    item: Any, is_leaf: Callable[[Any], bool] = lambda item: False, by_key: bool = False
) -> tuple[Tree, list[Any]]:
    """Return the tree of nested containers, and the leaves in order.

    Args:
        item: a leaf, or containers of leaves.
        is_leaf: whether to take a container for a leaf.
        by_key: whether the entries of dicts come in the order of their keys, as JAX has them.
    """
    if by_key and isinstance(item, Mapping) and not is_leaf(item):
        item = dict(sorted(item.items()))
    found = None if is_leaf(item) else container(item)
    if found is None:
        return LEAF, [item]
    kind, keys, values = found
    parts = [flatten(value, is_leaf, by_key) for value in values]
    return Tree(kind, keys, tuple(tree for tree, _ in parts)), [leaf for _, own in parts for leaf in own]


def unflatten(tree: Tree, leaves: Iterable[Any]) -> Any:
    """Nest leaves as a tree says."""
    return _built(tree, iter(leaves))


def _built(tree: Tree, leaves: Iterator[Any]) -> Any:
    if tree.is_leaf:
        return next(leaves)
    values = [_built(child, leaves) for child in tree.children]
    kind: Any = tree.kind
    if kind in (tuple, list):
        return kind(values)
    if kind is dict:
        return dict(zip(tree.keys, values, strict=True))
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, dict(zip(tree.keys, values, strict=True)))
    return kind(*values)


def _dataclass(kind: Any, values: Mapping[str, Any]) -> Any:
    """Make an instance from all fields, also those that its constructor does not take."""
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def leaves_like(tree: Tree, item: Any, name: str) -> list[Any]:
    """Return the leaves of an item that is nested as a tree says, in the tree's order.

    Args:
        tree: how it must be nested.
        item: the item.
        name: of the item, for messages.

    Raises:
        InvalidArgumentError: it is nested in another way.
    """
    if tree.is_leaf:
        return [item]
    found = container(item)
    if found is None or len(found[1]) != len(tree.keys) or set(found[1]) != set(tree.keys):
        given = type(item).__name__ if found is None else Tree(type(item), found[1])
        raise InvalidArgumentError(f"{name} should be {tree}, not {given}")
    values = dict(zip(found[1], found[2], strict=True))
    return [
        leaf
        for key, child in zip(tree.keys, tree.children, strict=True)
        for leaf in leaves_like(child, values[key], f"{name}.{key}")
    ]


def is_array_like(item: Any) -> bool:
    """Whether a tuple or list is one array: of numbers, at any depth."""
    return isinstance(item, tuple | list) and not hasattr(item, "_fields") and all(map(_numeric, item))


def _numeric(item: Any) -> bool:
    return isinstance(item, bool | int | float | np.number | np.bool_) or is_array_like(item)


@dataclass(frozen=True)
class Structure:
    """The arguments and the result of a function, and the names that their leaves have in its graph.

    Attributes:
        arguments: the tree of each argument, by its name.
        inputs: names of the leaves of all arguments, in order.
        result: the tree of what the function returns.
        outputs: names of its leaves, in order.
    """

    arguments: tuple[tuple[str, Tree], ...]
    inputs: tuple[str, ...]
    result: Tree
    outputs: tuple[str, ...]

    @property
    def is_flat(self) -> bool:
        """Whether every argument is an array, and so is the result, or a tuple of them."""
        return self.result.is_flat and all(tree.is_leaf for _, tree in self.arguments)
