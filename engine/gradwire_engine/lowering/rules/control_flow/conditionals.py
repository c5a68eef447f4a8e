"""If. Branches capture values from the enclosing graphs, tracers included, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from onnx import GraphProto

from gradwire_engine.errors import InvalidGraph, ValueNeeded
from gradwire_engine.lowering.registry import Node, Value, is_static, rule
from gradwire_engine.lowering.rules.control_flow.subgraphs import needed_names


@rule("If")
def if_(node: Node, condition: Value) -> tuple[Value, ...]:
    """If: evaluates one branch where the condition is known, else traces both, which must match in shape."""
    then, otherwise = node.subgraph("then_branch"), node.subgraph("else_branch")
    if condition.size != 1:
        raise node.fail(f"the condition has {condition.size} elements; it must have one")
    if is_static(condition):
        return tuple(node.run(then if np.all(condition) else otherwise))
    seen: dict[str, Any] = {}

    def branch(name: str, graph: GraphProto) -> Callable[[], list[Value]]:
        def run() -> list[Value]:
            outputs: list[Value] = jax.tree.map(jnp.asarray, node.run(graph))
            seen[name] = jax.tree.map(lambda value: f"{value.dtype}{list(value.shape)}", outputs)
            return outputs

        return run

    try:
        return tuple(lax.cond(condition.reshape(()), branch("then", then), branch("else", otherwise)))
    except TypeError as error:
        if len(seen) == 2 and seen["then"] != seen["else"]:
            raise ValueNeeded(
                f"node {node.name} (If): the condition depends on the value of {_inputs_behind(node)}, so "
                f"both branches must give the same shapes and dtypes; then: {seen['then']}, "
                f"else: {seen['else']}; {_advice(node)}"
            ) from error
        raise
    except (InvalidGraph, ValueNeeded) as error:
        raise ValueNeeded(
            f"node {node.name} (If): the condition depends on the value of {_inputs_behind(node)}, so both "
            f"branches are traced, and one of them cannot be: {error}; {_advice(node)}"
        ) from error


def _sources(node: Node) -> list[str]:
    """Returns the inputs of the graph (or of the body around) that the condition is computed from."""
    values = node.scope.environment.values
    names = needed_names(node.scope.nodes, node.inputs[0])
    return [name for name in names if not is_static(values.get(name, np.zeros(0)))]


def _inputs_behind(node: Node) -> str:
    return " and ".join(f"input {name!r}" for name in _sources(node)) or "a graph input"


def _advice(node: Node) -> str:
    name = next(iter(_sources(node)), "name")
    return f'if it is the same in every call, make it a constant: fixed={{"{name}": value}}'
