"""Lowers ATen operators to a graph: a registry of rules, and an interpreter of recorded functions.

Rules compute with the traced arrays of `gradwire.frontends.numpy` as with NumPy arrays, views and in-place
changes included. Integer constants are NumPy arrays, so that arithmetic on indices is done while lowering.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gradwire.errors import TraceError
from gradwire.frontends.numpy.arrays.array import TracedArray, value_of, wrap
from gradwire.frontends.registering import registrar
from gradwire.graphs.builder import DType, GraphBuilder, GraphValue, Shape

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


def name_of_op(op: Any) -> str:
    """Return an operator's name without namespace and overload: "add" for `aten.add.Tensor`."""
    schema = getattr(op, "_schema", None)
    return str(schema.name).rpartition("::")[2] if schema is not None else str(getattr(op, "__name__", op))


def needs_decomposition(op: Any) -> bool:
    """Return whether an operator has no rule and must be decomposed into others."""
    name = name_of_op(op)
    return name not in _rules and not (name.endswith("_") and name[:-1] in _rules)


@dataclass(frozen=True)
class Call:
    """One operator call, passed to its rule.

    Attributes:
        graph: the graph under construction.
        op: the operator's name.
        overload: the name of its overload, such as "Tensor" or "dim_IntList".
        result: its result or results, as fake tensors.
        operands: its positional arguments, as fake tensors and numbers.
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
        return numpy_dtype(self._first.dtype)

    @property
    def _first(self) -> Any:
        return self.result[0] if isinstance(self.result, tuple | list) else self.result

    @property
    def common_dtype(self) -> DType:
        """The dtype to which PyTorch promotes the operands of a comparison."""
        tensors = [one for one in self.operands if isinstance(one, torch.Tensor)]
        numbers = [one for one in self.operands if isinstance(one, bool | int | float)]
        dtype = tensors[0].dtype
        for other in (*tensors[1:], *numbers):
            dtype = torch.result_type(torch.empty((1,) * bool(tensors[0].ndim), dtype=dtype), other)
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

    def unavailable(self, what: str, instead: str) -> TraceError:
        """Return an error that stands for one of several results; it is raised where the result is used."""
        return self.refuse(f"for {what}", instead)

    def refuse(self, reason: str, instead: str) -> TraceError:
        """Return an error that names the operator, for the rule to raise."""
        return TraceError(f"aten.{self.op} {reason} cannot be traced; {instead}")


def interpret(
    graph: GraphBuilder,
    module: torch.fx.GraphModule,
    arguments: Iterator[Array],
    lift: Callable[[str, Any], Array],
) -> list[Any]:
    """Lower a recorded function.

    Args:
        graph: the graph that nodes are appended to.
        module: the recorded function.
        arguments: the arrays for its placeholders.
        lift: returns the array for a closed-over tensor, given its name in `module` and the tensor.

    Returns:
        The function's results, flat.

    Raises:
        TraceError: an operator has no rule.
    """
    known: dict[torch.fx.Node, Any] = {}

    def get(item: Any) -> Any:
        return torch.fx.node.map_arg(item, known.__getitem__)

    for node in module.graph.nodes:
        if node.op == "placeholder":
            known[node] = next(arguments)
        elif node.op == "get_attr":
            known[node] = lift(node.target, getattr(module, node.target))
        elif node.op == "output":
            return [_usable(get(item)) for item in node.args[0]]
        elif not isinstance(node.target, torch._ops.OpOverload):
            if getattr(node.target, "__name__", "") == "getitem":
                whole, position = get(node.args)
                known[node] = whole if isinstance(whole, TraceError) else whole[position]
            else:
                raise _unknown(name_of_op(node.target))
        else:
            known[node] = _call(graph, node, get)
    raise AssertionError("a recorded function has an output")


def _call(graph: GraphBuilder, node: torch.fx.Node, get: Callable[[Any], Any]) -> Any:
    op = node.target
    assert isinstance(op, torch._ops.OpOverload)
    name = name_of_op(op)
    operands = torch.fx.node.map_arg(node.args, lambda one: one.meta.get("val"))
    in_place = name not in _rules and name.endswith("_")
    base = name[:-1] if in_place else name
    function = _rules.get(base)
    if function is None:
        raise _unknown(name)
    args, kwargs = get(node.args), get(dict(node.kwargs))
    unusable = next((one for one in args if isinstance(one, TraceError)), None)
    if unusable is not None:
        return unusable  # raised only if the function returns what depends on it
    result = function(Call(graph, base, op._overloadname, node.meta.get("val"), operands), *args, **kwargs)
    if in_place:
        args[0][...] = result
    return args[0] if in_place else result


def _usable(item: Any) -> Any:
    if isinstance(item, TraceError):
        raise item
    return item


def _unknown(name: str) -> TraceError:
    base = name.rstrip("_")
    advice = _refused.get(base, "compose it from other operators, or compute it outside and pass it in")
    return TraceError(f"the PyTorch operator aten.{name} cannot be traced: {advice}")
