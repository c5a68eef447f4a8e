"""The straight-through estimator: rounding with the derivative of the identity (Bengio et al., 2013).

`Round`, `Floor` and `Ceil` pass derivatives on as they are. A `QuantizeLinear` that a `DequantizeLinear`
follows, at once or after operators that only move elements (`MOVING`), passes them on where it does not
saturate. Everything else that makes integers, and `Sign` and comparisons, keeps its derivative of zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradwire_engine.lowering.numeric import cast, is_floating
from gradwire_engine.lowering.registry import Node, Value
from gradwire_engine.lowering.rules.networks.quantization import straight_quantized, with_derivative_of

ROUNDING = frozenset({"Round", "Floor", "Ceil"})

MOVING = frozenset(
    {
        *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Slice"),
        *("Split", "Concat", "Gather", "DepthToSpace", "SpaceToDepth", "MaxPool"),
    }
)
"""Operators that move integers from a QuantizeLinear to a DequantizeLinear, and the derivative with them."""


def floats_along(
    function: Any, node: Node, inputs: Sequence[Value], floats: Sequence[Value | None]
) -> Sequence[Value | None]:
    """Return floats that go along with a node's quantised outputs, none where it has no such output.

    Args:
        function: the node's rule.
        node: the node.
        inputs: its inputs.
        floats: those that go along with its inputs.
    """
    if node.domain:
        return ()
    if node.op == "QuantizeLinear":
        return (straight_quantized(node, *inputs),)
    if node.op not in MOVING or all(one is None for one in floats):
        return ()
    dtype = next(one.dtype for one in floats if one is not None)
    mixed = [given if one is None else one for given, one in zip(inputs, floats, strict=True)]
    if node.op == "Concat":
        mixed = [cast(one, dtype) for one in mixed]
    moved = function(node, *mixed)
    return moved if isinstance(moved, tuple | list) else (moved,)


def outputs(
    function: Any,
    node: Node,
    inputs: Sequence[Value],
    computed: list[Value],
    floats: Sequence[Value | None],
) -> list[Value]:
    """Return a node's outputs with the derivatives that the estimator gives them."""
    if node.domain:
        return computed
    if node.op in ROUNDING and is_floating(computed[0]):
        return [with_derivative_of(inputs[0], computed[0])]
    if node.op == "DequantizeLinear" and floats[0] is not None:
        return [function(node, floats[0], *inputs[1:])]
    return computed
