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
from jax.extend import core as jex

from gradwire_engine.computations import apart
from gradwire_engine.jaxprs.convolutions import convolves, without_slow_convolutions
from gradwire_engine.jaxprs.recomputation import cheap_equations
from gradwire_engine.jaxprs.slicing import Slice, equations_of, last_uses, variables
from gradwire_engine.jaxprs.storing import storing

Array = Any

SEGMENT = 32
"""Equations of a segment: few enough to keep the quadratic cost small, enough to fuse well."""

LONG = 512
"""Programs of fewer equations are not cut for their length."""

REPEATED = 16
"""How many recomputed equations a value of a segment may cost, beyond the segment's own length."""

BODIES = frozenset({"scan", "while", "cond"})
"""Primitives with bodies, which XLA compiles as computations of their own."""


@dataclass(frozen=True)
class _Segment:
    run: Callable[..., Sequence[Array]]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


def is_long(equations: Sequence[Any]) -> bool:
    """Return whether a program of these equations is cut for its length, and its repetition rolled up.

    Convolutions divide a program by themselves: XLA's fusion pass sees what is between two of them.
    """
    return any(end - begin >= LONG for begin, end in _stretches(equations))


def _stretches(equations: Sequence[Any]) -> list[tuple[int, int]]:
    """List the ranges before, between and after the equations that hold convolutions."""
    found = [index for index, equation in enumerate(equations) if convolves(equation)]
    return [(before + 1, after) for before, after in pairwise((-1, *found, len(equations)))]


def runner(closed: jex.ClosedJaxpr) -> Callable[..., Sequence[Array]]:
    """Return the jaxpr as a function, cut into segments where it needs them."""
    jaxpr = closed.jaxpr
    if jax.default_backend() != "cpu":
        return jex.jaxpr_as_fun(closed)  # type: ignore[no-any-return]
    if not any(map(convolves, jaxpr.eqns)):
        begins = _begins(jaxpr)
        if len(begins) < 2:
            return jex.jaxpr_as_fun(closed)  # type: ignore[no-any-return]
        return _in_turn(closed, [_apart(part) for part in _parts(jaxpr, begins)])
    # A border in between convolutions would make XLA transpose their images once more.
    ranges = [(begin, end) for begin, end in _stretches(jaxpr.eqns) if end - begin >= LONG]
    if not ranges:
        return storing(closed)
    parts = _parts(jaxpr, sorted({0, *(border for pair in ranges for border in pair)}))
    return _in_turn(closed, [_Segment(runner(part.program), part.inputs, part.outputs) for part in parts])


def _in_turn(closed: jex.ClosedJaxpr, segments: Sequence[_Segment]) -> Callable[..., Sequence[Array]]:
    jaxpr = closed.jaxpr

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
        own = cheap_equations(equation)
        work.update((variable, behind + own if own else 0) for variable in equation.outvars)
    return begins


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
    if not any(map(convolves, cut.jaxpr.eqns)) and len(_begins(cut.jaxpr)) < 2:
        return cut
    avals = [jax.ShapeDtypeStruct(item.aval.shape, item.aval.dtype) for item in cut.jaxpr.invars]  # type: ignore[no-untyped-call]
    return jax.make_jaxpr(runner(cut))(*avals)


def _parts(jaxpr: Any, begins: Sequence[int]) -> list[Slice]:
    """Slice a program at the first equations of its parts."""
    last_use = last_uses(jaxpr)
    parts = []
    for begin, end in pairwise((*(begin for begin in begins if begin < len(jaxpr.eqns)), len(jaxpr.eqns))):
        made = dict.fromkeys(item for equation in jaxpr.eqns[begin:end] for item in equation.outvars)
        used_later = [variable for variable in made if last_use.get(variable, -1) >= end]
        parts.append(equations_of(jaxpr, begin, end, used_later))
    return parts


def _apart(part: Slice) -> _Segment:
    return _Segment(apart(part.run), part.inputs, part.outputs)
