"""Loops and branches: followed step by step while short, to a fixed point where long."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from gradwire_engine.jaxprs.slicing import called
from gradwire_engine.sparsity.known import Known
from gradwire_engine.sparsity.walking import Array, Reach, Visit, control_rule

Values = list[Known | None]
Followed = tuple[list[Reach], Values]

_EQUATION = 2_000
"""Elements that take as long to visit as an equation takes by itself."""

_ROUNDS = 64
"""Rounds after which a fixed point is no longer looked for: what is carried is taken for dense."""


@control_rule("custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint", "remat")
def call(visit: Visit) -> Followed:
    """Follow the program that is called."""
    program = visit.params.get("call_jaxpr") or visit.params["jaxpr"]
    follow = visit.walk.closed if hasattr(program, "jaxpr") else visit.walk.run
    return follow(program, visit.reached, visit.values)


@control_rule("cond")
def branch(visit: Visit) -> Followed:
    """Follow the branch that is known to be taken, or unite all of them."""
    branches = visit.params["branches"]
    reached, values = visit.reached[1:], visit.values[1:]
    nothing: list[Any] = [None] * len(visit.equation.outvars)
    index = visit.known(0)
    if index is not None:
        taken = int(np.clip(int(index), 0, len(branches) - 1))
        return visit.walk.closed(branches[taken], reached, values)
    if all(ids is None for ids in reached):
        return nothing, nothing
    united = nothing
    for program in branches:
        found, _ = visit.walk.closed(program, reached, values)
        united = [visit.sets.union(one, other) for one, other in zip(united, found, strict=True)]
    return united, nothing


@control_rule("scan")
def scan(visit: Visit) -> Followed:
    """Follow a loop of a known number of trips."""
    params = visit.params
    constants, carried, length = params["num_consts"], params["num_carry"], params["length"]
    program = params["jaxpr"]
    state = constants + carried
    nothing: list[Any] = [None] * len(visit.equation.outvars)
    if all(ids is None for ids in visit.reached) and not _finds_values(visit, program):
        return nothing, nothing
    price = length * _price(program.jaxpr)
    if price <= visit.walk.steps_left:
        visit.walk.steps_left -= price
        return _stepped(visit, constants, carried, length)
    if all(ids is None for ids in visit.reached):
        return nothing, nothing
    sliced = [None if ids is None else _any(visit, ids) for ids in visit.reached[state:]]
    fixed: Values = [*visit.values[:constants], *[None] * (carried + len(sliced))]
    reached = _fixed_point(
        visit, program, visit.reached[:constants], visit.reached[constants:state], sliced, fixed
    )
    results = []
    for k, result in enumerate(visit.equation.outvars):
        ids = reached[k]
        results.append(None if ids is None else np.broadcast_to(ids, tuple(result.aval.shape)))
    return results, nothing


def _stepped(visit: Visit, constants: int, carried: int, length: int) -> Followed:
    program, state = visit.params["jaxpr"], constants + carried
    carry, carry_values = list(visit.reached[constants:state]), list(visit.values[constants:state])
    stacked: list[list[Reach]] = []
    stacked_values: list[Values] = []
    order = range(length - 1, -1, -1) if visit.params["reverse"] else range(length)
    for step in order:
        found, made = visit.walk.closed(
            program,
            [
                *visit.reached[:constants],
                *carry,
                *[None if ids is None else ids[step] for ids in visit.reached[state:]],
            ],
            [
                *visit.values[:constants],
                *carry_values,
                *[None if value is None else value.at(step) for value in visit.values[state:]],
            ],
        )
        carry, carry_values = found[:carried], made[:carried]
        stacked.append(found[carried:])
        stacked_values.append(made[carried:])
    if visit.params["reverse"]:
        stacked.reverse()
        stacked_values.reverse()
    reached, values = list(carry), list(carry_values)
    for k, result in enumerate(visit.equation.outvars[carried:]):
        shape = tuple(result.aval.shape)
        rows = [step[k] for step in stacked]
        if all(row is None for row in rows):
            reached.append(None)
        else:
            empty = np.broadcast_to(np.int32(-1), shape[1:])
            reached.append(np.stack([empty if row is None else row for row in rows]))
        values.append(_stack([step[k] for step in stacked_values], shape, result.aval.dtype))
    return reached, values


def _stack(steps: Values, shape: tuple[int, ...], dtype: Any) -> Known | None:
    given = [step for step in steps if step is not None]
    if len(given) < len(steps):
        return None

    def stacked() -> Array | None:
        arrays = [step.array for step in given]
        found = [array for array in arrays if array is not None]
        if len(found) < len(arrays):
            return None
        return np.stack(found).astype(dtype, copy=False) if found else np.empty(shape, dtype)

    return Known(stacked, 1 + max((step.depth for step in given), default=0))


@control_rule("while")
def while_loop(visit: Visit) -> Followed:
    """Follow a loop while its condition is known, and to a fixed point from there on."""
    params = visit.params
    tests, constants = params["cond_nconsts"], params["body_nconsts"]
    condition, program = params["cond_jaxpr"], params["body_jaxpr"]
    state = tests + constants
    carry, values = list(visit.reached[state:]), list(visit.values[state:])
    nothing: list[Any] = [None] * len(carry)
    if all(ids is None for ids in visit.reached):
        # Trips that depend on the point make nothing known.
        return nothing, nothing
    price = _price(program.jaxpr) + _price(condition.jaxpr)
    while price <= visit.walk.steps_left:
        visit.walk.steps_left -= price
        _, made = visit.walk.closed(
            condition, [None] * (tests + len(carry)), [*visit.values[:tests], *values]
        )
        again = None if made[0] is None else made[0].array
        if again is None:
            break
        if not again:
            return carry, values
        carry, values = visit.walk.closed(
            program,
            [*visit.reached[tests:state], *carry],
            [*visit.values[tests:state], *values],
        )
    fixed: Values = [*visit.values[tests:state], *nothing]
    return _fixed_point(visit, program, visit.reached[tests:state], carry, [], fixed), nothing


def _fixed_point(
    visit: Visit,
    program: Any,
    constants: Sequence[Reach],
    start: Sequence[Reach],
    sliced: Sequence[Reach],
    values: Values,
) -> list[Reach]:
    """Return what a loop's body reaches after any number of trips, none included.

    What is carried only grows from round to round; the results that are not carried are those of the last.
    """
    carry = list(start)
    for round_number in range(_ROUNDS + 1):
        if round_number == _ROUNDS:
            carry = _widened(visit, [*constants, *carry, *sliced], carry, program, len(constants))
        found, _ = visit.walk.closed(program, [*constants, *carry, *sliced], values)
        grown = [visit.sets.union(old, new) for old, new in zip(carry, found[: len(carry)], strict=True)]
        same = all(_same(old, new) for old, new in zip(carry, grown, strict=True))
        carry = grown
        if same:
            return [*carry, *found[len(carry) :]]
    # Every carried element depends on all that takes part: another trip adds nothing.
    return [*carry, *found[len(carry) :]]


def _widened(
    visit: Visit, taking_part: Sequence[Reach], carry: Sequence[Reach], program: Any, offset: int
) -> list[Reach]:
    united = np.array([visit.sets.everything(ids) for ids in taking_part if ids is not None], np.int32)
    everything = np.int32(visit.sets.everything(united))
    shapes = [tuple(variable.aval.shape) for variable in program.jaxpr.invars[offset : offset + len(carry)]]
    return [np.broadcast_to(everything, shape) for shape in shapes]


def _same(one: Reach, other: Reach) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def _any(visit: Visit, ids: Array) -> Array:
    return visit.sets.union_along(ids, (0,))


def _price(jaxpr: Any) -> int:
    """Return the elements that one trip visits, loops inside counted with their trips."""
    price = 0
    for equation in jaxpr.eqns:
        trips = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        results = sum(prod(getattr(result.aval, "shape", ())) for result in equation.outvars)
        price += _EQUATION + results + trips * sum(map(_price, called(equation)))
    return price


class _Asked(Exception):
    """A placeholder's value was asked for."""


def _finds_values(visit: Visit, program: Any) -> bool:
    """Return whether a loop that no seed reaches makes known what it carries or stacks: counters, indices."""
    constants, carried = visit.params["num_consts"], visit.params["num_carry"]

    def placeholder() -> Array:
        raise _Asked

    values: Values = [None if value is None else Known(placeholder) for value in visit.values]
    try:
        while True:
            _, made = visit.walk.closed(program, [None] * len(values), values)
            lost = [k for k in range(carried) if made[k] is None and values[constants + k] is not None]
            if not lost:
                return any(value is not None for value in made)
            for k in lost:
                values[constants + k] = None
    except _Asked:
        # It branches on a value that is known: only its steps tell.
        return True
