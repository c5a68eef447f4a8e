"""If. Branches capture values from the enclosing graphs, tracers included, with their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from onnx import GraphProto

from gradwire_engine.errors import ValueNeeded
from gradwire_engine.lowering.registry import Node, Value, is_static, rule


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
                f"node {node.name} (If): the condition depends on the value of a graph input, so both "
                f"branches must give the same shapes and dtypes; then: {seen['then']}, else: {seen['else']}"
            ) from error
        raise
