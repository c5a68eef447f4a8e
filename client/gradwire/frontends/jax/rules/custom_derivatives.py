"""Functions with derivative rules of their own, which the graph carries beside their code.

A function of `jax.custom_jvp` or `jax.custom_vjp` becomes a node of the operator CustomDerivative, with one
graph for its code and one for its rule. Rules often call their own function again, without an end: the graph
holds those of the first orders, and the service refuses to differentiate beyond them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradwire.errors import GraphWarning
from gradwire.frontends.jax.dtypes import is_float
from gradwire.frontends.jax.registry import Call, is_of_jax, origin, rule, type_only
from gradwire.frontends.jax.rules.known_derivatives import OPERATORS, SAME_AS_CODE
from gradwire.graphs.builder import SCI, Body, GraphValue, Shape

ORDERS = 3
"""Orders of derivatives by rules that a graph holds: a Hessian has two, the gradient of an HVP three."""

_Vectors = tuple[tuple[Shape, Any], ...]
_NO_RULE = (TypeError, ValueError, NotImplementedError, AssertionError, AttributeError)


@rule("custom_jvp_call", "custom_vjp_call")
def custom_derivative(call: Call, *inputs: GraphValue) -> Any:
    """Convert the function's code and its rule, or take an operator that has JAX's derivatives."""
    body = call.params["call_jaxpr"]
    name, filename = origin(body)
    if is_of_jax(filename) and is_float(call.dtype) and name in OPERATORS:
        return OPERATORS[name](call, *inputs)
    constant = all(call.graph.known(value) is not None or not is_float(value.dtype) for value in inputs)
    fixed = constant or not any(is_float(result.dtype) for result in call.results)
    if call.order is None or fixed or (is_of_jax(filename) and name in SAME_AS_CODE):
        return tuple(call.inline(body, inputs))
    return _carried(call, name or "a function", inputs)


def _carried(call: Call, name: str, inputs: Sequence[GraphValue]) -> Any:
    """Return the outputs of a node that holds the function's code and its rule.

    Inputs that are known are left where they are: rules may need their values.

    Args:
        call: the equation.
        name: the function's, for messages.
        inputs: of the equation.
    """
    graph, order = call.graph, call.order
    assert order is not None, "code that is not differentiated needs no rule"
    unknown = [place for place, value in enumerate(inputs) if graph.known(value) is None]

    def body_of(convert: Callable[[Sequence[GraphValue]], Sequence[GraphValue]], vectors: _Vectors) -> Body:
        kinds = [(inputs[place].shape, inputs[place].dtype) for place in unknown]
        with graph.nested() as body:
            graph.returns(convert([graph.argument(*kind) for kind in (*kinds, *vectors)]))
        return body

    def code(given: Sequence[GraphValue]) -> list[GraphValue]:
        values = list(inputs)
        for place, value in zip(unknown, given, strict=True):
            values[place] = value
        return call.inline(call.params["call_jaxpr"], values, order=None)  # it is not differentiated

    attributes: dict[str, Any] = {"body": body_of(code, ())}
    if order < ORDERS:
        found = _rule_of(call, name, inputs, unknown)
        if found is not None:
            key, traced, vectors = found
            attributes[key] = body_of(lambda given: call.inline(traced, given, order=order + 1), vectors)
    arguments = [inputs[place] for place in unknown]
    return graph.emit("CustomDerivative", arguments, call.results, SCI, label=name, **attributes)


def _rule_of(
    call: Call, name: str, inputs: Sequence[GraphValue], unknown: Sequence[int]
) -> tuple[str, Any, _Vectors] | None:
    """Return the kind of the rule, its jaxpr, and the tangents or cotangents that it takes.

    A reverse rule that can be transposed gives both modes. A rule that cannot be traced at all gives None.
    """
    points = [type_only(inputs[place].shape, inputs[place].dtype) for place in unknown]
    moving = [i for i, point in enumerate(points) if is_float(point.dtype)]
    tangents = tuple((points[i].shape, points[i].dtype) for i in moving)
    cotangents = tuple(result for result in call.results if is_float(result.dtype))
    function = _applied(call, inputs, unknown)
    attempts: list[tuple[str, Callable[..., Any], _Vectors]] = []
    if call.name == "custom_jvp_call":
        attempts.append(("jvp", _pushforward(function, len(points), moving), tangents))
    else:
        attempts.append(("jvp", _transposed(function, len(points), moving, cotangents), tangents))
        attempts.append(("vjp", _pullback(function, len(points), moving), cotangents))
    reason: Exception = TypeError("it has none")
    for key, product, vectors in attempts:
        try:
            traced = jax.make_jaxpr(product)(*points, *(type_only(*kind) for kind in vectors))
        except _NO_RULE as error:
            reason = error
            continue
        if not any(isinstance(constant, jax.core.Tracer) for constant in traced.consts):
            return key, traced, vectors
        reason = TypeError("it uses arrays of a function around it")
    if not call.order:
        warnings.warn(
            f"{name} has a custom derivative rule{call.at} that cannot be traced apart from the function "
            f"around it ({str(reason).strip().splitlines()[0]}): its derivatives will be refused",
            GraphWarning,
            stacklevel=2,
        )
    return None


def _applied(call: Call, inputs: Sequence[GraphValue], unknown: Sequence[int]) -> Callable[..., list[Any]]:
    """Return the equation as a function of its unknown inputs, with its rule."""

    def apply(*given: Any) -> list[Any]:
        arrays: list[Any] = [call.graph.known(value) for value in inputs]
        for place, array in zip(unknown, given, strict=True):
            arrays[place] = array
        return list(call.primitive.bind(*arrays, **call.primitive.get_bind_params(call.params)))

    return apply


def _moved(point: Sequence[Any], moving: Sequence[int], given: Sequence[Any]) -> list[Any]:
    arrays = list(point)
    for place, array in zip(moving, given, strict=True):
        arrays[place] = array
    return arrays


def _pushforward(function: Callable[..., Any], count: int, moving: Sequence[int]) -> Callable[..., Any]:
    def product(*arrays: Any) -> list[Any]:
        point, tangents = arrays[:count], arrays[count:]

        def at(*given: Any) -> list[Any]:
            return list(function(*_moved(point, moving, given)))

        outputs, moved = jax.jvp(at, [point[place] for place in moving], list(tangents))
        kept = [one for output, one in zip(outputs, moved, strict=True) if is_float(np.dtype(output.dtype))]
        return [*outputs, *kept]

    return product


def _pulled_at(
    function: Callable[..., Any], point: Sequence[Any], moving: Sequence[int]
) -> Callable[..., Any]:
    """Return the pullback of the floating-point outputs by the inputs that move."""

    def at(*given: Any) -> list[Any]:
        return [one for one in function(*_moved(point, moving, given)) if is_float(np.dtype(one.dtype))]

    pull: Callable[..., Any] = jax.vjp(at, *(point[place] for place in moving))[1]
    return pull


def _pullback(function: Callable[..., Any], count: int, moving: Sequence[int]) -> Callable[..., Any]:
    def product(*arrays: Any) -> Any:
        return _pulled_at(function, arrays[:count], moving)(list(arrays[count:]))

    return product


def _transposed(
    function: Callable[..., Any], count: int, moving: Sequence[int], cotangents: _Vectors
) -> Callable[..., Any]:
    """Return the pushforward that is the transpose of the pullback, which has to be linear for JAX to see."""

    def product(*arrays: Any) -> list[Any]:
        point, tangents = arrays[:count], arrays[count:]
        pull = _pulled_at(function, point, moving)
        push = jax.linear_transpose(pull, [type_only(*kind) for kind in cotangents])
        (moved,) = push(tuple(tangents))
        return [*function(*point), *moved]

    return product
