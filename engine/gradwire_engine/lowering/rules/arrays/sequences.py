"""Sequences and optionals: Python lists and `None` while the graph is traced.

A kernel has only arrays, so lengths and positions must be static.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.arrays import axis_of, namespace_for
from gradwire_engine.lowering.registry import Node, Value, rule
from gradwire_engine.lowering.rules.arrays.shapes import split_along, split_sizes


@rule("SequenceConstruct")
def sequence_construct(node: Node, *items: Value) -> Value:
    """SequenceConstruct: a list of the inputs."""
    return list(items)


@rule("SequenceEmpty")
def sequence_empty(node: Node) -> Value:
    """SequenceEmpty: an empty list, whatever its declared dtype."""
    return []


@rule("SequenceLength")
def sequence_length(node: Node, sequence: Value) -> Value:
    """SequenceLength: always static."""
    return np.array(len(sequence), np.int64)


def _position(node: Node, position: Value, length: int, last: int) -> int:
    """Return a static position counted from the front; raise `InvalidGraph` if it is outside."""
    where = int(np.ravel(node.static(position, "the position"))[0])
    if not -length <= where <= last:
        raise node.fail(f"position {where} is outside a sequence of length {length}")
    return where + length if where < 0 else where


@rule("SequenceAt")
def sequence_at(node: Node, sequence: Value, position: Value) -> Value:
    """SequenceAt: the item at a static position."""
    return sequence[_position(node, position, len(sequence), len(sequence) - 1)]


@rule("SequenceInsert")
def sequence_insert(node: Node, sequence: Value, item: Value, position: Value = None) -> Value:
    """SequenceInsert: inserts before a static position, by default at the end."""
    length = len(sequence)
    where = length if position is None else _position(node, position, length, length)
    return [*sequence[:where], item, *sequence[where:]]


@rule("SequenceErase")
def sequence_erase(node: Node, sequence: Value, position: Value = None) -> Value:
    """SequenceErase: removes the item at a static position, by default the last."""
    last = len(sequence) - 1
    where = last if position is None else _position(node, position, len(sequence), last)
    if last < 0:
        raise node.fail("the sequence is empty")
    return [*sequence[:where], *sequence[where + 1 :]]


@rule("SplitToSequence")
def split_to_sequence(node: Node, data: Value, split: Value = None) -> Value:
    """SplitToSequence: by static sizes, or by one size with a smaller last part."""
    axis = axis_of(node, node.attr("axis", 0), data.ndim)
    total = data.shape[axis]
    if split is None:
        parts = split_along(data, (1,) * total, axis)
        if node.attr("keepdims", 1):
            return parts
        shape = (*data.shape[:axis], *data.shape[axis + 1 :])
        return [part.reshape(shape) for part in parts]
    if split.ndim:
        return split_along(data, split_sizes(node, total, split, 0), axis)
    each = int(node.static(split, "split"))
    if each <= 0:
        raise node.fail(f"split is {each}; a size must be positive")
    return split_along(data, tuple(min(each, total - start) for start in range(0, total, each)), axis)


@rule("ConcatFromSequence")
def concat_from_sequence(node: Node, sequence: Value) -> Value:
    """ConcatFromSequence: joins the items along an axis, or stacks them on a new one."""
    if not sequence:
        raise node.fail("the sequence is empty")
    new_axis = node.attr("new_axis", 0)
    axis = axis_of(node, node.attributes["axis"], sequence[0].ndim + bool(new_axis))
    if new_axis:
        sequence = [item.reshape(*item.shape[:axis], 1, *item.shape[axis:]) for item in sequence]
    if namespace_for((sum(item.size for item in sequence),), *sequence) is np:
        return np.concatenate(sequence, axis)
    return lax.concatenate([jnp.asarray(item) for item in sequence], axis)


@rule("SequenceMap")
def sequence_map(node: Node, sequence: Value, *others: Value) -> tuple[Value, ...]:
    """SequenceMap: evaluates its body for each item; inputs that are arrays are given whole."""
    body = node.subgraph("body")
    mapped: list[list[Value]] = [[] for _ in body.output]
    for index, item in enumerate(sequence):
        rest = (other[index] if isinstance(other, list) else other for other in others)
        for output, value in zip(mapped, node.run(body, item, *rest), strict=True):
            output.append(value)
    return tuple(mapped)


@rule("Optional")
def optional(node: Node, item: Value = None) -> Value:
    """Optional: the item itself, or None."""
    return item


@rule("OptionalHasElement")
def optional_has_element(node: Node, item: Value = None) -> Value:
    """OptionalHasElement: always static."""
    return np.array(item is not None)


@rule("OptionalGetElement")
def optional_get_element(node: Node, item: Value) -> Value:
    """OptionalGetElement: an empty optional is an error."""
    if item is None:
        raise node.fail("the optional is empty; test it with OptionalHasElement first")
    return item
