"""Maps a function over a batch axis, by the operator Vmap of the extension domain."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np

from gradwire.errors import TraceError
from gradwire.frontends.numpy.arrays.array import wrap
from gradwire.frontends.numpy.control_flow.structure import (
    Kind,
    Leaf,
    Structure,
    as_value,
    emptied,
    flatten,
    kind_of,
    own,
    plain,
    where,
)
from gradwire.graphs.builder import SCI, GraphBuilder, active
from gradwire.graphs.nodes import GraphValue


def vmap(fn: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0) -> Callable[..., Any]:
    """Make a function that applies `fn` to all slices of its arguments at once, as `jax.vmap` does.

    Values that `fn` captures are the same for every slice. Derivatives are those of `fn`.

    Args:
        fn: takes and returns arrays, or nested tuples, lists and dicts of them.
        in_axes: the axis along which arguments are sliced: one integer for all of them, or a tuple with
            an entry for each argument: an integer, None for one that is given whole to every slice, or the
            argument's structure with such entries for its parts.
        out_axes: where slices of results are stacked: an integer, or the structure of the result (or the top
            of it) with integers in it.

    Returns:
        A function with the same number of positional arguments.

    Raises:
        ValueError: (when called) the axes do not fit the arguments, or have different extents.
        TraceError: (when called) `fn` takes or returns something other than arrays.
    """

    @wraps(fn)
    def batched(*arguments: Any) -> Any:
        leaves, given = flatten("gw.vmap", "the arguments", arguments)
        slicing = _slicing(leaves, given, in_axes)
        graph = active.get()
        if graph is not None:
            return _map_traced(graph, fn, slicing, out_axes)
        return _map_here(fn, slicing, out_axes) if slicing.extent else emptied(lambda: batched(*arguments))

    return batched


@dataclass(frozen=True)
class _Slicing:
    """Arguments, and the axis along which each leaf is sliced (None if it is not)."""

    leaves: Sequence[Leaf]
    structure: Structure
    axes: Sequence[int | None]
    extent: int

    def arguments(self, slices: Sequence[Leaf]) -> Any:
        """Build the arguments of one call from the slices of the leaves that are sliced."""
        parts = iter(slices)
        return self.structure.pack(
            [
                own(leaf) if axis is None else next(parts)
                for leaf, axis in zip(self.leaves, self.axes, strict=True)
            ]
        )


def _slicing(leaves: Sequence[Leaf], given: Structure, in_axes: Any) -> _Slicing:
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    names = given.paths("argument")
    axes: list[int | None] = []
    extents: dict[str, int] = {}
    for path, leaf, axis in zip(names, leaves, _spread("in_axes", in_axes, given), strict=True):
        if axis is None:
            axes.append(None)
            continue
        shape = kind_of(leaf).shape
        if not -len(shape) <= axis < len(shape):
            raise ValueError(
                f"gw.vmap: in_axes slices {path} along axis {axis}, but its shape is {shape}; give None for "
                "what is not sliced"
            )
        axes.append(axis % len(shape))
        extents[path] = shape[axis]
    if not extents:
        raise ValueError("gw.vmap: in_axes slices no argument; give at least one an axis")
    if len(set(extents.values())) > 1:
        listed = ", ".join(f"{extent} of {path}" for path, extent in extents.items())
        raise ValueError(f"gw.vmap: the sliced axes have different extents: {listed}")
    return _Slicing(leaves, given, axes, next(iter(extents.values())))


def _spread(name: str, axes: Any, structure: Structure) -> list[int | None]:
    """Assign an axis to each leaf, from axes in the same structure or the top levels of it."""
    if axes is None:
        return [None] * structure.size
    if not isinstance(axes, tuple | list | dict):
        try:
            return [operator.index(axes)] * structure.size
        except TypeError:
            raise TypeError(f"gw.vmap: {name} has a {type(axes).__name__}; give integers") from None
    parts = axes if isinstance(axes, dict) else dict(enumerate(axes))
    kinds = ("dict",) if isinstance(axes, dict) else ("tuple", "list")
    if structure.kind not in kinds or set(parts) != set(structure.keys):
        raise ValueError(f"gw.vmap: {name} has {axes} where there is {structure}; give each part an axis")
    pairs = zip(structure.keys, structure.parts, strict=True)
    return [axis for key, part in pairs for axis in _spread(name, parts[key], part)]


def _stacked_axes(structure: Structure, kinds: Sequence[Kind], out_axes: Any) -> list[int]:
    """Return the non-negative axis on which the slices of each result are stacked."""
    found = []
    paths = structure.paths("the result")
    for path, kind, axis in zip(paths, kinds, _spread("out_axes", out_axes, structure), strict=True):
        rank = len(kind.shape) + 1
        if axis is None:
            raise ValueError(
                f"gw.vmap: out_axes is None for {path}; every result is stacked, so give an axis"
            )
        if not -rank <= axis < rank:
            raise ValueError(f"gw.vmap: out_axes puts {path} on axis {axis} of an array of {rank} axes")
        found.append(axis % rank)
    return found


def _map_here(fn: Callable[..., Any], slicing: _Slicing, out_axes: Any) -> Any:
    mapped = [
        np.moveaxis(np.asarray(leaf), axis, 0)
        for leaf, axis in zip(slicing.leaves, slicing.axes, strict=True)
        if axis is not None
    ]
    results: list[list[Any]] = []
    first: Structure | None = None
    for place in range(slicing.extent):
        returned = fn(*slicing.arguments([plain(array[place]) for array in mapped]))
        leaves, structure = flatten("gw.vmap", "the result", returned)
        first = first or structure
        if structure != first:
            raise TraceError(
                f"gw.vmap: fn returns {first} for one slice and {structure} for another{where()}; return the "
                "same structure for all"
            )
        results.append([plain(leaf) for leaf in leaves])
    assert first is not None
    axes = _stacked_axes(first, [kind_of(leaf) for leaf in results[0]], out_axes)
    columns = list(zip(*results, strict=True))
    return first.pack([np.stack(column, axis) for column, axis in zip(columns, axes, strict=True)])


def _map_traced(graph: GraphBuilder, fn: Callable[..., Any], slicing: _Slicing, out_axes: Any) -> Any:
    mapped = [
        (as_value(graph, leaf), axis)
        for leaf, axis in zip(slicing.leaves, slicing.axes, strict=True)
        if axis is not None
    ]
    with graph.nested() as body:
        slices = [graph.argument(_without(value.shape, axis), value.dtype) for value, axis in mapped]
        returned = fn(*slicing.arguments([wrap(value) for value in slices]))
        leaves, structure = flatten("gw.vmap", "the result", returned)
        outputs: list[GraphValue] = [as_value(graph, leaf) for leaf in leaves]
        graph.returns(outputs)
    kinds = [Kind(value.shape, value.dtype) for value in outputs]
    axes = _stacked_axes(structure, kinds, out_axes)
    results = [
        ((*kind.shape[:axis], slicing.extent, *kind.shape[axis:]), kind.dtype)
        for kind, axis in zip(kinds, axes, strict=True)
    ]
    if not results:
        return structure.pack([])
    values = graph.emit(
        "Vmap",
        [value for value, _ in mapped],
        results,
        SCI,
        body=body,
        in_axes=[axis for _, axis in mapped],
        out_axes=axes,
    )
    return structure.pack([wrap(value) for value in values])


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]
