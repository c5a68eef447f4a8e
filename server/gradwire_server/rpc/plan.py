"""Plan: how a derivative would be computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gradwire_engine.planning.plan import Plan
from gradwire_engine.values import Arguments
from gradwire_server.compute.caches.store import Store
from gradwire_server.compute.shared_values import HeldPlan, RegisteredGraph, SharedValue
from gradwire_server.errors import Overloaded
from gradwire_server.rpc import translate
from gradwire_server.rpc.backend import Backend
from gradwire_server.rpc.patterns.exchange import given_pattern
from gradwire_server.settings import Settings
from gradwire_wire.v1 import derivative_pb2, tensor_pb2


async def plan(backend: Backend, request: derivative_pb2.PlanRequest) -> derivative_pb2.PlanResponse:
    """Answer Plan.

    Raises:
        EngineError, ServiceError: rows of the error table.
    """
    known = known_inputs(request.inputs, backend.store)
    _, held = await plan_for(backend, request, translate.argument_types(request.inputs), known)
    return derivative_pb2.PlanResponse(plan=translate.plan_message(held.plan))


async def plan_for(
    backend: Backend,
    request: derivative_pb2.DifferentiateRequest | derivative_pb2.PlanRequest,
    arguments: Arguments,
    known: Mapping[str, SharedValue],
) -> tuple[RegisteredGraph, HeldPlan]:
    """Plan the derivative that a request asks for; return the graph too.

    Args:
        backend: the server's parts.
        request: the message.
        arguments: types of its inputs.
        known: the inputs that a sparsity pattern may depend on.

    Raises:
        EngineError, ServiceError: rows of the error table.
    """
    graph = backend.store.graph(request.function.graph_id)
    ids = {name: value.key for name, value in known.items()}
    pattern, coordinates = given_pattern(request.options, backend.store)
    problem = translate.problem_from(
        request, graph, arguments, backend.settings.block_memory_bytes, ids, pattern
    )
    held = await backend.kernels.plan(graph, problem, coordinates or (known if problem.known else {}))
    _check_size(held.plan, backend.settings)
    return graph, held


def known_inputs(tensors: Mapping[str, tensor_pb2.Tensor], store: Store) -> dict[str, SharedValue]:
    """Return the indices and masks among a request's inputs: integer and boolean arrays held by id.

    A pattern follows them exactly and is good for them alone.
    """
    known = {}
    for name, tensor in tensors.items():
        if tensor.HasField("tensor_id"):
            held = store.tensor(tensor.tensor_id)
            if np.dtype(held.type.dtype).kind in "iub":
                known[name] = held.elements
    return known


def _check_size(plan: Plan, settings: Settings) -> None:
    if plan.result_bytes > settings.result_bytes:
        raise Overloaded(
            f"the result has {plan.result_bytes} bytes; the limit is {settings.result_bytes}: "
            "choose fewer inputs in wrt or outputs in of",
            "result_bytes",
            settings.result_bytes,
            plan.result_bytes,
        )
    if len(plan.blocks) > settings.plan_blocks:
        raise Overloaded(
            f"the plan has {len(plan.blocks)} blocks; the limit is {settings.plan_blocks}: "
            "ask for wider blocks (block_width)",
            "plan_blocks",
            settings.plan_blocks,
            len(plan.blocks),
        )
