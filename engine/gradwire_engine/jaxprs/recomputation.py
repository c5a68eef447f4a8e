"""Tells which results XLA computes anew for each use."""

from __future__ import annotations

from typing import Any

from gradwire_engine.computations import NAME
from gradwire_engine.jaxprs.slicing import CALLS

CHEAP = frozenset(
    {
        *("add", "sub", "mul", "neg", "abs", "sign", "max", "min", "add_any", "square", "clamp"),
        *("select_n", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "convert_element_type"),
        *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "slice", "transpose", "rev", "pad"),
        *(
            "concatenate",
            "copy",
            "iota",
            "stop_gradient",
            "floor",
            "ceil",
            "round",
            "is_finite",
            "integer_pow",
        ),
    }
)
"""Primitives whose results XLA recomputes for each use; it keeps the results of others."""


def cheap_equations(equation: Any) -> int:
    """Count the cheap equations that an equation stands for; 0 for one whose result XLA keeps."""
    name = equation.primitive.name
    if name in CALLS and equation.params.get("name") != NAME:
        counts = [cheap_equations(inner) for inner in equation.params["jaxpr"].jaxpr.eqns]
        return sum(counts) if all(counts) else 0
    return int(name in CHEAP)
