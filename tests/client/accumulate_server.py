"""Accumulate in NumPy, for one loss with a closed-form gradient, and what may happen to its streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from gradwire_wire.v1 import accumulate_pb2 as a
from gradwire_wire.v1 import function_pb2, tensor_pb2
from tests.client.wire_server import Arrays, WireServer, abort, model, status, tensor

#: sum((x w + b - y)^2), of a model that takes batches of any size, and of one that takes four rows.
FIT = model("fit", "double[K] w, double b, double[N,K] x, double[N] y", "double e")
FIT_OF_FOUR = model("fit", "double[3] w, double b, double[4,3] x, double[4] y", "double e")


def fit(w: Any, b: Any, x: Any, y: Any) -> Any:
    """The same as NumPy code; what is traced from it carries its name."""
    return np.sum((x @ w + b - y) ** 2)


def fit_gradient(at: Arrays) -> Arrays:
    """The loss ("") and its derivatives by name."""
    residual = at["x"] @ at["w"] + at["b"] - at["y"]
    return {
        "": (residual**2).sum(),
        "w": 2 * at["x"].T @ residual,
        "b": 2 * residual.sum(),
    }


@dataclass
class StreamFaults:
    """What goes wrong with streams to come; numbers count batches of a stream."""

    break_at: list[int] = field(default_factory=list)  # for each stream: the batch that breaks it
    forget_at: int | None = None  # the server loses its uploads before this batch of the next stream
    refuse: int | None = None  # this batch has something wrong with it
    unread: int | None = None  # nothing is read after so many batches
    silent: bool = False  # reads are not answered
    chunk_bytes: int = 0  # cut gradients into chunks of this size


class AccumulateServer(WireServer):
    """The NumPy server, and its gradients that add up. `accumulated` keeps every message that came."""

    def __init__(self) -> None:
        super().__init__()
        self.stream_faults = StreamFaults()
        self.accumulated: list[Any] = []
        self.gone = threading.Event()

    def Accumulate(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        self._note("Accumulate", None, context)
        context.add_callback(self.gone.set)
        faults, seen = self.stream_faults, 0
        break_at = faults.break_at.pop(0) if faults.break_at else None
        total: _Total | None = None
        for request in requests:
            self.accumulated.append(request)
            action = request.WhichOneof("action")
            if action == "start":
                start = request.start
                self._graph(start.function.graph_id, context)
                shared = {name: self._array(t, context) for name, t in start.inputs.items()}
                total = _Total(start, shared)
            assert total is not None, "start comes first"
            if action == "batch":
                if seen == break_at:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
                if seen == faults.refuse:
                    abort(context, status(3, f"batch {seen}: input 'x' is not to its liking"))
                if seen == faults.forget_at:
                    faults.forget_at = None
                    self.tensors.clear()
                seen += 1
                if request.batch.HasField("function"):
                    self._graph(request.batch.function.graph_id, context)
                total.open(request.batch, lambda t: self._array(t, context))
                if seen == faults.unread:
                    self.gone.wait(30)
                    return
            elif action == "chunk":
                total.fill(request.chunk)
            elif action == "zero":
                total = _Total(total.start, total.shared)
            elif action == "read":
                if faults.silent and seen:
                    self.gone.wait(30)
                    return
                yield from self._answer_gradient(total.gradient())

    def _answer_gradient(self, gradient: Any) -> Iterator[Any]:
        size = self.stream_faults.chunk_bytes
        contents = [named.tensor.data for named in gradient.outputs]
        if size:
            for named in gradient.outputs:
                named.tensor.ClearField("data")
        yield a.AccumulateResponse(gradient=gradient)
        for index, data in enumerate(contents if size else ()):
            for offset in range(0, len(data), size):
                chunk = function_pb2.OutputChunk(
                    output=index, offset=offset, data=data[offset : offset + size]
                )
                yield a.AccumulateResponse(chunk=chunk)


class _Total:
    """What one start accumulates."""

    def __init__(self, start: Any, shared: Arrays) -> None:
        self.start, self.shared = start, shared
        self.batches: list[tuple[Arrays, int]] = []
        self._unfilled: dict[str, bytearray] = {}
        self._types: dict[str, Any] = {}

    def open(self, batch: Any, array: Any) -> None:
        assert not self._unfilled, "a batch before the one before it was complete"
        assert batch.inputs.keys().isdisjoint(self.shared)
        arrays = {name: array(t) for name, t in batch.inputs.items() if t.WhichOneof("content") is not None}
        self._types = {name: t for name, t in batch.inputs.items() if name not in arrays}
        self._unfilled = {name: bytearray() for name in self._types}
        self.batches.append((arrays, batch.rows))

    def fill(self, chunk: Any) -> None:
        data, t = self._unfilled[chunk.input], self._types[chunk.input]
        assert chunk.offset == len(data)
        assert 0 < len(chunk.data) <= 1 << 20
        data.extend(chunk.data)
        shape = tuple(t.shape)
        if len(data) == 8 * int(np.prod(shape)):
            self.batches[-1][0][chunk.input] = np.frombuffer(bytes(data)).reshape(shape)
            del self._unfilled[chunk.input]

    def gradient(self) -> Any:
        assert not self._unfilled, "read before the last batch was complete"
        names = ["", *self.start.wrt]
        sums = {name: np.zeros_like(self.shared[name]) if name else np.zeros(()) for name in names}
        rows = sum(count for _, count in self.batches)
        mean = self.start.reduction == a.REDUCTION_MEAN
        for arrays, count in self.batches:
            found = fit_gradient({**self.shared, **arrays})
            for name in names:
                sums[name] = sums[name] + found[name] * (count / rows if mean else 1.0)
        outputs = [
            tensor_pb2.NamedTensor(name=f"{name}.gradient" if name else "e", tensor=tensor(sums[name]))
            for name in names
        ]
        gradient = a.Gradient(
            outputs=outputs, batches=len(self.batches), rows=rows, batches_by_worker={"w0": len(self.batches)}
        )
        gradient.compute.FromMilliseconds(250)
        return gradient
