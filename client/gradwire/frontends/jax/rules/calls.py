"""Calls of inner functions, which are inlined, and functions with derivatives of their own."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gradwire.errors import GraphWarning
from gradwire.frontends.jax import ops
from gradwire.frontends.jax.graph import SCI, Value, constant
from gradwire.frontends.jax.registry import Call, is_of_jax, origin, rule


def _body(call: Call) -> Any:
    """The inner jaxpr, whatever parameter this primitive and version of JAX keeps it in."""
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
def call(call: Call, *inputs: Value) -> tuple[Value, ...]:
    body = _body(call)
    name, filename = origin(body)
    if name == "signbit" and is_of_jax(filename) and ops.is_float(inputs[0].dtype):
        return (_sign_bit(call, *inputs),)
    return tuple(call.inline(call.graph, body, inputs))


def _sign_bit(call: Call, x: Value) -> Value:
    """Without looking at bits: a number is negative, or the reciprocal of a zero is."""
    g, zero = call.graph, ops.scalar(0, x.dtype)
    below = ops.broadcast(g, "Less", x, zero)
    reciprocal_below = ops.broadcast(g, "Less", ops.same(g, "Reciprocal", x), zero)
    return ops.broadcast(g, "Or", below, reciprocal_below)


def _relu(call: Call, x: Value) -> Value:
    return ops.same(call.graph, "Relu", x)


def _logaddexp(call: Call, x: Value, y: Value) -> Value:
    return ops.broadcast(call.graph, "LogAddExp", x, y, domain=SCI)


def _sinc(call: Call, x: Value) -> Value:
    """JAX calls this series of sin(x) / x at x = 0 only; as the function itself its derivatives are right."""
    turns = ops.broadcast(call.graph, "Div", x, ops.scalar(np.pi, x.dtype))
    return ops.same(call.graph, "Sinc", turns, SCI)


def _det(call: Call, a: Value) -> Value:
    return call.graph.one("Det", [a], call.shape, call.dtype)


def _slogdet(call: Call, a: Value) -> tuple[Value, ...]:
    return call.graph.emit("SlogDet", [a], call.results, SCI)


def _xlogy(call: Call, x: Value, y: Value) -> Value:
    return ops.broadcast(call.graph, "Xlogy", x, y, domain=SCI)


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
def custom_derivative(call: Call, *inputs: Value) -> Any:
    body = _body(call)
    name, filename = origin(body)
    if is_of_jax(filename):
        known = _KNOWN.get(name)
        if known is not None and ops.is_float(call.dtype):
            return known(call, *inputs)
    else:
        warnings.warn(
            f"{name or 'a function'} has a custom derivative rule{call.at}, which a graph cannot carry: "
            "derivatives will be those of the function's own code",
            GraphWarning,
            stacklevel=2,
        )
    return tuple(call.inline(call.graph, body, inputs))


@rule("platform_index")
def platform(call: Call) -> Value:
    """The branch that code for no particular platform takes."""
    platforms = list(call.params["platforms"])
    places = [index for index, entry in enumerate(platforms) if entry is None]
    places += [index for index, entry in enumerate(platforms) if entry is not None and "cpu" in entry]
    if places:
        return constant(np.int32(places[0]))
    raise call.fail("none of its branches is for any platform, or for CPUs")


@rule("debug_callback", "debug_print")
def printed(call: Call, *inputs: Value) -> tuple[Value, ...]:
    warnings.warn(f"{call.name}{call.at} is left out of the graph", GraphWarning, stacklevel=2)
    return ()
