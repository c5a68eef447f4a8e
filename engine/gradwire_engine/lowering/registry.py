"""The registry of lowering rules: finds the function for a (domain, op, opset).

A rule takes the node and its inputs and returns its output, or a tuple of outputs:

    @rule("Gemm", since=7)
    def gemm(node, a, b, c=None): ...

Inputs are positional, as the operator's specification orders them; an omitted optional input is
`None`. Arrays that depend on no input of the graph (shapes, axes, small constants) are NumPy
arrays, the others are JAX tracers. A rule that needs an array's value, and not only the array, asks
`Node.static` for it; where the value is not known, the error names the node.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwire_engine.errors import InvalidGraph, ValueNeeded

if TYPE_CHECKING:
    import onnx

Value = Any
"""A NumPy array, a JAX array or tracer, a list of those (a sequence), or None (an empty optional)."""

RuleFunction = Callable[..., Any]

SCI = "gradwire.sci"
"""The domain of operators for scientific computing that ONNX lacks."""

ML = "ai.onnx.ml"
"""The domain of classical machine-learning operators."""

MICROSOFT = "com.microsoft"
"""The domain of operators that onnxruntime's optimizer writes."""

TRAINING = "ai.onnx.preview.training"
"""The domain of optimizer steps and of the Gradient operator."""


@dataclass(frozen=True)
class Rule:
    """The evaluation of one operator, from one opset on.

    Attributes:
        domain: operator domain, "" for ai.onnx.
        op: operator name.
        since: lowest opset version from which the rule reads the operator correctly.
        function: the rule itself.
        derivative: "any" (forward and reverse), "forward" (forward mode only) or
            "none" (no derivative is defined: asking for one is refused by name).
    """

    domain: str
    op: str
    since: int
    function: RuleFunction
    derivative: str = "any"


class _Registry:
    """The rules by (domain, op), each list sorted by `since`."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str], list[Rule]] = {}

    def add(self, rule: Rule) -> None:
        rules = self._rules.setdefault((rule.domain, rule.op), [])
        if any(other.since == rule.since for other in rules):
            raise ValueError(f"two rules for {rule.op} since opset {rule.since}")
        rules.append(rule)
        rules.sort(key=lambda other: other.since)

    def find(self, domain: str, op: str, opset: int) -> Rule | None:
        rules = self._rules.get((domain, op))
        if not rules:
            return None
        index = bisect_right(rules, opset, key=lambda other: other.since)
        return rules[index - 1] if index else None

    def all(self) -> list[Rule]:
        return [rule for rules in self._rules.values() for rule in rules]


_registry = _Registry()


def rule(
    *ops: str, since: int = 1, domain: str = "", derivative: str = "any"
) -> Callable[[RuleFunction], RuleFunction]:
    """Register the decorated function as the rule of one or more operators.

    Args:
        ops: operator names that share the rule (`node.op` tells them apart).
        since: lowest opset version at which the rule holds. Versions of an operator that read
            their inputs differently get a rule each; the newest rule not above the model's
            opset is used, and models below every rule are converted upwards first.
        domain: operator domain, "" for ai.onnx.
        derivative: "any", "forward" or "none", as in `Rule`.

    Returns:
        A decorator that registers a function and returns it unchanged.

    Raises:
        ValueError: one of the operators has a rule with the same `since` already.
    """

    def register(function: RuleFunction) -> RuleFunction:
        for op in ops:
            _registry.add(Rule(domain, op, since, function, derivative))
        return function

    return register


def find_rule(domain: str, op: str, opset: int) -> Rule | None:
    """Return the newest rule of an operator that holds at `opset`, or None."""
    return _registry.find(domain, op, opset)


def all_rules() -> list[Rule]:
    """Return every registered rule, for the table of operators."""
    return _registry.all()


@dataclass(frozen=True)
class Node:
    """One node of a graph, as its rule reads it.

    Attributes:
        op: operator name.
        domain: operator domain, "" for ai.onnx.
        name: the node's name, or "#index" if it has none, after the names of the nodes around it.
        opset: version of the node's domain that the model imports.
        attributes: values as Python numbers, strings, NumPy arrays, lists of those, or
            `onnx.GraphProto` for subgraphs; only those that the node sets.
        inputs: names of inputs, "" where omitted.
        outputs: names of outputs, "" where not wanted.
        scope: the evaluation that the node belongs to: runs subgraphs, collects warnings.
    """

    op: str
    domain: str
    name: str
    opset: int
    attributes: dict[str, Any]
    inputs: Sequence[str]
    outputs: Sequence[str]
    scope: Any = field(repr=False)

    def attr(self, name: str, default: Any = None) -> Any:
        """Return an attribute's value, or `default` where the node does not set it."""
        return self.attributes.get(name, default)

    def wants(self, index: int) -> bool:
        """Return whether output `index` is connected to anything."""
        return index < len(self.outputs) and bool(self.outputs[index])

    def static(self, value: Value, what: str, advice: str = "") -> np.ndarray[Any, Any]:
        """Return the value of an input that must be known before evaluation, as a NumPy array.

        Args:
            value: the input.
            what: names the input in the error message.
            advice: what to do, at the end of the message; to fix the input's value by default.

        Raises:
            ValueNeeded: the value depends on an input of the graph.
        """
        if isinstance(value, np.ndarray | np.generic | int | float):
            return np.asarray(value)
        raise ValueNeeded(
            f"node {self.name} ({self.op}): {what} depends on the value of a graph input; "
            f"it must be a constant, or follow from shapes alone{advice or FIX}"
        )

    def ints(self, value: Value, what: str) -> tuple[int, ...]:
        """Return a static 1-D (or scalar) integer input as a tuple; raise like `static`."""
        return tuple(int(item) for item in np.ravel(self.static(value, what)))

    def fail(self, message: str) -> InvalidGraph:
        """Return an error that names this node; the caller raises it."""
        return InvalidGraph(f"node {self.name} ({self.op}): {message}")

    def warn(self, message: str) -> None:
        """Add a warning that reaches the client with the registered graph."""
        self.scope.warn(f"node {self.name} ({self.op}): {message}")

    def subgraph(self, name: str) -> onnx.GraphProto:
        """Return a subgraph attribute; `run` evaluates it.

        Raises:
            InvalidGraph: the node does not set the attribute.
        """
        graph: onnx.GraphProto | None = self.attributes.get(name)
        if graph is None:
            raise self.fail(f"attribute {name} (a graph) is missing")
        return graph

    def run(self, graph: onnx.GraphProto, *inputs: Value) -> list[Value]:
        """Evaluate a subgraph; names it does not define are captured from the enclosing graphs."""
        result: list[Value] = self.scope.run_subgraph(graph, inputs, self.name)
        return result


FIX = ": give that input its value with fixed="

DATA_SHAPED = (
    ": mask what is not wanted (Where, Mul) in place of selecting what is, or cut the graph before this node "
    "with outputs="
)
"""Advice for operators whose result has a shape that depends on values."""


def is_static(*values: Value) -> bool:
    """Return whether every array is NumPy (or None), that is, known before evaluation."""
    return all(isinstance(value, np.ndarray | np.generic) or value is None for value in values)


STATIC_ELEMENTS = 1 << 16
"""Static arrays of up to this many elements stay NumPy; larger ones are traced like any other."""


def namespace(*values: Value) -> Any:
    """Return `numpy` when every array is static and small, else `jax.numpy`.

    Rules of shape arithmetic use it so that what is known before evaluation is computed at once,
    without dispatching to XLA.
    """
    import jax.numpy as jnp

    size = 1
    for value in values:
        if not isinstance(value, np.ndarray | np.generic):
            if value is None:
                continue
            return jnp
        size *= max(1, value.size)
    return np if size <= STATIC_ELEMENTS else jnp
