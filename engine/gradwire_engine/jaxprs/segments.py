"""Cuts programs into segments, so that compile and run time grow linearly with their length.

XLA's fusion pass on CPU takes time quadratic in the operations of one computation, and recomputes a cheap
value for each of its uses: where uses fork and meet again step after step, as in an unrolled recurrence of a
few numbers, the work doubles with every step. XLA inlines every call into one computation, unless the call
is marked; segments are calls that are marked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend import core as jex

from gradwire_engine.jaxprs.convolutions import holds_convolution, without_slow_convolutions
from gradwire_engine.jaxprs.slicing import CALLS, equations_of, last_uses, variables

Array = Any

SEGMENT = 32
"""Equations of a segment: few enough to keep the quadratic cost small, enough to fuse well."""

LONG = 512
"""Programs of fewer equations are not cut for their length."""

REPEATED = 16
"""How many recomputed equations a value of a segment may cost, beyond the segment's own length."""

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

BODIES = frozenset({"scan", "while", "cond"})
"""Primitives with bodies, which XLA compiles as computations of their own."""

NAME = "segment"
"""The name of calls of segments in a jaxpr."""


@dataclass(frozen=True)
class _Segment:
    run: Callable[..., Sequence[Array]]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as a call that XLA compiles as a computation of its own and does not inline."""

    def segment(*arguments: Array) -> Any:
        return function(*arguments)

    compiled = jax.jit(segment)

    def call(*arguments: Array) -> Any:
        with set_xla_metadata(inlineable="false"):  # type: ignore[no-untyped-call]
            return compiled(*arguments)

    return call


def runner(closed: jex.ClosedJaxpr) -> Callable[..., Sequence[Array]]:
    """Return the jaxpr as a function, cut into segments where it needs them."""
    begins = _begins(closed.jaxpr)
    if len(begins) < 2 or jax.default_backend() != "cpu":
        return jex.jaxpr_as_fun(closed)  # type: ignore[no-any-return]
    jaxpr = closed.jaxpr
    segments = _cut(jaxpr, _around_convolutions(jaxpr, begins))

    def run(*arguments: Array) -> list[Array]:
        values: dict[Any, Array] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))
        for segment in segments:
            results = segment.run(*(values[variable] for variable in segment.inputs))
            values.update(zip(segment.outputs, results, strict=True))
        return [
            variable.val if isinstance(variable, jex.Literal) else values[variable]
            for variable in jaxpr.outvars
        ]

    return run


def _begins(jaxpr: Any) -> list[int]:
    """List the first equations of segments: one ends when it is full, or would recompute too much."""
    long = len(jaxpr.eqns) >= LONG
    begins = [0]
    # For each value, the equations evaluated for one use of it, if each use recomputes them.
    work: dict[Any, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        behind = sum(work.get(variable, 0) for variable in variables(equation.invars))
        if (long and index - begins[-1] == SEGMENT) or behind > REPEATED + index - begins[-1]:
            begins.append(index)
            work = {}
            behind = 0
        own = _cheap(equation)
        work.update((variable, behind + own if own else 0) for variable in equation.outvars)
    return begins


def _cheap(equation: Any) -> int:
    """Count the cheap equations that it stands for; 0 for one whose result XLA keeps."""
    name = equation.primitive.name
    if name in CALLS and equation.params.get("name") != NAME:
        counts = [_cheap(inner) for inner in equation.params["jaxpr"].jaxpr.eqns]
        return sum(counts) if all(counts) else 0
    return int(name in CHEAP)


def bodies_cut(closed: jex.ClosedJaxpr) -> jex.ClosedJaxpr:
    """Cut the bodies of a program's loops and branches into segments, where they need it."""
    equations = [_with_bodies_cut(equation) for equation in closed.jaxpr.eqns]
    if all(new is old for new, old in zip(equations, closed.jaxpr.eqns, strict=True)):
        return closed
    return jex.ClosedJaxpr(closed.jaxpr.replace(eqns=equations), closed.consts)


def _with_bodies_cut(equation: Any) -> Any:
    params: dict[str, Any] = {}
    for key, value in equation.params.items():
        if isinstance(value, jex.ClosedJaxpr):
            params[key] = _body_cut(value)
        elif isinstance(value, tuple) and value and all(isinstance(item, jex.ClosedJaxpr) for item in value):
            params[key] = tuple(map(_body_cut, value))
    changed = {key: value for key, value in params.items() if value is not equation.params[key]}
    if equation.primitive.name not in BODIES or not changed:
        return equation
    return equation.replace(params={**equation.params, **changed})


def _body_cut(body: jex.ClosedJaxpr) -> jex.ClosedJaxpr:
    cut = bodies_cut(body)
    if jax.default_backend() == "cpu":
        cut = without_slow_convolutions(cut)
    if len(_begins(cut.jaxpr)) < 2:
        return cut
    avals = [jax.ShapeDtypeStruct(item.aval.shape, item.aval.dtype) for item in cut.jaxpr.invars]  # type: ignore[no-untyped-call]
    return jax.make_jaxpr(runner(cut))(*avals)


def _around_convolutions(jaxpr: Any, begins: Sequence[int]) -> list[int]:
    """Add boundaries before and after each convolution: only in the main computation is it fast."""
    cuts = set(begins)
    for index, equation in enumerate(jaxpr.eqns):
        if _in_main(equation):
            cuts |= {index, index + 1}
    return sorted(cuts - {len(jaxpr.eqns)})


def _in_main(equation: Any) -> bool:
    """Return whether XLA runs an equation fast only in the main computation; bodies cannot be moved there."""
    return equation.primitive.name not in BODIES and holds_convolution(equation)


def _cut(jaxpr: Any, begins: Sequence[int]) -> list[_Segment]:
    last_use = last_uses(jaxpr)
    segments = []
    for begin, end in pairwise((*begins, len(jaxpr.eqns))):
        made = dict.fromkeys(item for equation in jaxpr.eqns[begin:end] for item in equation.outvars)
        used_later = [variable for variable in made if last_use.get(variable, -1) >= end]
        part = equations_of(jaxpr, begin, end, used_later)
        main = end == begin + 1 and _in_main(jaxpr.eqns[begin])
        segments.append(_Segment(part.run if main else apart(part.run), part.inputs, part.outputs))
    return segments
