"""Repetition: counts the trips of a loop and chooses the JAX form with the most derivatives.

A loop of a known number of trips becomes one `lax.scan`, or is unrolled where its state changes
shape or its body needs the trip's number as a value; both have every derivative. A loop that stops
on a value of the data runs all its trips under a mask where its bound is small (every derivative
again), else as `lax.while_loop`, which has forward mode only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import lax
from onnx import GraphProto

from gradwire_engine.errors import InvalidGraph, LimitExceeded, ValueNeeded
from gradwire_engine.lowering.arrays import namespace_for
from gradwire_engine.lowering.registry import Node, Value, is_static
from gradwire_engine.lowering.rules.control_flow.subgraphs import captures, needed_for

Step = Callable[[Value, list[Value], list[Value]], tuple[list[Value], list[Value]]]
"""(number of the trip, states, slices of the scanned arrays) -> (states, outputs to stack)."""

WhileStep = Callable[[Value, list[Value]], tuple[Value, list[Value]]]
"""(number of the trip, states) -> (whether to continue, states)."""

UNROLL_NODES = 10_000
"""Largest number of nodes of an unrolled loop; compile time grows faster than linearly with it."""

COUNTING_NODES = 20_000
"""Largest number of nodes evaluated to count the trips of a loop with a static condition."""

MASKED_TRIPS = 1024
"""Largest bound with which a loop with a data-dependent end runs all its trips under a mask."""


class _StateChange(Exception):
    """The state of a loop changes its shapes, dtypes or structure."""


def _signature(value: Value) -> str:
    return f"{value.dtype}{list(value.shape)}"


def _matched(before: list[Value], after: list[Value]) -> list[Value]:
    """Return `after`; raise `_StateChange` unless its shapes and dtypes are those of `before`."""
    old, new = jax.tree.leaves(before), jax.tree.leaves(after)
    structures: list[Any] = [jax.tree.structure(before), jax.tree.structure(after)]
    if structures[0] != structures[1]:
        raise _StateChange("a sequence or an optional in its state changes length")
    for left, right in zip(old, new, strict=True):
        if left.shape != right.shape or left.dtype != right.dtype:
            raise _StateChange(f"its state changes from {_signature(left)} to {_signature(right)}")
    return after


def reads_only_static(node: Node, body: GraphProto, values: Sequence[Value]) -> bool:
    """Return whether a body that is given `values` depends on nothing that is traced."""
    leaves = jax.tree.leaves([*values, *(node.scope.environment.find(name) for name in captures(body))])
    return is_static(*leaves)


def repeat(
    node: Node,
    body: GraphProto,
    step: Step,
    states: list[Value],
    scanned: list[Value],
    trips: int,
) -> tuple[list[Value], list[Value]]:
    """Run `step` a known number of times.

    Args:
        node: the loop, for its limits and for errors.
        body: its body, whose size decides whether it may be unrolled.
        step: evaluates one trip.
        states: the initial states.
        scanned: arrays whose slices along their first axis, of size `trips`, are given to the trips.
        trips: number of trips.

    Returns:
        The final states, and the outputs of all trips stacked on a new first axis.

    Raises:
        LimitExceeded: there are more trips than `limits.loop_trips`.
        InvalidGraph: the loop can neither be scanned nor, because of its length, unrolled.
    """
    allowed = node.scope.limits.loop_trips
    if trips > allowed:
        raise LimitExceeded(
            f"node {node.name} ({node.op}) runs {trips} times; the limit is {allowed} trips",
            "loop_trips",
            allowed,
            trips,
        )
    if trips == 0:
        items: list[Any] = [jax.ShapeDtypeStruct(item.shape[1:], item.dtype) for item in scanned]  # type: ignore[no-untyped-call]
        shapes = jax.eval_shape(lambda given: step(np.int64(0), states, given)[1], items)
        return states, [np.zeros((0, *item.shape), item.dtype) for item in shapes]
    can_unroll = trips * max(1, len(body.node)) <= UNROLL_NODES
    if can_unroll and reads_only_static(node, body, [*states, *scanned]):
        return _unrolled(step, states, scanned, trips)
    try:
        return _scanned(step, states, scanned, trips)
    except (ValueNeeded, _StateChange) as reason:
        if not can_unroll:
            raise node.fail(
                f"its {trips} trips of {len(body.node)} nodes are too many to unroll, and it cannot "
                f"be kept a loop: {reason}"
            ) from reason
        return _unrolled(step, states, scanned, trips)


def _scanned(
    step: Step, states: list[Value], scanned: list[Value], trips: int
) -> tuple[list[Value], list[Value]]:
    """Run the loop as one `lax.scan`; raise `_StateChange` or `ValueNeeded` where that is impossible."""

    def once(carry: Any, items: list[Value]) -> tuple[Any, list[Value]]:
        trip, before = carry
        after, outputs = step(trip, before, items)
        return (trip + 1, _matched(before, after)), outputs

    (_, final), stacked = lax.scan(once, (jnp.int64(0), states), scanned, length=trips)
    return final, stacked


def _unrolled(
    step: Step, states: list[Value], scanned: list[Value], trips: int
) -> tuple[list[Value], list[Value]]:
    """Run the trips one after the other, each with its number as a known value."""
    collected: list[list[Value]] = []
    for trip in range(trips):
        items = [
            item[trip] if is_static(item) else lax.index_in_dim(item, trip, 0, keepdims=False)
            for item in scanned
        ]
        states, outputs = step(np.int64(trip), states, items)
        collected.append(outputs)
    stacked = []
    for values in zip(*collected, strict=True):
        size = sum(value.size for value in values)
        stacked.append(namespace_for((size,), *values).stack(values))
    return states, stacked


def known_trips(
    node: Node, body: GraphProto, keep: Value, maximum: float, states: Sequence[Value]
) -> float | None:
    """Return how often a Loop runs, or None where that depends on the data.

    Evaluate only the nodes that the condition needs, with NumPy, trip by trip.

    Args:
        node: the Loop.
        body: its body.
        keep: the initial condition, one boolean.
        maximum: the bound on the number of trips; infinity where there is none or it is traced.
        states: the initial states.

    Returns:
        The number of trips, infinity for a loop that never ends, or None.
    """
    if not is_static(keep):
        return None
    if not np.all(keep):
        return 0
    wanted = {body.output[0].name}
    while True:
        part, names = needed_for(body, wanted)
        carried = [index for index, item in enumerate(body.input[2:]) if item.name in names]
        more = {body.output[1 + index].name for index in carried} - wanted
        if not more:
            break
        wanted |= more
    inside = {item.name for item in part.input} | {item.name for item in part.initializer}
    inside |= {item.values.name for item in part.sparse_initializer}
    inside |= {name for item in part.node for name in item.output}
    outside = [node.scope.environment.find(name) for name in names - inside]
    if not is_static(*jax.tree.leaves([outside, [states[index] for index in carried]])):
        return None
    outputs = [body.output[0].name, *(body.output[1 + index].name for index in carried)]
    part.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    values: list[Value] = [None] * len(states)
    for index in carried:
        values[index] = states[index]
    changes = bool(carried) or body.input[0].name in names
    trips = 0
    while trips < maximum:
        if trips * len(part.node) > COUNTING_NODES:
            return None
        try:
            go_on, *after = node.run(part, *loop_inputs(body, np.int64(trips), np.True_), *values)
        except InvalidGraph:
            return None
        if not is_static(go_on):
            return None
        trips += 1
        if not np.all(go_on):
            return trips
        if not changes:
            return maximum
        for index, value in zip(carried, after, strict=True):
            values[index] = value
    return maximum


def loop_inputs(body: GraphProto, trip: Value, keep: Value) -> tuple[Value, Value]:
    """Return trip number and condition as the body declares them: scalars, or arrays of one element."""
    return _as_declared(body.input[0], trip), _as_declared(body.input[1], keep)


def _as_declared(info: onnx.ValueInfoProto, value: Value) -> Value:
    kind = info.type.tensor_type
    if kind.HasField("shape") and len(kind.shape.dim) == 1:
        return value.reshape(1)
    return np.asarray(value) if is_static(value) else value


def repeat_while(
    node: Node, step: WhileStep, keep: Value, states: list[Value], maximum: Value
) -> list[Value]:
    """Run `step` while its condition holds, at most `maximum` times.

    Where the loop becomes a `lax.while_loop`, the notes record that the node has forward mode only.

    Args:
        node: the loop, for notes and errors.
        step: evaluates one trip.
        keep: the initial condition, one boolean.
        states: the initial states.
        maximum: the bound: an int, infinity, or a traced integer.

    Returns:
        The final states.

    Raises:
        ValueNeeded: a state changes its shape or dtype.
    """
    states = jax.tree.map(jnp.asarray, states)
    start = (jnp.int64(0), _scalar_bool(keep), states)
    try:
        if isinstance(maximum, int) and maximum <= MASKED_TRIPS:
            return _masked(step, start, maximum)
        node.scope.notes.forward_only.setdefault(
            node.name,
            f"its number of trips depends on the data; give it a trip count of at most {MASKED_TRIPS}, "
            "or a condition that does not depend on inputs, for reverse mode",
        )
        return _while(step, start, maximum)
    except _StateChange as reason:
        raise ValueNeeded(
            f"node {node.name} ({node.op}): {reason}, which it cannot while its number of trips depends on "
            "the data; make the trip count and the condition constants"
        ) from reason


def _scalar_bool(value: Value) -> Value:
    return jnp.asarray(value).reshape(()).astype(bool)


def _while(step: WhileStep, start: Any, maximum: Value) -> list[Value]:
    """Run the loop as a `lax.while_loop`."""

    def go_on(carry: Any) -> Value:
        trip, keep, _ = carry
        bounded = not (isinstance(maximum, float) and math.isinf(maximum))
        return keep & (trip < maximum) if bounded else keep

    def once(carry: Any) -> Any:
        trip, _, before = carry
        keep, after = step(trip, before)
        return trip + 1, _scalar_bool(keep), _matched(before, after)

    final: list[Value] = lax.while_loop(go_on, once, start)[2]
    return final


def _masked(step: WhileStep, start: Any, maximum: int) -> list[Value]:
    """Run all `maximum` trips as one `lax.scan`, in which trips past the end keep the states."""
    first = start[2]

    def once(carry: Any, _: None) -> tuple[Any, None]:
        trip, keep, before = carry
        # Once the loop has ended its body sees the first state again: under vmap both branches
        # run, and a body that fails on the last state would turn the derivative into NaN.
        safe = jax.tree.map(lambda value, initial: jnp.where(keep, value, initial), before, first)

        def active(given: list[Value]) -> tuple[Value, list[Value]]:
            go_on, after = step(trip, given)
            return _scalar_bool(go_on), _matched(given, after)

        keep, after = lax.cond(keep, active, lambda _: (jnp.array(False), before), safe)
        return (trip + 1, keep, after), None

    final: list[Value] = lax.scan(once, start, None, length=maximum)[0][2]
    return final
