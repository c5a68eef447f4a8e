"""CustomDerivative of the `gradwire.sci` domain: a graph whose derivative is given by another graph.

- `CustomDerivative(x, ...; body, jvp or vjp, label="") -> y, ...`: the graph `body`, evaluated on the inputs.
  Its derivative is not that of its nodes but what one further graph says:

  - `jvp` takes the inputs, then a tangent for each floating-point input; it returns the outputs, then a
    tangent for each floating-point output, linear in the tangents. Both modes follow from it.
  - `vjp` takes the inputs, then a cotangent for each floating-point output; it returns a cotangent for each
    floating-point input. Only reverse mode follows from it.
  - Without either there is a value but no derivative: asking for one is refused. `label` names the function.

  The graphs may use constants from the enclosing graphs, but nothing that is differentiated.

Orders of derivatives are those of `jvp` or `vjp`, whose nodes may be of this operator again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from onnx import AttributeProto, GraphProto

from gradwire_engine.errors import NO_REVERSE_MODE, NotDifferentiable
from gradwire_engine.lowering.numeric import is_floating
from gradwire_engine.lowering.registry import SCI, Node, Value, is_static, rule
from gradwire_engine.lowering.rules.control_flow.subgraphs import captures


class _Function(NamedTuple):
    """A function with a derivative of its own: its node, and what its graphs read from around it."""

    node: Node
    label: str
    inputs: int
    captured: tuple[str, ...]

    def run(self, key: str, arguments: Sequence[Value], added: Sequence[Value] = ()) -> list[Value]:
        """Evaluate one of the graphs on the inputs, the captured values after them, and further arrays."""
        graph = GraphProto()
        graph.CopyFrom(self.node.subgraph(key))
        for name in self.captured:
            graph.input.add(name=name)
        given = [*arguments[: self.inputs], *added, *arguments[self.inputs :]]
        outputs = self.node.scope.run_apart(graph, given, f"{self.node.name}/{key}")
        return [jnp.asarray(value) for value in outputs]

    def refuse_captured(self) -> NoReturn:
        raise NotDifferentiable(
            f"node {self.node.name} (CustomDerivative): a graph of {self.label} captures a value that is "
            "differentiated; give it as an input of the node"
        )


@rule("CustomDerivative", domain=SCI)
def custom_derivative(node: Node, *inputs: Value) -> tuple[Value, ...]:
    """CustomDerivative: evaluates its body, and differentiates by its other graph."""
    label = str(node.attr("label", "") or node.name)
    _check(node, inputs)
    keys = [key for key in ("body", "jvp", "vjp") if key in node.attributes]
    outside = {name for key in keys for name in captures(node.subgraph(key))}
    around = {name: node.scope.environment.find(name) for name in sorted(outside)}
    captured = {name: value for name, value in around.items() if not is_static(value)}
    function = _Function(node, label, len(inputs), tuple(captured))
    arguments = [jnp.asarray(value) for value in (*inputs, *captured.values())]
    if "vjp" in keys:
        node.scope.notes.reverse_only.setdefault(node.name, f"{label} has a reverse rule alone")
        return tuple(_by_pullback(function)(*arguments))
    pushed = _by_pushforward(function)
    if "jvp" in keys and not node.scope.notes.apart and any(_repeats(node.subgraph("jvp"))):
        _note_forward_only(function, pushed, arguments)
    return tuple(pushed(*arguments))


def _check(node: Node, inputs: Sequence[Value]) -> None:
    body = node.subgraph("body")
    floating = sum(is_floating(value) for value in inputs)
    expected = {"body": len(inputs), "jvp": len(inputs) + floating}
    for key, count in expected.items():
        if key in node.attributes and len(node.subgraph(key).input) != count:
            raise node.fail(
                f"its graph {key} has {len(node.subgraph(key).input)} inputs; it must have {count}"
            )
    if "vjp" in node.attributes and len(node.subgraph("vjp").output) != floating:
        raise node.fail(
            f"its graph vjp has {len(node.subgraph('vjp').output)} outputs; it must have {floating}, one for "
            "each floating-point input"
        )
    if len(body.output) != len(node.outputs):
        raise node.fail(f"its body has {len(body.output)} outputs and the node {len(node.outputs)}")


def _by_pushforward(function: _Function) -> Any:
    """Return the function with the derivative of its `jvp`, or with none."""

    @jax.custom_jvp
    def own(*arguments: Value) -> list[Value]:
        return function.run("body", arguments)

    @partial(own.defjvp, symbolic_zeros=True)
    def push(primals: Sequence[Value], tangents: Sequence[Value]) -> tuple[list[Value], list[Value]]:
        if "jvp" not in function.node.attributes:
            raise NotDifferentiable(
                f"node {function.node.name}: {function.label} has no derivative of this order in the graph; "
                "ask for a lower one"
            )
        if not all(isinstance(tangent, SymbolicZero) for tangent in tangents[function.inputs :]):
            function.refuse_captured()
        results = function.run("jvp", primals, _floating(primals, tangents, function.inputs))
        outputs = results[: len(function.node.outputs)]
        given = iter(results[len(outputs) :])
        moved = [
            next(given) if is_floating(one) else np.zeros(one.shape, jax.dtypes.float0) for one in outputs
        ]
        return outputs, moved

    return own


def _by_pullback(function: _Function) -> Any:
    """Return the function with the derivative of its `vjp`."""

    @jax.custom_vjp
    def own(*arguments: Value) -> list[Value]:
        return function.run("body", arguments)

    def forward(*arguments: Any) -> tuple[list[Value], list[Value]]:
        if any(argument.perturbed for argument in arguments[function.inputs :]):
            function.refuse_captured()
        values = [argument.value for argument in arguments]
        return function.run("body", values), values

    def backward(arguments: list[Value], cotangents: Sequence[Value]) -> tuple[Value | None, ...]:
        given = [_instantiated(one) for one in cotangents if getattr(one, "dtype", None) != jax.dtypes.float0]
        results = iter(function.run("vjp", arguments, given))
        own = arguments[: function.inputs]
        pulled = [next(results) if is_floating(one) else None for one in own]
        return (*pulled, *[None] * len(function.captured))

    own.defvjp(forward, backward, symbolic_zeros=True)
    return own


def _floating(primals: Sequence[Value], tangents: Sequence[Value], count: int) -> list[Value]:
    pairs = zip(primals[:count], tangents[:count], strict=True)
    return [_instantiated(tangent) for primal, tangent in pairs if is_floating(primal)]


def _instantiated(vector: Any) -> Value:
    return jnp.zeros(vector.shape, vector.dtype) if isinstance(vector, SymbolicZero) else vector


def _repeats(graph: GraphProto) -> Iterator[bool]:
    """Yield True for each loop in a graph, the graphs in it included."""
    for node in graph.node:
        if node.op_type in ("Loop", "Scan"):
            yield True
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _repeats(attribute.g)


def _note_forward_only(function: _Function, own: Any, arguments: Sequence[Value]) -> None:
    """Note a derivative that cannot be transposed: one that repeats as often as the data say."""
    places = [place for place in range(function.inputs) if is_floating(arguments[place])]

    def pulled(*given: Value) -> Any:
        def moving(*floats: Value) -> list[Value]:
            point = list(given)
            for place, value in zip(places, floats, strict=True):
                point[place] = value
            return [one for one in own(*point) if is_floating(one)]

        results, pull = jax.vjp(moving, *(given[place] for place in places))
        return pull([jnp.ones_like(one) for one in results])

    kinds = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in arguments]  # type: ignore[no-untyped-call]
    try:
        jax.eval_shape(pulled, *kinds)
    except ValueError as error:
        if NO_REVERSE_MODE not in str(error):
            raise
        function.node.scope.notes.forward_only.setdefault(
            function.node.name, f"the derivative of {function.label} repeats as often as the data say"
        )
