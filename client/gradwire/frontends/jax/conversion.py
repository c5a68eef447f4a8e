"""Converts a JAX function to an ONNX model, by way of its jaxpr.

The function is traced with `jax.make_jaxpr`; each equation becomes one or a few nodes by the rule of its
primitive (see `rules`). Nothing is run, loops stay loops, and float64 stays float64.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import tree_util
from jax.extend.core import Literal

from gradwire.errors import InvalidArgumentError, TraceError
from gradwire.frontends.jax import rules as _rules  # noqa: F401  (registers them)
from gradwire.frontends.jax.dtypes import graph_dtype, is_complex
from gradwire.frontends.jax.registry import (
    Call,
    JaxGraph,
    Pair,
    Rule,
    Type,
    Value,
    complex_rules,
    is_of_jax,
    origin,
    rules,
    type_only,
    user_line,
)
from gradwire.frontends.jax.rules.custom_derivatives import by_implementation
from gradwire.graphs.constants import BoundModel
from gradwire.graphs.nodes import GraphValue
from gradwire.graphs.reference import Reference, code_of
from gradwire.graphs.spec import ArraySpec
from gradwire.graphs.trees import Structure, flatten


@dataclass(frozen=True)
class Converted:
    """A converted function.

    Attributes:
        bound: its graph, large constants by reference; inputs and outputs are the leaves of arguments and
            result, in order.
        inputs: names of the inputs.
        structure: the tree of what the function returns.
    """

    bound: BoundModel
    inputs: tuple[str, ...]
    structure: Any

    @property
    def model(self) -> onnx.ModelProto:
        """The graph with everything in it."""
        return self.bound.embedded()


def convert(
    fn: Callable[..., Any], specs: Sequence[Any], names: Sequence[str] | None = None
) -> onnx.ModelProto:
    """Convert a JAX function to the graph that it computes on arrays of given shapes and dtypes.

    Args:
        fn: takes arrays, or trees (dicts, tuples, ...) of them; returns the same.
        specs: for each argument a `gw.spec`, a `jax.ShapeDtypeStruct`, an array, or a tree of those.
        names: names of the inputs (the leaves of the arguments); by default the function's parameters,
            with the path into a tree after a dot: "params.w".

    Returns:
        A model that passes ONNX's full check and holds all constants. Its output is named "y", those of a
        tuple "y0", "y1", ..., those of a dict by their keys.

    Raises:
        TraceError: the function uses something that has no place in a graph; the message names the
            primitive and the line.
    """
    return convert_function(fn, specs, names).model


def convert_function(
    fn: Callable[..., Any], specs: Sequence[Any], names: Sequence[str] | None = None
) -> Converted:
    """Convert like `convert`; also return names of inputs, the result's structure and large constants.

    Raises:
        TraceError: as for `convert`; or two inputs or two outputs have the same name.
    """
    leaves, tree = tree_util.tree_flatten_with_path(
        tuple(specs), is_leaf=lambda leaf: isinstance(leaf, ArraySpec)
    )
    kinds = [_kind(leaf) for _, leaf in leaves]
    labels = _input_names(fn, [path for path, _ in leaves], [leaf for _, leaf in leaves], names)
    arguments = tree_util.tree_unflatten(tree, kinds)
    with _precision(kinds):
        graph = JaxGraph()
        inputs = [_input(graph, label, kind) for label, kind in zip(labels, kinds, strict=True)]
        closed, result = _traced(fn, arguments)
        values = _inline(graph, closed, inputs)
    paths, structure = tree_util.tree_flatten_with_path(result)
    if not paths:
        raise TraceError(f"{_name(fn)} returned no array: is a `return` missing?")
    outputs = _real(dict(zip(_output_names([path for path, _ in paths], labels), values, strict=True)), fn)
    identifier = re.sub(r"\W", "_", _name(fn)).strip("_") or "function"
    bound = replace(
        graph.model(outputs, identifier),
        reference=_reference(fn, tree, kinds),
        structure=_structure(fn, specs, labels, result, list(outputs)),
    )
    return Converted(bound, tuple(labels), structure)


def _real(outputs: dict[str, Value], fn: Callable[..., Any]) -> dict[str, GraphValue]:
    found = {name: value for name, value in outputs.items() if isinstance(value, GraphValue)}
    if len(found) < len(outputs):
        name = next(iter(outputs.keys() - found.keys()))
        raise TraceError(
            f"output {name} of {_name(fn)} is complex, and graphs give real arrays: return "
            "z.real and z.imag, or jnp.abs(z)"
        )
    return found


def _reference(fn: Callable[..., Any], tree: Any, kinds: Sequence[Any]) -> Reference:
    """Take the function as one of the leaves of its arguments, with JAX's own derivatives."""

    def values(arrays: Sequence[Any]) -> list[Any]:
        with _precision(kinds):
            result = fn(*tree_util.tree_unflatten(tree, [jnp.asarray(array) for array in arrays]))
            return [np.asarray(leaf) for leaf in tree_util.tree_leaves(result)]

    def product(arrays: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
        places = [i for i, kind in enumerate(kinds) if jnp.issubdtype(kind.dtype, jnp.floating)]

        def floating(*given: Any) -> list[Any]:
            leaves = [jnp.asarray(array) for array in arrays]
            for place, one in zip(places, given, strict=True):
                leaves[place] = one
            result = tree_util.tree_leaves(fn(*tree_util.tree_unflatten(tree, leaves)))
            return [leaf for leaf in map(jnp.asarray, result) if jnp.issubdtype(leaf.dtype, jnp.floating)]

        with _precision(kinds):
            results, pull = jax.vjp(floating, *(jnp.asarray(arrays[place]) for place in places))
            given = [jnp.asarray(one, like.dtype) for one, like in zip(cotangents, results, strict=True)]
            return [np.asarray(one) for one in pull(given)]

    return Reference(_name(fn), code_of(fn), values, product)


def _structure(
    fn: Callable[..., Any], specs: Sequence[Any], labels: Sequence[str], result: Any, outputs: Sequence[str]
) -> Structure | None:
    """Say how arguments and result are nested; None where there are containers that only JAX knows."""

    def is_leaf(item: Any) -> bool:
        return isinstance(item, ArraySpec) or hasattr(item, "shape")

    try:
        trees = [flatten(spec, is_leaf, by_key=True)[0] for spec in specs]
        returned, _ = flatten(result, is_leaf, by_key=True)
    except (InvalidArgumentError, TypeError):
        return None
    if sum(map(len, trees)) != len(labels) or len(returned) != len(outputs):
        return None
    parameters = _parameters(fn)
    names = [_argument(parameters, index) for index in range(len(specs))]
    # An argument that is an array has the name of its input.
    taken = iter(labels)
    own = [[next(taken) for _ in range(len(tree))] for tree in trees]
    arguments = tuple(
        (leaves[0] if tree.is_leaf else name, tree)
        for name, tree, leaves in zip(names, trees, own, strict=True)
    )
    return Structure(arguments, tuple(labels), returned, tuple(outputs))


def _kind(leaf: Any) -> Any:
    """Return shape and dtype of an argument; a Python number has the dtype that NumPy gives it."""
    shape = leaf.shape if hasattr(leaf, "shape") else np.shape(leaf)
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    return type_only(shape, graph_dtype(dtype))


def _input(graph: JaxGraph, label: str, kind: Any) -> GraphValue:
    try:
        return graph.input(label, kind.shape, kind.dtype)
    except ValueError:
        raise TraceError(f"input name {label!r} is taken; pass names=, one for each input") from None


def _precision(kinds: Sequence[Any]) -> AbstractContextManager[Any]:
    """Enable 64-bit numbers where an argument has them, whatever JAX is set to."""
    wide = any(np.dtype(kind.dtype).kind in "fiu" and np.dtype(kind.dtype).itemsize == 8 for kind in kinds)
    return jax.enable_x64(True) if wide else nullcontext()


def _traced(fn: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Any]:
    try:
        closed, result = jax.make_jaxpr(fn, return_shape=True)(*arguments)
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
        jax.errors.NonConcreteBooleanIndexError,
    ) as error:
        summary = str(error).strip().splitlines()[0]
        raise TraceError(
            f"{_name(fn)} needs the value of an array while it is traced ({summary}); "
            "use jnp.where or jax.lax.cond in place of a Python branch, and masks in place of boolean indices"
        ) from error
    if any(isinstance(value, jax.core.Tracer) for value in closed.consts):
        raise TraceError(
            f"{_name(fn)} uses an array of a transformation around it; pass that array as an argument"
        )
    return closed, result


def _inline(
    graph: JaxGraph,
    closed: Any,
    inputs: Sequence[Value],
    *,
    outer: str = "",
    order: int | None = 0,
) -> list[Value]:
    """Convert a jaxpr's equations into nodes of the graph's present body.

    Args:
        graph: the graph under construction.
        closed: the jaxpr, with or without its constants.
        inputs: the values of its inputs.
        outer: the user's line that calls it: the only one known for a function of JAX itself, whose jaxpr
            may come from a cache.
        order: how many derivative rules it is in; None where it is not differentiated.

    Returns:
        The values of its outputs.

    Raises:
        TraceError: an equation has no place in a graph.
    """
    if not is_of_jax(origin(closed)[1]):
        outer = ""
    jaxpr, consts = (closed.jaxpr, closed.consts) if hasattr(closed, "consts") else (closed, ())
    values: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
    constants = dict(zip(jaxpr.constvars, consts, strict=True))

    def read(atom: Any) -> Value:
        if isinstance(atom, Literal):
            return _constant(graph, atom.val, atom.aval)
        if atom not in values:  # a constant becomes part of the graph where it is first used
            values[atom] = _constant(graph, constants[atom], atom.aval)
        return values[atom]

    for equation in jaxpr.eqns:
        outputs = _apply(graph, equation, read, outer or user_line(equation.source_info), order)
        values.update(zip(equation.outvars, outputs, strict=True))
        if equation.primitive.name == "stop_gradient" or not any(
            graph.moves(read(a)) for a in equation.invars
        ):
            graph.stop(outputs)
        if any(graph.depends_on_tangents(read(atom)) for atom in equation.invars):
            graph.push(outputs)
    return [read(atom) for atom in jaxpr.outvars]


def _constant(graph: JaxGraph, array: Any, aval: Any) -> Value:
    if is_complex(aval.dtype):
        pair = np.asarray(array, aval.dtype)
        return Pair(graph.constant(pair.real.copy()), graph.constant(pair.imag.copy()))
    return graph.constant(np.asarray(array, graph_dtype(aval.dtype)))


def _apply(
    graph: JaxGraph,
    equation: Any,
    read: Callable[[Any], Value],
    source: str,
    order: int | None,
) -> Sequence[Value]:
    """Return the outputs of one equation, by the rule of its primitive."""
    rule = _rule_of(equation)
    inline = partial(_inline, graph, outer=source, order=order)
    call = Call(graph, equation.primitive, equation.params, (), source, inline, order)
    if rule is None:
        raise call.fail(
            "there is no operator for it; write the function with others, or export it with another tool "
            "and pass the ONNX model"
        )
    try:
        call = replace(call, results=tuple(_type(variable.aval) for variable in equation.outvars))
    except TraceError as error:
        # What refuses by name, and what only calls, names the primitive at fault better.
        if not rule.__module__.endswith((".refused", ".calls")):
            raise call.fail(str(error)) from None
    try:
        inputs = [read(atom) for atom in equation.invars]
    except TraceError as error:
        if not _refuses(rule):
            raise call.fail(str(error)) from None
        inputs = []
    outputs = rule(call, *inputs)
    return (outputs,) if isinstance(outputs, GraphValue | Pair) else outputs


def _rule_of(equation: Any) -> Rule | None:
    """Return the rule of an equation: for complex arrays, if one of its arrays is."""
    name = equation.primitive.name
    if not any(is_complex(getattr(a.aval, "dtype", None)) for a in (*equation.invars, *equation.outvars)):
        return rules.get(name) or by_implementation(equation.primitive)
    return complex_rules.get(name) or (rules.get(name) if _refuses(rules.get(name)) else None)


def _refuses(rule: Rule | None) -> bool:
    return rule is not None and rule.__module__.endswith(".refused")


def _type(aval: Any) -> Type:
    dtype = np.dtype(aval.dtype) if is_complex(aval.dtype) else graph_dtype(aval.dtype)
    return Type(tuple(aval.shape), dtype)


def _name(fn: Callable[..., Any]) -> str:
    return str(getattr(fn, "__name__", type(fn).__name__))


def _input_names(
    fn: Callable[..., Any], paths: Sequence[Any], leaves: Sequence[Any], names: Sequence[str] | None
) -> list[str]:
    if names is not None:
        labels = list(names)
        if len(labels) != len(paths):
            raise TraceError(f"{len(labels)} names for {len(paths)} inputs; give one for each")
    else:
        parameters = _parameters(fn)
        labels = []
        for path, leaf in zip(paths, leaves, strict=True):
            own = leaf.name if isinstance(leaf, ArraySpec) else None
            labels.append(own or _joined(_argument(parameters, path[0].idx), path[1:]))
    return labels


def _parameters(fn: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind in positional]


def _argument(parameters: Sequence[str], index: int) -> str:
    return parameters[index] if index < len(parameters) else f"x{index}"


def _joined(first: str, path: Sequence[Any]) -> str:
    parts = [tree_util.keystr((key,), simple=True) for key in path]
    return ".".join(part for part in [first, *parts] if part)


def _output_names(paths: Sequence[Any], taken: Sequence[str]) -> list[str]:
    for prefix in ("y", "out", "result"):
        labels = [_output_name(path, prefix, taken) for path in paths]
        if len(set(labels)) == len(labels) and set(labels).isdisjoint(taken):
            return labels
    raise TraceError("two outputs have the same name, or that of an input; return a dict with other keys")


def _output_name(path: Sequence[Any], prefix: str, taken: Sequence[str]) -> str:
    """Return the key of a dict, else the prefix and the place in a tuple; the path into it follows dots."""
    if not path:
        return prefix
    head = tree_util.keystr((path[0],), simple=True)
    if isinstance(path[0], tree_util.SequenceKey):
        head = prefix + head
    elif head in taken:
        head = f"{prefix}_{head}"
    return _joined(head, path[1:])
