"""Calls of inner functions, which are inlined."""

from __future__ import annotations

import warnings
from typing import Any

from gradwire.errors import GraphWarning
from gradwire.frontends.jax.dtypes import is_float
from gradwire.frontends.jax.registry import Call, is_of_jax, origin, rule
from gradwire.graphs import operators as ops
from gradwire.graphs.nodes import GraphValue


def _body(call: Call) -> Any:
    """Return the inner jaxpr, whatever parameter this primitive and version of JAX keeps it in."""
    for key in ("jaxpr", "call_jaxpr", "call", "fun_jaxpr"):
        if key in call.params:
            return call.params[key]
    raise call.fail("its inner function cannot be found; call the function without this wrapper")


INLINED = (
    "jit",
    "pjit",
    "core_call",
    "call",
    "closed_call",
    "remat",
    "remat2",
    "checkpoint",
    "composite",
    "custom_vmap_call",
    "linear_call",
)
"""Primitives that only call a function."""


@rule(*INLINED)
def call(call: Call, *inputs: GraphValue) -> tuple[GraphValue, ...]:
    """Convert the inner function in place of the call."""
    body = _body(call)
    name, filename = origin(body)
    if name == "signbit" and is_of_jax(filename) and is_float(inputs[0].dtype):
        return (_sign_bit(*inputs),)
    return tuple(call.inline(body, inputs))


def _sign_bit(x: GraphValue) -> GraphValue:
    """Whether a number is negative, or the reciprocal of a zero is: without looking at bits."""
    zero = ops.constant_like(x, 0)
    reciprocal_below = ops.compare("Less", ops.unary("Reciprocal", x), zero)
    return ops.binary("Or", ops.compare("Less", x, zero), reciprocal_below)


@rule("platform_index")
def platform(call: Call) -> GraphValue:
    """Return the branch for no particular platform, else that for CPUs."""
    platforms = list(call.params["platforms"])
    places = [index for index, entry in enumerate(platforms) if entry is None]
    places += [index for index, entry in enumerate(platforms) if entry is not None and "cpu" in entry]
    if places:
        return call.graph.scalar(places[0], call.dtype)
    raise call.fail("none of its branches is for any platform, or for CPUs")


@rule("debug_callback", "debug_print")
def printed(call: Call, *inputs: GraphValue) -> tuple[GraphValue, ...]:
    """Leave printing out, with a warning."""
    warnings.warn(f"{call.name}{call.at} is left out of the graph", GraphWarning, stacklevel=2)
    return ()
