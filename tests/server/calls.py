"""Calls on a server through the generated stubs alone, as a client in another language makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

import gradwire_wire as wire
from gradwire_wire.v1 import derivative_pb2, function_pb2, gradient_service_pb2_grpc, graph_pb2, tensor_pb2

Array = np.ndarray[Any, Any]
Event = derivative_pb2.DifferentiateResponse
JACOBIAN = derivative_pb2.DERIVATIVE_KIND_JACOBIAN
HESSIAN = derivative_pb2.DERIVATIVE_KIND_HESSIAN
HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'

SIN_OF_PRODUCT = "g (double[m,n] a, double[n] x) => (double[m] y) { p = MatMul(a, x)\n y = Sin(p) }"
ENDLESS = """g (double[2] x) => (double[2] y) {
  go = Constant <value = bool {1}> ()
  y = Loop (, go, x) <body = body (int64 i, bool c, double[2] s) => (bool d, double[2] t) {
    zero = Constant <value = double {0.0}> ()
    square = Mul(s, s)
    sum = ReduceSum <keepdims = 0> (square)
    d = GreaterOrEqual(sum, zero)
    t = Cos(s)
  }>
}"""


def stub(channel: grpc.Channel) -> Any:
    """The service over a channel."""
    return gradient_service_pb2_grpc.GradientServiceStub(channel)


def channel_with(address: str, token: str) -> grpc.Channel:
    """A connection of its own whose calls show a token."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    return grpc.intercept_channel(grpc.insecure_channel(address, options), _Showing(token))


class _Showing(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc]
):
    def __init__(self, token: str) -> None:
        self._token = token

    def _call(self, go: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = [*(details.metadata or ()), ("authorization", f"Bearer {self._token}")]
        return go(details._replace(metadata=metadata), request)

    intercept_unary_unary: Any = _call
    intercept_unary_stream: Any = _call
    intercept_stream_unary: Any = _call
    intercept_stream_stream: Any = _call


def register(channel: grpc.Channel, text: str, **call: Any) -> graph_pb2.Graph:
    """Register a graph in ONNX's text form."""
    parts = iter([graph_pb2.RegisterGraphRequest(text=HEADER + text)])
    response = stub(channel).RegisterGraph(parts, timeout=call.pop("timeout", 60), **call)
    return response.graph


def tensors(inputs: Mapping[str, Array]) -> dict[str, tensor_pb2.Tensor]:
    """Inputs as messages."""
    return {name: wire.to_tensor(array) for name, array in inputs.items()}


def vjp(*wrt: str) -> function_pb2.Transform:
    """The pullback."""
    return function_pb2.Transform(vjp=function_pb2.VjpTransform(wrt=wrt))


def evaluation(
    graph_id: str, inputs: Mapping[str, Array], *transforms: function_pb2.Transform, **fields: Any
) -> function_pb2.EvaluateRequest:
    """An Evaluate request."""
    function = function_pb2.Function(graph_id=graph_id, transforms=transforms)
    return function_pb2.EvaluateRequest(function=function, inputs=tensors(inputs), **fields)


def outputs(response: function_pb2.EvaluateResponse) -> dict[str, Array]:
    """The arrays of a response."""
    return {item.name: wire.from_tensor(item.tensor) for item in response.outputs}


def evaluate(
    channel: grpc.Channel,
    graph_id: str,
    inputs: Mapping[str, Array],
    *transforms: function_pb2.Transform,
    timeout: float = 60,
    **fields: Any,
) -> dict[str, Array]:
    """Evaluate a function: outputs by name."""
    request = evaluation(graph_id, inputs, *transforms, **fields)
    return outputs(stub(channel).Evaluate(request, timeout=timeout))


def put(channel: grpc.Channel, array: Array, size: int = 1 << 20) -> tensor_pb2.TensorRef:
    """Upload an array."""

    def parts() -> Iterable[tensor_pb2.PutTensorRequest]:
        yield tensor_pb2.PutTensorRequest(dtype=wire.data_type(array.dtype), shape=array.shape)
        for chunk in wire.chunks(wire.byte_view(array), size):
            yield tensor_pb2.PutTensorRequest(data=bytes(chunk))

    return stub(channel).PutTensor(iter(parts()), timeout=60).tensor


def derivative(
    graph_id: str, inputs: Mapping[str, Array], *transforms: function_pb2.Transform, **fields: Any
) -> derivative_pb2.DifferentiateRequest:
    """A Differentiate request, of the Jacobian unless `kind` says otherwise."""
    function = function_pb2.Function(graph_id=graph_id, transforms=transforms)
    return derivative_pb2.DifferentiateRequest(
        function=function, inputs=tensors(inputs), **{"kind": JACOBIAN, **fields}
    )


@dataclass
class Collected:
    """What a Differentiate stream brought, put together as the .proto says."""

    plan: derivative_pb2.Plan = field(default_factory=derivative_pb2.Plan)
    matrices: list[Array] = field(default_factory=list)
    blocks: dict[int, derivative_pb2.BlockStart] = field(default_factory=dict)
    progress: list[derivative_pb2.Progress] = field(default_factory=list)
    summary: derivative_pb2.Summary | None = None
    order: list[str] = field(default_factory=list)
    resume_id: str = ""

    def take(self, event: Event) -> None:
        """One more message of the stream."""
        kind = event.WhichOneof("event") or ""
        self.order.append(kind)
        if kind == "header":
            self.plan, self.resume_id = event.header.plan, event.header.resume_id
            self.matrices = [
                np.full(
                    (prod(entry.row_shape), prod(entry.column_shape)), np.nan, wire.numpy_dtype(entry.dtype)
                )
                for entry in self.plan.entries
            ]
        elif kind == "block_start":
            assert event.block_start.block not in self.blocks
            self.blocks[event.block_start.block] = event.block_start
        elif kind == "chunk":
            self._fill(event.chunk)
        elif kind == "progress":
            self.progress.append(event.progress)
        elif kind == "summary":
            self.summary = event.summary

    def _fill(self, chunk: derivative_pb2.BlockChunk) -> None:
        piece = self.blocks[chunk.block].pieces[chunk.piece]
        matrix = self.matrices[piece.entry]
        width = piece.column_stop - piece.column_start
        values = np.frombuffer(chunk.data, matrix.dtype)
        first = chunk.offset // matrix.itemsize
        index = np.arange(first, first + values.size)
        matrix[piece.row_start + index // width, piece.column_start + index % width] = values


def differentiate(
    channel: grpc.Channel, request: derivative_pb2.DifferentiateRequest, timeout: float = 120
) -> Collected:
    """Read a Differentiate stream to its end."""
    collected = Collected()
    for event in stub(channel).Differentiate(request, timeout=timeout):
        collected.take(event)
    return collected


@dataclass(frozen=True)
class Refusal:
    """An error as a client sees it."""

    code: grpc.StatusCode
    message: str
    details: tuple[Message, ...]

    def detail(self, kind: type[Message]) -> Any:
        """The one detail of a kind."""
        (found,) = (item for item in self.details if isinstance(item, kind))
        return found

    @property
    def fields(self) -> list[str]:
        """Fields that a BadRequest names."""
        return [item.field for item in self.detail(error_details_pb2.BadRequest).field_violations]

    @property
    def limit(self) -> dict[str, str]:
        """The metadata of an ErrorInfo."""
        info = self.detail(error_details_pb2.ErrorInfo)
        assert info.domain == "gradwire"
        return dict(info.metadata)


def refusal(error: grpc.RpcError) -> Refusal:
    """The status and its details."""
    trailers = dict(error.trailing_metadata() or ())
    status = Status.FromString(trailers.get("grpc-status-details-bin", b""))
    if status.details:
        assert status.message == error.details()
        assert status.code == error.code().value[0]
    kinds = (
        error_details_pb2.BadRequest,
        error_details_pb2.ErrorInfo,
        error_details_pb2.ResourceInfo,
        error_details_pb2.RetryInfo,
    )
    details = []
    for packed in status.details:
        for kind in kinds:
            if packed.Is(kind.DESCRIPTOR):
                details.append(kind.FromString(packed.value))
    return Refusal(error.code(), error.details() or "", tuple(details))
