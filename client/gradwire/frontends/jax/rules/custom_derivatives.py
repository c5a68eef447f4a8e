"""Functions with derivative rules of their own, which the graph carries beside their code.

A function of `jax.custom_jvp` or `jax.custom_vjp`, or a primitive of another package, becomes a node of the
operator CustomDerivative, with one graph for its code and one for its rule. Rules often call their own
function again, without an end: the graph holds those of the first orders, and the service refuses to
differentiate beyond them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradwire.errors import GraphWarning
from gradwire.frontends.jax.dtypes import is_float
from gradwire.frontends.jax.known_derivatives import OPERATORS, SAME_AS_CODE
from gradwire.frontends.jax.registry import Call, Rule, is_of_jax, origin, rule, type_only
from gradwire.frontends.jax.rules.libraries.equinox_errors import raises
from gradwire.graphs.builder import SCI
from gradwire.graphs.nodes import Body, GraphValue, Shape

ORDERS = 3
"""Orders of derivatives by rules that a graph holds: a Hessian has two, the gradient of an HVP three."""

_Kinds = tuple[tuple[Shape, Any], ...]
_UNTRACEABLE = (
    TypeError,
    ValueError,
    NotImplementedError,
    AssertionError,
    AttributeError,
    RuntimeError,
    jax.errors.JAXTypeError,
)


@dataclass(frozen=True)
class _Own:
    """A function with a rule of its own.

    Attributes:
        call: the equation that applies it.
        name: for messages.
        inputs: its inputs that are not known; rules may need the values of those that are.
        code: converts it, given values in place of the inputs; the order is that of its equations.
        function: applies it, with its rule, to arrays in place of the inputs.
        reverse: whether the rule is one of reverse mode.
    """

    call: Call
    name: str
    inputs: tuple[GraphValue, ...]
    code: Callable[[Sequence[GraphValue], int | None], list[GraphValue]]
    function: Callable[..., list[Any]]
    reverse: bool

    @property
    def kinds(self) -> _Kinds:
        """Shapes and dtypes of the inputs."""
        return tuple((value.shape, value.dtype) for value in self.inputs)

    @property
    def floating(self) -> list[int]:
        """Places of the inputs that have tangents and cotangents."""
        return [place for place, value in enumerate(self.inputs) if is_float(value.dtype)]

    @property
    def moving(self) -> list[int]:
        """Places of the inputs whose tangents may differ from zero."""
        return [place for place, value in enumerate(self.inputs) if self.call.graph.moves(value)]


@rule("custom_jvp_call", "custom_vjp_call")
def custom_derivative(call: Call, *inputs: GraphValue) -> Any:
    """Convert the function's code and its rule, or take an operator that has JAX's derivatives."""
    body = call.params["call_jaxpr"]
    name, filename = origin(body)
    if is_of_jax(filename) and is_float(call.dtype) and name in OPERATORS:
        return OPERATORS[name](call, *inputs)
    if (is_of_jax(filename) and name in SAME_AS_CODE) or raises(body):
        return tuple(call.inline(body, inputs))
    return with_rule(call, inputs, _applied(call))


def with_rule(call: Call, inputs: Sequence[GraphValue], function: Callable[..., list[Any]]) -> Any:
    """Convert the code and the rule of a function of `jax.custom_jvp` or `jax.custom_vjp`.

    Args:
        call: the equation that applies it.
        inputs: of the equation.
        function: the equation as a function of arrays.
    """
    body = call.params["call_jaxpr"]
    unknown = _unknown(call, inputs)

    def code(given: Sequence[GraphValue], order: int | None) -> list[GraphValue]:
        return call.inline(body, _placed(inputs, unknown, given), order=order)

    name = origin(body)[0] or "a function"
    return _carried(_own(call, name, inputs, unknown, code, function, call.name == "custom_vjp_call"))


def _applied(call: Call) -> Callable[..., list[Any]]:
    def function(*arrays: Any) -> list[Any]:
        results = call.primitive.bind(*arrays, **call.primitive.get_bind_params(call.params))
        return list(results) if call.primitive.multiple_results else [results]

    return function


def by_implementation(primitive: Any) -> Rule | None:
    """Return a rule for a primitive of another package: its implementation, if that is written with JAX.

    The derivative is that of the primitive's own rules, as for functions with rules of their own.
    """
    implementation = primitive.impl
    if isinstance(implementation, partial) and primitive in implementation.args:
        return None  # of JAX: it compiles the primitive

    def implemented(call: Call, *inputs: GraphValue) -> Any:
        unknown = _unknown(call, inputs)

        def run(*given: Any) -> Any:
            arrays = _placed([call.graph.known(value) for value in inputs], unknown, given)
            results = implementation(*arrays, **call.params)
            return results if primitive.multiple_results else [results]

        try:
            traced = jax.make_jaxpr(run)(*_types((inputs[i].shape, inputs[i].dtype) for i in unknown))
        except _UNTRACEABLE as error:
            raise call.fail(
                "there is no operator for it, and its implementation cannot be traced "
                f"({_first_line(error)}); write the function with others"
            ) from error

        def code(given: Sequence[GraphValue], order: int | None) -> list[GraphValue]:
            return call.inline(traced, given, order=order)

        return _carried(_own(call, call.name, inputs, unknown, code, _applied(call), reverse=False))

    return implemented


def _unknown(call: Call, inputs: Sequence[GraphValue]) -> list[int]:
    return [place for place, value in enumerate(inputs) if call.graph.known(value) is None]


def _own(
    call: Call,
    name: str,
    inputs: Sequence[GraphValue],
    unknown: Sequence[int],
    code: Callable[[Sequence[GraphValue], int | None], list[GraphValue]],
    function: Callable[..., list[Any]],
    reverse: bool,
) -> _Own:
    def of_unknown(*given: Any) -> list[Any]:
        return function(*_placed([call.graph.known(value) for value in inputs], unknown, given))

    return _Own(call, name, tuple(inputs[place] for place in unknown), code, of_unknown, reverse)


def _placed(items: Sequence[Any], places: Sequence[int], given: Sequence[Any]) -> list[Any]:
    """Return the items with others at some places."""
    placed = list(items)
    for place, item in zip(places, given, strict=True):
        placed[place] = item
    return placed


def _types(kinds: Any) -> list[Any]:
    return [type_only(*kind) for kind in kinds]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _carried(own: _Own) -> Any:
    """Return the outputs of a node that holds the function's code and its rule."""
    call, graph, order = own.call, own.call.graph, own.call.order
    if order is None or not own.moving or not any(is_float(result.dtype) for result in call.results):
        return tuple(own.code(own.inputs, order))

    def body_of(convert: Callable[[Sequence[GraphValue]], Sequence[GraphValue]], vectors: _Kinds) -> Body:
        with graph.nested() as body:
            arguments = [graph.argument(*kind) for kind in own.kinds]
            pairs = zip(arguments, own.inputs, strict=True)
            graph.stop(inner for inner, outer in pairs if not graph.moves(outer))
            pushed = [graph.argument(*kind) for kind in vectors]
            graph.push(pushed)
            graph.returns(convert([*arguments, *pushed]))
        return body

    # The code itself is never differentiated.
    attributes: dict[str, Any] = {"body": body_of(lambda given: own.code(given, None), ())}
    found = _rule_of(own) if order < ORDERS else None
    if found is not None:
        key, traced, vectors = found
        attributes[key] = body_of(lambda given: call.inline(traced, given, order=order + 1), vectors)
    return graph.emit("CustomDerivative", own.inputs, call.results, SCI, label=own.name, **attributes)


def _rule_of(own: _Own) -> tuple[str, Any, _Kinds] | None:
    """Return the kind of the rule, its jaxpr, and the tangents or cotangents that it takes.

    A reverse rule that can be transposed gives both modes. A rule that cannot be traced at all gives None.
    """
    tangents = tuple(own.kinds[place] for place in own.floating)
    cotangents = tuple(result for result in own.call.results if is_float(result.dtype))
    attempts = [("jvp", _pushforward, tangents)]
    if own.reverse:
        attempts = [("jvp", _transposed, tangents), ("vjp", _pullback, cotangents)]
    reason: Exception = TypeError("it has none")
    for key, product, vectors in attempts:
        try:
            traced = jax.make_jaxpr(partial(product, own))(*_types((*own.kinds, *vectors)))
        except _UNTRACEABLE as error:
            reason = error
            continue
        if not any(isinstance(constant, jax.core.Tracer) for constant in traced.consts):
            return key, traced, vectors
        reason = TypeError("it uses arrays of a function around it")
    if not own.call.order:
        warnings.warn(
            f"{own.name} has a derivative rule of its own{own.call.at} that cannot be traced "
            f"({_first_line(reason)}): its derivatives will be refused",
            GraphWarning,
            stacklevel=2,
        )
    return None


def _pushforward(own: _Own, *arrays: Any) -> list[Any]:
    """Return the outputs and the tangents of floating-point ones, given the inputs and their tangents."""
    point, tangents = (
        arrays[: len(own.inputs)],
        dict(zip(own.floating, arrays[len(own.inputs) :], strict=True)),
    )

    def at(*given: Any) -> list[Any]:
        return own.function(*_placed(point, own.moving, given))

    outputs, moved = jax.jvp(at, [point[i] for i in own.moving], [tangents[i] for i in own.moving])
    kept = [one for output, one in zip(outputs, moved, strict=True) if is_float(np.dtype(output.dtype))]
    return [*outputs, *kept]


def _pulled_at(own: _Own, point: Sequence[Any]) -> Callable[..., Any]:
    """Return the pullback of the floating-point outputs by the inputs that move."""

    def at(*given: Any) -> list[Any]:
        outputs = own.function(*_placed(point, own.moving, given))
        return [one for one in outputs if is_float(np.dtype(one.dtype))]

    pull: Callable[..., Any] = jax.vjp(at, *(point[place] for place in own.moving))[1]
    return pull


def _pullback(own: _Own, *arrays: Any) -> list[Any]:
    """Return cotangents of the floating-point inputs, given the inputs and cotangents of the outputs."""
    point, cotangents = arrays[: len(own.inputs)], arrays[len(own.inputs) :]
    pulled = dict(zip(own.moving, _pulled_at(own, point)(list(cotangents)), strict=True))
    return [pulled.get(place, jnp.zeros_like(point[place])) for place in own.floating]


def _transposed(own: _Own, *arrays: Any) -> list[Any]:
    """Return what `_pushforward` does, as the transpose of a pullback that is linear for JAX to see."""
    point, tangents = (
        arrays[: len(own.inputs)],
        dict(zip(own.floating, arrays[len(own.inputs) :], strict=True)),
    )
    cotangents = [result for result in own.call.results if is_float(result.dtype)]
    push = jax.linear_transpose(_pulled_at(own, point), _types(cotangents))
    (moved,) = push(tuple(tangents[place] for place in own.moving))
    return [*own.function(*point), *moved]
