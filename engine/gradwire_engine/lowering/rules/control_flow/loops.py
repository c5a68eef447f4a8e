"""Loop and Scan. Bodies capture values, tracers included, of the enclosing graphs, with their derivatives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gradwire_engine.errors import ValueNeeded
from gradwire_engine.lowering.arrays import axis_of
from gradwire_engine.lowering.registry import Node, Value, is_static, rule
from gradwire_engine.lowering.rules.arrays.indexing import slice_axes
from gradwire_engine.lowering.rules.control_flow.repetition import (
    known_trips,
    loop_inputs,
    repeat,
    repeat_while,
)

_INT64_MAX = 2**63 - 1


def _trip_count(trips: Value) -> Value:
    """Return a Loop's bound: an int, infinity where there is none, or a traced integer."""
    if trips is None or not trips.size:
        return math.inf
    if is_static(trips):
        bound = int(np.ravel(trips)[0])
        return math.inf if bound == _INT64_MAX else max(0, bound)
    return trips.reshape(())


@rule("Loop")
def loop(node: Node, trips: Value = None, keep: Value = None, *states: Value) -> tuple[Value, ...]:
    """Loop: repeats its body a known number of times, or while a traced condition holds.

    A number of trips that depends on the data allows no stacked outputs.
    """
    body = node.subgraph("body")
    carried = len(states)
    if len(body.input) != 2 + carried or len(body.output) < 1 + carried:
        raise node.fail(
            f"its body has {len(body.input)} inputs and {len(body.output)} outputs; {carried} states "
            f"need {2 + carried} inputs and at least {1 + carried} outputs"
        )
    keep = np.array(True) if keep is None or not keep.size else keep
    maximum = _trip_count(trips)
    bound = maximum if isinstance(maximum, int | float) else math.inf

    def run(trip: Value, before: Sequence[Value]) -> list[Value]:
        # Inside a trip the condition of that trip is true.
        return node.run(body, *loop_inputs(body, trip, np.True_), *before)

    def step(trip: Value, before: list[Value], _: list[Value]) -> tuple[list[Value], list[Value]]:
        outputs = run(trip, before)
        return outputs[1 : 1 + carried], outputs[1 + carried :]

    def while_step(trip: Value, before: list[Value]) -> tuple[Value, list[Value]]:
        outputs = run(trip, before)
        return outputs[0], outputs[1 : 1 + carried]

    count = known_trips(node, body, keep, bound, states)
    if count == 0 or (count is not None and count < math.inf and bound is maximum):
        final, stacked = repeat(node, body, step, list(states), [], int(count))
        return (*final, *stacked)
    scans = len(body.output) - 1 - carried
    if any(node.wants(carried + index) for index in range(scans)):
        if count == math.inf and bound is maximum:
            raise node.fail(
                "it never ends, and its stacked outputs would have no shape; give it a trip count"
            )
        raise ValueNeeded(
            f"node {node.name} (Loop): its number of trips depends on the data, and so would the shape of "
            "its stacked outputs; make the trip count and the condition independent of inputs, or keep the "
            "values in a state of fixed shape"
        )
    return (*repeat_while(node, while_step, keep, list(states), maximum), *[None] * scans)


def _axis_to_front(data: Value, axis: int) -> Value:
    return data.transpose([axis, *(item for item in range(data.ndim) if item != axis)])


def _front_to_axis(data: Value, axis: int) -> Value:
    order = list(range(1, data.ndim))
    order.insert(axis, 0)
    return data.transpose(order)


def _reversed(data: Value, direction: int) -> Value:
    """Reverse the first axis if the direction is 1."""
    return slice_axes(data, {0: slice(None, None, -1)}) if direction else data


def _per_item(node: Node, name: str, count: int) -> list[int]:
    """Return an INTS attribute with `count` entries, zeros where it is not set."""
    values = node.attr(name) or [0] * count
    if len(values) != count:
        raise node.fail(f"attribute {name} has {len(values)} entries, {count} are needed")
    return list(values)


def _length(node: Node, scanned: Sequence[Value]) -> int:
    """Return the common length of the scanned inputs."""
    lengths = {item.shape[0] for item in scanned}
    if len(lengths) != 1:
        raise node.fail(f"the scanned inputs have different lengths: {sorted(lengths)}")
    return int(lengths.pop())


@rule("Scan", since=9)
def scan(node: Node, *inputs: Value) -> tuple[Value, ...]:
    """Scan from opset 9: scans arrays along any axes, in either direction."""
    body = node.subgraph("body")
    count: int = node.attributes["num_scan_inputs"]
    carried = len(inputs) - count
    results = len(body.output) - carried
    directions = _per_item(node, "scan_input_directions", count)
    axes = _per_item(node, "scan_input_axes", count)
    scanned = [
        _reversed(_axis_to_front(item, axis_of(node, axis, item.ndim)), direction)
        for item, axis, direction in zip(inputs[carried:], axes, directions, strict=True)
    ]

    def step(_: Value, before: list[Value], items: list[Value]) -> tuple[list[Value], list[Value]]:
        outputs = node.run(body, *before, *items)
        return outputs[:carried], outputs[carried:]

    final, stacked = repeat(node, body, step, list(inputs[:carried]), scanned, _length(node, scanned))
    directions = _per_item(node, "scan_output_directions", results)
    axes = _per_item(node, "scan_output_axes", results)
    arranged = [
        _front_to_axis(_reversed(item, direction), axis_of(node, axis, item.ndim))
        for item, axis, direction in zip(stacked, axes, directions, strict=True)
    ]
    return (*final, *arranged)


@rule("Scan", since=8)
def scan_batches(node: Node, lengths: Value, *inputs: Value) -> tuple[Value, ...]:
    """Scan of opset 8: scans each sequence of a batch (a leading axis everywhere) to its own length.

    Past a sequence's end its states stay and its scan outputs are 0.
    """
    body = node.subgraph("body")
    count: int = node.attributes["num_scan_inputs"]
    carried = len(inputs) - count
    directions = _per_item(node, "directions", count)
    batch = inputs[0].shape[0]

    def one(length: Value, states: list[Value], items: list[Value]) -> tuple[list[Value], list[Value]]:
        scanned = [_reversed(item, way) for item, way in zip(items, directions, strict=True)]

        def step(trip: Value, before: list[Value], given: list[Value]) -> tuple[list[Value], list[Value]]:
            outputs = node.run(body, *before, *given)
            if length is None:
                return outputs[:carried], outputs[carried:]
            active = trip < length
            after = [jnp.where(active, new, old) for new, old in zip(outputs[:carried], before, strict=True)]
            return after, [jnp.where(active, item, jnp.zeros_like(item)) for item in outputs[carried:]]

        return repeat(node, body, step, states, scanned, _length(node, scanned))

    states, items = list(inputs[:carried]), list(inputs[carried:])
    if lengths is None:
        final, stacked = jax.vmap(lambda s, x: one(None, s, x), axis_size=batch)(states, items)
    else:
        final, stacked = jax.vmap(one, axis_size=batch)(jnp.asarray(lengths), states, items)
    return (*final, *stacked)
