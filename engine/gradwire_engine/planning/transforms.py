"""Transforms functions to their gradient, pushforward, pullback or Hessian-vector product.

Each maps a JAX function over named arrays to another one, so any sequence of transforms composes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gradwire_engine.errors import InvalidInput, LimitExceeded, NotDifferentiable
from gradwire_engine.jaxprs.slicing import needed
from gradwire_engine.limits import Limits
from gradwire_engine.values import Named, Signature, is_floating

Arrays = Mapping[str, Any]
Call = Callable[[Arrays], dict[str, Any]]
"""From all inputs by name to all outputs by name."""


@dataclass(frozen=True)
class Gradient:
    """Transform to outputs `x.gradient` for each `x` in `wrt` (default: every floating input)."""

    wrt: tuple[str, ...] = ()
    of: str = ""
    keep_values: bool = False


@dataclass(frozen=True)
class Jvp:
    """Inputs gain `x.tangent`; outputs `y.tangent`, the Jacobian times the tangents."""

    wrt: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    keep_values: bool = False


@dataclass(frozen=True)
class Vjp:
    """Inputs gain `y.cotangent`; outputs `x.cotangent`, the cotangents times the Jacobian."""

    wrt: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    keep_values: bool = False


@dataclass(frozen=True)
class Hvp:
    """Inputs gain `x.tangent`; outputs `x.hvp`, the Hessian of `of` times the tangents."""

    wrt: tuple[str, ...] = ()
    of: str = ""
    keep_values: bool = False


Transform = Gradient | Jvp | Vjp | Hvp


@dataclass(frozen=True)
class FunctionSpec:
    """A registered graph and the transforms applied to it, first to last."""

    graph_id: str
    transforms: tuple[Transform, ...] = ()


@dataclass(frozen=True)
class Function:
    """A function under JAX: its signature and a callable.

    `forward_only` gives the reason why reverse mode is not possible, "" where it is;
    `no_derivative` why no derivative is, "" where there is one;
    `reverse_only` why forward mode is not, "" where it is; `equations` how long its program is, and
    `traced` how many equations tracing it passes, those that follow tangents apart included.
    """

    signature: Signature
    call: Call
    forward_only: str = ""
    no_derivative: str = ""
    equations: int = 0
    reverse_only: str = ""
    traced: int = 0


def choose_inputs(function: Function, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the inputs to differentiate with respect to: those named, or every floating one.

    Raises:
        InvalidInput: there is no such input, it is named twice, or it is not floating.
        NotDifferentiable: no derivative of the function is defined.
    """
    return _choose(function, names, function.signature.inputs, "input", "wrt")


def choose_outputs(function: Function, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the outputs to differentiate: those named, or every floating one (see `choose_inputs`)."""
    return _choose(function, names, function.signature.outputs, "output", "of")


def choose_scalar(function: Function, name: str) -> str:
    """Return the output to take a gradient or Hessian of; its size is checked when shapes are known."""
    chosen = choose_outputs(function, (name,) if name else ())
    if len(chosen) != 1:
        raise InvalidInput(
            f"the function has {len(chosen)} floating-point outputs ({', '.join(chosen)}): "
            "name the one in 'of'",
            "of",
        )
    return chosen[0]


def _choose(
    function: Function, names: tuple[str, ...], values: tuple[Named, ...], kind: str, field: str
) -> tuple[str, ...]:
    if function.no_derivative:
        raise NotDifferentiable(function.no_derivative)
    types = dict(values)
    chosen = names or tuple(name for name, value in values if is_floating(value.dtype))
    if not chosen:
        raise InvalidInput(f"the function has no floating-point {kind} to differentiate", field)
    for name in chosen:
        if name not in types:
            raise InvalidInput(f"there is no {kind} {name!r}; there are: {', '.join(types)}", field)
        if not is_floating(types[name].dtype):
            raise InvalidInput(
                f"{kind} {name!r} is {types[name].dtype or 'not a tensor'}: only floating-point {kind}s "
                "have derivatives; leave it out of " + field,
                field,
            )
    if len(set(chosen)) != len(chosen):
        raise InvalidInput(f"{field} names an {kind} twice: {', '.join(chosen)}", field)
    return chosen


def require_reverse(function: Function) -> None:
    """Check that the function has a reverse mode.

    Raises:
        NotDifferentiable: with the reason and what works instead.
    """
    if function.forward_only:
        raise NotDifferentiable(
            f"reverse mode is not possible: {function.forward_only}; "
            "use forward mode (jvp, or a Jacobian in mode forward)"
        )


def require_forward(function: Function) -> None:
    """Check that the function has a forward mode.

    Raises:
        NotDifferentiable: with the reason and what works instead.
    """
    if function.reverse_only:
        raise NotDifferentiable(
            f"forward mode is not possible: {function.reverse_only}; "
            "use reverse mode (vjp, grad, or a Jacobian in mode reverse)"
        )


def _fresh(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}.{count}"
    taken.add(candidate)
    return candidate


def _derived(
    suffix: str, names: tuple[str, ...], values: tuple[Named, ...], beside: tuple[Named, ...]
) -> tuple[Named, ...]:
    """Return values `name.suffix` of the types of `names`, numbered where `beside` has the name already."""
    types, taken = dict(values), {name for name, _ in beside}
    return tuple((_fresh(f"{name}.{suffix}", taken), types[name]) for name in names)


_GROWTH = 3
"""How many times as long a program becomes when it is differentiated."""

Compute = Callable[[Arrays], tuple[Arrays, Arrays]]
"""From all inputs to (derivatives, by the name of what they are of; all outputs of the function)."""


def _made(
    function: Function,
    suffix: str,
    sources: tuple[str, ...],
    added: tuple[Named, ...],
    keep: bool,
    compute: Compute,
    followed: int = 1,
) -> Function:
    """Return the function with inputs `added`, and an output `source.suffix` for each source.

    `followed` is how many times the function is differentiated in it.
    """
    inputs, outputs = function.signature.inputs, function.signature.outputs
    values = outputs if suffix == "tangent" else inputs
    kept = outputs if keep else ()
    derived = _derived(suffix, sources, values, kept)

    def call(inputs: Arrays) -> dict[str, Any]:
        found, values = compute(inputs)
        result = {name: found[source] for (name, _), source in zip(derived, sources, strict=True)}
        return {**result, **values} if keep else result

    signature = Signature(inputs + added, derived + kept)
    return Function(
        signature,
        call,
        function.forward_only,
        equations=_GROWTH * function.equations,
        traced=_GROWTH * followed * function.traced,
    )


def check_scalar(name: str, shape: tuple[int, ...]) -> None:
    """Check that an output to take a gradient of has exactly one element."""
    if any(extent != 1 for extent in shape):
        raise InvalidInput(
            f"output {name!r} has shape {list(shape)}: a gradient or Hessian is of an output with one "
            "element; reduce it in the graph, or ask for a Jacobian or vjp",
            "of",
        )


def _picked(inputs: Arrays, names: tuple[str, ...], under: tuple[Named, ...] = ()) -> dict[str, Any]:
    """Pick inputs by `names`; their values are those `under` other names, if given."""
    return {name: inputs[own] for name, own in zip(names, [name for name, _ in under] or names, strict=True)}


def _at(function: Function, of: tuple[str, ...], inputs: Arrays) -> Callable[..., Any]:
    """Return outputs `of` as a function of some inputs, the others fixed; all outputs are auxiliary."""

    def at(point: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        outputs = function.call({**inputs, **point})
        return {name: outputs[name] for name in of}, outputs

    return at


def _gradient_at(function: Function, of: str, inputs: Arrays) -> Callable[..., Any]:
    """Return the gradient of output `of` as a function of some inputs; all outputs beside it."""

    def scalar(point: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        outputs = function.call({**inputs, **point})
        check_scalar(of, outputs[of].shape)
        return outputs[of].reshape(()), outputs

    def forward(point: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        gradient, outputs = jax.jacfwd(scalar, has_aux=True)(point)
        return {name: row.astype(point[name].dtype) for name, row in gradient.items()}, outputs

    # Without reverse mode the gradient is the Jacobian's single row, by pushforwards.
    return forward if function.forward_only else jax.grad(scalar, has_aux=True)


@jax.custom_jvp
def _unless(nothing: Any, value: Any) -> Any:
    """Zero where there is nothing to add; the derivative is that of the value."""
    return jnp.where(nothing, jnp.zeros_like(value), value)


@_unless.defjvp
def _unless_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    return _unless(*primals), tangents[1]


_LONG_PROGRAM = 2_000
"""Equations up to which tangents and cotangents are followed apart: each takes a program of its own."""


def _followed_apart(given: Sequence[object] | Mapping[str, object], equations: int) -> bool:
    """Tell whether these tangents or cotangents of a program are followed one by one as well."""
    return len(given) > 1 and len(given) * equations <= _LONG_PROGRAM


def _without_spoiling(
    together: dict[str, Any],
    given: dict[str, Any],
    alone: Callable[[str], dict[str, Any]],
    equations: int,
) -> dict[str, Any]:
    """Keep a tangent or cotangent that is zero from making NaN of what the others give.

    Zero times an infinite slope is NaN: where there is a NaN in a sum over several tangents or cotangents, it
    is taken again over those that are not zero, each followed by itself.

    Args:
        together: the sum.
        given: the tangents or cotangents.
        alone: what one of them gives, by name.
        equations: length of the function's program; long ones are left as they are.
    """
    if not _followed_apart(given, equations):
        return together

    def apart() -> dict[str, Any]:
        total: dict[str, Any] = jax.tree.map(jnp.zeros_like, together)
        for name, item in given.items():
            part = jax.tree.map(partial(_unless, jnp.all(item == 0)), alone(name))
            total = jax.tree.map(jnp.add, total, part)
        return total

    spoiled = jnp.any(jnp.stack([jnp.any(jnp.isnan(leaf)) for leaf in jax.tree.leaves(together)]))
    idle = jnp.any(jnp.stack([jnp.all(item == 0) for item in given.values()]))
    kept: dict[str, Any] = lax.cond(spoiled & idle, apart, lambda: together)
    return kept


def _apply_gradient(function: Function, transform: Gradient) -> Function:
    wrt = choose_inputs(function, transform.wrt)
    of = choose_scalar(function, transform.of)

    def compute(inputs: Arrays) -> tuple[Arrays, Arrays]:
        gradient, outputs = _gradient_at(function, of, inputs)(_picked(inputs, wrt))
        return gradient, outputs

    return _made(function, "gradient", wrt, (), transform.keep_values, compute)


def _apply_jvp(function: Function, transform: Jvp) -> Function:
    require_forward(function)
    wrt = choose_inputs(function, transform.wrt)
    of = choose_outputs(function, transform.of)
    inputs = function.signature.inputs
    tangents = _derived("tangent", wrt, inputs, inputs)

    def compute(inputs: Arrays) -> tuple[Arrays, Arrays]:
        point, direction = _picked(inputs, wrt), _picked(inputs, wrt, tangents)
        at = _at(function, of, inputs)
        _, pushed, outputs = jax.jvp(at, (point,), (direction,), has_aux=True)

        def along(name: str) -> dict[str, Any]:
            def moved(value: Any) -> dict[str, Any]:
                values: dict[str, Any] = at({**point, name: value})[0]
                return values

            moving: dict[str, Any] = jax.jvp(moved, (point[name],), (direction[name],))[1]
            return moving

        return _without_spoiling(pushed, direction, along, function.equations), outputs

    followed = 1 + len(tangents) * _followed_apart(tangents, function.equations)
    return _made(function, "tangent", of, tangents, transform.keep_values, compute, followed)


def _apply_vjp(function: Function, transform: Vjp) -> Function:
    require_reverse(function)
    wrt = choose_inputs(function, transform.wrt)
    of = choose_outputs(function, transform.of)
    cotangents = _derived("cotangent", of, function.signature.outputs, function.signature.inputs)

    def compute(inputs: Arrays) -> tuple[Arrays, Arrays]:
        point, given = _picked(inputs, wrt), _picked(inputs, of, cotangents)
        _, pullback, outputs = jax.vjp(_at(function, of, inputs), point, has_aux=True)
        (pulled,) = pullback(given)

        def of_one(name: str) -> dict[str, Any]:
            def chosen(values: list[Any]) -> list[Any]:
                return [_at(function, of, inputs)(dict(zip(wrt, values, strict=True)))[0][name]]

            values = [point[key] for key in wrt]
            _, pull = jax.vjp(needed(chosen, values), values)
            return dict(zip(wrt, pull([given[name]])[0], strict=True))

        return _without_spoiling(pulled, given, of_one, function.equations), outputs

    followed = 1 + len(cotangents) * _followed_apart(cotangents, function.equations)
    return _made(function, "cotangent", wrt, cotangents, transform.keep_values, compute, followed)


def _apply_hvp(function: Function, transform: Hvp) -> Function:
    wrt = choose_inputs(function, transform.wrt)
    of = choose_scalar(function, transform.of)
    inputs = function.signature.inputs
    tangents = _derived("tangent", wrt, inputs, inputs)

    def compute(inputs: Arrays) -> tuple[Arrays, Arrays]:
        point, direction = _picked(inputs, wrt), _picked(inputs, wrt, tangents)
        gradient = _gradient_at(function, of, inputs)
        _, pushed, outputs = jax.jvp(gradient, (point,), (direction,), has_aux=True)
        return pushed, outputs

    return _made(function, "hvp", wrt, tangents, transform.keep_values, compute, _GROWTH)


def apply(function: Function, transform: Transform) -> Function:
    """Apply a transform to a function.

    Raises:
        InvalidInput: a name in the transform fits no floating input or output.
        NotDifferentiable: the derivative does not exist.
    """
    if isinstance(transform, Gradient):
        return _apply_gradient(function, transform)
    if isinstance(transform, Jvp):
        return _apply_jvp(function, transform)
    if isinstance(transform, Vjp):
        return _apply_vjp(function, transform)
    return _apply_hvp(function, transform)


def applied(function: Function, transforms: Sequence[Transform], limits: Limits) -> Function:
    """Apply transforms to a function, first to last.

    Raises:
        LimitExceeded: there are too many, or what they make has too many inputs, outputs or equations.
        InvalidInput, NotDifferentiable: see apply.
    """
    check_depth(len(transforms), limits.transforms)
    for index, transform in enumerate(transforms):
        function = apply(function, transform)
        signature = function.signature
        for what, limit, allowed, requested in (
            ("inputs", "names", limits.names, len(signature.inputs)),
            ("outputs", "names", limits.names, len(signature.outputs)),
            ("equations in its program, as estimated", "equations", limits.equations, function.traced),
        ):
            if requested > allowed:
                raise LimitExceeded(
                    f"after transform {index} the function has {requested} {what}; the limit is {allowed}: "
                    "use fewer transforms, or name fewer inputs in wrt and outputs in of",
                    limit,
                    allowed,
                    requested,
                )
    return function


def check_depth(transforms: int, most: int) -> None:
    """Check how many transforms are applied to one function; raise `LimitExceeded`."""
    if transforms > most:
        raise LimitExceeded(
            f"the function has {transforms} transforms; the limit is {most}: each multiplies the work",
            "transforms",
            most,
            transforms,
        )


def transformed(
    signature: Signature, transforms: Sequence[Transform], limits: Limits | None = None
) -> Signature:
    """Return a function's signature after transforms; nothing is traced.

    Raises:
        LimitExceeded, InvalidInput: see applied. What depends on shapes or on nodes is not looked at.
    """
    return applied(Function(signature, dict), transforms, limits or Limits()).signature
