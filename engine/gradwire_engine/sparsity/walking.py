"""Walks a linear program and follows which seeds reach each element of each value.

Rules are registered for a primitive's name and see one equation at a time, as a `Visit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.extend import core as jex

from gradwire_engine.jaxprs.slicing import CALLS
from gradwire_engine.sparsity.index_sets import EMPTY, IndexSets
from gradwire_engine.sparsity.known import Known, fold, known

Array = np.ndarray[Any, Any]
Reach = Array | None
"""For each element of a value the id of the set of seeds that reach it; None where none reaches any."""

Rule = Callable[["Visit"], "list[Reach]"]

_RULES: dict[str, Rule] = {}


def rule(*primitives: str) -> Callable[[Rule], Rule]:
    """Register a rule for primitives, by name."""

    def register(function: Rule) -> Rule:
        for name in primitives:
            _RULES[name] = function
        return function

    return register


def primitives_with_rules() -> frozenset[str]:
    """Return the names of the primitives that a rule follows."""
    return frozenset(_RULES) | frozenset(_RULES_OF_CONTROL) | CALLS


@dataclass(frozen=True, eq=False)
class Visit:
    """An equation and what is known of its operands.

    Attributes:
        equation: of the linear program.
        reached: for each operand, which seeds reach its elements.
        values: for each operand its value, where it is known before the program runs.
        walk: the walk that meets it.
    """

    equation: Any
    reached: Sequence[Reach]
    values: Sequence[Known | None]
    walk: Walk

    @property
    def params(self) -> dict[str, Any]:
        """The equation's parameters."""
        params: dict[str, Any] = self.equation.params
        return params

    @property
    def sets(self) -> IndexSets:
        """The sets that ids name."""
        return self.walk.sets

    def shape(self, operand: int) -> tuple[int, ...]:
        """Return the shape of an operand."""
        shape: tuple[int, ...] = tuple(self.equation.invars[operand].aval.shape)
        return shape

    def result_shape(self, result: int = 0) -> tuple[int, ...]:
        """Return the shape of a result."""
        shape: tuple[int, ...] = tuple(self.equation.outvars[result].aval.shape)
        return shape

    def ids(self, operand: int) -> Array:
        """Return the ids of an operand; those of empty sets where no seed reaches it."""
        ids = self.reached[operand]
        return np.broadcast_to(np.int32(EMPTY), self.shape(operand)) if ids is None else ids

    def known(self, operand: int) -> Array | None:
        """Return an operand's value if it is known."""
        value = self.values[operand]
        return None if value is None else value.array


class Walk:
    """One walk over a program."""

    def __init__(self, sets: IndexSets, step_limit: int) -> None:
        """Begin a walk.

        Args:
            sets: the store of sets.
            step_limit: elements that may be visited inside of loops that are followed step by step.
        """
        self.sets = sets
        self.steps_left = step_limit
        """What of the limit is left."""
        self.unknown: dict[str, None] = {}
        """Primitives without a rule that seeds reached: their results were taken for dense."""

    def run(
        self, jaxpr: Any, reached: Iterable[Reach], values: Iterable[Known | None]
    ) -> tuple[list[Reach], list[Known | None]]:
        """Follow a jaxpr; return reach and values of its results.

        Args:
            jaxpr: what is followed.
            reached, values: of its constants, where it has some, and of its inputs.
        """
        operands = [*jaxpr.constvars, *jaxpr.invars]
        reach: dict[Any, Reach] = dict(zip(operands, reached, strict=True))
        value: dict[Any, Known | None] = dict(zip(operands, values, strict=True))

        def read(atom: Any) -> tuple[Reach, Known | None]:
            if isinstance(atom, jex.Literal):
                return None, known(atom.val)
            return reach.get(atom), value.get(atom)

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            found, made = self.visit(
                equation, [operand[0] for operand in operands], [operand[1] for operand in operands]
            )
            reach.update(zip(equation.outvars, found, strict=True))
            value.update(zip(equation.outvars, made, strict=True))
        results = [read(atom) for atom in jaxpr.outvars]
        return [result[0] for result in results], [result[1] for result in results]

    def closed(
        self, program: Any, reached: Iterable[Reach], values: Iterable[Known | None]
    ) -> tuple[list[Reach], list[Known | None]]:
        """Follow a closed jaxpr: its constants are known values."""
        constants = list(map(known, program.consts))
        return self.run(program.jaxpr, [*[None] * len(constants), *reached], [*constants, *values])

    def visit(
        self, equation: Any, reached: list[Reach], values: list[Known | None]
    ) -> tuple[list[Reach], list[Known | None]]:
        """Follow one equation; return reach and values of its results."""
        name = equation.primitive.name
        if name in CALLS:
            return self.closed(equation.params["jaxpr"], reached, values)
        visit = Visit(equation, reached, values, self)
        if name in _RULES_OF_CONTROL:
            return _RULES_OF_CONTROL[name](visit)
        nothing: list[Any] = [None] * len(equation.outvars)
        if all(operand is None for operand in reached):
            return nothing, fold(equation, values)
        found = _RULES.get(name, unfollowed)
        return found(visit), nothing


ControlRule = Callable[[Visit], "tuple[list[Reach], list[Known | None]]"]
_RULES_OF_CONTROL: dict[str, ControlRule] = {}


def control_rule(*primitives: str) -> Callable[[ControlRule], ControlRule]:
    """Register the rule of control flow, which gives values as well: counters and what follows from them."""

    def register(function: ControlRule) -> ControlRule:
        for name in primitives:
            _RULES_OF_CONTROL[name] = function
        return function

    return register


def unfollowed(visit: Visit) -> list[Reach]:
    """Take the results for dense and note the primitive, so that the client can be told."""
    visit.walk.unknown.setdefault(visit.equation.primitive.name)
    return dense(visit)


def dense(visit: Visit) -> list[Reach]:
    """Let every element of every result depend on all that any operand depends on."""
    united = np.array(
        [visit.sets.everything(ids) for ids in visit.reached if ids is not None and ids.size], np.int32
    )
    everything = np.int32(visit.sets.everything(united))
    return [np.broadcast_to(everything, tuple(result.aval.shape)) for result in visit.equation.outvars]
