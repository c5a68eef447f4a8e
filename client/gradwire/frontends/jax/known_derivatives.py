"""JAX's own functions with derivative rules for which a graph needs no rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradwire.frontends.jax.registry import Call
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import SCI
from gradwire.graphs.nodes import GraphValue


def _relu(call: Call, x: GraphValue) -> GraphValue:
    return ops.unary("Relu", x)


def _relu6(call: Call, x: GraphValue) -> GraphValue:
    """Return x between 0 and 6, and the nearer of the two, without derivative, elsewhere."""
    low, high = ops.constant_like(x, 0), ops.constant_like(x, 6)
    inside = ops.binary("And", ops.compare("Greater", x, low), ops.compare("Less", x, high))
    outside = ops.binary("Min", ops.binary("Max", x, low), high)
    return ops.where(inside, x, ops.unary("StopGradient", outside, SCI))


def _logaddexp(call: Call, x: GraphValue, y: GraphValue) -> GraphValue:
    return ops.sci("LogAddExp", x, y)


def _sinc(call: Call, x: GraphValue) -> GraphValue:
    """Return the function itself for JAX's series of sin(x) / x at x = 0: its derivatives are right."""
    return ops.unary("Sinc", ops.binary("Div", x, ops.constant_like(x, np.pi)), SCI)


def _det(call: Call, a: GraphValue) -> GraphValue:
    return call.graph.one("Det", [a], call.shape, call.dtype)


def _slogdet(call: Call, a: GraphValue) -> list[GraphValue]:
    return call.graph.emit("SlogDet", [a], call.results, SCI)


OPERATORS: dict[str, Callable[..., Any]] = {
    "_det": _det,
    "_sinc_maclaurin": _sinc,
    "_slogdet_lu": _slogdet,
    "det": _det,
    "logaddexp": _logaddexp,
    "relu": _relu,
    "relu6": _relu6,
    "slogdet": _slogdet,
}
"""Functions, by name, for which operators have the derivatives of JAX's rules."""

SAME_AS_CODE = frozenset({"_softmax"})
"""Functions whose code has the derivatives of their rules, at every point and of every order."""
