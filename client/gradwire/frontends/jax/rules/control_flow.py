"""Loops and branches: scan becomes Scan, while a Loop, cond an If."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradwire.frontends.jax import ops
from gradwire.frontends.jax.graph import Graph, Value, constant
from gradwire.frontends.jax.registry import Call, rule

_BOOL, _INT64 = np.dtype(np.bool_), np.dtype(np.int64)


def _arguments(graph: Graph, values: Sequence[Value]) -> list[Value]:
    return [graph.argument(value.shape, value.dtype) for value in values]


@rule("scan")
def scan(call: Call, *inputs: Value) -> tuple[Value, ...]:
    """Constants are captured from around the body; a scan over nothing is a Loop with a trip count."""
    params = call.params
    constants = inputs[: params["num_consts"]]
    states = inputs[params["num_consts"] :][: params["num_carry"]]
    scanned = inputs[params["num_consts"] + params["num_carry"] :]
    if not scanned or not params["length"]:
        return _counted(call, constants, states, scanned)
    body = call.graph.inner()
    items = [body.argument(value.shape[1:], value.dtype) for value in scanned]
    before = _arguments(body, states)
    after = call.inline(body, params["jaxpr"], [*constants, *before, *items])
    outputs, backward = len(after) - len(states), int(params["reverse"])
    return call.graph.emit(
        "Scan",
        [*states, *scanned],
        call.results,
        body=body.body("scan", [*before, *items], after),
        num_scan_inputs=len(scanned),
        scan_input_directions=[backward] * len(scanned),
        scan_output_directions=[backward] * outputs,
    )


def _counted(
    call: Call, constants: Sequence[Value], states: Sequence[Value], scanned: Sequence[Value]
) -> tuple[Value, ...]:
    if not call.params["length"]:
        empty = [
            ops.expand(call.graph, ops.scalar(0, kind.dtype), kind.shape)
            for kind in call.results[len(states) :]
        ]
        return (*states, *empty)
    body = call.graph.inner()
    trip, going = body.argument((), _INT64), body.argument((), _BOOL)
    before = _arguments(body, states)
    after = call.inline(body, call.params["jaxpr"], [*constants, *before])
    length = ops.scalar(call.params["length"], _INT64)
    graph = body.body("scan", [trip, going, *before], [going, *after])
    results = list(call.graph.emit("Loop", [length, None, *states], call.results, body=graph))
    if call.params["reverse"]:
        stacked = range(len(states), len(results))
        results[len(states) :] = [ops.reverse(call.graph, results[place], [0]) for place in stacked]
    return tuple(results)


@rule("while")
def while_loop(call: Call, *inputs: Value) -> tuple[Value, ...]:
    params = call.params
    split, start = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    for_condition, for_body, states = inputs[:split], inputs[split:start], inputs[start:]
    (first,) = call.inline(call.graph, params["cond_jaxpr"], [*for_condition, *states])
    if first.shape:
        return _batch_of_loops(call, first, for_condition, for_body, states)
    body = call.graph.inner()
    trip, going = body.argument((), _INT64), body.argument((), _BOOL)
    before = _arguments(body, states)
    after = call.inline(body, params["body_jaxpr"], [*for_body, *before])
    (again,) = call.inline(body, params["cond_jaxpr"], [*for_condition, *after])
    graph = body.body("while", [trip, going, *before], [again, *after])
    return call.graph.emit("Loop", [None, first, *states], call.results, body=graph)


def _batch_of_loops(
    call: Call,
    first: Value,
    for_condition: Sequence[Value],
    for_body: Sequence[Value],
    states: Sequence[Value],
) -> tuple[Value, ...]:
    """Loops under vmap: all go on while any does, and those that have ended keep their states."""
    body = call.graph.inner()
    trip, going = body.argument((), _INT64), body.argument((), _BOOL)
    running, *before = _arguments(body, [first, *states])
    after = []
    for old, new in zip(
        before, call.inline(body, call.params["body_jaxpr"], [*for_body, *before]), strict=True
    ):
        mask = ops.place(body, running, old.ndim, range(running.ndim))
        after.append(ops.where(body, mask, new, old))
    (again,) = call.inline(body, call.params["cond_jaxpr"], [*for_condition, *after])
    again = ops.broadcast(body, "And", running, again)
    graph = body.body("while", [trip, going, running, *before], [_any(body, again), again, *after])
    results = [(first.shape, _BOOL), *call.results]
    return call.graph.emit("Loop", [None, _any(call.graph, first), first, *states], results, body=graph)[1:]


def _any(graph: Graph, flags: Value) -> Value:
    return graph.one("ReduceMax", [flags], (), _BOOL, keepdims=0)


@rule("cond")
def branch(call: Call, which: Value, *inputs: Value) -> tuple[Value, ...]:
    """More than two branches become nested Ifs; a branch known while converting is inlined."""
    branches = call.params["branches"]
    if which.known is not None:
        chosen = min(max(int(which.known), 0), len(branches) - 1)
        return tuple(call.inline(call.graph, branches[chosen], inputs))
    return tuple(_chosen(call, call.graph, which, list(branches), 0, inputs))


def _chosen(
    call: Call, graph: Graph, which: Value, branches: list[Any], first: int, inputs: Sequence[Value]
) -> Sequence[Value]:
    if len(branches) == 1:
        return call.inline(graph, branches[0], inputs)
    here = ops.broadcast(graph, "LessOrEqual", which, constant(np.asarray(first, which.dtype)))
    then, otherwise = graph.inner(), graph.inner()
    now = call.inline(then, branches[0], inputs)
    later = _chosen(call, otherwise, which, branches[1:], first + 1, inputs)
    return graph.emit(
        "If",
        [here],
        call.results,
        then_branch=then.body("branch", [], now),
        else_branch=otherwise.body("branches", [], later),
    )
