"""A gradwire server in NumPy: functions with closed-form derivatives behind the documented wire.

It shares no code with the real server or the engine, cuts results in awkward places on purpose, and fails
on request. A graph is known by its name alone.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import onnx
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from gradwire_wire.v1 import derivative_pb2 as d
from gradwire_wire.v1 import function_pb2 as f
from gradwire_wire.v1 import gradient_service_pb2_grpc, graph_pb2, tensor_pb2

Arrays = dict[str, np.ndarray[Any, Any]]
DTYPES = {1: "<f8", 2: "<f4", 5: "<i8"}
NUMBERS = {np.dtype(name): number for number, name in DTYPES.items()}


@dataclass(frozen=True)
class Known:
    """A function and its closed-form derivatives: `jacobian[out, in]` and `hessian[in, in]` as arrays."""

    value: Callable[[Arrays], Arrays]
    jacobian: Callable[[Arrays], Mapping[tuple[str, str], np.ndarray[Any, Any]]]
    hessian: Callable[[Arrays], Mapping[tuple[str, str], np.ndarray[Any, Any]]] | None = None


def _mix_jacobian(at: Arrays) -> dict[tuple[str, str], np.ndarray[Any, Any]]:
    a, b = at["a"], at["b"]
    return {
        ("p", "a"): np.eye(len(a)) * b.sum(),
        ("p", "b"): np.outer(a, np.ones(b.size)).reshape(len(a), *b.shape),
        ("q", "a"): np.zeros((*b.shape, len(a))),
        ("q", "b"): np.diag(2 * b.ravel()).reshape(*b.shape, *b.shape),
    }


KNOWN = {
    "square": Known(lambda v: {"y": v["x"] ** 2}, lambda v: {("y", "x"): np.diag(2 * v["x"])}),
    "matrix": Known(
        lambda v: {"y": np.sin(v["x"])},
        lambda v: {("y", "x"): np.diag(np.cos(v["x"]).ravel()).reshape(*v["x"].shape, *v["x"].shape)},
    ),
    "energy": Known(
        lambda v: {"e": (v["x"] ** 3).sum()},
        lambda v: {("e", "x"): 3 * v["x"] ** 2},
        lambda v: {("x", "x"): np.diag(6 * v["x"])},
    ),
    "bilinear": Known(
        lambda v: {"e": v["a"] @ v["b"]},
        lambda v: {("e", "a"): v["b"], ("e", "b"): v["a"]},
        lambda v: {
            ("a", "a"): np.zeros((len(v["a"]),) * 2),
            ("a", "b"): np.eye(len(v["a"])),
            ("b", "a"): np.eye(len(v["a"])),
            ("b", "b"): np.zeros((len(v["a"]),) * 2),
        },
    ),
    "mix": Known(lambda v: {"p": v["a"] * v["b"].sum(), "q": v["b"] ** 2}, _mix_jacobian),
    # What these close over is one more input.
    "affine": Known(lambda v: {"y": v["constant.0"] @ v["x"]}, lambda v: {("y", "x"): v["constant.0"]}),
    "quadratic": Known(
        lambda v: {"y": v["x"] @ (v["constant.0"] @ v["x"])},
        lambda v: {("y", "x"): (v["constant.0"] + v["constant.0"].T) @ v["x"]},
        lambda v: {("x", "x"): v["constant.0"] + v["constant.0"].T},
    ),
    "pick": Known(lambda v: {"y": v["x"][v["i"]]}, lambda v: {("y", "x"): np.eye(len(v["x"]))[v["i"]]}),
}


def model(name: str, inputs: str, outputs: str) -> onnx.ModelProto:
    """An ONNX graph of this name and signature; what it computes is `KNOWN[name]`."""
    first = re.findall(r"(\w+)(?:,|$)", inputs.replace("[R,C]", ""))[0]
    names = re.findall(r"\w+(?:\[[^]]*\])? (\w+)", outputs)
    # Shape inference does not know this operator: outputs keep the shapes that they are declared with.
    body = "\n".join(f"  {one} = known.Function({first})" for one in names)
    opsets = '"" : 21, "known" : 1'
    text = f"<ir_version: 10, opset_import: [{opsets}]>\n{name} ({inputs}) => ({outputs}) {{\n{body}\n}}"
    return onnx.parser.parse_model(text)


SQUARE = model("square", "double[N] x", "double[N] y")
SQUARE32 = model("square", "float[N] x", "float[N] y")
MATRIX = model("matrix", "double[R,C] x", "double[R,C] y")
ENERGY = model("energy", "double[N] x", "double e")
BILINEAR = model("bilinear", "double[N] a, double[N] b", "double e")
MIX = model("mix", "double[A] a, double[B,C] b", "double[A] p, double[B,C] q")
PICK = model("pick", "double[N] x, int64[M] i", "double[M] y")


@dataclass
class Faults:
    """What goes wrong, and how things are cut."""

    chunk_bytes: int = 1 << 20
    block_width: int = 3
    shuffle: bool = False
    break_after: list[int] = field(default_factory=list)  # blocks sent before each coming stream breaks
    unavailable: int = 0  # calls to refuse before the next one works
    delay: float = 0.0  # seconds that each evaluation and block takes
    message_bytes: int = 1 << 62
    values_after: int = 0  # blocks sent before the function's own outputs, where they are asked for
    break_values: list[int] = field(default_factory=list)  # bytes of them sent before a stream breaks
    plan_id: str = "plan-1"
    error: status_pb2.Status | None = None
    refuse: list[status_pb2.Status] = field(default_factory=list)  # what the next calls are answered


class WireServer(gradient_service_pb2_grpc.GradientServiceServicer):
    """The service, and a record of what was asked of it."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.graphs: dict[str, onnx.ModelProto] = {}
        self.tensors: Arrays = {}
        self.warnings: list[str] = []
        self.calls: list[str] = []
        self.requests: list[Any] = []
        self.cancelled = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(16))
        gradient_service_pb2_grpc.add_GradientServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def forget(self) -> None:
        """What a restart does."""
        self.graphs.clear()
        self.tensors.clear()

    # Registration.

    def RegisterGraph(self, requests: Iterator[Any], context: Any) -> Any:
        self._note("RegisterGraph", None, context)
        data = b"".join(request.model for request in requests)
        return graph_pb2.RegisterGraphResponse(graph=self._keep(data))

    def _keep(self, data: bytes) -> Any:
        graph_id = hashlib.sha256(data).hexdigest()
        self.graphs[graph_id] = onnx.load_from_string(data)
        return graph_pb2.Graph(graph_id=graph_id, warnings=self.warnings, node_count=1, opset=21)

    def GetGraph(self, request: Any, context: Any) -> Any:
        self._note("GetGraph", request, context)
        self._graph(request.graph_id, context)
        return graph_pb2.GetGraphResponse(graph=graph_pb2.Graph(graph_id=request.graph_id))

    def PutTensor(self, requests: Iterator[Any], context: Any) -> Any:
        self._note("PutTensor", None, context)
        first = next(requests)
        data = first.data + b"".join(request.data for request in requests)
        head = f"{first.dtype}:{','.join(map(str, first.shape))}:".encode()
        tensor_id = hashlib.sha256(head + data).hexdigest()
        self.tensors[tensor_id] = np.frombuffer(data, DTYPES[first.dtype]).reshape(tuple(first.shape))
        reference = tensor_pb2.TensorRef(tensor_id=tensor_id, dtype=first.dtype, shape=first.shape)
        return tensor_pb2.PutTensorResponse(tensor=reference)

    # Evaluation.

    def Evaluate(self, request: Any, context: Any) -> Any:
        self._note("Evaluate", request, context)
        response = self._evaluate(request, context)
        if response.ByteSize() > self.faults.message_bytes:
            info = error_details_pb2.ErrorInfo(reason="LIMIT_EXCEEDED", metadata={"limit": "message_bytes"})
            abort(context, status(8, "too large for one message", info))
        return response

    def EvaluateStream(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        self._note("EvaluateStream", None, context)
        held = []
        for request in requests:
            self.requests.append(request)
            if request.WhichOneof("action") == "cancel":
                self.cancelled.set()
                continue
            if self.faults.shuffle:  # every second call is answered after the next
                held.append(request)
                if len(held) < 2:
                    continue
                for one in reversed(held):
                    yield from self._answer(one, context)
                held.clear()
            else:
                yield from self._answer(request, context)

    def _answer(self, request: Any, context: Any) -> Iterator[Any]:
        if self.faults.delay and request.HasField("timeout"):
            time.sleep(min(self.faults.delay, request.timeout.ToTimedelta().total_seconds()))
            error = f.CallError(code=4, message="the deadline passed")
            yield f.EvaluateStreamResponse(call_id=request.call_id, error=error, last=True)
            return
        if self.faults.error is not None:
            failure = self.faults.error
            error = f.CallError(code=failure.code, message=failure.message, details=failure.details)
            yield f.EvaluateStreamResponse(call_id=request.call_id, error=error, last=True)
            return
        response = self._evaluate(request.evaluate, context)
        if response.ByteSize() < 1 << 20:
            yield f.EvaluateStreamResponse(call_id=request.call_id, response=response, last=True)
            return
        contents = [named.tensor.data for named in response.outputs]
        for named in response.outputs:
            named.tensor.ClearField("data")
        yield f.EvaluateStreamResponse(call_id=request.call_id, response=response)
        size = 1_000_003  # aligned with nothing
        pieces = [(i, o, c[o : o + size]) for i, c in enumerate(contents) for o in range(0, len(c), size)]
        for number, (i, o, data) in enumerate(pieces, 1):
            chunk = f.OutputChunk(output=i, offset=o, data=data)
            last = number == len(pieces)
            yield f.EvaluateStreamResponse(call_id=request.call_id, chunk=chunk, last=last)

    def _evaluate(self, request: Any, context: Any) -> Any:
        graph = self._graph(request.function.graph_id, context)
        values = {name: self._array(tensor, context) for name, tensor in request.inputs.items()}
        time.sleep(self.faults.delay)
        points = [values]
        if request.batched:
            extent = len(values[request.batched[0]])
            points = [
                {name: v[i] if name in request.batched else v for name, v in values.items()}
                for i in range(extent)
            ]
        results = [apply(graph.graph.name, request.function.transforms, at) for at in points]
        outputs = {
            name: np.stack([r[name] for r in results]) if request.batched else results[0][name]
            for name in results[0]
        }
        return f.EvaluateResponse(
            outputs=[tensor_pb2.NamedTensor(name=name, tensor=tensor(a)) for name, a in outputs.items()]
        )

    # Derivatives.

    def Plan(self, request: Any, context: Any) -> Any:
        self._note("Plan", request, context)
        graph = self._graph(request.function.graph_id, context)
        shapes = {name: np.ones(tuple(t.shape), DTYPES[t.dtype]) for name, t in request.inputs.items()}
        entries, _ = matrices(request, graph.graph.name, shapes)
        return d.PlanResponse(plan=self._plan(request, entries, len(self._blocks(entries))))

    def Differentiate(self, request: Any, context: Any) -> Iterator[Any]:
        self._note("Differentiate", request, context)
        graph = self._graph(request.function.graph_id, context)
        values = {name: self._array(t, context) for name, t in request.inputs.items()}
        entries, arrays = matrices(request, graph.graph.name, values)
        blocks = self._blocks(entries)
        plan = self._plan(request, entries, len(blocks))
        resume_id = f"{plan.plan_id} {points(request)}"
        if request.skip and request.resume_id.split()[0] != plan.plan_id:
            abort(
                context, status(9, "planned differently", error_details_pb2.ErrorInfo(reason="PLAN_CHANGED"))
            )
        if request.skip and request.resume_id != resume_id:
            abort(context, status(3, "another point"))
        context.add_callback(self.cancelled.set)
        yield d.DifferentiateResponse(header=d.DifferentiateHeader(plan=plan, resume_id=resume_id))
        left = self.faults.break_after.pop(0) if self.faults.break_after else None
        order = [index for index in range(len(blocks)) if index not in request.skip]
        if self.faults.shuffle:
            np.random.default_rng(0).shuffle(order)
        own = self._own_outputs(request, graph.graph.name, values, context) if request.values else iter(())
        for done, index in enumerate(order, 1):
            if done > self.faults.values_after:
                yield from own
            time.sleep(self.faults.delay)
            messages = list(self._block(index, blocks[index], arrays))
            if left is not None and done > left:
                yield from messages[:2]  # the start and the first chunk, then nothing
                context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
            yield from messages
            progress = d.Progress(blocks_done=done, blocks_total=len(blocks))
            yield d.DifferentiateResponse(progress=progress)
        yield from own
        summary = d.Summary(blocks=len(order), blocks_by_worker={"w0": len(order)})
        summary.elapsed.FromMilliseconds(1500)
        yield d.DifferentiateResponse(summary=summary)

    def _own_outputs(self, request: Any, name: str, at: Arrays, context: Any) -> Iterator[Any]:
        """The outputs within a stream; with a chunk size set, those of some size follow in chunks."""
        results = apply(name, request.function.transforms, at)
        size = self.faults.chunk_bytes
        left = self.faults.break_values.pop(0) if self.faults.break_values else None
        outputs = [tensor_pb2.NamedTensor(name=name, tensor=tensor(a)) for name, a in results.items()]
        contents = [one.tensor.data for one in outputs]
        for one in outputs:
            if len(one.tensor.data) > size:
                one.tensor.ClearField("data")
        yield d.DifferentiateResponse(values=f.EvaluateResponse(outputs=outputs))
        for number, data in enumerate(contents):
            for offset in range(0, len(data) if len(data) > size else 0, size):
                if left is not None and offset >= left:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
                chunk = f.OutputChunk(output=number, offset=offset, data=data[offset : offset + size])
                yield d.DifferentiateResponse(value_chunk=chunk)

    def _plan(self, request: Any, entries: list[Any], blocks: int) -> Any:
        size = sum(8 * int(np.prod([*e.row_shape, *e.column_shape])) for e in entries)
        return d.Plan(
            kind=request.kind,
            mode=d.MODE_FORWARD,
            entries=entries,
            blocks=blocks,
            block_width=self.faults.block_width,
            seeds=sum(int(np.prod(e.column_shape)) for e in entries),
            result_bytes=size,
            block_memory_bytes=4096,
            block_flops=2_000_000,
            plan_id=self.faults.plan_id,
        )

    def _blocks(self, entries: list[Any]) -> list[list[Any]]:
        """Columns, some at a time; each block holds the columns of every entry of that input."""
        blocks = []
        for column in dict.fromkeys(e.column for e in entries):
            members = [(i, e) for i, e in enumerate(entries) if e.column == column]
            width = int(np.prod(members[0][1].column_shape))
            for start in range(0, width, self.faults.block_width):
                stop = min(width, start + self.faults.block_width)
                blocks.append(
                    [
                        d.Piece(
                            entry=i,
                            row_stop=int(np.prod(e.row_shape)),
                            column_start=start,
                            column_stop=stop,
                        )
                        for i, e in members
                    ]
                )
        return blocks

    def _block(self, index: int, pieces: list[Any], arrays: list[np.ndarray[Any, Any]]) -> Iterator[Any]:
        start = d.BlockStart(block=index, pieces=pieces, worker="w0")
        start.compute.FromMilliseconds(250)
        yield d.DifferentiateResponse(block_start=start)
        for number, p in enumerate(pieces):
            part = arrays[p.entry][p.row_start : p.row_stop, p.column_start : p.column_stop]
            data, size = part.tobytes(), self.faults.chunk_bytes
            for offset in range(0, len(data), size):
                chunk = d.BlockChunk(
                    block=index, piece=number, offset=offset, data=data[offset : offset + size]
                )
                yield d.DifferentiateResponse(chunk=chunk)

    # What all calls do.

    def _note(self, call: str, request: Any, context: Any) -> None:
        self.calls.append(call)
        self.requests.append(request)
        if self.faults.unavailable:
            self.faults.unavailable -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        if self.faults.refuse:
            abort(context, self.faults.refuse.pop(0))
        if self.faults.error is not None and call not in ("RegisterGraph", "EvaluateStream"):
            abort(context, self.faults.error)

    def _graph(self, graph_id: str, context: Any) -> onnx.ModelProto:
        if graph_id not in self.graphs:
            abort(context, status(5, f"unknown graph {graph_id}"))
        return self.graphs[graph_id]

    def _array(self, t: Any, context: Any) -> np.ndarray[Any, Any]:
        if t.WhichOneof("content") == "tensor_id":
            if t.tensor_id not in self.tensors:
                resource = error_details_pb2.ResourceInfo(resource_type="tensor", resource_name=t.tensor_id)
                abort(context, status(5, "no such array", resource))
            return self.tensors[t.tensor_id]
        return np.frombuffer(t.data, DTYPES[t.dtype]).reshape(tuple(t.shape))


def status(code: int, message: str, *details: Any) -> status_pb2.Status:
    """A google.rpc.Status with details."""
    result = status_pb2.Status(code=code, message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        result.details.append(packed)
    return result


def points(request: Any) -> str:
    """A name of the point."""
    named = sorted((name, one.tensor_id, one.data) for name, one in request.inputs.items())
    return hashlib.sha256(repr(named).encode()).hexdigest()[:8]


def abort(context: Any, failure: status_pb2.Status) -> None:
    context.set_trailing_metadata((("grpc-status-details-bin", failure.SerializeToString()),))
    code = next(one for one in grpc.StatusCode if one.value[0] == failure.code)
    context.abort(code, failure.message)


def tensor(array: Any) -> Any:
    values = np.asarray(array)
    return tensor_pb2.Tensor(dtype=NUMBERS[values.dtype], shape=values.shape, data=values.tobytes())


def apply(name: str, transforms: Any, at: Arrays) -> Arrays:
    """At most one transform, from the closed-form derivatives."""
    known = KNOWN[name]
    values = {n: np.asarray(v) for n, v in known.value(at).items()}
    if not transforms:
        return values
    (step,) = transforms
    kind = step.WhichOneof("kind")
    wish = getattr(step, kind)
    jacobian = known.jacobian(at)
    if kind == "gradient":
        result = {f"{x}.gradient": jacobian[wish.of, x] for x in wish.wrt}
    elif kind == "hvp":
        assert known.hessian is not None
        hessian = known.hessian(at)
        result = {f"{x}.hvp": sum(hessian[x, z] @ at[f"{z}.tangent"] for z in wish.wrt) for x in wish.wrt}
    elif kind == "jvp":
        result = {
            f"{y}.tangent": sum(
                np.tensordot(jacobian[y, x], at[f"{x}.tangent"], at[x].ndim) for x in wish.wrt
            )
            for y in wish.of
        }
    else:
        result = {
            f"{x}.cotangent": sum(
                np.tensordot(at[f"{y}.cotangent"], jacobian[y, x], values[y].ndim) for y in wish.of
            )
            for x in wish.wrt
        }
    return {n: np.asarray(v) for n, v in result.items()} | (values if wish.keep_values else {})


def matrices(request: Any, name: str, at: Arrays) -> tuple[list[Any], list[np.ndarray[Any, Any]]]:
    """The entries of a result and the matrices themselves, by closed form."""
    known, entries, arrays = KNOWN[name], [], []
    hessian = request.kind == d.DERIVATIVE_KIND_HESSIAN
    assert not hessian or known.hessian is not None
    blocks = known.hessian(at) if hessian and known.hessian else known.jacobian(at)
    shapes = {n: np.shape(v) for n, v in (at if hessian else known.value(at)).items()}
    if request.function.transforms:  # a gradient: its Jacobian is the Hessian
        assert known.hessian is not None
        wrt = request.function.transforms[0].gradient.wrt
        blocks = {(f"{x}.gradient", z): array for (x, z), array in known.hessian(at).items()}
        shapes = {f"{x}.gradient": at[x].shape for x in wrt}
    for row in request.wrt if hessian else request.of:
        for column in request.wrt:
            array = np.asarray(blocks[row, column], at[column].dtype)
            entries.append(
                d.Entry(
                    row=row,
                    row_shape=shapes[row],
                    column=column,
                    column_shape=at[column].shape,
                    dtype=NUMBERS[array.dtype],
                )
            )
            arrays.append(array.reshape(int(np.prod(shapes[row])), int(np.prod(at[column].shape))))
    return entries, arrays
