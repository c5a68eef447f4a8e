"""Lowers ATen operators to a graph: a registry of rules, and an interpreter of recorded functions.

Rules compute with the traced arrays of `gradwire.frontends.numpy` as with NumPy arrays, views and in-place
changes included. Integer constants are NumPy arrays, so that arithmetic on indices is done while lowering.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradwire.errors import TraceError
from gradwire.frontends.numpy.arrays.array import TracedArray, value_of, wrap
from gradwire.frontends.registering import registrar
from gradwire.frontends.torch.recording.program import Node, Program, Var
from gradwire.graphs.builder import SCI, GraphBuilder
from gradwire.graphs.nodes import DType, GraphValue, Shape

Rule = Callable[..., Any]
Array = Any
"""A tensor while it is lowered: a `TracedArray`, or a NumPy array for a constant of integers or bools."""

_rules: dict[str, Rule] = {}
_refused: dict[str, str] = {}
_DTYPES: dict[torch.dtype, DType] = {
    torch.float64: np.dtype(np.float64),
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.int64: np.dtype(np.int64),
    torch.int32: np.dtype(np.int32),
    torch.int16: np.dtype(np.int16),
    torch.int8: np.dtype(np.int8),
    torch.uint8: np.dtype(np.uint8),
    torch.bool: np.dtype(np.bool_),
}
_COMPLEX: dict[torch.dtype, DType] = {
    torch.complex128: np.dtype(np.complex128),
    torch.complex64: np.dtype(np.complex64),
}


rule = registrar(_rules, "operator")
"""Registers a function `(call, *args, **kwargs) -> result` for ATen operators, in all their overloads."""


def refused(instead: str, *ops: str) -> None:
    """Register operators that have no place in a graph, with what to write instead."""
    _refused.update(dict.fromkeys(ops, instead))


def rules() -> Mapping[str, Rule]:
    """Return every rule, by the operator's name without its namespace."""
    return _rules


def numpy_dtype(dtype: torch.dtype) -> DType:
    """Return the NumPy dtype of a PyTorch dtype.

    Raises:
        TraceError: graphs do not support it.
    """
    found = _DTYPES.get(dtype)
    if found is None:
        raise TraceError(
            f"tensors of {dtype} cannot be sent; use float64, float32, float16, integers or bool "
            "(split complex numbers into their real and imaginary parts)"
        )
    return found


def inner_dtype(dtype: torch.dtype) -> DType:
    """Return the NumPy dtype of a PyTorch dtype inside a function, where complex numbers are possible."""
    return _COMPLEX.get(dtype) or numpy_dtype(dtype)


def name_of_op(op: Any) -> str:
    """Return an operator's name without namespace and overload: "add" for `aten.add.Tensor`."""
    schema = getattr(op, "_schema", None)
    return str(schema.name).rpartition("::")[2] if schema is not None else str(getattr(op, "__name__", op))


def has_rule(name: str) -> bool:
    """Return whether an operator has a rule, and need not be decomposed into others."""
    return name in _rules or (name.endswith("_") and name[:-1] in _rules)


def _like(var: Var, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty((1,) * bool(var.ndim), dtype=dtype)


@dataclass(frozen=True)
class Call:
    """One operator call, passed to its rule.

    Attributes:
        graph: the graph under construction.
        op: the operator's name.
        overload: the name of its overload, such as "Tensor" or "dim_IntList".
        result: its result or results, as variables.
        operands: its positional arguments, as variables and numbers.
    """

    graph: GraphBuilder
    op: str
    overload: str
    result: Any
    operands: tuple[Any, ...]

    @property
    def shape(self) -> Shape:
        """Shape of the first result."""
        return tuple(int(extent) for extent in self._first.shape)

    @property
    def dtype(self) -> DType:
        """Dtype of the first result."""
        return inner_dtype(self._first.dtype)

    @property
    def _first(self) -> Any:
        return self.result[0] if isinstance(self.result, tuple | list) else self.result

    @property
    def common_dtype(self) -> DType:
        """The dtype to which PyTorch promotes the operands of a comparison."""
        tensors = [one for one in self.operands if isinstance(one, Var)]
        numbers = [one for one in self.operands if isinstance(one, bool | int | float)]
        dtype = tensors[0].dtype
        for var in tensors[1:]:
            dtype = torch.result_type(_like(tensors[0], dtype), _like(var, var.dtype))
        for number in numbers:
            dtype = torch.result_type(_like(tensors[0], dtype), number)
        return numpy_dtype(dtype)

    def value(self, item: Any, dtype: DType | None = None) -> GraphValue:
        """Return an argument as a value of the graph."""
        return value_of(self.graph, item, dtype)

    def emit(
        self,
        op: str,
        *inputs: GraphValue | None,
        shape: Shape | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> TracedArray:
        """Append a node whose output has the dtype, and by default the shape, of the first result.

        Args:
            op: the ONNX operator.
            inputs: None for an optional input that is left out.
            shape: of the output.
            domain: the operator's domain, "" for ONNX's own.
            attributes: the node's attributes.
        """
        shape = self.shape if shape is None else shape
        return wrap(self.graph.one(op, inputs, shape, self.dtype, domain, **attributes))

    def frozen(self, x: Any) -> Any:
        """Return the same values without a derivative."""
        return frozen(wrap(self.value(x, self.dtype)))

    def unavailable(self, what: str, instead: str) -> TraceError:
        """Return an error that stands for one of several results; it is raised where the result is used."""
        return self.refuse(f"for {what}", instead)

    def refuse(self, reason: str, instead: str) -> TraceError:
        """Return an error that names the operator, for the rule to raise."""
        return TraceError(f"aten.{self.op} {reason} cannot be traced; {instead}")


def interpret(
    graph: GraphBuilder,
    program: Program,
    arguments: Sequence[Array],
    lift: Callable[[int], Array],
    local: Collection[Node] = (),
) -> list[Any]:
    """Lower a recorded function.

    Args:
        graph: the graph that nodes are appended to.
        program: the recorded function.
        arguments: the arrays for its arguments.
        lift: returns the array for a closed-over tensor, given its place in `program.closed_over`.
        local: writes that need not be seen through other views.

    Returns:
        The function's results, flat.

    Raises:
        TraceError: an operator has no rule.
    """
    places = {one.var: place for place, one in enumerate(program.closed_over)}
    known: dict[Var, Any] = dict(zip(program.arguments, arguments, strict=True))

    def get(item: Any) -> Any:
        if isinstance(item, Var):
            if item not in known:
                known[item] = _writable(graph, item, lift(places[item]))
            return known[item]
        if type(item) in (list, tuple):
            return type(item)(get(one) for one in item)
        return item

    def keep(result: Any, found: Any) -> None:
        if isinstance(result, Var):
            known[result] = found if isinstance(found, TraceError) else _writable(graph, result, found)
        elif isinstance(result, list):
            several = [found] * len(result) if isinstance(found, TraceError) else found
            for one, item in zip(result, several, strict=False):
                keep(one, item)

    for node in program.nodes:
        given, named = get(node.args), {key: get(item) for key, item in node.kwargs.items()}
        unusable = next((one for one in given if isinstance(one, TraceError)), None)
        # Raised only if the function returns what depends on it.
        found = _call(graph, node, given, named, node in local) if unusable is None else unusable
        if node in local and isinstance(node.result, Var):
            known.pop(node.result)
        if node.result is not None and not (isinstance(node.result, Var) and node.result in known):
            keep(node.result, found)
    return [_usable(get(item)) for item in program.outputs]


def _writable(graph: GraphBuilder, var: Var, array: Any) -> Any:
    """Make a constant of integers a traced array, if the function writes values to it that are not known."""
    if isinstance(array, np.ndarray) and var.content.written and var.content.reads:
        return wrap(graph.constant(array))
    return array


def _call(graph: GraphBuilder, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], local: bool) -> Any:
    name = name_of_op(node.op) if not isinstance(node.op, str) else node.op
    in_place = name not in _rules and name.endswith("_")
    base = name[:-1] if in_place else name
    function = _rules.get(base)
    if function is None:
        raise unknown(name)
    overload = "" if isinstance(node.op, str) else node.op._overloadname
    call = Call(graph, base, overload, node.result, node.args)
    try:
        result = function(call, *args, **kwargs)
        if not in_place:
            return result
        if node.write is not None and isinstance(args[0], TracedArray) and args[0].dtype.kind == "f":
            kept = node.write == "kept"
            result = (
                with_slope_of(args[0], result)
                if kept
                else frozen(wrap(value_of(graph, result, args[0].dtype)))
            )
        if local and isinstance(args[0], TracedArray):
            changed = wrap(value_of(graph, result, args[0].dtype))
            return np.broadcast_to(changed, args[0].shape).copy()
        args[0][...] = result
    except TraceError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise TraceError(
            f"aten.{name} cannot be traced with these arguments ({type(error).__name__}: {reason}); compose "
            "it from other operators, or compute it outside and pass it in"
        ) from error
    return args[0]


def with_slope_of(old: TracedArray, new: Any) -> Any:
    """Return new values, broadcast to the old ones, with the derivative of the old ones."""
    before = wrap(old.value)
    stopped = frozen(before)
    # The difference is zero, unless the old value is infinite or NaN.
    sides: list[Any] = [np.isfinite(stopped), before - stopped, np.zeros_like(before)]
    operands = [value_of(old.graph, side) for side in sides]
    slope = wrap(old.graph.one("Where", operands, before.shape, before.dtype))
    values = frozen(wrap(value_of(old.graph, new, old.dtype)))
    return np.broadcast_to(values, before.shape) + slope


def frozen(x: TracedArray) -> TracedArray:
    """Return the same values without a derivative."""
    value = x.value
    return wrap(value.graph.one("StopGradient", [value], value.shape, value.dtype, SCI))


def _usable(item: Any) -> Any:
    if isinstance(item, TraceError):
        raise item
    return item


def unknown(name: str) -> TraceError:
    """Return the error for an operator that has no place in a graph, with what to write instead."""
    base = name.rstrip("_")
    advice = _refused.get(base, "compose it from other operators, or compute it outside and pass it in")
    return TraceError(f"the PyTorch operator aten.{name} cannot be traced: {advice}")
