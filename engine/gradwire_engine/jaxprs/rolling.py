"""Rewrites repeated equation runs as `lax.scan`, so that they are traced and compiled once.

Exporters write a loop of a thousand steps as a thousand copies of its body, and a deep network of equal
layers likewise. The copies become the body of a `lax.scan`, which forward and reverse mode go through in the
order in which they would go through the copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core as jex

from gradwire_engine.jaxprs.convolutions import holds_convolution
from gradwire_engine.jaxprs.cost import estimate, nbytes
from gradwire_engine.jaxprs.repeats import Producer, Repetition, find, makers_of, wiring
from gradwire_engine.jaxprs.segments import LONG, is_long, runner
from gradwire_engine.jaxprs.slicing import equations_of, variables

Array = Any

_SMALL_BYTES = 1 << 20
"""Operands that differ from one repetition to the next are always stacked up to this size in all."""

_FLOPS_PER_BYTE = 4
"""Above it, the repetitions must do at least this many operations for a byte that is stacked."""

_MOVES = frozenset(
    {"broadcast_in_dim", "convert_element_type", "gather", "dynamic_slice", "reshape", "slice", "squeeze"}
)
"""Primitives that select a repetition's operands from an input: they are moved in front of the loop."""


def rolled(closed: jex.ClosedJaxpr) -> jex.ClosedJaxpr:
    """Rewrite the repeated runs of a long program as loops; return a short one as it is."""
    if not is_long(closed.jaxpr.eqns):
        return closed
    program = _early_first(closed)
    loops = _loops(program, 0, len(program.jaxpr.eqns))
    if not loops:
        return closed
    avals = [jax.ShapeDtypeStruct(item.aval.shape, item.aval.dtype) for item in closed.jaxpr.invars]  # type: ignore[no-untyped-call]
    return jax.make_jaxpr(lambda *arguments: _run(program, loops, arguments))(*avals)


def _early_first(closed: jex.ClosedJaxpr) -> jex.ClosedJaxpr:
    """Move the equations that only select parts of inputs, and those that they need, to the front."""
    jaxpr = closed.jaxpr
    inputs, known = {*jaxpr.invars, *jaxpr.constvars}, set[Any]()
    moves = []
    for index, equation in enumerate(jaxpr.eqns):
        operands = variables(equation.invars)
        if equation.primitive.name in _MOVES and all(item in inputs or item in known for item in operands):
            moves.append(index)
            (known if all(item in known for item in operands) else inputs).update(equation.outvars)
    # Constants stay in the loop, unless an equation that moves takes them.
    needed, early = set[Any](), set[int]()
    for index in reversed(moves):
        equation = jaxpr.eqns[index]
        if any(item in inputs or item in needed for item in equation.outvars):
            early.add(index)
            needed.update(variables(equation.invars))
    first = [equation for index, equation in enumerate(jaxpr.eqns) if index in early]
    rest = [equation for index, equation in enumerate(jaxpr.eqns) if index not in early]
    return jex.ClosedJaxpr(jaxpr.replace(eqns=[*first, *rest]), closed.consts)


@dataclass(frozen=True)
class _Loop:
    """A repeated run as a loop.

    Attributes:
        start, stop: the equations it stands for.
        count: its trips.
        body: from the carry, the stacked and the same operands to the carry and the results.
        carried: by place in the body's carry, the variable that it holds at first.
        final: variables that are in the carry at the end, by place.
        stacked: operands that differ from trip to trip, an atom for each trip.
        same: operands that do not.
        kept: for each result that later equations use, its variable in every trip.
    """

    start: int
    stop: int
    count: int
    body: jex.ClosedJaxpr
    carried: tuple[Any, ...]
    final: tuple[Any, ...]
    stacked: tuple[tuple[Any, ...], ...]
    same: tuple[Any, ...]
    kept: tuple[tuple[Any, ...], ...]


def _loops(program: jex.ClosedJaxpr, begin: int, end: int) -> list[_Loop]:
    """Find the loops among equations `begin ... end`, in order."""
    equations = program.jaxpr.eqns
    if end - begin < LONG // 4:
        return []
    found = find(equations[begin:end])
    if found is None:
        return []
    found = Repetition(found.start + begin, found.period, found.count, found.lag)
    loop = _loop(program.jaxpr, found)
    if loop is None:
        return [*_loops(program, begin, found.start), *_loops(program, found.stop, end)]
    # The equations before and after it may have loops of their own.
    return [*_loops(program, begin, loop.start), loop, *_loops(program, loop.stop, end)]


@dataclass
class _Operands:
    """Inputs of a loop body under construction: a variable for each operand."""

    carried: dict[Producer, Any] = field(default_factory=dict)
    stacked: dict[tuple[int, ...], tuple[Any, tuple[Any, ...]]] = field(default_factory=dict)
    same: dict[Any, Any] = field(default_factory=dict)


def _loop(jaxpr: Any, found: Repetition) -> _Loop | None:
    """Make the loop over all repetitions but the first `lag`, where unit seeds fold, and the last."""
    equations, makers = jaxpr.eqns, makers_of(jaxpr.eqns)
    first, count = found.lag, found.count - 1 - found.lag
    start = found.start + first * found.period
    stop = start + count * found.period
    sources = iter(wiring(equations, makers, found, first))
    operands = _Operands()
    body = []
    for offset in range(found.period):
        trips = [equations[start + trip * found.period + offset].invars for trip in range(count)]
        invars = []
        for place, atom in enumerate(trips[0]):
            source = next(sources)
            invars.append(_operand(operands, atom, source, [trip[place] for trip in trips]))
        body.append(equations[start + offset].replace(invars=invars))

    def made(source: Producer, repetition: int) -> Any:
        return equations[found.start + repetition * found.period + source.equation].outvars[source.place]

    depth: dict[tuple[int, int], int] = {}
    for source in operands.carried:
        key = (source.equation, source.place)
        depth[key] = max(depth.get(key, 0), source.lag)
    slots = [Producer(lag, *key) for key, most in depth.items() for lag in range(1, most + 1)]
    inputs = [operands.carried.get(slot) or jex.Var(made(slot, first - slot.lag).aval) for slot in slots]
    passed_on = dict(zip(slots, inputs, strict=True))
    next_carry = [
        made(slot, first) if slot.lag == 1 else passed_on[Producer(slot.lag - 1, slot.equation, slot.place)]
        for slot in slots
    ]
    final = tuple(made(slot, first + count - slot.lag) for slot in slots)
    kept = _kept(jaxpr, makers, start, stop, found.period, set(final))
    results = [equations[start + offset].outvars[place] for offset, place in kept]
    stacked = list(operands.stacked.values())
    part = jex.Jaxpr(
        (),
        [*inputs, *(variable for variable, _ in stacked), *operands.same.values()],
        [*next_carry, *results],
        body,
        jaxpr.effects,
        jaxpr.debug_info,
    )
    if not _worth(part, count, [atoms for _, atoms in stacked]):
        return None
    return _Loop(
        start,
        stop,
        count,
        rolled(jex.ClosedJaxpr(part, ())),
        tuple(made(slot, first - slot.lag) for slot in slots),
        final,
        tuple(atoms for _, atoms in stacked),
        tuple(operands.same),
        tuple(
            tuple(equations[start + trip * found.period + offset].outvars[place] for trip in range(count))
            for offset, place in kept
        ),
    )


def _operand(operands: _Operands, atom: Any, source: Producer | None, trips: Sequence[Any]) -> Any:
    """Return the body's atom for an operand: a new input for one that comes from outside the trip."""
    if source is not None:
        if source.lag == 0:
            return atom
        return operands.carried.setdefault(source, jex.Var(atom.aval))
    if isinstance(atom, jex.Literal):
        if all(isinstance(trip, jex.Literal) and _equal(trip.val, atom.val) for trip in trips):
            return atom
    elif all(trip is atom for trip in trips):
        return operands.same.setdefault(atom, jex.Var(atom.aval))
    key = tuple(map(id, trips))
    return operands.stacked.setdefault(key, (jex.Var(atom.aval), tuple(trips)))[0]


def _equal(one: Any, other: Any) -> bool:
    # Bit for bit: -0.0 is not 0.0, and NaN is itself.
    return np.asarray(one).tobytes() == np.asarray(other).tobytes()


def _kept(
    jaxpr: Any, makers: dict[Any, tuple[int, int]], start: int, stop: int, period: int, carried: set[Any]
) -> list[tuple[int, int]]:
    """List results (equation of the period, position) that are used after the loop."""
    used = [item for equation in jaxpr.eqns[stop:] for item in equation.invars]
    found: dict[tuple[int, int], None] = {}
    for item in (*used, *jaxpr.outvars):
        if isinstance(item, jex.Literal) or item in carried or item not in makers:
            continue
        index, place = makers[item]
        if start <= index < stop:
            found.setdefault(((index - start) % period, place))
    return list(found)


def _worth(body: Any, count: int, stacked: Sequence[Sequence[Any]]) -> bool:
    """Return whether a loop pays off: it has no convolution, and its body outweighs stacking operands."""
    if any(map(holds_convolution, body.eqns)):  # it would be slow in there
        return False
    total = sum(nbytes(atom) for atoms in stacked for atom in atoms)
    return total <= max(_SMALL_BYTES, count * estimate(body).flops / _FLOPS_PER_BYTE)


def _run(program: jex.ClosedJaxpr, loops: Sequence[_Loop], arguments: Sequence[Array]) -> list[Array]:
    jaxpr = program.jaxpr
    values: dict[Any, Array] = dict(zip(jaxpr.constvars, program.consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))

    def read(atom: Any) -> Array:
        return atom.val if isinstance(atom, jex.Literal) else values[atom]

    position = 0
    for loop in loops:
        _plain(jaxpr, position, loop.start, values)
        _scan(loop, values, read)
        position = loop.stop
    _plain(jaxpr, position, len(jaxpr.eqns), values)
    return [read(atom) for atom in jaxpr.outvars]


def _plain(jaxpr: Any, begin: int, end: int, values: dict[Any, Array]) -> None:
    """Evaluate a range of equations; add the results to `values`."""
    part = equations_of(jaxpr, begin, end)
    results = part.run(*(values[item] for item in part.inputs))
    values.update(zip(part.outputs, results, strict=True))


def _scan(loop: _Loop, values: dict[Any, Array], read: Callable[[Any], Array]) -> None:
    """Evaluate a loop; add its final carry and kept results to `values`."""
    body = runner(loop.body)
    same = [values[item] for item in loop.same]
    carries = len(loop.carried)

    def trip(carry: list[Array], stacked: list[Array]) -> tuple[list[Array], list[Array]]:
        results = body(*carry, *stacked, *same)
        return list(results[:carries]), list(results[carries:])

    rows = [_stack(atoms, read) for atoms in loop.stacked]
    carry, kept = lax.scan(trip, [values[item] for item in loop.carried], rows, loop.count)
    values.update(zip(loop.final, carry, strict=True))
    for trips, history in zip(loop.kept, kept, strict=True):
        values.update((variable, history[index]) for index, variable in enumerate(trips))


def _stack(atoms: Sequence[Any], read: Callable[[Any], Array]) -> Array:
    if all(isinstance(atom, jex.Literal) for atom in atoms):
        return np.stack([np.asarray(atom.val, atom.aval.dtype) for atom in atoms])
    return jnp.stack([read(atom) for atom in atoms])
