"""Long programs in segments, so that compiling them takes time in proportion to their length.

XLA's fusion pass on CPU takes time quadratic in the operations of one computation, and what it fuses may
repeat a chain of cheap operations for each value that leaves it. It inlines every call into one
computation, unless the call says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend import core as jex

Array = Any

SEGMENT = 32
"""Equations of a segment: few enough for the quadratic part to be small, enough to fuse well."""

LONG = 512
"""Equations from which on a program is cut up."""

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
    """The jaxpr as a function; one that is long runs segment by segment."""
    if len(closed.jaxpr.eqns) < LONG or jax.default_backend() != "cpu":
        return jex.jaxpr_as_fun(closed)  # type: ignore[no-any-return]
    jaxpr = closed.jaxpr
    segments = _cut(jaxpr)

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


def _cut(jaxpr: Any) -> list[_Segment]:
    last_use: dict[Any, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        last_use.update((variable, index) for variable in _variables(equation.invars))
    last_use.update((variable, len(jaxpr.eqns)) for variable in _variables(jaxpr.outvars))
    segments = []
    for begin in range(0, len(jaxpr.eqns), SEGMENT):
        equations = jaxpr.eqns[begin : begin + SEGMENT]
        end = begin + len(equations)
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
