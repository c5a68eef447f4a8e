"""Accumulate through the generated stubs alone, and a loss whose gradient has a closed form."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from scipy.special import expit

import gradwire_wire as wire
from gradwire_wire.v1 import accumulate_pb2, function_pb2, tensor_pb2
from tests.server import calls

Array = np.ndarray[Any, Any]
Request = accumulate_pb2.AccumulateRequest
SUM = accumulate_pb2.REDUCTION_SUM
MEAN = accumulate_pb2.REDUCTION_MEAN

READ = Request(read=accumulate_pb2.ReadGradient())
ZERO = Request(zero=accumulate_pb2.ZeroGradient())

LOGISTIC = """g (double[d] w, double[n,d] X, double[n] y) => (double loss) {
  z = MatMul(X, w)
  m = Mul(z, y)
  opposite = Neg(m)
  each = Softplus(opposite)
  loss = ReduceSum <keepdims = 0> (each)
}"""


def logistic_of(count: int) -> str:
    """The same with all its shapes fixed, as exporters and tracers write it."""
    return LOGISTIC.replace("[d]", "[4]").replace("[n,d]", f"[{count},4]").replace("[n]", f"[{count}]")


LEAST_SQUARES = """g (double[d] w, double b, double[n,d] X, double[n] y) => (double[1] loss, double[n] r) {
  z = MatMul(X, w)
  s = Add(z, b)
  r = Sub(s, y)
  q = Mul(r, r)
  loss = ReduceMean <keepdims = 1> (q)
}"""

# x times w until it is over 100: no reverse mode.
GROWTH = """g (double w, double x) => (double y) {
  go = Constant <value = bool {1}> ()
  y = Loop (, go, x) <body = body (int64 i, bool c, double s) => (bool d, double t) {
    bound = Constant <value = double {100.0}> ()
    t = Mul(s, w)
    d = Less(t, bound)
  }>
}"""


def logistic(w: Array, X: Array, y: Array) -> tuple[float, Array]:
    """The loss over all rows at once, and its gradient."""
    margin = y * (X @ w)
    return float(np.logaddexp(0, -margin).sum()), -(X.T @ (y * expit(-margin)))


def rows(count: int, width: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """A point, features and labels."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(width), rng.standard_normal((count, width)), rng.choice([-1.0, 1.0], count)


def start(
    graph_id: str,
    inputs: Mapping[str, Array],
    *transforms: function_pb2.Transform,
    by_id: Mapping[str, tensor_pb2.Tensor] | None = None,
    **fields: Any,
) -> Request:
    """A start message."""
    function = function_pb2.Function(graph_id=graph_id, transforms=transforms)
    given = {**calls.tensors(inputs), **(by_id or {})}
    return Request(start=accumulate_pb2.AccumulateStart(function=function, inputs=given, **fields))


def batch(count: int = 0, **inputs: Array) -> Request:
    """A batch with its elements inline."""
    return Request(batch=accumulate_pb2.Batch(inputs=calls.tensors(inputs), rows=count))


def with_function(request: Request, graph_id: str, *transforms: function_pb2.Transform) -> Request:
    """A batch that brings its own function."""
    request.batch.function.CopyFrom(function_pb2.Function(graph_id=graph_id, transforms=transforms))
    return request


def announced(count: int = 0, **inputs: Array) -> Request:
    """A batch whose elements follow in chunks."""
    types = {name: wire.tensor_type(array.dtype, array.shape) for name, array in inputs.items()}
    return Request(batch=accumulate_pb2.Batch(inputs=types, rows=count))


def chunk(name: str, offset: int, data: bytes) -> Request:
    """A piece of one tensor."""
    return Request(chunk=accumulate_pb2.BatchChunk(input=name, offset=offset, data=data))


def chunked(size: int, **inputs: Array) -> Iterator[Request]:
    """A batch in chunks of `size` bytes, its tensors taking turns."""
    yield announced(0, **inputs)
    views = {name: wire.byte_view(array) for name, array in inputs.items()}
    for offset in range(0, max(len(view) for view in views.values()), size):
        for name, view in views.items():
            if offset < len(view):
                yield chunk(name, offset, bytes(view[offset : offset + size]))


def batches(X: Array, y: Array, size: int) -> list[Request]:
    """Rows in batches; the last may be smaller."""
    return [batch(X=X[at : at + size], y=y[at : at + size]) for at in range(0, len(X), size)]


@dataclass
class Gradient:
    """One answer, its chunks put in their places."""

    message: accumulate_pb2.Gradient
    arrays: dict[str, Array]

    @property
    def bits(self) -> dict[str, bytes]:
        """The answer, bit by bit."""
        return {name: array.tobytes() for name, array in self.arrays.items()}


class Stream:
    """An Accumulate stream that is written to and read in steps."""

    def __init__(self, channel: grpc.Channel, timeout: float = 120) -> None:
        self._requests: queue.Queue[Request | None] = queue.Queue()
        self.call = calls.stub(channel).Accumulate(iter(self._requests.get, None), timeout=timeout)
        self._open: list[tuple[Array, int]] = []

    def send(self, *requests: Request) -> None:
        """Send messages."""
        for request in requests:
            self._requests.put(request)

    def end(self) -> None:
        """Send no more."""
        self._requests.put(None)

    def read(self) -> Gradient:
        """Ask for the gradient so far."""
        self.send(READ)
        return self.answer()

    def answer(self) -> Gradient:
        """The next answer."""
        first = next(self.call)
        assert first.HasField("gradient"), "a chunk of nothing announced"
        arrays, missing = {}, 0
        for item in first.gradient.outputs:
            array = np.zeros(tuple(item.tensor.shape), wire.numpy_dtype(item.tensor.dtype))
            if item.tensor.HasField("data"):
                array = wire.from_tensor(item.tensor)
            else:
                missing += array.nbytes
            arrays[item.name] = array
        filled = dict.fromkeys(range(len(arrays)), 0)
        while missing:
            piece = next(self.call).chunk
            view = list(arrays.values())[piece.output].reshape(-1).view(np.uint8)
            assert piece.offset == filled[piece.output]
            filled[piece.output] += len(piece.data)
            view[piece.offset : filled[piece.output]] = np.frombuffer(piece.data, np.uint8)
            missing -= len(piece.data)
        return Gradient(first.gradient, arrays)


def accumulate(channel: grpc.Channel, requests: Iterable[Request], timeout: float = 120) -> Gradient:
    """Send everything, close, and read the one answer."""
    stream = Stream(channel, timeout)
    stream.send(*requests)
    stream.end()
    found = stream.answer()
    assert next(stream.call, None) is None, "an answer to nothing"
    return found


def refused(channel: grpc.Channel, *requests: Request, timeout: float = 60) -> calls.Refusal:
    """How a stream that must fail does; the client does not close its side."""
    stream = Stream(channel, timeout)
    stream.send(*requests)
    try:
        for _ in stream.call:
            pass
    except grpc.RpcError as error:
        return calls.refusal(error)
    finally:
        stream.end()
    raise AssertionError("the stream was not refused")
