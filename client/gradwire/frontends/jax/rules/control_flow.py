"""Loops and branches: scan becomes Scan, while a Loop, cond an If."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradwire.frontends.jax.registry import Call, rule
from gradwire.frontends.jax.rules.libraries.equinox_errors import passing
from gradwire.frontends.jax.rules.shapes import placed
from gradwire.graphs import operators as ops
from gradwire.graphs.builder import GraphBuilder
from gradwire.graphs.nodes import GraphValue


def _arguments(graph: GraphBuilder, values: Sequence[GraphValue]) -> list[GraphValue]:
    """Arguments of the present body, like given values."""
    return [graph.argument(value.shape, value.dtype) for value in values]


def _trip_arguments(graph: GraphBuilder) -> tuple[GraphValue, GraphValue]:
    """Return the first arguments of a Loop's body: the number of the trip, and whether the loop goes on."""
    return graph.argument((), ops.INT64), graph.argument((), ops.BOOL)


@rule("scan")
def scan(call: Call, *inputs: GraphValue) -> Sequence[GraphValue]:
    """Constants are captured from around the body; a scan over nothing is a Loop with a trip count."""
    params, graph = call.params, call.graph
    constants = inputs[: params["num_consts"]]
    states = inputs[params["num_consts"] :][: params["num_carry"]]
    scanned = inputs[params["num_consts"] + params["num_carry"] :]
    if not params["length"]:
        return (*states, *(_empty(graph, *kind) for kind in call.results[len(states) :]))
    if not scanned:
        return _counted(call, constants, states)
    with graph.nested() as body:
        before = _arguments(graph, states)
        items = [graph.argument(value.shape[1:], value.dtype) for value in scanned]
        graph.returns(call.inline(params["jaxpr"], [*constants, *before, *items]))
    directions: dict[str, Any] = {}
    if params["reverse"]:
        stacked = len(call.results) - len(states)
        directions["scan_input_directions"] = [1] * len(scanned)
        if stacked:  # ONNX's lists are not empty
            directions["scan_output_directions"] = [1] * stacked
    return graph.emit(
        "Scan", [*states, *scanned], call.results, body=body, num_scan_inputs=len(scanned), **directions
    )


def _empty(graph: GraphBuilder, shape: Sequence[int], dtype: Any) -> GraphValue:
    return ops.expand(graph.scalar(0, dtype), tuple(shape))


def _counted(
    call: Call, constants: Sequence[GraphValue], states: Sequence[GraphValue]
) -> Sequence[GraphValue]:
    graph = call.graph
    with graph.nested() as body:
        _, going = _trip_arguments(graph)
        before = _arguments(graph, states)
        graph.returns([going, *call.inline(call.params["jaxpr"], [*constants, *before])])
    length = graph.scalar(int(call.params["length"]), ops.INT64)
    results = graph.emit("Loop", [length, None, *states], call.results, body=body)
    if call.params["reverse"]:
        results[len(states) :] = [ops.reverse(stacked, [0]) for stacked in results[len(states) :]]
    return results


@rule("while")
def while_loop(call: Call, *inputs: GraphValue) -> Sequence[GraphValue]:
    """Return a Loop that ends by its condition, which is evaluated before it and at the end of its body."""
    params, graph = call.params, call.graph
    split, start = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    for_condition, for_body, states = inputs[:split], inputs[split:start], inputs[start:]
    (first,) = call.inline(params["cond_jaxpr"], [*for_condition, *states])
    if first.shape:
        return _batch_of_loops(call, first, for_condition, for_body, states)
    with graph.nested() as body:
        _trip_arguments(graph)
        after = call.inline(params["body_jaxpr"], [*for_body, *_arguments(graph, states)])
        graph.returns([*call.inline(params["cond_jaxpr"], [*for_condition, *after]), *after])
    return graph.emit("Loop", [None, first, *states], call.results, body=body)


def _batch_of_loops(
    call: Call,
    first: GraphValue,
    for_condition: Sequence[GraphValue],
    for_body: Sequence[GraphValue],
    states: Sequence[GraphValue],
) -> Sequence[GraphValue]:
    """Loops under vmap: all go on while any does, and those that have ended keep their states.

    Args:
        call: the equation.
        first: the condition of each loop before it, of the batch's shape.
        for_condition: the constants of the condition.
        for_body: the constants of the body.
        states: the states before the loops.

    Returns:
        The states after the loops.
    """
    params, graph = call.params, call.graph
    with graph.nested() as body:
        _trip_arguments(graph)
        running, *before = _arguments(graph, [first, *states])
        after = [
            ops.where(placed(running, old.ndim, range(running.ndim)), new, old)
            for old, new in zip(before, call.inline(params["body_jaxpr"], [*for_body, *before]), strict=True)
        ]
        (again,) = call.inline(params["cond_jaxpr"], [*for_condition, *after])
        again = ops.binary("And", running, again)
        graph.returns([_any(again), again, *after])
    results = [(first.shape, ops.BOOL), *call.results]
    return graph.emit("Loop", [None, _any(first), first, *states], results, body=body)[1:]


def _any(flags: GraphValue) -> GraphValue:
    return ops.reduce("ReduceMax", flags, range(flags.ndim))


@rule("cond")
def branch(call: Call, which: GraphValue, *inputs: GraphValue) -> Sequence[GraphValue]:
    """More than two branches become nested Ifs; one known while converting takes the place of the call."""
    branches, known = call.params["branches"], call.graph.known(which)
    if known is not None:
        return call.inline(branches[min(max(int(known), 0), len(branches) - 1)], inputs)
    unfailing = passing(branches)
    if unfailing is not None and call.graph.depends_on_tangents(which):
        # A tangent may be anything: what is checked of it would make the rule one that is not linear.
        return call.inline(unfailing, inputs)
    return _chosen(call, which, list(branches), 0, inputs)


def _chosen(
    call: Call, which: GraphValue, branches: list[Any], first: int, inputs: Sequence[GraphValue]
) -> Sequence[GraphValue]:
    """Return the results of one of the branches, of which `first` is the number of the first."""
    graph = call.graph
    if len(branches) == 1:
        return call.inline(branches[0], inputs)
    here = ops.compare("LessOrEqual", which, ops.constant_like(which, first))
    with graph.nested() as then:
        graph.returns(call.inline(branches[0], inputs))
    with graph.nested() as otherwise:
        graph.returns(_chosen(call, which, branches[1:], first + 1, inputs))
    return graph.emit("If", [here], call.results, then_branch=then, else_branch=otherwise)
