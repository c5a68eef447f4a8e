"""Keeps values of programs with convolutions in memory where XLA would compute them anew for each use.

Such a program is not cut into segments: each border would make XLA transpose its images. What XLA recomputes
between two convolutions is little, unless uses fork and meet again from one to the next, as around the blocks
of a residual network: there the value at the fork is stored. So is its cotangent, in which the uses meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

from jax.extend import core as jex
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gradwire_engine.computations import apart
from gradwire_engine.jaxprs.recomputation import cheap_equations
from gradwire_engine.jaxprs.slicing import equations_of, variables

Array = Any

REPEATED = 64
"""How many recomputed equations a value may cost."""

STORED = "stored"
"""The primitive's name: a value as it is, in memory."""

_stored: Any = Primitive(STORED)
_linear: Any = ad.deflinear
_vectorized: Any = batching.defvectorized
_stored.def_impl(lambda x: x)
_stored.def_abstract_eval(lambda aval: aval)
mlir.register_lowering(_stored, mlir.lower_fun(apart(lambda x: x), multiple_results=False))
_linear(_stored, lambda cotangent: [_stored.bind(cotangent)])
_vectorized(_stored)


def storing(closed: jex.ClosedJaxpr) -> Callable[..., Sequence[Array]]:
    """Return a jaxpr as a function that stores what XLA would compute too often."""
    jaxpr = closed.jaxpr
    kept = _worth_storing(jaxpr)
    if not kept:
        return jex.jaxpr_as_fun(closed)  # type: ignore[no-any-return]
    parts = [equations_of(jaxpr, begin, end) for begin, end in _between(jaxpr, kept)]

    def run(*arguments: Array) -> list[Array]:
        values: dict[Any, Array] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))
        for part in parts:
            results = part.run(*(values[variable] for variable in part.inputs))
            values.update(
                (variable, _stored.bind(result) if variable in kept else result)
                for variable, result in zip(part.outputs, results, strict=True)
            )
        return [
            variable.val if isinstance(variable, jex.Literal) else values[variable]
            for variable in jaxpr.outvars
        ]

    return run


def _between(jaxpr: Any, kept: set[Any]) -> list[tuple[int, int]]:
    ends = [index + 1 for index, equation in enumerate(jaxpr.eqns) if kept.intersection(equation.outvars)]
    borders = [0, *(end for end in ends if end < len(jaxpr.eqns)), len(jaxpr.eqns)]
    return list(pairwise(borders))


def _worth_storing(jaxpr: Any) -> set[Any]:
    """List the values that XLA would recompute, from several arrays or in many equations."""
    uses: dict[Any, int] = {}
    for equation in jaxpr.eqns:
        for variable in variables(equation.invars):
            uses[variable] = uses.get(variable, 0) + 1
    found: set[Any] = set()
    # Of values that XLA recomputes: the equations behind one use, and the arrays that it reads for it.
    work: dict[Any, int] = {}
    reads: dict[Any, frozenset[Any]] = {}
    for equation in jaxpr.eqns:
        own = cheap_equations(equation)
        operands = dict.fromkeys(variables(equation.invars))
        behind = sum(work.get(variable, 0) for variable in variables(equation.invars))
        if behind > REPEATED:
            stored = [variable for variable in operands if work.get(variable, 0)]
            found.update(stored)
            work.update(dict.fromkeys(stored, 0))
            reads.update((variable, frozenset({variable})) for variable in stored)
            behind = 0
        for variable in equation.outvars:
            size = prod(variable.aval.shape)
            sources = {one for operand in operands for one in reads.get(operand, {operand})}
            large = frozenset(one for one in sources if 2 * prod(one.aval.shape) > size)
            if own and len(large) > 1 and uses.get(variable, 0) > 1:
                found.add(variable)
                own = 0
            work[variable] = behind + own if own else 0
            reads[variable] = large if own else frozenset({variable})
    return found
