"""What Accumulate refuses, and by what name."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import grpc
import numpy as np
import pytest

import gradwire_wire as wire
from gradwire_wire.v1 import accumulate_pb2, tensor_pb2
from tests.server import calls
from tests.server.accumulations import (
    GROWTH,
    LEAST_SQUARES,
    LOGISTIC,
    READ,
    ZERO,
    Request,
    Stream,
    accumulate,
    announced,
    batch,
    chunk,
    chunked,
    logistic_of,
    refused,
    start,
    with_function,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT
DOTS = "g (double[k] a, double[k] x, int64[m] i) => (double[k] y) { y = Mul(a, x) }"


@pytest.fixture(scope="module")
def graph_id(channel: grpc.Channel) -> str:
    """Logistic regression, summed over rows."""
    return calls.register(channel, LOGISTIC).graph_id


W = np.ones(3)
X = np.ones((4, 3))
Y = np.ones(4)

REFUSALS: dict[str, tuple[Callable[[str], list[Request]], str, str]] = {
    "no start": (lambda _: [batch(X=X, y=Y)], "begins with start", "action"),
    "no action": (lambda _: [Request()], "needs an action", "action"),
    "unknown reduction": (
        lambda g: [start(g, {"w": W}, reduction=9)],
        "reduction 9 is not known",
        "start.reduction",
    ),
    "unknown shared input": (
        lambda g: [start(g, {"v": W})],
        "start: there is no input 'v'; the inputs are: w, X, y",
        'start.inputs["v"]',
    ),
    "shared input of another dtype": (
        lambda g: [start(g, {"w": W.astype(np.float32)})],
        "start: input 'w' should be float64, not float32",
        'start.inputs["w"]',
    ),
    "shared input of another rank": (
        lambda g: [start(g, {"w": X})],
        "start: input 'w' should be float64[d], not float64[4, 3]",
        'start.inputs["w"]',
    ),
    "shared input without content": (
        lambda g: [start(g, {}, by_id={"w": wire.tensor_type(np.float64, (3,))})],
        "input 'w' has no content: send its elements along, or upload it with PutTensor",
        'start.inputs["w"]',
    ),
    "no inputs to differentiate": (
        lambda g: [start(g, {})],
        "start gives no floating-point input to differentiate",
        "start.inputs",
    ),
    "wrt of a batch input": (
        lambda g: [start(g, {"w": W}, wrt=["X"])],
        "wrt names 'X', which start does not give: gradients add up over batches only for inputs that all",
        "start.wrt",
    ),
    "wrt twice": (lambda g: [start(g, {"w": W}, wrt=["w", "w"])], "names an input twice", "start.wrt"),
    "unknown output": (
        lambda g: [start(g, {"w": W}, of="cost")],
        "there is no output 'cost'; there are: loss",
        "start.of",
    ),
    "an input of start in a batch": (
        lambda g: [start(g, {"w": W}), batch(X=X, y=Y), batch(w=W, X=X, y=Y)],
        "batch 1: input 'w' was given by start",
        'batch.inputs["w"]',
    ),
    "unknown input": (
        lambda g: [start(g, {"w": W}), batch(X=X, y=Y, z=Y)],
        "batch 0: there is no input 'z'",
        'batch.inputs["z"]',
    ),
    "missing input": (
        lambda g: [start(g, {"w": W}), batch(X=X)],
        "batch 0: input 'y' (float64[n]) is missing",
        'batch.inputs["y"]',
    ),
    "another dtype": (
        lambda g: [start(g, {"w": W}), batch(X=X, y=Y.astype(np.int64))],
        "batch 0: input 'y' should be float64, not int64",
        'batch.inputs["y"]',
    ),
    "a shape that does not fit the shared inputs": (
        lambda g: [start(g, {"w": W}), batch(X=X, y=Y), batch(X=np.ones((4, 2)), y=Y)],
        "batch 1: input 'X' has d = 2 on axis 1, but input 'w' has d = 3",
        'batch.inputs["X"]',
    ),
    "too few bytes": (
        lambda g: [
            start(g, {"w": W}),
            Request(
                batch=accumulate_pb2.Batch(
                    inputs={
                        "X": wire.to_tensor(X),
                        "y": tensor_pb2.Tensor(dtype=wire.data_type(Y.dtype), shape=(4,), data=b"12345"),
                    }
                )
            ),
        ],
        "batch 0: input 'y': a float64 array of shape (4,) has 32 bytes, but 5 were sent",
        'batch.inputs["y"]',
    ),
    "a chunk before any batch": (
        lambda g: [start(g, {"w": W}), chunk("X", 0, b"1")],
        "a chunk of input 'X' came, but no batch waits for data",
        "chunk",
    ),
    "a chunk after the last": (
        lambda g: [start(g, {"w": W}), *chunked(1 << 20, X=X, y=Y), chunk("X", 96, b"1")],
        "no batch waits for data",
        "chunk",
    ),
    "a chunk of an unknown input": (
        lambda g: [start(g, {"w": W}), announced(X=X, y=Y), chunk("z", 0, b"1")],
        "batch 0: a chunk of input 'z' came, but the batch did not announce",
        "chunk.input",
    ),
    "a gap": (
        lambda g: [
            start(g, {"w": W}),
            announced(X=X, y=Y),
            chunk("X", 0, bytes(8)),
            chunk("X", 16, bytes(8)),
        ],
        "batch 0: a chunk of input 'X' begins at byte 16, but 8 bytes were sent before it",
        "chunk.offset",
    ),
    "too much data": (
        lambda g: [start(g, {"w": W}), announced(X=X, y=Y), chunk("y", 0, bytes(33))],
        "batch 0: a chunk of input 'y' ends at byte 33, but the input has 32 bytes",
        "chunk.data",
    ),
    "too little data before a read": (
        lambda g: [start(g, {"w": W}), announced(X=X, y=Y), chunk("y", 0, bytes(32)), READ],
        "batch 0 is incomplete: input 'X' has 0 of 96 bytes",
        "action",
    ),
    "too little data before a batch": (
        lambda g: [start(g, {"w": W}), announced(X=X, y=Y), batch(X=X, y=Y)],
        "batch 0 is incomplete: input 'X' has 0 of 96 bytes, input 'y' has 0 of 32 bytes",
        "action",
    ),
    "too many rows to count": (
        lambda g: [start(g, {"w": W}), batch(1 << 53, X=X, y=Y), batch(1, X=X, y=Y)],
        "batch 1: with its 1 rows they come to over 9007199254740992",
        "batch.rows",
    ),
}


class TestRefusals:
    @pytest.mark.parametrize("case", REFUSALS)
    def test_what_does_not_fit_is_refused_by_name(
        self, channel: grpc.Channel, graph_id: str, case: str
    ) -> None:
        requests, message, field = REFUSALS[case]
        refusal = refused(channel, *requests(graph_id))
        assert refusal.code == INVALID
        assert message in refusal.message
        assert refusal.fields == [field]

    def test_an_incomplete_batch_at_the_end_is_refused(self, channel: grpc.Channel, graph_id: str) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            accumulate(channel, [start(graph_id, {"w": W}), announced(X=X, y=Y)])
        assert "batch 0 is incomplete" in calls.refusal(caught.value).message

    def test_an_empty_stream_is_refused(self, channel: grpc.Channel) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            accumulate(channel, [])
        assert calls.refusal(caught.value).code == INVALID

    def test_rows_that_cannot_be_counted_must_be_declared(self, channel: grpc.Channel) -> None:
        graph = calls.register(channel, DOTS).graph_id
        begin = start(graph, {"a": np.ones(1)})
        x, i = np.ones(1), np.zeros(2, np.int64)
        refusal = refused(channel, begin, batch(x=x, i=i))
        assert "batch 0: its inputs differ in their leading extent (i: 2, x: 1)" in refusal.message
        assert refusal.fields == ["batch.rows"]
        assert accumulate(channel, [begin, batch(5, x=x, i=i)]).message.rows == 5
        whole = start(graph, {"a": np.ones(1), "x": x, "i": i}, wrt=["a"])
        assert "it gives no inputs, so its rows cannot be counted" in refused(channel, whole, batch()).message
        assert accumulate(channel, [whole, batch(1)]).arrays["a.gradient"].tolist() == [1.0]
        growth = calls.register(channel, GROWTH).graph_id
        scalar = refused(channel, start(growth, {"w": np.asarray(2.0)}), batch(x=np.asarray(1.0)))
        assert "input 'x' is a scalar" in scalar.message

    def test_a_loss_of_several_elements_is_refused(self, channel: grpc.Channel) -> None:
        graph = calls.register(channel, "g (double[2] w) => (double[2] y) { y = Sin(w) }").graph_id
        at_once = refused(channel, start(graph, {"w": np.ones(2)}))
        assert "start: output 'y' is float64[2]: a loss has one element" in at_once.message
        assert at_once.fields == ["start.of"]
        graph = calls.register(channel, DOTS).graph_id
        with_shapes = refused(
            channel, start(graph, {"a": np.ones(3)}), batch(x=np.ones(3), i=np.zeros(3, np.int64))
        )
        assert (
            "batch 0: output 'y' has shape [3]: a gradient or Hessian is of an output" in with_shapes.message
        )
        assert with_shapes.fields == ["start.of"]

    def test_several_outputs_want_one_named(self, channel: grpc.Channel) -> None:
        graph = calls.register(channel, LEAST_SQUARES).graph_id
        refusal = refused(channel, start(graph, {"w": W, "b": np.asarray(0.0)}))
        assert refusal.fields == ["start.of"] and "loss, r" in refusal.message

    def test_a_function_of_a_batch_must_be_like_that_of_start(
        self, channel: grpc.Channel, graph_id: str
    ) -> None:
        begin = start(graph_id, {"w": W})

        def own(text: str) -> calls.Refusal:
            other = calls.register(channel, text).graph_id
            return refused(channel, begin, with_function(batch(X=X, y=Y), other))

        renamed = own(LOGISTIC.replace("loss", "cost"))
        assert "batch 0: its function does not fit start: its outputs cost: float64[] are" in renamed.message
        assert renamed.fields == ["batch.function"]
        narrow = own(LOGISTIC.replace("double", "float"))
        assert "its inputs w: float32[d]," in narrow.message
        longer = own(LOGISTIC.replace("(double loss)", "(double[1] loss)").replace("dims = 0", "dims = 1"))
        assert "its loss is float64[1], not float64[]" in longer.message
        fixed = own(logistic_of(5).replace("[4] w", "[3] w").replace("[5,4]", "[5,3]"))
        assert "batch 0: input 'X' should be float64[5, 3], not float64[4, 3]" in fixed.message
        missing = refused(channel, begin, with_function(batch(X=X, y=Y), "2" * 64))
        assert missing.code == grpc.StatusCode.NOT_FOUND

    def test_unknown_ids_are_not_found(self, channel: grpc.Channel, graph_id: str) -> None:
        assert refused(channel, start("0" * 64, {"w": W})).code == grpc.StatusCode.NOT_FOUND
        missing = wire.tensor_by_id("1" * 64, np.float64, (3,))
        refusal = refused(channel, start(graph_id, {}, by_id={"w": missing}))
        assert refusal.code == grpc.StatusCode.NOT_FOUND and "1" * 64 in refusal.message

    def test_a_batch_too_large_to_evaluate_is_refused_by_index(self, channel: grpc.Channel) -> None:
        text = """g (double w, double[n] x) => (double y) {
          zero = Constant <value = int64[1] {0}> ()
          one = Constant <value = int64[1] {1}> ()
          row = Unsqueeze(x, zero)
          column = Unsqueeze(x, one)
          outer = Mul(row, column)
          scaled = Mul(outer, w)
          y = ReduceSum <keepdims = 0> (scaled)
        }"""
        graph = calls.register(channel, text).graph_id
        refusal = refused(
            channel, start(graph, {"w": np.asarray(1.0)}), batch(x=np.ones(10)), batch(x=np.ones(60_000))
        )
        assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refusal.message.startswith("batch 1: ")
        assert refusal.limit["limit"] == "array_bytes"

    @pytest.mark.parametrize("seed", range(40))
    def test_messages_in_any_order_are_answered_or_refused_in_words(
        self, channel: grpc.Channel, graph_id: str, seed: int
    ) -> None:
        random = Random(seed)
        begin = start(graph_id, {"w": W})
        whole = [batch(X=X, y=Y), *chunked(50, X=X, y=Y)]
        choices = [begin, *whole, READ, ZERO, batch(X=X), batch(3, X=X[:2], y=Y[:2]), announced(X=X, y=Y)]
        picked = [begin, *random.choices(choices, k=random.randint(1, 12))]
        stream = Stream(channel)
        stream.send(*picked)
        stream.end()
        try:
            answers = sum(event.HasField("gradient") for event in stream.call)
            assert answers == picked.count(READ) + 1
        except grpc.RpcError as error:
            assert calls.refusal(error).code == INVALID
