"""Nested arguments and results: what callers pass becomes arrays by name, and arrays become what they get."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradwire._face.arguments import given_values
from gradwire.errors import InvalidArgumentError
from gradwire.graphs.signature import Selection, Value, is_single, normalized
from gradwire.graphs.trees import Structure, Tree, leaves_like, unflatten


@dataclass(frozen=True)
class Part:
    """An argument, or an entry of a result.

    Attributes:
        name: its name.
        tree: how it is nested.
        leaves: names of its leaves in the graph.
    """

    name: str
    tree: Tree
    leaves: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """Inputs or outputs that a `wrt=` or `of=` argument selects.

    Attributes:
        selection: them, for the signature: as it was given, or names of leaves.
        arrange: nests what there is for each of them.
        flatten: the reverse, for tangents and cotangents; None where they are given flat.
    """

    selection: Selection
    arrange: Callable[[Sequence[Any]], Any]
    flatten: Callable[[str, Any], tuple[Any, ...]] | None = None


def unwrapped(values: Sequence[Any], selection: Selection) -> Any:
    """Return a tuple of values, or the value itself if it is the only one or was selected by itself."""
    several = selection is not None and not is_single(selection)
    return tuple(values) if several or len(values) != 1 else values[0]


def given_leaves(
    structure: Structure | None, inputs: Sequence[Value], args: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what callers pass by the inputs' names, not converted.

    Args:
        structure: how the function's arguments are nested; None where they are arrays.
        inputs: of the signature: the leaves of the arguments, then those that transforms have added.
        args: arguments in order, then what transforms take; or one mapping by the inputs' names.
        named: arguments by name.

    Raises:
        InvalidArgumentError: there are too many, one is given twice, or it is nested otherwise.
    """
    if structure is None or all(tree.is_leaf for _, tree in structure.arguments):
        return given_values(inputs, args, named)
    if len(args) == 1 and isinstance(args[0], Mapping) and set(args[0]) <= {one.name for one in inputs}:
        return given_values(inputs, args, named)
    parts = arguments_of(structure)
    further = inputs[len(structure.inputs) :]
    given = named_leaves(parts, args[: len(parts)] if further else args, named)
    return given | {value.name: arg for value, arg in zip(further, args[len(parts) :], strict=False)}


def chosen_inputs(structure: Structure | None, inputs: Sequence[Value], wrt: Selection) -> Choice:
    """Choose inputs by `wrt=`, nested as the arguments are."""
    if structure is None or all(tree.is_leaf for _, tree in structure.arguments):
        return Choice(wrt, lambda values: unwrapped(values, wrt))
    return choose(arguments_of(structure), None, inputs, wrt, "wrt")


def chosen_outputs(structure: Structure | None, outputs: Sequence[Value], of: Selection) -> Choice:
    """Choose outputs by `of=`, nested as the result is."""
    if structure is None or structure.result.is_flat:
        return Choice(of, lambda values: unwrapped(values, of))
    return choose(result_of(structure), structure.result, outputs, of, "of")


def arguments_of(structure: Structure) -> list[Part]:
    """Return the arguments of a function."""
    parts, start = [], 0
    for name, tree in structure.arguments:
        parts.append(Part(name, tree, structure.inputs[start : start + len(tree)]))
        start += len(tree)
    return parts


def result_of(structure: Structure) -> list[Part]:
    """Return the entries of a function's result; the result itself if it is an array."""
    tree = structure.result
    if tree.is_leaf:
        return [Part(structure.outputs[0], tree, structure.outputs)]
    parts, start = [], 0
    for key, child in zip(tree.keys, tree.children, strict=True):
        parts.append(Part(key, child, structure.outputs[start : start + len(child)]))
        start += len(child)
    return parts


def choose(
    parts: Sequence[Part], whole: Tree | None, values: Sequence[Value], selection: Selection, word: str
) -> Choice:
    """Chooses among nested inputs or outputs.

    Args:
        parts: the arguments, or the entries of the result.
        whole: how the parts are nested together; None for arguments, of which a single one stands alone.
        values: the inputs or outputs of the signature.
        selection: parts, or leaves, by name or position; None for all.
        word: the argument's name, for messages.

    Raises:
        InvalidArgumentError: there is no such part.
    """
    selection = normalized(selection, word)
    floating = {value.name for value in values if value.floating}
    if selection is None:
        chosen, tree = list(parts), whole
        if tree is None:
            tree = chosen[0].tree if len(chosen) == 1 else _together(chosen)
    elif isinstance(selection, str | int):
        chosen = [_found(parts, selection, word)]
        tree = chosen[0].tree
    else:
        chosen = [_found(parts, item, word) for item in selection]
        tree = _together(chosen)
    leaves = [leaf for part in chosen for leaf in part.leaves]
    # Whole numbers have no derivative: None stands in their place.
    names = [leaf for leaf in leaves if leaf in floating]

    def arrange(arrays: Sequence[Any]) -> Any:
        by_name = dict(zip(names, arrays, strict=True))
        return unflatten(tree, [by_name.get(leaf) for leaf in leaves])

    def flatten(name: str, given: Any) -> tuple[Any, ...]:
        by_leaf = dict(zip(leaves, leaves_like(tree, given, name), strict=True))
        return tuple(by_leaf[leaf] for leaf in names)

    return Choice(names, arrange, flatten)


def _together(parts: Sequence[Part]) -> Tree:
    return Tree(tuple, tuple(map(str, range(len(parts)))), tuple(part.tree for part in parts))


def _found(parts: Sequence[Part], item: str | int, word: str) -> Part:
    if isinstance(item, int):
        if -len(parts) <= item < len(parts):
            return parts[item]
    else:
        for part in parts:
            if part.name == item:
                return part
            for path, leaf in zip(part.tree.paths(part.name), part.leaves, strict=True):
                if item in (path, leaf):
                    return Part(item, Tree(), (leaf,))
    names = ", ".join(part.name for part in parts)
    raise InvalidArgumentError(f"{word} names {item!r}; there are: {names}")


def named_leaves(parts: Sequence[Part], args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of given arguments by name.

    Args:
        parts: the function's arguments.
        args: values of the first of them, in order.
        named: values of others by name; names of leaves are kept as they are.

    Raises:
        InvalidArgumentError: there are too many values, one is given twice, or it is nested otherwise.
    """
    if len(args) > len(parts):
        names = ", ".join(f"{part.name}: {part.tree}" for part in parts)
        raise InvalidArgumentError(f"{len(args)} arguments given, but the function has {len(parts)}: {names}")
    given = {part.name: arg for part, arg in zip(parts, args, strict=False)}
    by_name = {part.name: part for part in parts}
    for name, item in named.items():
        if name in given:
            raise InvalidArgumentError(f"input {name!r} is given twice, by position and by name")
        given[name] = item
    leaves: dict[str, Any] = {}
    for name, item in given.items():
        part = by_name.get(name)
        if part is None:
            leaves[name] = item
        else:
            leaves.update(zip(part.leaves, leaves_like(part.tree, item, name), strict=True))
    return leaves
