"""Slices of jaxprs: ranges of equations as programs of their own, and what reads of jaxprs share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend import core as jex
from jax.interpreters import partial_eval

Array = Any

CALLS = frozenset({"pjit", "jit", "closed_call", "core_call"})
"""Primitives that XLA inlines the body of."""


def variables(atoms: Iterable[Any]) -> list[Any]:
    """Return the variables among operands or results; literals are left out."""
    return [atom for atom in atoms if not isinstance(atom, jex.Literal)]


def called(equation: Any) -> Iterator[Any]:
    """Yield the jaxprs that an equation runs: bodies of loops and branches, called functions."""
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, jex.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, jex.Jaxpr):
                yield item


def last_uses(jaxpr: Any) -> dict[Any, int]:
    """Map each variable to the last equation that takes it; to the number of equations if it is an output."""
    found: dict[Any, int] = {}
    for index, equation in enumerate(jaxpr.eqns):
        found.update((variable, index) for variable in variables(equation.invars))
    found.update((variable, len(jaxpr.eqns)) for variable in variables(jaxpr.outvars))
    return found


@dataclass(frozen=True)
class Slice:
    """A range of a jaxpr's equations as a program.

    Attributes:
        program: from `inputs` to `outputs`.
        inputs: variables that the range takes from before it, in order of their first use.
        outputs: variables that it makes.
    """

    program: jex.ClosedJaxpr
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]

    def run(self, *arguments: Array) -> list[Array]:
        """Evaluate the range."""
        return jex.jaxpr_as_fun(self.program)(*arguments)  # type: ignore[no-any-return]


def equations_of(jaxpr: Any, begin: int, end: int, wanted: Sequence[Any] | None = None) -> Slice:
    """Slice the equations `begin ... end` out of a jaxpr.

    Args:
        jaxpr: an open jaxpr.
        begin: the first equation.
        end: the one after the last.
        wanted: the variables to give, of those that the range makes; all of them by default. What else is
            in it is skipped.
    """
    equations = jaxpr.eqns[begin:end]
    made = dict.fromkeys(variable for equation in equations for variable in equation.outvars)
    inputs = dict.fromkeys(
        variable for equation in equations for variable in variables(equation.invars) if variable not in made
    )
    outputs = list(made) if wanted is None else [item for item in variables(wanted) if item in made]
    part = jex.Jaxpr((), list(inputs), outputs, equations, jaxpr.effects, jaxpr.debug_info)
    return Slice(jex.ClosedJaxpr(part, ()), tuple(inputs), tuple(outputs))


def needed(
    function: Callable[[list[Array]], list[Array]], arguments: list[Array]
) -> Callable[..., list[Array]]:
    """Return a function without the computations that its results do not need, in loops and branches too.

    In derivatives what is not needed would take part with zeros, and zero times an infinite slope is NaN.

    Args:
        function: from a list of arrays to a list of arrays; may close over tracers.
        arguments: what it is evaluated on.
    """
    closed = jax.make_jaxpr(function)(arguments)
    whole = closed.jaxpr
    inputs = [*whole.constvars, *whole.invars]
    names = whole.debug_info.with_unknown_names()  # of the inputs, which there are more of now
    everything = jex.Jaxpr((), inputs, whole.outvars, whole.eqns, whole.effects, names)
    jaxpr, _ = partial_eval.dce_jaxpr(everything, [True] * len(everything.outvars), instantiate=True)
    program = jex.jaxpr_as_fun(jex.ClosedJaxpr(jaxpr, ()))

    def run(values: list[Array]) -> list[Array]:
        return list(program(*closed.consts, *values))

    return run
