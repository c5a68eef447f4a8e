"""Runs a function on traced arrays, and names the inputs and outputs of its graph."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from gradwire.errors import InvalidArgumentError, TraceError
from gradwire.frontends.numpy.arrays.array import TracedArray, value_of, wrap
from gradwire.frontends.numpy.arrays.complex_array import TracedComplex
from gradwire.frontends.numpy.repeatability import check_same, check_unmoved, random_states
from gradwire.graphs.builder import GraphBuilder, active
from gradwire.graphs.constants import BoundModel
from gradwire.graphs.nodes import GraphValue
from gradwire.graphs.reference import Reference, code_of, name_of
from gradwire.graphs.sizes import refused
from gradwire.graphs.spec import ArraySpec, named_extents
from gradwire.graphs.trees import Structure, Tree, flatten, unflatten


@dataclass(frozen=True)
class Traced:
    """A traced function.

    Attributes:
        bound: the graph, with large constants by reference.
        structure: how arguments and result are nested; the leaves are the model's inputs and outputs.
    """

    bound: BoundModel
    structure: Structure

    @property
    def model(self) -> onnx.ModelProto:
        """The graph with all constants embedded."""
        return self.bound.embedded()

    def pack(self, outputs: Sequence[Any]) -> Any:
        """Arrange the model's outputs in the structure that the function returns."""
        return unflatten(self.structure.result, outputs)


def trace(
    fn: Callable[..., Any], specs: Sequence[Any], names: Sequence[str] | None = None
) -> onnx.ModelProto:
    """Trace a NumPy function on arrays of given shapes and dtypes.

    Args:
        fn: takes one argument for each spec; returns an array, a number, or a tuple, list, dict, named tuple
            or dataclass of them, nested to any depth.
        specs: shapes and dtypes of the arguments; nested as they are.
        names: names of the inputs, one for each array; by default the specs' own, then the function's
            parameters', with the path to the array after a dot: "params.w".

    Returns:
        A model that passes ONNX's full check and holds all constants. Its output is named "y", those of a
        tuple or list "y0", "y1", ..., those of a dict by their keys.

    Raises:
        TraceError: the function does something that has no place in a graph.
    """
    return trace_function(fn, specs, names).model


def trace_function(
    fn: Callable[..., Any], specs: Sequence[Any], names: Sequence[str] | None = None
) -> Traced:
    """Trace a function like `trace`, and keep the structure of its result and its large constants separate.

    The function is called twice, to check that both calls give the same graph.

    Args:
        fn: takes one array for each spec.
        specs: shapes and dtypes of the inputs.
        names: names of the inputs, as in `trace`.

    Raises:
        TraceError: the function cannot be traced, or gives two different graphs.
    """
    arguments = input_names(fn, specs)
    flattened = [flatten(spec) for spec in specs]
    trees = [tree for tree, _ in flattened]
    leaves = [leaf for _, own in flattened for leaf in own]
    labels = _labels(arguments, trees, leaves, names)
    leaves = [named_extents(leaf, label) for leaf, label in zip(leaves, labels, strict=True)]
    nested = _Arguments(tuple(zip(arguments, trees, strict=True)), tuple(labels), tuple(leaves))
    name, states = name_of(fn), random_states(fn)
    traced = _traced_once(fn, nested)
    check_unmoved(name, states)
    check_same(name, traced.bound, _traced_once(fn, nested).bound)
    return replace(traced, bound=replace(traced.bound, reference=_reference(fn, trees)))


@dataclass(frozen=True)
class _Arguments:
    """The trees of a function's arguments by their names, and the names and the types of all leaves."""

    trees: tuple[tuple[str, Tree], ...]
    labels: tuple[str, ...]
    leaves: tuple[ArraySpec, ...]


def _labels(
    arguments: Sequence[str], trees: Sequence[Tree], leaves: Sequence[ArraySpec], names: Sequence[str] | None
) -> list[str]:
    """Name the leaves of arguments: given names, then those of the specs, then their paths."""
    if names is not None:
        if len(names) != len(leaves):
            raise ValueError(f"{len(names)} names for {len(leaves)} inputs; give one for each")
        return list(names)
    paths = [path for name, tree in zip(arguments, trees, strict=True) for path in tree.paths(name)]
    return [leaf.name or path for leaf, path in zip(leaves, paths, strict=True)]


def _traced_once(fn: Callable[..., Any], arguments: _Arguments) -> Traced:
    graph = GraphBuilder()
    inputs = iter(
        wrap(graph.input(label, spec.shape, spec.dtype))
        for label, spec in zip(arguments.labels, arguments.leaves, strict=True)
    )
    token = active.set(graph)
    refused.set(None)
    try:
        result = fn(*[unflatten(tree, inputs) for _, tree in arguments.trees])
        tree, items = _flattened(result)
        values = [_output(graph, key, item) for key, item in zip(tree.paths(), items, strict=True)]
    except TraceError:
        raise
    except Exception as error:
        # NumPy wraps what is raised while it stores an element in an error of its own.
        if isinstance(error.__cause__, TraceError):
            raise error.__cause__ from None
        # NumPy replaces what is raised while it reads a shape; "expected a sequence of integers" is its own.
        size = refused.get()
        if size is not None and isinstance(error, TypeError) and "sequence of integers" in str(error):
            raise size from None
        raise
    finally:
        active.reset(token)
    outputs = tuple(_output_names(tree, arguments.labels))
    structure = Structure(arguments.trees, arguments.labels, tree, outputs)
    bound = graph.model(dict(zip(outputs, values, strict=True)), _identifier(name_of(fn)))
    return Traced(replace(bound, structure=structure), structure)


def _reference(fn: Callable[..., Any], trees: Sequence[Tree]) -> Reference:
    """Take the function as the reference of its graph: it is called with plain arrays."""

    def values(arrays: Sequence[Any]) -> list[Any]:
        leaves = iter(arrays)
        return [np.asarray(item) for item in _flattened(fn(*[unflatten(tree, leaves) for tree in trees]))[1]]

    return Reference(name_of(fn), code_of(fn), values)


def input_names(
    fn: Callable[..., Any], specs: Sequence[Any], names: Sequence[str] | None = None
) -> list[str]:
    """Name the arguments of a function: given names, then those of the specs, then the parameters'.

    Raises:
        TraceError: the function does not take as many arguments as there are specs.
        ValueError: there are more or fewer names than specs, or two are the same.
    """
    if names is not None:
        if len(names) != len(specs):
            raise ValueError(f"{len(names)} names for {len(specs)} inputs; give one for each")
        return list(names)
    parameters: list[str] = []
    try:
        signature = inspect.signature(fn)
        bound = signature.bind(*specs)
    except ValueError:  # some built-in functions have no signature
        pass
    except TypeError as error:
        raise TraceError(
            f"{name_of(fn)} cannot take {len(specs)} arrays: {error}; give one spec for each parameter"
        ) from None
    else:
        variadic = inspect.Parameter.VAR_POSITIONAL
        parameters = [name for name in bound.arguments if signature.parameters[name].kind is not variadic]
    given = [spec.name if isinstance(spec, ArraySpec) else None for spec in specs]
    return [given[i] or (parameters[i] if i < len(parameters) else f"x{i}") for i in range(len(specs))]


def _flattened(result: Any) -> tuple[Tree, list[Any]]:
    """Return the tree of a result and its leaves."""
    try:
        tree, items = flatten(result)
    except InvalidArgumentError as error:
        raise TraceError(f"a traced function returned a dict with other keys: {error}") from None
    if not items:
        raise TraceError("a traced function returned nothing to differentiate: an empty tuple, list or dict")
    return tree, items


def _output(graph: GraphBuilder, key: str, item: Any) -> GraphValue:
    where = f"output {key}" if key else "the output"
    if item is None:
        raise TraceError(f"{where} of the traced function is None; return an array (is a `return` missing?)")
    if isinstance(item, TracedComplex | complex) or (hasattr(item, "dtype") and item.dtype.kind == "c"):
        raise TraceError(
            f"{where} of the traced function is complex; derivatives are of real functions: "
            "return np.abs(z), or np.real(z) and np.imag(z) as two outputs"
        )
    if not isinstance(item, TracedArray | np.ndarray | np.generic | bool | int | float):
        raise TraceError(
            f"{where} of the traced function is a {type(item).__name__}; return arrays or numbers"
        )
    value = value_of(graph, item)
    graph.check(value)
    return value


def _output_names(tree: Tree, taken: Sequence[str]) -> list[str]:
    """Name the outputs: by keys and fields, and by a letter where positions would begin a name."""
    if tree.is_leaf:
        return ["y" if "y" not in taken else "out"]
    if tree.kind not in (tuple, list):
        return [path if path not in taken else f"out_{path}" for path in tree.paths()]
    names = [f"y{path}" for path in tree.paths()]
    return names if set(names).isdisjoint(taken) else [f"out{path}" for path in tree.paths()]


def _identifier(text: str) -> str:
    return re.sub(r"\W", "_", text).strip("_") or "function"
