"""Runs a function on traced arrays, and names the inputs and outputs of its graph."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from gradwire.errors import TraceError
from gradwire.frontends.numpy.arrays.array import TracedArray, value_of, wrap
from gradwire.frontends.numpy.arrays.complex_array import TracedComplex
from gradwire.frontends.numpy.functions.manipulation.joining import holds_traced
from gradwire.frontends.numpy.repeatability import check_same, check_unmoved, random_states
from gradwire.graphs.builder import GraphBuilder, GraphValue, active
from gradwire.graphs.constants import BoundModel
from gradwire.graphs.reference import Reference, code_of, name_of
from gradwire.graphs.spec import ArraySpec


@dataclass(frozen=True)
class Traced:
    """A traced function.

    Attributes:
        bound: the graph, with large constants by reference.
        structure: the kind of the returned value: "array", "tuple", "list" or "dict". Its items are the
            model's outputs, in order.
        keys: the keys of a returned dict, in order.
    """

    bound: BoundModel
    structure: str
    keys: tuple[str, ...] = ()

    @property
    def model(self) -> onnx.ModelProto:
        """The graph with all constants embedded."""
        return self.bound.embedded()

    def pack(self, outputs: Sequence[Any]) -> Any:
        """Arrange the model's outputs in the structure that the function returns."""
        if self.structure == "array":
            return outputs[0]
        if self.structure == "dict":
            return dict(zip(self.keys, outputs, strict=True))
        return list(outputs) if self.structure == "list" else tuple(outputs)


def trace(
    fn: Callable[..., Any], specs: Sequence[ArraySpec], names: Sequence[str] | None = None
) -> onnx.ModelProto:
    """Trace a NumPy function on arrays of given shapes and dtypes.

    Args:
        fn: takes one array for each spec; returns an array, a number, or a tuple, list or dict of them.
        specs: shapes and dtypes of the inputs.
        names: names of the inputs; by default the specs' own, then the function's parameters'.

    Returns:
        A model that passes ONNX's full check and holds all constants. Its output is named "y", those of a
        tuple or list "y0", "y1", ..., those of a dict by their keys.

    Raises:
        TraceError: the function does something that has no place in a graph.
    """
    return trace_function(fn, specs, names).model


def trace_function(
    fn: Callable[..., Any], specs: Sequence[ArraySpec], names: Sequence[str] | None = None
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
    labels = input_names(fn, specs, names)
    name, states = name_of(fn), random_states(fn)
    traced = _traced_once(fn, specs, labels)
    check_unmoved(name, states)
    check_same(name, traced.bound, _traced_once(fn, specs, labels).bound)
    return traced


def _traced_once(fn: Callable[..., Any], specs: Sequence[ArraySpec], labels: Sequence[str]) -> Traced:
    graph = GraphBuilder()
    inputs = [
        wrap(graph.input(label, spec.shape, spec.dtype)) for label, spec in zip(labels, specs, strict=True)
    ]
    token = active.set(graph)
    try:
        result = fn(*inputs)
        structure, items = _flattened(result)
        values = {key: _output(graph, key, item) for key, item in items.items()}
    except TraceError:
        raise
    except Exception as error:
        # NumPy wraps what is raised while it stores an element in an error of its own.
        if isinstance(error.__cause__, TraceError):
            raise error.__cause__ from None
        raise
    finally:
        active.reset(token)
    keys = tuple(values) if structure == "dict" else ()
    outputs = dict(zip(_output_names(structure, list(values), labels), values.values(), strict=True))
    return Traced(graph.model(outputs, _identifier(name_of(fn))), structure, keys)


def reference_of(fn: Callable[..., Any]) -> Reference:
    """Return a traced function as the reference of its graph: it is called with plain arrays."""

    def values(arrays: Sequence[Any]) -> list[Any]:
        return [np.asarray(item) for item in _flattened(fn(*arrays))[1].values()]

    return Reference(name_of(fn), code_of(fn), values)


def input_names(
    fn: Callable[..., Any], specs: Sequence[ArraySpec], names: Sequence[str] | None = None
) -> list[str]:
    """Name the inputs of a function: given names, then those of the specs, then the parameters'.

    Raises:
        TraceError: the function does not take as many arrays as there are specs.
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
    given = [spec.name for spec in specs]
    return [given[i] or (parameters[i] if i < len(parameters) else f"x{i}") for i in range(len(specs))]


def _flattened(result: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(result, Mapping):
        if not all(isinstance(key, str) for key in result):
            raise TraceError("a traced function returned a dict whose keys are not all text; use text keys")
        structure, items = "dict", dict(result)
    elif isinstance(result, list | tuple):
        structure = "list" if isinstance(result, list) else "tuple"
        items = {str(place): item for place, item in enumerate(result)}
    else:
        structure, items = "array", {"": result}
    if not items:
        raise TraceError("a traced function returned nothing to differentiate: an empty tuple, list or dict")
    return structure, items


def _output(graph: GraphBuilder, key: str, item: Any) -> GraphValue:
    where = f"output {key}" if key else "the output"
    if item is None:
        raise TraceError(f"{where} of the traced function is None; return an array (is a `return` missing?)")
    if isinstance(item, list | tuple | dict):
        if isinstance(item, dict) or not holds_traced(item):
            raise TraceError(
                f"{where} of the traced function is a nested {type(item).__name__}; return a flat one"
            )
        raise TraceError(
            f"{where} of the traced function is a {type(item).__name__} of arrays inside another; "
            "np.stack the arrays, or return a flat tuple"
        )
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


def _output_names(structure: str, keys: Sequence[str], taken: Sequence[str]) -> list[str]:
    if structure == "dict":
        return [key if key not in taken else f"out_{key}" for key in keys]
    if structure == "array":
        return ["y" if "y" not in taken else "out"]
    names = [f"y{key}" for key in keys]
    return names if set(names).isdisjoint(taken) else [f"out{key}" for key in keys]


def _identifier(text: str) -> str:
    return re.sub(r"\W", "_", text).strip("_") or "function"
