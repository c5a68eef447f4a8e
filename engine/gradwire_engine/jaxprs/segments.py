"""Programs in segments, so that compiling and running them takes time in proportion to their length.

XLA's fusion pass on CPU takes time quadratic in the operations of one computation, and computes a cheap value
anew for each of its uses: where uses fork and meet again step after step, as in an unrolled recurrence of a
few numbers, the work doubles with every step. XLA inlines every call into one computation, unless the call
says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend import core as jex

Array = Any

SEGMENT = 32
"""Equations of a segment: few enough for the quadratic part to be small, enough to fuse well."""

LONG = 512
"""Equations from which on a program is cut up."""

REPEATED = 16
"""How often cheap values may be computed anew for one value of a segment."""

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
"""Primitives whose results XLA computes again for each use; the results of others are kept."""

BODIES = frozenset({"scan", "while", "cond"})
"""Primitives with bodies, which XLA compiles as computations of their own."""

CALLS = frozenset({"pjit", "jit", "closed_call", "core_call"})
"""Primitives that XLA inlines the body of."""

NAME = "segment"
"""The name of calls of segments in a jaxpr."""


@dataclass(frozen=True)
class _Segment:
    run: Callable[..., Sequence[Array]]
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is compiled as a computation of its own wherever it is called."""

    def segment(*arguments: Array) -> Any:
        return function(*arguments)

    compiled = jax.jit(segment)

    def call(*arguments: Array) -> Any:
        with set_xla_metadata(inlineable="false"):  # type: ignore[no-untyped-call]
            return compiled(*arguments)

    return call


def runner(closed: jex.ClosedJaxpr) -> Callable[..., Sequence[Array]]:
    """The jaxpr as a function; one that is long, or forks over and over, runs segment by segment."""
    begins = _begins(closed.jaxpr)
    if len(begins) < 2 or jax.default_backend() != "cpu":
        return jex.jaxpr_as_fun(closed)  # type: ignore[no-any-return]
    jaxpr = closed.jaxpr
    segments = _cut(jaxpr, begins)

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
    """Where segments begin: where the last one is full, or would compute cheap values too often."""
    long = len(jaxpr.eqns) >= LONG
    begins = [0]
    # How often the equations behind a value are evaluated for it, if each use evaluates them anew.
    work: dict[Any, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        behind = sum(work.get(variable, 0) for variable in _variables(equation.invars))
        if (long and index - begins[-1] == SEGMENT) or behind > REPEATED + index - begins[-1]:
            begins.append(index)
            work = {}
            behind = 0
        own = _cheap(equation)
        work.update((variable, behind + own if own else 0) for variable in equation.outvars)
    return begins


def _cheap(equation: Any) -> int:
    """How many cheap equations it stands for; 0 for one whose result is kept."""
    name = equation.primitive.name
    if name in CALLS and equation.params.get("name") != NAME:
        counts = [_cheap(inner) for inner in equation.params["jaxpr"].jaxpr.eqns]
        return sum(counts) if all(counts) else 0
    return int(name in CHEAP)


def bodies_cut(closed: jex.ClosedJaxpr) -> jex.ClosedJaxpr:
    """The program with the bodies of its loops and branches in segments, where they need it."""
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
    if len(_begins(cut.jaxpr)) < 2:
        return cut
    avals = [jax.ShapeDtypeStruct(item.aval.shape, item.aval.dtype) for item in cut.jaxpr.invars]  # type: ignore[no-untyped-call]
    return jax.make_jaxpr(runner(cut))(*avals)


def _cut(jaxpr: Any, begins: Sequence[int]) -> list[_Segment]:
    last_use: dict[Any, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        last_use.update((variable, index) for variable in _variables(equation.invars))
    last_use.update((variable, len(jaxpr.eqns)) for variable in _variables(jaxpr.outvars))
    segments = []
    for begin, end in pairwise((*begins, len(jaxpr.eqns))):
        equations = jaxpr.eqns[begin:end]
        made = dict.fromkeys(variable for equation in equations for variable in equation.outvars)
        inputs = tuple(
            dict.fromkeys(
                variable
                for equation in equations
                for variable in _variables(equation.invars)
                if variable not in made
            )
        )
        outputs = tuple(variable for variable in made if last_use.get(variable, -1) >= end)
        part = jex.Jaxpr((), list(inputs), list(outputs), equations, jaxpr.effects, jaxpr.debug_info)
        segments.append(_Segment(apart(jex.jaxpr_as_fun(jex.ClosedJaxpr(part, ()))), inputs, outputs))
    return segments


def _variables(atoms: Sequence[Any]) -> list[Any]:
    return [atom for atom in atoms if not isinstance(atom, jex.Literal)]
