"""Plan: how a derivative would be computed."""

from __future__ import annotations

from gradwire_engine.planning.plan import Plan
from gradwire_engine.values import Arguments
from gradwire_server.compute.shared_values import RegisteredGraph
from gradwire_server.errors import Overloaded
from gradwire_server.rpc import translate
from gradwire_server.rpc.backend import Backend
from gradwire_server.settings import Settings
from gradwire_wire.v1 import derivative_pb2


async def plan(backend: Backend, request: derivative_pb2.PlanRequest) -> derivative_pb2.PlanResponse:
    """Answer Plan.

    Raises:
        EngineError, ServiceError: rows of the error table.
    """
    _, made = await plan_for(backend, request, translate.argument_types(request.inputs))
    return derivative_pb2.PlanResponse(plan=translate.plan_message(made))


async def plan_for(
    backend: Backend,
    request: derivative_pb2.DifferentiateRequest | derivative_pb2.PlanRequest,
    arguments: Arguments,
) -> tuple[RegisteredGraph, Plan]:
    """Plan the derivative that a request asks for; return the graph too.

    Raises:
        EngineError, ServiceError: rows of the error table.
    """
    graph = backend.store.graph(request.function.graph_id)
    problem = translate.problem_from(request, arguments, backend.settings.block_memory_bytes)
    made = await backend.kernels.plan(graph, problem)
    _check_size(made, backend.settings)
    return graph, made


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
