"""Loops that carry a state: `scan` along arrays, `fori` over a range, `while_` under a condition.

`scan` becomes ONNX's Scan, or its Loop if there are no arrays to scan; the others become a Loop.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gradwire.errors import TraceError
from gradwire.frontends.numpy.arrays.array import TracedArray, apply, traced, wrap
from gradwire.frontends.numpy.control_flow.structure import (
    Kind,
    Leaf,
    Structure,
    as_value,
    emptied,
    flatten,
    kind_of,
    plain,
    stable,
    where,
)
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import GraphBuilder, active
from gradwire.graphs.nodes import GraphValue

_Step = Callable[[GraphValue, list[GraphValue]], tuple[GraphValue | None, list[GraphValue], list[GraphValue]]]
"""The body of a Loop: (index of the trip, states) -> (whether to continue, states, outputs to stack)."""


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Apply `f` along the first axis of arrays, carrying a state, as `jax.lax.scan` does.

    It is equivalent to

        ys = []
        for x in xs:
            carry, y = f(carry, x)
            ys.append(y)
        return carry, np.stack(ys)

    with one copy of `f` in the graph. There are derivatives of any order, in forward and reverse mode.

    Args:
        f: `(carry, x) -> (carry, y)`. The carry keeps its structure, shapes and dtypes; y may be None.
        init: the first carry: arrays or numbers, or nested tuples, lists and dicts of them.
        xs: the arrays that are sliced along the first axis, nested likewise; None passes None to `f`.
        length: number of steps; needed where `xs` is None.
        reverse: run from the last step to the first; the ys keep the order of the xs.

    Returns:
        The final carry, and the ys stacked along a new first axis.

    Raises:
        ValueError: the lengths differ, or the number of steps is not given.
        TraceError: the carry changes its structure, a shape or a dtype; the message names it.
    """
    states, carry = flatten("gw.scan", "init", init)
    items, given = flatten("gw.scan", "xs", xs)
    trips = _length(items, given, length)

    def step(before: Sequence[Leaf], slices: Sequence[Leaf]) -> tuple[list[Leaf], list[Leaf], Structure]:
        kinds = [kind_of(leaf) for leaf in states]
        result = f(carry.pack(before), given.pack(slices))
        if not isinstance(result, tuple) or len(result) != 2:
            raise TraceError(
                f"gw.scan: f returns a {type(result).__name__}{where()}, not a pair; return (carry, y), "
                "with None for y where there is nothing to stack"
            )
        after = stable("gw.scan", carry, kinds, "carry", result[0], "f")
        outputs, structure = flatten("gw.scan", "y", result[1])
        return after, outputs, structure

    graph = active.get()
    if graph is None and trips == 0:
        return carry.pack([plain(leaf) for leaf in states]), emptied(lambda: scan(f, init, xs, length)[1])
    if graph is None:
        return _scan_here(step, states, carry, items, trips, reverse)
    if trips == 0:
        return _no_trips(graph, step, states, carry, items)
    return _scan_traced(graph, step, states, carry, items, trips, reverse)


_ScanStep = Callable[[Sequence[Leaf], Sequence[Leaf]], tuple[list[Leaf], list[Leaf], Structure]]


def _length(items: Sequence[Leaf], given: Structure, length: int | None) -> int:
    paths = given.paths("xs")
    extents = {} if length is None else {"length": operator.index(length)}
    for path, leaf in zip(paths, items, strict=True):
        shape = kind_of(leaf).shape
        if not shape:
            raise ValueError(f"gw.scan: {path} is a single number; it needs a first axis to scan along")
        extents[path] = shape[0]
    if not extents:
        raise ValueError("gw.scan: there are no xs to scan along; give length=, the number of steps")
    if len(set(extents.values())) > 1:
        listed = ", ".join(f"{name} {extent}" for name, extent in extents.items())
        raise ValueError(f"gw.scan: lengths differ: {listed}; make them the same")
    trips = next(iter(extents.values()))
    if trips < 0:
        raise ValueError(f"gw.scan: length is {trips}; it counts steps")
    return trips


def _no_trips(
    graph: GraphBuilder,
    step: _ScanStep,
    states: Sequence[Leaf],
    carry: Structure,
    items: Sequence[Leaf],
) -> tuple[Any, Any]:
    """Return the carry unchanged and ys of length 0, with shapes from a body that is discarded."""
    with graph.nested():
        slices = [_argument(graph, Kind(k.shape[1:], k.dtype)) for k in map(kind_of, items)]
        _, outputs, structure = step([_argument(graph, kind_of(leaf)) for leaf in states], slices)
        kinds = [kind_of(leaf) for leaf in outputs]
    empty = [traced(graph, np.zeros((0, *kind.shape), kind.dtype)) for kind in kinds]
    return carry.pack([wrap(as_value(graph, leaf)) for leaf in states]), structure.pack(empty)


def _argument(graph: GraphBuilder, kind: Kind) -> TracedArray:
    return wrap(graph.argument(kind.shape, kind.dtype))


def _scan_here(
    step: _ScanStep,
    states: Sequence[Leaf],
    carry: Structure,
    items: Sequence[Leaf],
    trips: int,
    reverse: bool,
) -> tuple[Any, Any]:
    before = [plain(leaf) for leaf in states]
    arrays = [np.asarray(leaf) for leaf in items]
    collected: list[list[Any]] = []
    structures: list[Structure] = []
    for place in reversed(range(trips)) if reverse else range(trips):
        after, outputs, structure = step(before, [plain(array[place]) for array in arrays])
        before = _as_before(before, after)
        collected.append([plain(leaf) for leaf in outputs])
        structures.append(structure)
        if structure != structures[0]:
            raise TraceError(f"gw.scan: y is {structures[0]} at first and {structure} later; return the same")
    if reverse:
        collected.reverse()
    stacked = [np.stack(leaves) for leaves in zip(*collected, strict=True)]
    return carry.pack(before), structures[0].pack(stacked)


def _as_before(before: Sequence[Any], after: Sequence[Leaf]) -> list[Any]:
    """Convert the numbers that a step returned to the dtypes of the carry."""
    return [np.array(new, old.dtype)[()] for old, new in zip(before, after, strict=True)]


def _scan_traced(
    graph: GraphBuilder,
    step: _ScanStep,
    states: Sequence[Leaf],
    carry: Structure,
    items: Sequence[Leaf],
    trips: int,
    reverse: bool,
) -> tuple[Any, Any]:
    start = [as_value(graph, leaf) for leaf in states]
    scanned = [as_value(graph, leaf) for leaf in items]
    kinds = [kind_of(leaf) for leaf in states]
    shapes: list[Structure] = []

    def once(
        before: Sequence[GraphValue], slices: Sequence[GraphValue]
    ) -> tuple[list[GraphValue], list[GraphValue]]:
        after, outputs, structure = step([wrap(v) for v in before], [wrap(v) for v in slices])
        shapes.append(structure)
        return (
            [as_value(graph, leaf, kind) for leaf, kind in zip(after, kinds, strict=True)],
            [as_value(graph, leaf) for leaf in outputs],
        )

    if not scanned:
        bound = graph.scalar(trips, ops.INT64)
        results = _loop(graph, bound, None, start, lambda trip, before: (None, *once(before, [])), trips)
        stacked = [_reversed(value) if reverse else value for value in results[len(start) :]]
    else:
        with graph.nested() as body:
            before = [graph.argument(value.shape, value.dtype) for value in start]
            slices = [graph.argument(value.shape[1:], value.dtype) for value in scanned]
            after, outputs = once(before, slices)
            graph.returns([*after, *outputs])
        results = _emit(
            graph,
            "Scan",
            [*start, *scanned],
            [Kind(value.shape, value.dtype) for value in start]
            + [Kind((trips, *value.shape), value.dtype) for value in outputs],
            body=body,
            num_scan_inputs=len(scanned),
            **(_backwards(len(scanned), len(outputs)) if reverse else {}),
        )
        stacked = results[len(start) :]
    final = carry.pack([wrap(value) for value in results[: len(start)]])
    return final, shapes[0].pack([wrap(value) for value in stacked])


def _backwards(inputs: int, outputs: int) -> dict[str, list[int]]:
    """Return the attributes of a Scan that runs backwards; ONNX allows no empty lists."""
    directions = {"scan_input_directions": [1] * inputs}
    if outputs:
        directions["scan_output_directions"] = [1] * outputs
    return directions


def _reversed(value: GraphValue) -> GraphValue:
    return ops.slices(value, [(0, value.shape[0] - 1, -1, value.shape[0])])


def _emit(
    graph: GraphBuilder,
    op: str,
    inputs: Sequence[GraphValue | None],
    kinds: Sequence[Kind],
    **attributes: Any,
) -> list[GraphValue]:
    """Append a node, unless it has no results."""
    if not kinds:
        return []
    return graph.emit(op, inputs, [(kind.shape, kind.dtype) for kind in kinds], **attributes)


def _loop(
    graph: GraphBuilder,
    bound: GraphValue | None,
    keep: GraphValue | None,
    states: Sequence[GraphValue],
    step: _Step,
    trips: int = 0,
) -> list[GraphValue]:
    """Return the final states and stacked outputs of a Loop."""
    with graph.nested() as body:
        trip, going = graph.argument((), ops.INT64), graph.argument((), ops.BOOL)
        before = [graph.argument(value.shape, value.dtype) for value in states]
        again, after, outputs = step(trip, before)
        graph.returns([going if again is None else again, *after, *outputs])
    keep = graph.scalar(True, ops.BOOL) if keep is None else keep
    kinds = [Kind(value.shape, value.dtype) for value in states]
    kinds += [Kind((trips, *value.shape), value.dtype) for value in outputs]
    return _emit(graph, "Loop", [bound, keep, *states], kinds, body=body)


def fori(lower: Any, upper: Any, body: Callable[[Any, Any], Any], init: Any) -> Any:
    """Apply `body` for each integer of a range, carrying a state, as `jax.lax.fori_loop` does.

    It is equivalent to

        for i in range(lower, upper):
            carry = body(i, carry)
        return carry

    with one copy of `body` in the graph. With bounds that are Python integers there are derivatives of any
    order in both modes; with traced bounds, in forward mode only.

    Args:
        lower, upper: the range; integers, or traced integer scalars.
        body: `(i, carry) -> carry`; i is an int64 scalar. The carry keeps its structure, shapes and dtypes.
        init: the first carry: arrays or numbers, or nested tuples, lists and dicts of them.

    Raises:
        TypeError: a bound is no integer.
        TraceError: the carry changes its structure, a shape or a dtype; the message names it.
    """
    leaves, carry = flatten("gw.fori", "init", init)
    kinds = [kind_of(leaf) for leaf in leaves]
    low, high = (_bound(name, bound) for name, bound in (("lower", lower), ("upper", upper)))

    def after(i: Any, before: Sequence[Leaf]) -> list[Leaf]:
        return stable("gw.fori", carry, kinds, "carry", body(i, carry.pack(before)), "body")

    graph = active.get()
    if graph is None:
        present = [plain(leaf) for leaf in leaves]
        for place in range(operator.index(low), operator.index(high)):
            present = _as_before(present, after(np.int64(place), present))
        return carry.pack(present)
    start = [as_value(graph, leaf) for leaf in leaves]
    first = traced(graph, low)
    if isinstance(low, int) and isinstance(high, int):
        bound = graph.scalar(max(0, high - low), ops.INT64)
    else:
        bound = apply(np.maximum, apply(np.subtract, traced(graph, high), first), 0).value

    def step(trip: GraphValue, before: list[GraphValue]) -> tuple[None, list[GraphValue], list[GraphValue]]:
        count = wrap(trip)
        i = count if isinstance(low, int) and low == 0 else apply(np.add, count, first)
        results = after(i, [wrap(value) for value in before])
        return None, [as_value(graph, leaf, kind) for leaf, kind in zip(results, kinds, strict=True)], []

    return carry.pack([wrap(value) for value in _loop(graph, bound, None, start, step)])


def _bound(name: str, bound: Any) -> Any:
    """Convert a bound to an int, or to a traced int64 scalar."""
    if not isinstance(bound, TracedArray):
        try:
            return operator.index(bound)
        except TypeError:
            raise TypeError(f"gw.fori: {name} is a {type(bound).__name__}; give an integer") from None
    if bound.shape or bound.dtype.kind not in "iu":
        raise TypeError(f"gw.fori: {name} is {kind_of(bound)}; give an integer scalar (.astype(np.int64))")
    return bound.astype(np.int64)


def while_(
    cond: Callable[[Any], Any], body: Callable[[Any], Any], init: Any, max_trips: int | None = None
) -> Any:
    """Apply `body` to a state while a condition on it holds, as `jax.lax.while_loop` does.

    It is equivalent to

        while cond(carry):
            carry = body(carry)
        return carry

    with one copy of each function in the graph. The number of trips depends on the data, so there are
    derivatives in forward mode only; with `max_trips` of at most 1024, in both modes and of any order, at the
    cost of `max_trips` trips.

    Args:
        cond: `carry -> bool`, a scalar.
        body: `carry -> carry`. The carry keeps its structure, shapes and dtypes.
        init: the first carry: arrays or numbers, or nested tuples, lists and dicts of them.
        max_trips: the largest number of trips; the loop ends after it even if the condition still holds.

    Raises:
        TraceError: the condition is no bool scalar, or the carry changes its structure, a shape or a dtype.
        ValueError: `max_trips` is negative.
    """
    leaves, carry = flatten("gw.while_", "init", init)
    kinds = [kind_of(leaf) for leaf in leaves]
    most = None if max_trips is None else operator.index(max_trips)
    if most is not None and most < 0:
        raise ValueError(f"gw.while_: max_trips is {most}; it counts trips")

    def after(before: Sequence[Leaf]) -> list[Leaf]:
        return stable("gw.while_", carry, kinds, "carry", body(carry.pack(before)), "body")

    def goes_on(present: Sequence[Leaf]) -> Leaf:
        return _truth(cond(carry.pack(present)))

    graph = active.get()
    if graph is None:
        present, trips = [plain(leaf) for leaf in leaves], 0
        while trips != most and goes_on(present):
            present = _as_before(present, after(present))
            trips += 1
        return carry.pack(present)
    value = partial(as_value, graph)
    start = [value(leaf) for leaf in leaves]
    keep = value(goes_on([wrap(item) for item in start]))
    bound = None if most is None else graph.scalar(most, ops.INT64)

    def step(
        _: GraphValue, before: list[GraphValue]
    ) -> tuple[GraphValue, list[GraphValue], list[GraphValue]]:
        results = after([wrap(item) for item in before])
        values = [value(leaf, kind) for leaf, kind in zip(results, kinds, strict=True)]
        return value(goes_on([wrap(item) for item in values])), values, []

    return carry.pack([wrap(item) for item in _loop(graph, bound, keep, start, step)])


def _truth(leaf: Any) -> Leaf:
    if isinstance(leaf, bool | np.bool_):
        return leaf
    if isinstance(leaf, TracedArray | np.ndarray | np.generic) and kind_of(leaf) == Kind((), ops.BOOL):
        return leaf
    found = kind_of(leaf) if isinstance(leaf, TracedArray | np.ndarray | np.generic) else type(leaf).__name__
    raise TraceError(
        f"gw.while_: cond returns {found}{where()}, not a bool scalar; compare (x > 0), and reduce several "
        "with np.any or np.all"
    )
