"""Comparisons, logic, and operations on bits. Their results have no derivative, or a zero one."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradwire_engine.lowering.numeric import cast, constant, pointwise
from gradwire_engine.lowering.registry import Node, Value, namespace, rule
from gradwire_engine.lowering.rules.elementwise.casting import element_type

_PAIRWISE: dict[str, tuple[int, Any, Any]] = {
    "Equal": (1, np.equal, lax.eq),
    "Greater": (1, np.greater, lax.gt),
    "GreaterOrEqual": (12, np.greater_equal, lax.ge),
    "Less": (1, np.less, lax.lt),
    "LessOrEqual": (12, np.less_equal, lax.le),
    "And": (1, np.logical_and, lax.bitwise_and),
    "Or": (1, np.logical_or, lax.bitwise_or),
    "Xor": (1, np.logical_xor, lax.bitwise_xor),
    "Not": (1, np.logical_not, lax.bitwise_not),
    "BitwiseAnd": (18, np.bitwise_and, lax.bitwise_and),
    "BitwiseOr": (18, np.bitwise_or, lax.bitwise_or),
    "BitwiseXor": (18, np.bitwise_xor, lax.bitwise_xor),
    "BitwiseNot": (18, np.invert, lax.bitwise_not),
}

for _op, (_since, _numpy, _lax) in _PAIRWISE.items():
    rule(_op, since=_since)(pointwise(_numpy, _lax))


@rule("BitShift", since=11)
def bit_shift(node: Node, x: Value, y: Value) -> Value:
    """BitShift: shifts by `y` bits; a negative shift, or one by the width or more, leaves only the sign."""
    if node.attr("direction") not in ("LEFT", "RIGHT"):
        raise node.fail(f"attribute direction is {node.attr('direction')!r}; it must be LEFT or RIGHT")
    xp: Any = namespace(x, y)
    width = np.dtype(x.dtype).itemsize * 8
    inside = (y >= 0) & (y < width)
    amount = xp.where(inside, y, constant(0, y))
    left = node.attr("direction") == "LEFT"
    shifted = xp.left_shift(x, amount) if left else xp.right_shift(x, amount)
    emptied = xp.zeros_like(x) if left else xp.where(x < 0, constant(-1, x) if _signed(x) else x, x * 0)
    return xp.where(inside, shifted, emptied).astype(x.dtype)


def _signed(x: Value) -> bool:
    return bool(np.issubdtype(x.dtype, np.signedinteger))


@rule("BitCast", since=26)
def bit_cast(node: Node, x: Value) -> Value:
    """BitCast: reads the same bits as another dtype of the same width.

    The bits of a float that depends on an input of the graph have no derivative.
    """
    target = element_type(node, node.attr("to"))
    if isinstance(x, np.ndarray):
        return np.ascontiguousarray(x).view(target).reshape(x.shape)
    if jnp.issubdtype(x.dtype, jnp.floating):
        node.scope.notes.no_derivative.setdefault(node.name, node.op)
    if x.dtype == np.bool_:
        x = cast(x, np.uint8)
    if target == np.bool_:
        return lax.ne(x, constant(0, x))
    return lax.bitcast_convert_type(x, target)
