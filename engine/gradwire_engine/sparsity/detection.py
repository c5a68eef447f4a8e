"""Finds the sparsity pattern of a derivative on its linearized program.

The pushforward of a function (for a Hessian, of its gradient) at an unknown point holds linear primitives
only. Following what each unit tangent reaches there is right by construction: derivative rules that replace
code, stopped gradients and straight-through estimators are in it already, which the primal program does not
show. The pattern holds at every point; it is exact unless values that happen to be zero or to cancel make an
entry zero.

The idea of index sets on a computational graph: A. Walther, "Computing sparse Hessians with automatic
differentiation", ACM TOMS 34(1), 2008, and A. Hill, G. Dalle, A. Montoison, "An illustrated guide to
automatic sparse differentiation", 2025; here the graph is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex
from jax.interpreters import partial_eval

from gradwire_engine.errors import LimitExceeded
from gradwire_engine.sparsity import rules as _rules  # noqa: F401  (registers them)
from gradwire_engine.sparsity.index_sets import EMPTY, IndexSets
from gradwire_engine.sparsity.known import Known, known
from gradwire_engine.sparsity.pattern import Array, SparsityPattern
from gradwire_engine.sparsity.walking import Reach, Walk

STEPS = 300_000_000
"""Elements visited inside of loops that are followed step by step, some seconds at most."""

SEEDS = 2**31 - 2
"""Upper bound on the columns of a pattern, whose indices are int32."""


@dataclass(frozen=True, eq=False)
class LinearProgram:
    """A linear function of tangents, as a program over what is known and unknown at the point.

    Attributes:
        program: from constants and tangents to results, without what the results do not need.
        constants: for each of its leading inputs the value where it is known.
        tangents: types of its other inputs.
    """

    program: Any
    constants: tuple[Known | None, ...]
    tangents: tuple[jax.ShapeDtypeStruct, ...]


@dataclass(frozen=True, eq=False)
class Detected:
    """A pattern and what was not followed on the way to it.

    Attributes:
        pattern: rows are the elements of all results, columns those of all tangents, in order.
        dense_primitives: names of primitives whose results were taken for dense, for want of a rule.
    """

    pattern: SparsityPattern
    dense_primitives: tuple[str, ...]


def linear_program(
    push: Callable[..., Sequence[Any]],
    constants: Sequence[jax.ShapeDtypeStruct],
    tangents: Sequence[jax.ShapeDtypeStruct],
    values: Mapping[int, Array],
) -> LinearProgram:
    """Trace a linear function.

    Args:
        push: from the constants and the tangents to a list of results, linear in the tangents.
        constants: types of weights and of the point.
        tangents: types of the arrays that it is linear in.
        values: constants that are known, by position.
    """
    closed = jax.make_jaxpr(push)(*constants, *tangents)
    whole = closed.jaxpr
    names = whole.debug_info.with_unknown_names()
    opened = jex.Jaxpr((), [*whole.constvars, *whole.invars], whole.outvars, whole.eqns, whole.effects, names)
    jaxpr, _ = partial_eval.dce_jaxpr(opened, [True] * len(opened.outvars), instantiate=True)
    given = [known(values[k]) if k in values else None for k in range(len(constants))]
    return LinearProgram(jaxpr, (*map(known, closed.consts), *given), tuple(tangents))


def detect(program: LinearProgram, memory: int = 2 << 30) -> Detected:
    """Find the sparsity pattern of a linear program.

    Args:
        program: see `linear_program`.
        memory: upper bound on the memory of index sets, bytes.

    Raises:
        LimitExceeded: the pattern takes more memory, or has more than 2^31 - 2 columns.
    """
    sizes = [prod(tangent.shape) for tangent in program.tangents]
    seeds = sum(sizes)
    if seeds > SEEDS:
        raise LimitExceeded(
            f"a sparsity pattern of {seeds} columns is over the limit of {SEEDS}", "columns", SEEDS, seeds
        )
    sets = IndexSets(seeds, memory)
    walk = Walk(sets, STEPS)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    units = [
        np.arange(start, start + size, dtype=np.int32).reshape(tangent.shape)
        for start, size, tangent in zip(starts[:-1], sizes, program.tangents, strict=True)
    ]
    constants = program.constants
    reached: list[Reach] = [*[None] * len(constants), *units]
    found, _ = walk.run(program.program, reached, [*constants, *[None] * len(units)])
    rows = [
        np.full(prod(result.aval.shape), EMPTY, np.int32) if ids is None else ids.reshape(-1)
        for ids, result in zip(found, program.program.outvars, strict=True)
    ]
    joined = np.concatenate(rows) if rows else np.zeros(0, np.int32)
    indptr, indices = sets.csr(joined)
    return Detected(SparsityPattern((len(joined), seeds), indptr, indices), tuple(walk.unknown))
