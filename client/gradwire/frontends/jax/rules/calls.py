"""Calls of inner functions, which are inlined, and functions with derivatives of their own."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gradwire.errors import GraphWarning
from gradwire.frontends.jax.dtypes import is_float
from gradwire.frontends.jax.registry import Call, is_of_jax, origin, rule
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import SCI, GraphValue


def _body(call: Call) -> Any:
    """Return the inner jaxpr, whatever parameter this primitive and version of JAX keeps it in."""
    for key in ("jaxpr", "call_jaxpr", "call", "fun_jaxpr"):
        if key in call.params:
            return call.params[key]
    raise call.fail("its inner function cannot be found; call the function without this wrapper")


@rule(
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


def _relu(call: Call, x: GraphValue) -> GraphValue:
    return ops.unary("Relu", x)


def _logaddexp(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    return ops.sci("LogAddExp", x, y)


def _sinc(call: Call, x: GraphValue) -> GraphValue:
    """Return the function itself for JAX's series of sin(x) / x at x = 0: its derivatives are right."""
    return ops.unary("Sinc", ops.binary("Div", x, ops.constant_like(x, np.pi)), SCI)


def _det(call: Call, a: GraphValue) -> GraphValue:
    return call.graph.one("Det", [a], call.shape, call.dtype)


def _slogdet(call: Call, a: GraphValue) -> list[GraphValue]:
    return call.graph.emit("SlogDet", [a], call.results, SCI)


def _xlogy(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    return ops.sci("Xlogy", x, y)


# Functions of JAX whose own derivative rules say more than their code does (at a kink, at a singular point).
_KNOWN: dict[str, Any] = {
    "_det": _det,
    "_sinc_maclaurin": _sinc,
    "_slogdet_lu": _slogdet,
    "det": _det,
    "logaddexp": _logaddexp,
    "relu": _relu,
    "slogdet": _slogdet,
    "xlogy": _xlogy,
}


@rule("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
def custom_derivative(call: Call, *inputs: GraphValue) -> Any:
    """Convert the function's own code, unless an operator has the derivatives that JAX gives it."""
    body = _body(call)
    name, filename = origin(body)
    if is_of_jax(filename):
        known = _KNOWN.get(name)
        if known is not None and is_float(call.dtype):
            return known(call, *inputs)
    else:
        warnings.warn(
            f"{name or 'a function'} has a custom derivative rule{call.at}, which a graph cannot carry: "
            "derivatives will be those of the function's own code",
            GraphWarning,
            stacklevel=2,
        )
    return tuple(call.inline(body, inputs))


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
