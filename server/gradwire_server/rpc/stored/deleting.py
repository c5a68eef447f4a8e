"""DeleteGraph and DeleteTensor, and the end of what nobody has used for long."""

from __future__ import annotations

from gradwire_server.rpc.backend import Backend
from gradwire_server.rpc.evaluate import Evaluator
from gradwire_wire.v1 import graph_pb2, tensor_pb2


async def delete_graph(
    backend: Backend, evaluator: Evaluator, request: graph_pb2.DeleteGraphRequest
) -> graph_pb2.DeleteGraphResponse:
    """Answer DeleteGraph."""
    held = backend.store.drop_graph(request.graph_id)
    await forget_graph(backend, evaluator, request.graph_id)
    return graph_pb2.DeleteGraphResponse(held=held)


async def delete_tensor(
    backend: Backend, request: tensor_pb2.DeleteTensorRequest
) -> tensor_pb2.DeleteTensorResponse:
    """Answer DeleteTensor."""
    held = backend.store.drop_tensor(request.tensor_id)
    forget_tensor(backend, request.tensor_id)
    return tensor_pb2.DeleteTensorResponse(held=held)


async def forget_graph(backend: Backend, evaluator: Evaluator, graph_id: str) -> None:
    """Drop what is remembered of a graph that is no longer held, in memory and on disk."""
    evaluator.forget()
    scoped = backend.store.scoped(graph_id)
    backend.fast_path.forget_graph(scoped)
    await backend.kernels.forget(scoped)


def forget_tensor(backend: Backend, tensor_id: str) -> None:
    """Drop the copy of an array that is no longer held."""
    backend.fast_path.forget_tensor(backend.store.scoped(tensor_id))
