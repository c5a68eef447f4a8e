"""What fuzzed requests begin with: graphs and arrays that a server holds, and requests that it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc
import numpy as np
import onnx
from google.protobuf.message import Message

import gradwire_wire as wire
from gradwire_wire.v1 import (
    accumulate_pb2,
    derivative_pb2,
    function_pb2,
    graph_pb2,
    server_info_pb2,
    tensor_pb2,
)
from tests.server import calls

SINES = "sines (double[2,3] a, double[3] x) => (double[2] y) { p = MatMul(a, x)\n y = Sin(p) }"
OPEN = "open (double[n] x, double[n] w) => (double s) { p = Mul(x, w)\n s = ReduceSum <keepdims = 0> (p) }"
LOSS = """loss (double[3] w, double[2,3] d, double[2] t) => (double l) {
  z = MatMul(d, w)
  r = Sub(z, t)
  q = Mul(r, r)
  l = ReduceSum <keepdims = 0> (q)
}"""
A = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])
X = np.array([0.5, -1.0, 2.0])

KINDS: Mapping[str, type[Message]] = {
    "RegisterGraph": graph_pb2.RegisterGraphRequest,
    "GetServerInfo": server_info_pb2.GetServerInfoRequest,
    "GetGraph": graph_pb2.GetGraphRequest,
    "PutTensor": tensor_pb2.PutTensorRequest,
    "Plan": derivative_pb2.PlanRequest,
    "Evaluate": function_pb2.EvaluateRequest,
    "EvaluateStream": function_pb2.EvaluateStreamRequest,
    "Differentiate": derivative_pb2.DifferentiateRequest,
    "Accumulate": accumulate_pb2.AccumulateRequest,
}
"""Not the calls that delete: they would take from the others what these refer to."""
SHAPES = {
    name: "stream_unary" if name in ("RegisterGraph", "PutTensor") else "unary_unary" for name in KINDS
} | {"EvaluateStream": "stream_stream", "Accumulate": "stream_stream", "Differentiate": "unary_stream"}
"""Which sides of a call are streams."""

Requests = Sequence[Message]


@dataclass(frozen=True)
class World:
    """Requests that a server answers, by call; each is the messages of one call."""

    seeds: Mapping[str, Sequence[Requests]]
    names: Sequence[str]
    """Names and ids that mean something to the server."""


def begin(channel: grpc.Channel) -> World:
    """Register what the requests refer to, and compile what they need."""
    sines, opened, loss = (calls.register(channel, text).graph_id for text in (SINES, OPEN, LOSS))
    held = calls.put(channel, A)
    point = {"a": A, "x": X}
    function = function_pb2.Function
    transforms = [
        function_pb2.Transform(jvp=function_pb2.JvpTransform(wrt=["x"], keep_values=True)),
        function_pb2.Transform(vjp=function_pb2.VjpTransform(wrt=["x"])),
        function_pb2.Transform(gradient=function_pb2.GradientTransform(wrt=["x"])),
        function_pb2.Transform(hvp=function_pb2.HvpTransform(wrt=["x"], of="s")),
    ]
    by_id = calls.evaluation(sines, {"x": X})
    by_id.inputs["a"].CopyFrom(wire.tensor_by_id(held.tensor_id, A.dtype, A.shape))
    evaluations = [
        calls.evaluation(sines, point),
        by_id,
        calls.evaluation(sines, {**point, "x.tangent": X}, transforms[0]),
        calls.evaluation(sines, {**point, "y.cotangent": np.ones(2)}, transforms[1], outputs=["x.cotangent"]),
        calls.evaluation(opened, {"x": X, "w": X}, transforms[2]),
        calls.evaluation(opened, {"x": X, "w": X, "x.tangent": X}, transforms[3]),
        calls.evaluation(sines, {"a": A, "x": np.stack([X] * 4)}, batched=["x"]),
    ]
    sparse = derivative_pb2.PlanOptions(sparsity=derivative_pb2.SPARSITY_SPARSE)
    given = derivative_pb2.PlanOptions(sparsity=derivative_pb2.SPARSITY_SPARSE)
    given.pattern.rows.CopyFrom(wire.to_tensor(np.repeat(np.arange(2, dtype=np.int32), 3)))
    given.pattern.columns.CopyFrom(wire.to_tensor(np.tile(np.arange(3, dtype=np.int32), 2)))
    narrow = derivative_pb2.PlanOptions(block_width=1, mode=derivative_pb2.MODE_FORWARD)
    derivatives = [
        calls.derivative(sines, point, wrt=["x"], of=["y"]),
        calls.derivative(sines, point, wrt=["x"], options=narrow, values=True),
        calls.derivative(sines, point, wrt=["x"], options=sparse, pattern_colors=True),
        calls.derivative(sines, point, wrt=["x"], options=given),
        calls.derivative(sines, point, wrt=["x"], options=sparse, pattern_only=True),
        calls.derivative(opened, {"x": X, "w": X}, kind=calls.HESSIAN),
        calls.derivative(sines, {"a": A, "x": np.stack([X] * 4)}, wrt=["x"], batched=["x"]),
    ]
    whole = calls.differentiate(channel, derivatives[1])
    part = derivative_pb2.DifferentiateRequest()
    part.CopyFrom(derivatives[1])
    part.skip[:], part.resume_id = [0, 2], whole.resume_id
    part.blocks[:], part.plan_id = [1, 2], whole.plan.plan_id
    plans = [
        derivative_pb2.PlanRequest(
            function=one.function,
            inputs=one.inputs,
            kind=one.kind,
            wrt=one.wrt,
            of=one.of,
            options=one.options,
            batched=one.batched,
        )
        for one in derivatives
    ]
    start = accumulate_pb2.AccumulateStart(
        function=function(graph_id=loss), inputs=calls.tensors({"w": X}), wrt=["w"], of="l"
    )
    batch = accumulate_pb2.Batch(inputs=calls.tensors({"d": A, "t": np.ones(2)}), rows=2)
    arriving = accumulate_pb2.Batch(inputs=calls.tensors({"t": np.ones(2)}))
    arriving.inputs["d"].CopyFrom(wire.tensor_type(A.dtype, A.shape))
    request = accumulate_pb2.AccumulateRequest
    chunk = accumulate_pb2.BatchChunk(input="d", data=A.tobytes()[:24])
    rest = accumulate_pb2.BatchChunk(input="d", offset=24, data=A.tobytes()[24:])
    read = request(read=accumulate_pb2.ReadGradient())
    model = onnx.parser.parse_model(calls.HEADER + SINES).SerializeToString()
    part_of = graph_pb2.RegisterGraphRequest
    seeds: dict[str, list[Requests]] = {
        "RegisterGraph": [
            [part_of(model=model[:50]), part_of(model=model[50:])],
            [part_of(text=calls.HEADER + LOSS)],
            [part_of(fixed=calls.tensors({"x": X}), outputs=["p"], rounding=1), part_of(model=model)],
        ],
        "GetServerInfo": [[server_info_pb2.GetServerInfoRequest()]],
        "GetGraph": [[graph_pb2.GetGraphRequest(graph_id=one)] for one in (sines, opened, loss)],
        "PutTensor": [
            [
                tensor_pb2.PutTensorRequest(dtype=held.dtype, shape=held.shape, data=A.tobytes()[:16]),
                tensor_pb2.PutTensorRequest(data=A.tobytes()[16:]),
            ],
            [tensor_pb2.PutTensorRequest(dtype=tensor_pb2.DATA_TYPE_INT8, shape=[0, 4])],
        ],
        "Plan": [[one] for one in plans],
        "Evaluate": [[one] for one in evaluations],
        "EvaluateStream": [
            [
                function_pb2.EvaluateStreamRequest(call_id=index + 1, evaluate=one)
                for index, one in enumerate(evaluations[first : first + 3])
            ]
            for first in range(5)
        ],
        "Differentiate": [[one] for one in (*derivatives, part)],
        "Accumulate": [
            [request(start=start), request(batch=batch), read, request(batch=batch)],
            [request(start=start), request(batch=arriving), request(chunk=chunk), request(chunk=rest)],
            [request(start=start), request(zero=accumulate_pb2.ZeroGradient()), request(batch=batch)],
        ],
    }
    names = ["x", "y", "a", "w", "s", "d", "t", "l", "p", "x.tangent", "y.cotangent", sines, opened, loss]
    return World(seeds, [*names, held.tensor_id, whole.resume_id, whole.plan.plan_id])
