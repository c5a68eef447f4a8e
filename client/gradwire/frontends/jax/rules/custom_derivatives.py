"""Functions with derivative rules of their own, which the graph carries beside their code.

A function of `jax.custom_jvp` or `jax.custom_vjp` becomes a node of the operator CustomDerivative, with one graph
for its code and one for its rule. Rules often call their own function again, without an end: the graph holds those
of the first orders, and the service refuses to differentiate beyond them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradwire.errors import GraphWarning, TraceError
from gradwire.frontends.jax.dtypes import is_float
from gradwire.frontends.jax.registry import Call, is_of_jax, origin, rule, type_only
from gradwire.frontends.jax.rules.known_derivatives import OPERATORS, SAME_AS_CODE
from gradwire.graphs.builder import SCI, Body, GraphValue, Shape

ORDERS = 3
"""Orders of derivatives by rules that a graph holds: a Hessian has two, its product with a vector's gradient three."""

_Vectors = tuple[tuple[Shape, Any], ...]
_NO_RULE = (TypeError, ValueError, NotImplementedError, AssertionError, AttributeError)


@rule("custom_jvp_call", "custom_vjp_call")
def custom_derivative(call: Call, *inputs: GraphValue) -> Any:
    """Convert the function's code and its rule, or take an operator that has the derivatives that JAX gives it."""
    body = call.params["call_jaxpr"]
    name, filename = origin(body)
    if is_of_jax(filename) and is_float(call.dtype) and name in OPERATORS:
        return OPERATORS[name](call, *inputs)
    moving = [i for i, value in enumerate(inputs) if is_float(value.dtype) and call.graph.known(value) is None]
    fixed = not moving or not any(is_float(result.dtype) for result in call.results)
    if call.order is None or fixed or (is_of_jax(filename) and name in SAME_AS_CODE):
        return tuple(call.inline(body, inputs))
    return _carried(call, name or "a function", inputs, moving)


def _carried(call: Call, name: str, inputs: Sequence[GraphValue], moving: Sequence[int]) -> Any:
    """Return the outputs of a node that holds the function's code and its rule.

    Args:
        call: the equation.
        name: the function's, for messages.
        inputs: of the equation.
        moving: places of the inputs that may be differentiated by. Inputs that are known are left where they are.
    """
    graph, order = call.graph, call.order
    assert order is not None, "code that is not differentiated needs no rule"
    given = [place for place, value in enumerate(inputs) if graph.known(value) is None]
    arguments = [inputs[place] for place in given]

    def body_of(traced: Any, vectors: _Vectors, inner: int | None) -> Body:
        with graph.nested() as body:
            values = list(inputs)
            for place in given:
                values[place] = graph.argument(inputs[place].shape, inputs[place].dtype)
            added = [graph.argument(*kind) for kind in vectors]
            graph.returns(call.inline(traced, [*values, *added], order=inner))
        return body

    # The code itself is never differentiated.
    attributes: dict[str, Any] = {"body": body_of(call.params["call_jaxpr"], (), None)}
    if order < ORDERS:
        key, traced, vectors = _rule_of(call, name, inputs, moving)
        if traced is None:
            return tuple(call.inline(call.params["call_jaxpr"], inputs))
        attributes[key] = body_of(traced, vectors, order + 1)
    return graph.emit("CustomDerivative", arguments, call.results, SCI, label=name, **attributes)


def _rule_of(
    call: Call, name: str, inputs: Sequence[GraphValue], moving: Sequence[int]
) -> tuple[str, Any, _Vectors]:
    """Return the kind of the rule, its jaxpr, and the tangents or cotangents that it takes.

    A reverse rule that can be transposed gives both modes. A rule that cannot be traced at all gives None, with a
    warning.
    """
    function = _applied(call)
    points = [type_only(value.shape, value.dtype) for value in inputs]
    tangents = tuple((inputs[place].shape, inputs[place].dtype) for place in moving)
    cotangents = tuple(result for result in call.results if is_float(result.dtype))
    attempts: list[tuple[str, Callable[..., Any], _Vectors]] = []
    if call.name == "custom_jvp_call":
        attempts.append(("jvp", _pushforward(function, len(inputs), moving), tangents))
    else:
        attempts.append(("jvp", _transposed(function, len(inputs), moving, cotangents), tangents))
        attempts.append(("vjp", _pullback(function, len(inputs), moving), cotangents))
    reason: Exception | None = None
    for key, product, vectors in attempts:
        try:
            return key, jax.make_jaxpr(product)(*points, *(type_only(*kind) for kind in vectors)), vectors
        except _NO_RULE as error:
            reason = error
    if isinstance(reason, TraceError):
        raise reason
    warnings.warn(
        f"{name} has a custom derivative rule{call.at} that cannot be traced ({reason}): derivatives will be those "
        "of the function's own code",
        GraphWarning,
        stacklevel=2,
    )
    return "", None, ()


def _applied(call: Call) -> Callable[..., Any]:
    """Return the equation as a function of arrays, with its rule."""

    def apply(*arrays: Any) -> Any:
        return call.primitive.bind(*arrays, **call.primitive.get_bind_params(call.params))

    return apply


def _at(function: Callable[..., Any], point: Sequence[Any], moving: Sequence[int]) -> Callable[..., Any]:
    """Return floating-point outputs as a function of the inputs that move."""

    def at(*given: Any) -> list[Any]:
        arrays = list(point)
        for place, array in zip(moving, given, strict=True):
            arrays[place] = array
        return [one for one in function(*arrays) if is_float(one.dtype)]

    return at


def _pushforward(function: Callable[..., Any], count: int, moving: Sequence[int]) -> Callable[..., Any]:
    def product(*arrays: Any) -> list[Any]:
        point, tangents = arrays[:count], arrays[count:]

        def at(*given: Any) -> list[Any]:
            values = list(point)
            for place, array in zip(moving, given, strict=True):
                values[place] = array
            return list(function(*values))

        outputs, moved = jax.jvp(at, [point[place] for place in moving], list(tangents))
        kept = [one for output, one in zip(outputs, moved, strict=True) if is_float(np.dtype(output.dtype))]
        return [*outputs, *kept]

    return product


def _pullback(function: Callable[..., Any], count: int, moving: Sequence[int]) -> Callable[..., Any]:
    def product(*arrays: Any) -> tuple[Any, ...]:
        point, cotangents = arrays[:count], arrays[count:]
        _, pull = jax.vjp(_at(function, point, moving), *(point[place] for place in moving))
        return pull(list(cotangents))

    return product


def _transposed(
    function: Callable[..., Any], count: int, moving: Sequence[int], cotangents: _Vectors
) -> Callable[..., Any]:
    """Return the pushforward that is the transpose of the pullback, which has to be linear for JAX to see."""

    def product(*arrays: Any) -> list[Any]:
        point, tangents = arrays[:count], arrays[count:]
        _, pull = jax.vjp(_at(function, point, moving), *(point[place] for place in moving))
        push = jax.linear_transpose(pull, [type_only(*kind) for kind in cotangents])
        (moved,) = push(tuple(tangents))
        return [*function(*point), *moved]

    return product
